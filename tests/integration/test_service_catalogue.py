"""The live catalogue through the whole application: items that no bundle knows, availability in every endpoint."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.parts import Stores
from service.stores.catalogue.base import CatalogueUnavailableError, CatalogueWrite, LiveItem
from service.stores.catalogue.memory import MemoryCatalogueStore
from service.stores.history.memory import MemoryHistoryStore
from service.stores.rate_limit import MemoryRateLimiter
from service.web.app import create_app
from tests.fake_service import N_ITEMS, fake_settings, item_id, open_fake, user_id, write_bundle

FUSION = {
    f"{task}.{name}": value
    for task in ("sequential", "topn")
    for name, value in {
        "graph": 3.0, "popularity": 0.01, "channel.follows": 0.2, "channel.text.catalogue.sparse": 1.0,
    }.items()
}  # fmt: skip
RED = {"title": "Red lamp", "brand": "Lux", "categories": ["Home", "red"], "attributes": {"price": 7}}
SENT = {"X-API-Key": "a key"}
KEY = {"name": "k", "sha256": hashlib.sha256(b"a key").hexdigest()}
SEQUENTIAL, TOPN, SIMILAR = "/recommend/sequential", "/recommend/topn", "/recommend/similar"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    write_bundle(folder / "first", fusion=FUSION)
    return folder


@pytest.fixture
def store() -> MemoryCatalogueStore:
    return MemoryCatalogueStore()


@pytest.fixture
def client(folder: Path, store: MemoryCatalogueStore) -> Iterator[TestClient]:
    with TestClient(application(folder, store)) as client:
        yield client


def application(folder: Path, store: Any, **settings: Any) -> Any:
    stores = Stores(MemoryHistoryStore(cap=200, max_bytes=1 << 20), MemoryRateLimiter(time.monotonic), catalogue=store)
    own = fake_settings(folder / "first", **{"catalogue_poll_ms": 20, **settings})
    return create_app(own, open_engine=open_fake, stores=stores)


def ids(client: TestClient, path: str, **body: Any) -> list[str]:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return [item["item_id"] for item in response.json()["items"]]


def put(client: TestClient, item: str, body: dict[str, Any]) -> int:
    response = client.put(f"/items/{item}", json=body)
    assert response.is_success, response.text
    assert response.json()["is_live"] is True
    return response.status_code


def test_an_item_that_no_model_saw_is_recommended_where_its_words_fit(client: TestClient) -> None:
    history = [item_id(n) for n in (1, 6, 11)]  # red ones
    assert "new/1" not in ids(client, SEQUENTIAL, history=history)
    assert put(client, "new/1", RED) == 201
    assert put(client, "new/1", RED) == 200
    assert "new/1" in ids(client, SEQUENTIAL, history=history)
    assert "new/1" not in ids(client, SEQUENTIAL, history=[item_id(2)])  # a green one
    assert "new/1" in ids(client, TOPN, history=history)
    assert ids(client, TOPN, history=history, candidates=["new/1", item_id(30)])[0] == "new/1"
    assert "new/1" in ids(client, SIMILAR, item_ids=[item_id(1)])
    assert item_id(1) in ids(client, SIMILAR, item_ids=["new/1"], n_items=20)
    assert "new/1" in ids(client, SEQUENTIAL, prefer="red")
    assert ids(client, SEQUENTIAL, history=["new/1"], n_items=3) != ids(client, SEQUENTIAL, n_items=3)
    assert ids(client, SEQUENTIAL, where={"brand": "Lux"}, history=history) == ["new/1"]
    explained = client.post("/explain", json={"item_id": "new/1", "history": history}).json()
    assert explained["title"] == "Red lamp"
    assert explained["evidence"][0]["item_id"] in history
    part = client.post("/recommend/batch", json={"requests": [{"kind": "sequential", "history": history}]}).json()
    assert "new/1" in [item["item_id"] for item in part["results"][0]["answer"]["items"]]
    found = client.get("/items", params={"query": "red la"}).json()["items"]
    assert found == [{"item_id": "new/1", "title": "Red lamp"}]


def test_what_is_out_of_stock_is_in_no_answer(client: TestClient) -> None:
    first = item_id(0)
    history = [item_id(39)]
    asked = {
        SEQUENTIAL: {"history": history, "n_items": 40}, TOPN: {"history": history, "n_items": 40},
        SIMILAR: {"item_ids": [item_id(35), item_id(39)], "n_items": 40},
    }  # fmt: skip
    for path, body in asked.items():
        assert first in ids(client, path, **body), path
    assert ids(client, SEQUENTIAL)[0] == first  # the most popular one
    changed = client.patch(f"/items/{first}", json={"available": False}).json()
    assert (changed["available"], changed["known_to_model"], changed["brand"]) == (False, True, "Acme")
    for path, body in asked.items():
        assert first not in ids(client, path, **body), path
    assert ids(client, SEQUENTIAL)[0] == item_id(1)
    assert ids(client, SEQUENTIAL, include=[first, item_id(3)], history=history) == [item_id(3)]
    answer = client.post(TOPN, json={"history": history, "candidates": [first, item_id(3)]}).json()
    assert [item["item_id"] for item in answer["items"]] == [item_id(3)]
    assert answer["unavailable_items"] == [first]
    assert answer["ignored_items"] == []
    none = client.post(TOPN, json={"history": history, "candidates": [first]}).json()
    assert (none["items"], none["unavailable_items"]) == ([], [first])
    part = client.post("/recommend/batch", json={"requests": [{"kind": "topn", "user_id": "x", "candidates": [first]}]})
    assert part.json()["results"][0]["answer"]["unavailable_items"] == [first]
    assert client.post("/explain", json={"item_id": first, "history": history}).status_code == 200
    assert client.patch(f"/items/{first}", json={"available": True}).json()["available"] is True
    for path, body in asked.items():
        assert first in ids(client, path, **body), path  # no answer of before was kept


def test_a_deleted_item_is_nowhere_and_histories_keep_it_as_unknown(client: TestClient) -> None:
    put(client, "new-1", RED)
    client.post("/interactions", json={"user_id": "u", "item_id": "new-1"})
    for gone in ("new-1", item_id(8)):
        assert client.delete(f"/items/{gone}").status_code == 204
        assert client.delete(f"/items/{gone}").status_code == 204  # a repetition
        assert client.get(f"/items/{gone}").status_code == 404
        assert client.patch(f"/items/{gone}", json={"available": True}).status_code == 404
        assert client.post("/explain", json={"item_id": gone}).status_code == 404
        answer = client.post(TOPN, json={"history": [item_id(1)], "candidates": [gone, item_id(2)]}).json()
        assert answer["ignored_items"] == [gone]
    assert client.delete("/items/nobody-knows-it").status_code == 404
    assert {"new-1", item_id(8)}.isdisjoint(ids(client, SEQUENTIAL, history=[item_id(7)], n_items=100))
    assert client.get("/history", params={"user_id": "u"}).json()["items"] == [{"item_id": "new-1", "title": None}]
    assert put(client, "new-1", RED) == 201
    assert put(client, item_id(8), {"title": "Toy again"}) == 201
    assert client.get("/history", params={"user_id": "u"}).json()["items"] == [
        {"item_id": "new-1", "title": "Red lamp"}
    ]
    assert item_id(8) in ids(client, SEQUENTIAL, history=[item_id(7)], n_items=100)


def test_new_words_place_an_item_anew(client: TestClient) -> None:
    put(client, "lamp", RED)
    assert "lamp" in ids(client, SIMILAR, item_ids=[item_id(1)])
    put(client, "lamp", {**RED, "title": "Green lamp", "categories": ["Home", "green"]})
    assert "lamp" not in ids(client, SIMILAR, item_ids=[item_id(1)])
    found = ids(client, SIMILAR, item_ids=[item_id(2)])
    assert found.count("lamp") == 1
    assert client.get("/items/lamp").json()["title"] == "Green lamp"


def test_attributes_are_set_taken_away_and_typed(client: TestClient) -> None:
    put(client, "lamp", {**RED, "attributes": {"price": 7, "watt": 40, "tags": ["new"]}})
    changed = client.patch("/items/lamp", json={"attributes": {"watt": 60, "tags": None}}).json()
    assert changed["attributes"] == {"price": 7, "watt": 60}
    assert ids(client, SEQUENTIAL, where={"watt": {"gte": 50}}) == ["lamp"]
    wrong = client.patch("/items/lamp", json={"attributes": {"price": "cheap"}})
    assert (wrong.status_code, wrong.json()["field"]) == (409, "attributes.price")
    assert "number" in wrong.json()["detail"]
    of_bundle = client.get(f"/items/{item_id(4)}").json()
    assert of_bundle["attributes"] == {"price": 4.0, "sealed": True, "colour": "white", "tags": ["old", "used"]}
    assert of_bundle["categories"] == ["Toys", "white"]
    changed = client.patch(f"/items/{item_id(4)}", json={"attributes": {"price": 1}}).json()
    assert changed["attributes"] == {**of_bundle["attributes"], "price": 1}
    cheap = ids(client, SEQUENTIAL, where={"price": 1}, n_items=40)
    assert sorted(cheap) == [item_id(1), item_id(4)]
    assert item_id(4) in ids(client, SEQUENTIAL, where={"colour": "white"}, n_items=40)


def test_many_items_each_with_its_result(client: TestClient) -> None:
    items = [{"item_id": f"n{n}", **RED} for n in range(70)] + [{"item_id": item_id(1), "title": "Toy one"}]
    wrong = {"item_id": "wrong", "attributes": {"price": "dear"}}
    answer = client.post("/items/batch", json={"items": [*items, wrong, {**items[0], "title": "last"}]}).json()
    assert [result["status"] for result in answer["results"]] == [201] * 70 + [200, 409, 201]
    assert answer["results"][-2]["problem"]["field"] == "attributes.price"
    assert answer["is_live"] is True
    assert client.get("/items/n0").json()["title"] == "last"
    found = ids(client, SEQUENTIAL, where={"brand": "Lux"}, n_items=100)
    assert sorted(found) == sorted(f"n{n}" for n in range(70))
    read: list[str] = []
    after = ""
    while after is not None:
        page = client.get("/catalogue", params={"after": after, "limit": 30}).json()
        read += [entry["item_id"] for entry in page["items"]]
        after = page["next_after"]
    assert read == sorted({f"n{n}" for n in range(70)} | {item_id(1)})


def test_where_no_place_is_left_a_507_says_so_and_is_counted(folder: Path) -> None:
    with TestClient(application(folder, MemoryCatalogueStore(), max_new_items=2)) as client:
        put(client, "a", RED)
        answer = client.post("/items/batch", json={"items": [{"item_id": n, **RED} for n in "bc"]}).json()
        assert [result["status"] for result in answer["results"]] == [201, 507]
        full = client.put("/items/d", json=RED)
        assert (full.status_code, full.json()["type"]) == (507, "urn:rdrec:problem:catalogue-full")
        assert "RDREC_MAX_NEW_ITEMS" in full.json()["detail"]
        assert client.put(f"/items/{item_id(1)}", json={"title": "known"}).status_code == 200  # needs no place
        assert client.patch("/items/a", json={"available": False}).status_code == 200
        metrics = client.get("/metrics").text
        assert "rdrec_catalogue_refused_items_total 2.0" in metrics
        assert 'rdrec_catalogue_new_items{arm="a",state="placed"} 2.0' in metrics
        assert 'rdrec_catalogue_new_items{arm="a",state="room"} 0.0' in metrics


def test_a_bundle_that_knows_the_item_takes_over(folder: Path, store: MemoryCatalogueStore) -> None:
    write_bundle(folder / "older", fusion=FUSION)
    keys = [{**KEY, "scopes": ["admin", "catalog", "recommend", "metrics"]}]
    with TestClient(application(folder, store, api_keys=keys), headers=SENT) as client:
        put(client, "new", RED)
        client.patch(f"/items/{item_id(5)}", json={"available": False})
        assert client.post("/admin/bundle", json={"path": "older"}).status_code == 200
        assert "new" in ids(client, SIMILAR, item_ids=[item_id(1)])  # the new arm has it before it answers
        assert item_id(5) not in ids(client, SEQUENTIAL, n_items=100)
        assert 'rdrec_catalogue_new_items{arm="a",state="placed"} 1.0' in client.get("/metrics").text
        put(client, item_id(3), {"title": "said"})
        assert client.get(f"/items/{item_id(3)}").json()["known_to_model"] is True
        assert 'state="placed"} 1.0' in client.get("/metrics").text


def test_replicas_follow_the_store_also_after_a_gap_and_a_loss(folder: Path) -> None:
    class Losing(MemoryCatalogueStore):
        def lose_everything(self) -> None:
            self.__init__(changes_kept=3)  # type: ignore[misc]

    store = Losing(changes_kept=3)
    with TestClient(application(folder, store)) as client:

        def eventually(wanted: bool, item: str) -> None:
            deadline = time.monotonic() + 10
            while (item in ids(client, SIMILAR, item_ids=[item_id(1)], n_items=100)) is not wanted:
                assert time.monotonic() < deadline
                time.sleep(0.02)

        async def elsewhere(*writes: CatalogueWrite) -> None:
            await store.put(writes)

        item = LiveItem("x", "Red lamp")
        client.portal.call(elsewhere, CatalogueWrite("x", item, 0))  # type: ignore[union-attr]
        eventually(True, "x")
        many = [CatalogueWrite(f"y{n}", LiveItem(f"y{n}", "Red lamp"), 0) for n in range(6)]
        client.portal.call(elsewhere, *many, CatalogueWrite("x", None, 1))  # type: ignore[union-attr]
        eventually(True, "y5")
        eventually(False, "x")

        async def lose() -> None:
            store.lose_everything()
            await store.put([CatalogueWrite("y3", LiveItem("y3", "Red lamp"), 0)])

        client.portal.call(lose)  # type: ignore[union-attr]
        eventually(False, "y5")
        eventually(True, "y3")


def test_a_store_that_is_away_refuses_writes_and_stops_no_answer(folder: Path) -> None:
    class Away(MemoryCatalogueStore):
        is_available = False

        async def get(self, *asked: Any) -> Any:
            raise CatalogueUnavailableError("the catalogue store is unavailable: it is away")

        put = page = head = changes = get  # type: ignore[assignment]

    with TestClient(application(folder, Away())) as client:
        refused = client.put("/items/a", json=RED)
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:rdrec:problem:catalogue-unavailable")
        assert "retry-after" in refused.headers
        assert client.get("/items/a").status_code == 503
        assert client.get("/catalogue").status_code == 503
        assert len(ids(client, SEQUENTIAL, user_id=user_id(1))) == 10
        assert "rdrec_catalogue_store_available" in client.get("/metrics").text


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"title": 3}, "title"), ({"categories": [""]}, "categories[0]"), ({"attributes": {"": 1}}, "attributes"),
        ({"attributes": {"a": {"b": 1}}}, "attributes.a"), ({"attributes": {"a": [1]}}, "attributes.a"),
        ({"available": "no"}, "available"), ({"colour": "red"}, "colour"), ({"title": "x" * 1001}, "title"),
    ],
)  # fmt: skip
def test_what_is_no_item_is_told(client: TestClient, body: dict[str, Any], field: str) -> None:
    answer = client.put("/items/a", json=body)
    assert answer.status_code == 422
    assert answer.json()["field"].startswith(field)


def test_numbers_and_texts_that_json_cannot_carry_are_refused(client: TestClient) -> None:
    for raw in (
        b'{"attributes": {"a": NaN}}', b'{"attributes": {"a": 1e999}}', b'{"title": "\\ud800"}',
        b'{"attributes": {"\\ud800": 1}}',
    ):  # fmt: skip
        answer = client.put("/items/a", content=raw, headers={"content-type": "application/json"})
        assert answer.status_code == 422, raw
    assert client.get("/items/a").status_code == 404


def test_a_key_without_the_scope_may_not(folder: Path) -> None:
    for scopes, status in ((["recommend", "write", "admin"], 403), (["catalog"], 201)):
        keys = [{**KEY, "scopes": scopes}]
        with TestClient(application(folder, MemoryCatalogueStore(), api_keys=keys)) as client:
            answer = client.put("/items/a", json=RED, headers=SENT)
            assert answer.status_code == status


def test_the_engine_of_another_process_learns_of_items_before_it_answers(folder: Path) -> None:
    store = MemoryCatalogueStore()
    with TestClient(application(folder, store, engine_process=True)) as client:
        put(client, "new", RED)
        client.patch(f"/items/{item_id(9)}", json={"available": False})
        history = [item_id(1), item_id(6)]
        before = ids(client, SEQUENTIAL, history=history, n_items=12)
        assert "new" in before
        assert item_id(9) not in ids(client, SEQUENTIAL, history=[item_id(8)], n_items=100)
        assert ids(client, SEQUENTIAL, history=history, n_items=12, where={"brand": "Lux"}) == ["new"]
        arm = client.app.state.parts.host.primary  # type: ignore[attr-defined]
        arm.batcher.lanes[0].kill()  # a new engine begins as the bundle says, and is told everything again
        deadline = time.monotonic() + 60
        while "rdrec_engine_restarts_total 1.0" not in client.get("/metrics").text:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        answer = client.post(SEQUENTIAL, json={"history": history, "n_items": 12, "beam_width": 21}).json()
        assert answer["strategy"] != "graph"
        assert [item["item_id"] for item in answer["items"]] == before
        assert item_id(9) not in ids(client, SEQUENTIAL, history=[item_id(8)], n_items=99)
        assert ids(client, SEQUENTIAL, history=history, n_items=11, where={"brand": "Lux"}) == ["new"]
        assert arm.items.n_bundle == N_ITEMS
