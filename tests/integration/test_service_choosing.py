"""Filters, diversity and limits through the whole application, on items whose number tells their attributes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.web.app import create_app
from tests.fake_service import COLOURS, N_ITEMS, FakeEngine, fake_settings, item_id, open_fake, user_id, write_bundle

CHEAP = {"price": {"lte": 20}, "not": {"brand": "Acme"}}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "first")


@pytest.fixture(scope="module")
def client(bundle: Path) -> Iterator[TestClient]:
    with TestClient(create_app(fake_settings(bundle), open_engine=open_fake)) as client:
        yield client


def numbers(client: TestClient, path: str, **body: Any) -> list[int]:
    response = client.post(f"/recommend/{path}", json=body)
    assert response.status_code == 200, response.text
    return [int(item["item_id"][1:]) for item in response.json()["items"]]


def is_cheap(number: int) -> bool:
    return number <= 20 and number % 3 != 0


@pytest.mark.parametrize("who", [{"user_id": user_id(3)}, {"history": ["i0030"]}, {"user_id": "nobody"}, {}])
@pytest.mark.parametrize("fusion", [True, False])
def test_every_eligible_item_comes_and_no_other(client: TestClient, who: dict[str, Any], fusion: bool) -> None:
    seen = set(range(3, 8)) if who.get("user_id") == user_id(3) else set()
    eligible = [n for n in range(N_ITEMS) if is_cheap(n) and n not in seen]
    for n_items in (1, 5, 100):
        found = numbers(client, "sequential", **who, where=CHEAP, n_items=n_items, fusion=fusion)
        assert len(found) == len(set(found)) == min(n_items, len(eligible))
        assert set(found) <= set(eligible)
    if not who.get("history"):
        assert sorted(numbers(client, "topn", **who, where=CHEAP, n_items=100, fusion=fusion)) == eligible


def test_a_filter_narrows_candidates_includes_and_similar_items(client: TestClient) -> None:
    found = numbers(client, "topn", candidates=[item_id(n) for n in (1, 2, 3, 4, 30)], where=CHEAP)
    assert sorted(found) == [1, 2, 4]
    include = [item_id(n) for n in (1, 3, 5, 38)]
    assert sorted(numbers(client, "sequential", history=["i0030"], include=include, where=CHEAP)) == [1, 5]
    assert numbers(client, "topn", user_id=user_id(1), candidates=["i0030"], where=CHEAP) == []
    assert sorted(numbers(client, "similar", item_ids=["i0000", "i0005"])) == [1, 6, 10]
    assert numbers(client, "similar", item_ids=["i0000", "i0005"], where={"colour": "red"}) == [1, 6]
    assert numbers(client, "similar", item_ids=["i0000"], include=["no such item"], where={"colour": "red"}) == []


def test_parts_of_a_batch_have_filters_of_their_own(client: TestClient) -> None:
    parts = [
        {"kind": "sequential", "user_id": user_id(1), "where": {"category": colour}, "n_items": 3} for colour in COLOURS
    ]
    parts += [{"kind": "similar", "item_ids": ["i0000"], "where": {"prise": 1}}]
    *found, wrong = client.post("/recommend/batch", json={"requests": parts}).json()["results"]
    for colour, result in zip(COLOURS, found, strict=True):
        assert {COLOURS[int(item["item_id"][1:]) % 5] for item in result["answer"]["items"]} == {colour}
        assert len(result["answer"]["items"]) == 3
    assert (wrong["status"], wrong["problem"]["field"]) == (422, "where.prise")


@pytest.mark.parametrize("path", ["sequential", "topn", "similar"])
@pytest.mark.parametrize(
    ("where", "field", "detail"),
    [
        ({"prise": 3}, "where.prise", "known are: arrived, brand, category, colour, price, sealed, tags"),
        ({"price": "3"}, "where.price", "price is of type number"),
        ({"not": {"tags": {"any": "used"}}}, "where.not.tags.any", "must be a list"),
        ("cheap", "where", "should be an object"),
    ],
)
def test_a_wrong_filter_is_a_422_at_its_field(
    client: TestClient, path: str, where: Any, field: str, detail: str
) -> None:
    body: dict[str, Any] = {"item_ids": ["i0001"]} if path == "similar" else {"history": ["i0001"]}
    response = client.post(f"/recommend/{path}", json={**body, "where": where})
    assert response.status_code == 422
    assert response.json()["field"] == field
    assert detail in response.json()["detail"]


def test_filters_hold_while_the_engine_is_away(bundle: Path) -> None:
    def break_down(what: str, requests: object) -> None:
        raise SystemExit

    broken = False

    def before(what: str, requests: Any) -> None:
        if broken:
            break_down(what, requests)

    with TestClient(create_app(fake_settings(bundle), open_engine=lambda b, s: FakeEngine(before))) as client:
        broken = True
        body = {"user_id": user_id(3), "where": CHEAP, "n_items": 100, "max_per_category": 2}
        client.post("/recommend/sequential", json=body)
        answer = client.post("/recommend/sequential", json={**body, "user_id": user_id(4)}).json()
    assert answer.get("strategy") == "graph", answer
    found = [int(item["item_id"][1:]) for item in answer["items"]]
    assert all(is_cheap(n) for n in found)
    assert Counter(n % 5 for n in found) == {0: 2, 1: 2, 2: 2, 3: 1, 4: 2}, "13 alone is left of its colour"


@pytest.mark.parametrize("who", [{"user_id": user_id(3)}, {"user_id": "nobody"}])
def test_limits_and_diversity(client: TestClient, who: dict[str, Any]) -> None:
    found = numbers(client, "sequential", **who, n_items=10, max_per_category=2)
    assert Counter(n % 5 for n in found) == dict.fromkeys(range(5), 2)
    plain = numbers(client, "sequential", **who, n_items=6)
    assert numbers(client, "sequential", **who, n_items=6, diversity=0) == plain
    spread = numbers(client, "sequential", **who, n_items=6, diversity=0.9)
    assert spread[0] == plain[0]
    assert len({n % 5 for n in spread[:5]}) == 5, "one of each colour before a second one of any"
    per_brand = numbers(client, "topn", **who, n_items=100, max_per_brand=2)
    brands = Counter(n % 3 for n in per_brand)
    assert brands[0] == brands[1] == 2, "what has no brand is not limited"
    alike = numbers(client, "similar", item_ids=["i0000", "i0005", "i0010"], max_per_category=1)
    assert len(alike) == len({n % 5 for n in alike}) > 1


def test_the_document_names_the_fields_and_their_types(client: TestClient) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    where = schemas["Where"]["properties"]
    assert sorted(where) == ["arrived", "brand", "category", "colour", "not", "price", "sealed", "tags"]
    assert where["price"]["anyOf"][0]["type"] == "number"
    for name in ("SequentialRequest", "TopNRequest", "SimilarRequest", "PopularRequest", "LatestRequest"):
        assert schemas[name]["properties"]["where"]["anyOf"][0] == {"$ref": "#/components/schemas/Where"}
    part = schemas["TopNPart"]["properties"]["where"]["anyOf"][0]
    assert part["additionalProperties"] is True, "what is wrong with a part of a batch is that part's own problem"
