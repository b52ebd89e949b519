"""Two workers with two engines each behind one port: what one of them says is true of both. One start for all tests."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from service.engine.siblings import merged
from service.server import run
from tests.fake_server import open_slow
from tests.fake_service import item_id, write_bundle
from tests.integration.test_service_endpoints import key
from tests.redis_process import PATIENCE_S, running_redis
from tests.replica import Replica, running_replica
from tests.service_process import HTTP

KEYS = [key("root", "ops", "recommend", "write", "admin", "metrics")]
HEADERS = {"X-API-Key": "root"}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    write_bundle(folder / "one", name="one")
    write_bundle(folder / "two", name="two")
    (folder / "current").symlink_to("one")
    return folder


@pytest.fixture(scope="module")
def service(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    folder = tmp_path_factory.mktemp("workers")
    settings = {
        "workers": 2,
        "engines": 2,
        "redis_timeout_ms": 2000,
        "timeout_ms": 20_000,
        "api_keys": json.dumps(KEYS),
    }
    with (
        running_redis(folder / "redis") as redis,
        running_replica(bundles / "current", folder / "log", redis_url=redis.url, **settings) as replica,
    ):
        yield replica


def on_new_connections(service: Replica, path: str, times: int = 12) -> list[httpx.Response]:
    """Each from whichever worker the kernel chose."""
    return [HTTP.get(f"{service.url}{path}", headers=HEADERS, timeout=PATIENCE_S) for _ in range(times)]


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 3 * PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def workers_of(service: Replica) -> list[int]:
    """Process numbers, those that were started first in front."""
    assert service.process is not None
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                command = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if int(parent) == service.process.pid and b"spawn_main" in command:
                found.append(int(folder.name))
    return sorted(found)


def counted(service: Replica) -> float:
    (text,) = {answer.text for answer in on_new_connections(service, "/metrics", 1)}
    values = re.findall(r'rdrec_request_seconds_count\{endpoint="/recommend/sequential",status="200"\} (\S+)', text)
    return sum(float(value) for value in values)


def ask(service: Replica, n: int) -> int:
    body = {"history": [item_id(n)], "n_items": 1}
    return HTTP.post(f"{service.url}/recommend/sequential", json=body, headers=HEADERS, timeout=PATIENCE_S).status_code


def test_metrics_are_those_of_all_workers_whichever_answers(service: Replica) -> None:
    before = counted(service)
    assert [ask(service, n) for n in range(16)] == [200] * 16
    assert {counted(service) - before for _ in range(6)} == {16.0}
    text = on_new_connections(service, "/metrics", 1)[0].text
    assert 'rdrec_engines{arm="a"} 4.0' in text
    assert "rdrec_ready 1.0" in text


def test_a_swap_is_made_in_all_workers_before_it_is_answered(service: Replica, bundles: Path) -> None:
    for name in ("two", "one"):
        answer = HTTP.post(
            f"{service.url}/admin/bundle", json={"path": name}, headers=HEADERS, timeout=3 * PATIENCE_S
        ).json()
        assert (answer["name"], answer["survives_restart"]) == (name, True)
        assert {each.json()["name"] for each in on_new_connections(service, "/v1/model")} == {name}
    refused = HTTP.post(f"{service.url}/admin/bundle", json={"path": "three"}, headers=HEADERS, timeout=3 * PATIENCE_S)
    assert refused.status_code == 409
    assert {each.json()["name"] for each in on_new_connections(service, "/v1/model")} == {"one"}


def test_a_worker_that_is_killed_comes_back_with_what_the_others_serve(service: Replica, bundles: Path) -> None:
    (bundles / "current").unlink()
    (bundles / "current").symlink_to("two")  # what the settings name is not what is served
    before = counted(service)
    workers = workers_of(service)
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    until(lambda: len(set(workers_of(service)) - set(workers)) == 1, "no new worker")
    service.wait_until_ready()
    assert {each.json()["name"] for each in on_new_connections(service, "/v1/model")} == {"one"}
    assert counted(service) >= before, "what the killed one counted is not lost"


def test_sigterm_drains_all_of_them(service: Replica) -> None:
    workers = workers_of(service)
    assert service.stop() == 0
    assert not [number for number in workers if Path(f"/proc/{number}").exists()]


def test_workers_without_redis_are_refused(bundles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--bundle", str(bundles / "one"), "--workers", "2"], open_engine=open_slow) == 2
    assert "RDREC_REDIS_URL" in capsys.readouterr().err


def test_gauges_of_several_workers_are_merged_by_what_they_mean() -> None:
    one = [("rdrec_ready", "t", {}, 1.0), ("rdrec_queue_depth", "t", {"arm": "a"}, 3.0)]
    two = [("rdrec_ready", "t", {}, 0.0), ("rdrec_queue_depth", "t", {"arm": "a"}, 4.0)]
    version = ("rdrec_model_info", "t", {"arm": "a", "model_version": "v"}, 1.0)
    assert merged([[*one, version], [*two, version]]) == [
        ("rdrec_ready", "t", {}, 0.0),
        ("rdrec_queue_depth", "t", {"arm": "a"}, 7.0),
        version,
    ]
