"""Events through the whole application: what is history, what stands in the log alone, and that it lacks nothing."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis
from starlette.testclient import TestClient

from service.web.app import create_app
from tests.fake_service import fake_settings, item_id, open_fake, user_id, write_bundle
from tests.redis_process import running_redis
from tests.service_process import service_process

NOW = time.time()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "first")


@pytest.fixture
def client(bundle: Path, tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(fake_settings(bundle, state_dir=tmp_path), open_engine=open_fake)) as client:
        yield client


def lines_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines()]


def history(client: TestClient, user: str) -> list[str]:
    return [item["item_id"] for item in client.get("/history", params={"user_id": user}).json()["items"]]


def test_purchases_are_history_and_everything_is_logged(client: TestClient, tmp_path: Path) -> None:
    first = {"user_id": "u", "item_id": "i0001", "timestamp": NOW}
    view = {**first, "event": "view", "context": {"page": "search", "place": 3, "odd": None}}
    odd = {"user_id": "u", "item_id": "new", "event": "cart", "quantity": 3}
    answers = [client.post("/interactions", json=body).json() for body in (first, view, odd, first, view)]
    assert [answer["recorded"] for answer in answers] == [True, True, True, False, False]
    assert history(client, "u") == ["i0001"]
    logged = lines_in(tmp_path / "events")
    assert [line["event_id"] for line in logged] == [answer["event_id"] for answer in answers[:3]]
    assert answers[3]["event_id"] == answers[0]["event_id"] != answers[1]["event_id"]
    assert [(line["event"], line["item_id"], line["quantity"], line["context"]) for line in logged] == [
        ("purchase", "i0001", 1, None), ("view", "i0001", 1, view["context"]), ("cart", "new", 3, None),
    ]  # fmt: skip
    assert [line["known_to_model"] for line in logged] == [True, True, False]
    assert [line["timestamp"] for line in logged[:2]] == [NOW, NOW]
    assert all(line["user_id"] == "u" and abs(line["received"] - time.time()) < 60 for line in logged)
    assert abs(logged[2]["timestamp"] - time.time()) < 60


def test_a_batch_has_its_own_kinds_and_a_wrong_one_makes_all_of_it_wrong(client: TestClient, tmp_path: Path) -> None:
    parts = [{"user_id": f"u{n % 2}", "item_id": item_id(n), "event": e}
             for n, e in enumerate(("view", "purchase", "cart", "purchase"))]  # fmt: skip
    for again in (False, True):
        response = client.post("/interactions/batch", json={"interactions": parts}, headers={"Idempotency-Key": "k"})
        results = response.json()["results"]
        assert [(result["status"], result["recorded"]) for result in results] == [(201, not again)] * 4
    refused = client.post("/interactions/batch", json={"interactions": [*parts, {**parts[1], "event": "wish"}]})
    assert (refused.status_code, refused.json()["field"]) == (422, "interactions[4].event")
    assert "purchase, cart, click, view are" in refused.json()["detail"]
    assert history(client, "u1") == ["i0001", "i0003"]
    assert history(client, "u0") == []
    assert len(lines_in(tmp_path / "events")) == 4


def test_an_event_of_no_known_kind_and_odd_fields_are_refused(client: TestClient) -> None:
    body = {"user_id": "u", "item_id": "i0001"}
    for change, field in (
        ({"event": "wish"}, "event"),
        ({"event": "forget"}, "event"),
        ({"quantity": 0}, "quantity"),
        ({"quantity": True}, "quantity"),
        ({"context": {"a": {"b": 1}}}, "context.a"),
        ({"context": {str(n): n for n in range(33)}}, "context"),
    ):
        response = client.post("/interactions", json={**body, **change})
        assert response.status_code == 422
        assert response.json()["field"].startswith(field)
    assert history(client, "u") == []


def test_kinds_weights_and_what_is_history_are_settings(bundle: Path, tmp_path: Path) -> None:
    settings = fake_settings(
        bundle, state_dir=tmp_path, events={"order": 2.0, "look": 0.0}, history_events={"order", "look"},
        event_log="off",
    )  # fmt: skip
    with TestClient(create_app(settings, open_engine=open_fake)) as client:
        refused = client.post("/interactions", json={"user_id": "u", "item_id": "i0001"})
        assert "'purchase' is no event here; order, look are" in refused.json()["detail"]
        for n, event in enumerate(("order", "look")):
            body = {"user_id": "u", "item_id": item_id(n), "event": event, "timestamp": NOW + n}
            assert client.post("/interactions", json=body).status_code == 201
        assert history(client, "u") == ["i0000", "i0001"]
        document = client.get("/openapi.json").json()["components"]["schemas"]
        assert document["InteractionRequest"]["properties"]["event"]["enum"] == ["order", "look"]
    assert not (tmp_path / "events").exists()
    for wrong in ({"events": {"forget": 1.0}}, {"events": {"A": 1.0}}, {"history_events": {"sale"}},
                  {"event_log": "redis"}):  # fmt: skip
        with pytest.raises(ValueError, match=r"forget|pattern|sale|redis_url"):
            fake_settings(bundle, **wrong)


def test_a_forgotten_user_is_forgotten_in_the_log_too(client: TestClient, tmp_path: Path) -> None:
    client.post("/interactions", json={"user_id": user_id(3), "item_id": "i0001"})
    assert client.delete(f"/users/{user_id(3)}/history").status_code == 204
    assert client.delete("/history", params={"user_id": "stranger"}).status_code == 204
    _, *forgotten = lines_in(tmp_path / "events")
    assert [(line["event"], line["user_id"]) for line in forgotten] == [("forget", user_id(3)), ("forget", "stranger")]
    assert len({line["event_id"] for line in forgotten}) == 2


def test_what_cannot_be_logged_is_not_accepted(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    settings = fake_settings(bundle, event_log_dir=tmp_path / "file")
    with TestClient(create_app(settings, open_engine=open_fake)) as client:
        refused = client.post("/interactions", json={"user_id": "u", "item_id": "i0001"})
        assert refused.status_code == 503
        assert "RDREC_EVENT_LOG_DIR" in refused.json()["detail"]
        assert history(client, "u") == []
        assert client.delete("/users/u/history").status_code == 503
        (tmp_path / "file").unlink()
        assert client.post("/interactions", json={"user_id": "u", "item_id": "i0001"}).status_code == 201


def test_without_a_place_for_a_log_that_nobody_asked_for_the_service_works(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    settings = fake_settings(bundle, state_dir=tmp_path / "file")
    with TestClient(create_app(settings, open_engine=open_fake)) as client:
        assert client.post("/interactions", json={"user_id": "u", "item_id": "i0001"}).status_code == 201
        assert client.delete("/users/u/history").status_code == 503, "a forgetting must last"


def write_until_killed(url: str, kill: Any) -> list[str]:
    """Events from several threads; the ids of those that were acknowledged before, or while, the service was killed."""
    acknowledged: list[str] = []

    def write(thread: int) -> None:
        with httpx.Client(base_url=url, timeout=10) as client:
            for n in range(10_000):
                body = {"user_id": f"u{thread}-{n % 7}", "item_id": item_id(n % 40),
                        "event": "view" if n % 3 else "purchase"}  # fmt: skip
                try:
                    answer = client.post("/interactions", json=body)
                except httpx.TransportError:
                    return
                if answer.status_code == 201:
                    acknowledged.append(answer.json()["event_id"])

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    while len(acknowledged) < 150:
        time.sleep(0.005)
    kill()
    for thread in threads:
        thread.join()
    return acknowledged


def test_kill_9_loses_no_acknowledged_event_from_the_files(bundle: Path, tmp_path: Path) -> None:
    settings = {"state_dir": str(tmp_path / "state"), "event_log_fsync": "always", "event_log_max_bytes": "5000"}
    with service_process(bundle, tmp_path / "log", **settings) as service:
        acknowledged = write_until_killed(service.url, service.process.kill)
    files = sorted((tmp_path / "state" / "events").glob("events-*.jsonl"))
    assert len(files) > 3
    whole = [line for file in files for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
    assert set(acknowledged) <= {json.loads(line)["event_id"] for line in whole}
    assert len(whole) <= len(acknowledged) + 4


def test_kill_9_loses_no_acknowledged_event_from_the_stream(bundle: Path, tmp_path: Path) -> None:
    with running_redis(tmp_path / "redis") as redis:
        settings = {"redis_url": redis.url, "redis_timeout_ms": "2000"}
        with service_process(bundle, tmp_path / "log", **settings) as service:
            acknowledged = write_until_killed(service.url, service.process.kill)
        entries = Redis.from_url(redis.url, decode_responses=True).xrange("rdrec:{%events}:log")
    logged = [json.loads(fields["record"])["event_id"] for _, fields in entries]
    assert set(acknowledged) <= set(logged)
    assert len(logged) == len(set(logged)) <= len(acknowledged) + 4
