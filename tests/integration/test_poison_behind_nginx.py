"""A request that ends its engine, sent through nginx to two replicas: it ends one engine, not one after the other."""

from __future__ import annotations

import re
import time
from pathlib import Path

import httpx
import pytest

from tests.fake_service import user_id, write_bundle
from tests.integration.test_rolling_restart import running_nginx
from tests.replica import Replica, running_replica

POISON = {"user_id": "u0011", "n_items": 3}  # tests/fake_server.py
PATIENCE_S = 60.0


def restarts(replica: Replica) -> float:
    found = re.search(r"^rdrec_engine_restarts_total (\S+)$", httpx.get(f"{replica.url}/metrics").text, re.M)
    assert found is not None
    return float(found[1])


@pytest.mark.slow
def test_nginx_does_not_carry_it_from_replica_to_replica(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    with (
        running_replica(bundle, tmp_path / "log-1") as one,
        running_replica(bundle, tmp_path / "log-2") as two,
        running_nginx(tmp_path / "nginx", [one.port, two.port]) as url,
    ):
        ended = httpx.post(f"{url}/recommend/sequential", json=POISON, timeout=30)
        assert (ended.status_code, ended.json()["type"]) == (500, "urn:rdrec:problem:engine-ended")
        deadline = time.monotonic() + PATIENCE_S
        while (ended_engines := restarts(one) + restarts(two)) < 1:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert ended_engines == 1, "the other replica never saw the request"
        for _ in range(6):
            again = httpx.post(f"{url}/recommend/sequential", json=POISON, timeout=30)
            assert again.status_code in (200, 500), "refused, or computed by a replica's graph while its engine is away"
            other = httpx.post(f"{url}/recommend/sequential", json={"user_id": user_id(1), "n_items": 3}, timeout=30)
            assert other.status_code == 200
            time.sleep(0.1)
        time.sleep(1.0)
        assert restarts(one) + restarts(two) <= 2, "at most once for each replica"
