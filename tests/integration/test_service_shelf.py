"""What sells now, what is new, and what became of a list, through the whole application."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from rdrec_core.types import ScoreMode
from service.parts import Stores
from service.stores.buckets import MemoryBuckets
from service.stores.history.base import HistoryUnavailableError
from service.stores.history.memory import MemoryHistoryStore
from service.stores.rate_limit import MemoryRateLimiter
from service.web.app import create_app
from tests.fake_service import N_ITEMS, fake_settings, item_id, open_fake, user_id, write_bundle

DAY_S = 86_400


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "first")


@pytest.fixture
def client(bundle: Path) -> Iterator[TestClient]:
    with TestClient(create_app(fake_settings(bundle), open_engine=open_fake)) as client:
        yield client


def happen(client: TestClient, *events: tuple[int, str, float]) -> None:
    parts = [
        {"user_id": f"u{n}", "item_id": item_id(item), "event": event, "timestamp": time.time() - age_s}
        for n, (item, event, age_s) in enumerate(events)
    ]
    results = client.post("/interactions/batch", json={"interactions": parts}).json()["results"]
    assert {result["status"] for result in results} == {201}


def listed(client: TestClient, path: str, **body: Any) -> tuple[list[int], dict[str, Any]]:
    response = client.post(f"/recommend/{path}", json=body)
    assert response.status_code == 200, response.text
    answer = response.json()
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    return [int(item["item_id"][1:]) for item in answer["items"]], answer


def test_without_events_the_training_data_says_what_sells(client: TestClient) -> None:
    found, answer = listed(client, "popular", n_items=5)
    assert found == [0, 1, 2, 3, 4]
    assert (answer["strategy"], answer["history_source"], answer["degraded"]) == ("popularity", "none", False)


def test_events_say_what_sells_by_weight_and_age_and_the_rest_follows(client: TestClient) -> None:
    happen(
        client, (30, "purchase", 60), (30, "purchase", 120), (20, "view", 60), (21, "cart", 60), (21, "view", 60),
        (33, "purchase", 6 * DAY_S), (35, "purchase", 40 * DAY_S), (36, "view", -3600),
    )  # fmt: skip
    client.post("/interactions", json={"user_id": "u", "item_id": "not in the catalogue"})
    found, answer = listed(client, "popular", n_items=9)
    assert answer["strategy"] == "events"
    assert found[0] == 30
    assert found[1] == 21  # 0.6 now, against 1 which six days have brought to a third
    assert set(found[2:5]) == {33, 20, 36}
    assert found[5:] == [0, 1, 2, 3], "what the training data says, behind the events"
    month, _ = listed(client, "popular", n_items=9, window="90d")
    assert 35 in month[:4]
    hour, _ = listed(client, "popular", n_items=5, window="1h")
    assert 33 not in hour
    assert hour[0] == 30


def test_filters_and_exclusions_hold_on_the_shelf(client: TestClient) -> None:
    happen(client, (30, "purchase", 60), (31, "purchase", 60))
    where = {"sealed": True, "price": {"lt": 31}}
    expected = [n for n in range(0, 31, 2) if n != 2]
    found, answer = listed(client, "popular", n_items=100, where=where, exclude=["i0002", "gone"])
    assert found == [30, *expected[:-1]]
    assert answer["ignored_items"] == ["gone"]
    new, answer = listed(client, "latest", n_items=100, where=where, exclude=["i0002"])
    assert new == expected[::-1]
    assert answer["strategy"] == "latest"
    assert client.post("/recommend/popular", json={"where": {"prise": 1}}).json()["field"] == "where.prise"
    for window in ("0d", "91d", "49h", "7", "7w", "-1d"):
        assert client.post("/recommend/popular", json={"window": window}).json()["field"] == "window"


def test_what_arrived_last_comes_first(client: TestClient) -> None:
    assert listed(client, "latest", n_items=4)[0] == [39, 38, 37, 36]
    assert len(listed(client, "latest", n_items=100)[0]) == N_ITEMS


def test_an_item_that_was_put_is_new_sells_and_is_filtered(client: TestClient) -> None:
    body = {"title": "Toy of tomorrow", "brand": "Nova", "categories": ["Toys"], "attributes": {"price": 3}}
    assert client.put("/items/i9999", json=body).status_code in (200, 201)
    assert listed(client, "latest", n_items=1)[0] == [9999]
    client.post("/interactions", json={"user_id": "u", "item_id": "i9999"})
    assert listed(client, "popular", n_items=1, where={"brand": "Nova"})[0] == [9999]
    assert listed(client, "popular", n_items=100, where={"brand": "Nova", "price": {"gt": 3}})[0] == []
    found, answer = listed(client, "sequential", user_id=user_id(3), where={"brand": "Nova"})
    assert found == [9999]
    told = {"impression_id": answer["impression_id"], "item_id": "i9999", "event": "purchase"}
    assert client.post("/feedback", json=told).json()["recorded"]


class Away(MemoryBuckets):
    async def read(self, bucket: str) -> dict[str, float]:
        raise HistoryUnavailableError("away")


def test_while_the_store_is_away_the_training_data_answers_and_says_so(bundle: Path) -> None:
    stores = Stores(MemoryHistoryStore(), MemoryRateLimiter(time.monotonic), buckets=Away())
    with TestClient(create_app(fake_settings(bundle), open_engine=open_fake, stores=stores)) as client:
        happen(client, (30, "purchase", 60))
        found, answer = listed(client, "popular", n_items=2)
        assert (found, answer["degraded"], answer["strategy"]) == ([0, 1], True, "popularity")


def samples(client: TestClient) -> dict[str, float]:
    text = client.get("/metrics").text
    return {name: float(value) for name, value in re.findall(r"^(rdrec_\w+(?:\{[^}]*\})?) (\S+)$", text, re.M)}


def test_what_became_of_a_list_is_counted_once_by_arm(bundle: Path) -> None:
    settings = fake_settings(bundle, second_score_mode=ScoreMode.FULL, second_mode="on_request")
    with TestClient(create_app(settings, open_engine=open_fake)) as client:
        asked = {"user_id": user_id(3), "n_items": 3}
        a, b = (client.post("/recommend/sequential", json={**asked, "arm": arm}).json() for arm in "ab")
        again = client.post("/recommend/sequential", json={**asked, "arm": "a"}).json()
        assert (a["arm"], b["arm"]) == ("a", "b")
        assert len({answer["impression_id"] for answer in (a, b, again)}) == 3, "a kept answer is another impression"

        def tell(answer: dict[str, Any], rank: int, event: str | None = None) -> dict[str, Any]:
            body = {"impression_id": answer["impression_id"], "item_id": answer["items"][rank - 1]["item_id"]}
            response = client.post("/feedback", json=body if event is None else {**body, "event": event})
            assert response.status_code == 201, response.text
            return dict(response.json())

        assert tell(a, 2) == {"recorded": True, "arm": "a", "rank": 2}
        assert tell(a, 2) == {"recorded": False, "arm": "a", "rank": 2}
        assert tell(a, 2, "purchase")["recorded"]
        assert tell(a, 3, "purchase")["recorded"]
        assert tell(b, 1, "view") == {"recorded": True, "arm": "b", "rank": 1}
        found = samples(client)
    of = {arm: f'{{arm="{arm}"}}' for arm in "ab"}
    assert found[f"rdrec_impressions_total{of['a']}"] == 2
    assert found[f"rdrec_impressions_total{of['b']}"] == 1
    assert found[f"rdrec_taken_impressions_total{of['a']}"] == 1
    assert found[f"rdrec_taken_impressions_total{of['b']}"] == 1
    assert found[f"rdrec_converted_impressions_total{of['a']}"] == 1
    assert f"rdrec_converted_impressions_total{of['b']}" not in found
    assert found['rdrec_feedback_total{arm="a",event="click"}'] == 1
    assert found['rdrec_feedback_total{arm="a",event="purchase"}'] == 2
    assert (found[f"rdrec_taken_rank_sum{of['a']}"], found[f"rdrec_taken_rank_count{of['a']}"]) == (7, 3)


def test_every_list_has_an_impression_and_an_empty_one_is_not_counted(client: TestClient) -> None:
    bodies = {
        "sequential": {"user_id": user_id(1)}, "topn": {"history": ["i0001"]}, "similar": {"item_ids": ["i0001"]},
        "popular": {}, "latest": {},
    }  # fmt: skip
    answers = [client.post(f"/recommend/{path}", json=body).json() for path, body in bodies.items()]
    batch = {"requests": [{"kind": "sequential", "user_id": user_id(1)}, {"kind": "similar", "item_ids": ["i0001"]}]}
    answers += [result["answer"] for result in client.post("/recommend/batch", json=batch).json()["results"]]
    assert len({answer["impression_id"] for answer in answers}) == len(answers)
    for answer in answers:
        for item in answer["items"][:2]:
            told = {"impression_id": answer["impression_id"], "item_id": item["item_id"]}
            assert client.post("/feedback", json=told).json()["rank"] == item["rank"]
    empty = client.post("/recommend/sequential", json={"history": ["i0001"], "include": ["gone"]}).json()
    assert (empty["items"], bool(empty["impression_id"])) == ([], True)
    assert samples(client)['rdrec_impressions_total{arm="a"}'] == len(answers)


def test_feedback_on_what_was_never_shown_is_refused(client: TestClient) -> None:
    answer = client.post("/recommend/sequential", json={"user_id": user_id(1), "n_items": 2}).json()
    known = answer["impression_id"]
    raw = bytearray(base64.urlsafe_b64decode(known + "=" * (-len(known) % 4)))
    raw[0] ^= 1  # the other arm
    forged = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    first = answer["items"][0]["item_id"]
    for impression, item, event, expected in (
        (forged, first, "click", (404, "unknown-impression", "impression_id")),
        ("x", first, "click", (404, "unknown-impression", "impression_id")),
        ("é not base64", first, "click", (404, "unknown-impression", "impression_id")),
        (known, "i0039", "click", (404, "unknown-item", "item_id")),
        (known, first, "wish", (422, "invalid-request", "event")),
    ):
        told = client.post("/feedback", json={"impression_id": impression, "item_id": item, "event": event})
        kind = told.json()["type"].removeprefix("urn:rdrec:problem:")
        assert (told.status_code, kind, told.json()["field"]) == expected


def test_feedback_comes_too_late_after_a_while(bundle: Path) -> None:
    with TestClient(create_app(fake_settings(bundle, impression_ttl_s=1), open_engine=open_fake)) as client:
        answer = client.post("/recommend/sequential", json={"user_id": user_id(1)}).json()
        app: Any = client.app
        app.state.parts.feedback._impressions._clock = lambda: time.time() + 3
        told = {"impression_id": answer["impression_id"], "item_id": answer["items"][0]["item_id"]}
        response = client.post("/feedback", json=told)
        assert (response.status_code, response.json()["type"]) == (410, "urn:rdrec:problem:impression-gone")
