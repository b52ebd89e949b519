"""The whole service with a real Redis: two replicas share histories; a Redis that is away costs freshness only."""

from __future__ import annotations

import time
from pathlib import Path

import httpx

from tests.fake_service import user_id, write_bundle
from tests.redis_process import running_redis
from tests.service_process import ServiceProcess, service_process

RECOVERY_S = 5.0
SETTINGS = {"redis_timeout_ms": "200", "access_log": "false", "cache_size": "0"}


def ask(service: ServiceProcess, user: str) -> httpx.Response:
    return httpx.post(f"{service.url}/recommend/sequential", json={"user_id": user, "n_items": 1}, timeout=20)


def write(service: ServiceProcess, user: str, item: str, key: str | None = None) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    body = {"user_id": user, "item_id": item}
    return httpx.post(f"{service.url}/interactions", json=body, headers=headers, timeout=20)


def history(service: ServiceProcess, user: str) -> list[str]:
    answer = httpx.get(f"{service.url}/users/{user}/history", timeout=20).json()
    return [item["item_id"] for item in answer["items"]]


def test_two_replicas_share_one_history(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundles" / "first")
    with (
        running_redis(tmp_path / "redis") as redis,
        service_process(bundle, tmp_path / "log-a", redis_url=redis.url, **SETTINGS) as one,
        service_process(bundle, tmp_path / "log-b", redis_url=redis.url, **SETTINGS) as other,
    ):
        base = history(one, user_id(3))
        kept = write(one, user_id(3), "i0020").json()
        assert (kept["recorded"], kept["history_source"], kept["known_to_model"]) == (True, "redis", True)
        assert history(other, user_id(3)) == [*base, "i0020"]
        answer = ask(other, user_id(3)).json()
        assert (answer["items"][0]["item_id"], answer["history_source"]) == ("i0021", "redis")
        assert write(one, user_id(3), "i0030", "k").json()["recorded"] is True
        assert write(other, user_id(3), "i0030", "k").json()["recorded"] is False
        assert httpx.delete(f"{other.url}/users/{user_id(3)}/history").status_code == 204
        assert history(one, user_id(3)) == []
        explained = httpx.post(f"{one.url}/explain", json={"user_id": user_id(1), "item_id": "i0009"}).json()
        again = httpx.post(f"{other.url}/explain", json={"user_id": user_id(1), "item_id": "i0009"}).json()
        assert explained == again


def test_without_redis_answers_go_on_degraded_and_writes_never_claim_success(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundles" / "first")
    durable = ("--appendonly", "yes", "--appendfsync", "always")
    with (
        running_redis(tmp_path / "redis", *durable) as redis,
        service_process(bundle, tmp_path / "log", redis_url=redis.url, **SETTINGS) as service,
    ):
        acknowledged = [
            f"i{n:04d}" for n in range(10, 20) if write(service, user_id(2), f"i{n:04d}").status_code == 201
        ]
        assert len(acknowledged) == 10
        for stop, go_on in ((redis.kill, redis.start), (redis.freeze, redis.thaw)):
            stop()
            for _ in range(15):
                answer = ask(service, user_id(2))
                assert answer.status_code == 200
                content = answer.json()
                assert (content["history_source"], content["degraded"]) == ("bundle", True)
                refused = write(service, user_id(2), "i0039", "while-away")
                assert (refused.status_code, refused.json()["type"]) == (503, "urn:rdrec:problem:history-unavailable")
                assert int(refused.headers["retry-after"]) >= 1
            assert httpx.get(f"{service.url}/health/ready").status_code == 200
            go_on()
            came_back = time.monotonic()
            while ask(service, user_id(2)).json()["degraded"]:
                assert time.monotonic() - came_back < RECOVERY_S
                time.sleep(0.05)
        kept = history(service, user_id(2))
        assert [item for item in kept if item in acknowledged] == acknowledged
        assert kept.count("i0039") <= 1  # refused, so its fate was open; but never twice
        assert write(service, user_id(2), "i0039", "while-away").status_code == 201
        assert history(service, user_id(2)).count("i0039") == 1
        metrics = httpx.get(f"{service.url}/metrics").text
        assert 'rdrec_breaker_state{state="closed"} 1.0' in metrics
        assert "rdrec_degraded_answers_total" in metrics
