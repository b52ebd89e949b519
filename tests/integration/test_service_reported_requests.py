"""Requests as people really send them: items between two catalogues, ids of another type, more asked than there is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.web.app import create_app
from tests.fake_service import N_ITEMS, fake_settings, item_id, open_fake, user_id, write_bundle

SEQUENTIAL, TOPN, WRITE = "/recommend/sequential", "/recommend/topn", "/interactions"
EVERYTHING = [item_id(n) for n in range(N_ITEMS)]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    bundle = write_bundle(tmp_path_factory.mktemp("bundles") / "first")
    with TestClient(create_app(fake_settings(bundle), open_engine=open_fake)) as client:
        yield client


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


@pytest.mark.parametrize(
    ("path", "body", "same_as", "ignored"),
    [
        (
            SEQUENTIAL,
            {"history": ["i0001", "delisted", "i0003", "delisted"]},
            {"history": ["i0001", "i0003"]},
            ["delisted"],
        ),
        (SEQUENTIAL, {"history": ["new-1", "new-2"]}, {"history": []}, ["new-1", "new-2"]),
        (SEQUENTIAL, {"exclude": ["gone", "i0000"]}, {"exclude": ["i0000"]}, ["gone"]),
        (SEQUENTIAL, {"include": ["i0009", "fresh"]}, {"include": ["i0009"]}, ["fresh"]),
        (TOPN, {"candidates": ["i0030", "fresh", "i0004"]}, {"candidates": ["i0030", "i0004"]}, ["fresh"]),
        (
            TOPN,
            {"history": ["x"], "candidates": ["x", "i0004"]},
            {"history": [], "candidates": ["i0004"]},
            ["x"],
        ),
    ],
)
@pytest.mark.parametrize("user", [None, user_id(3)])
def test_items_that_the_model_does_not_know_are_left_out_and_told(
    client: TestClient, path: str, body: dict[str, Any], same_as: dict[str, Any], ignored: list[str], user: str | None
) -> None:
    answer = client.post(path, json={"user_id": user, **body}).json()
    plain = client.post(path, json={"user_id": user, **same_as}).json()
    assert answer["items"]
    assert answer["items"] == plain["items"]
    assert answer["history_source"] == plain["history_source"]
    assert sorted(answer["ignored_items"]) == sorted(ignored)
    assert plain["ignored_items"] == []
    refused = client.post(path, json={"user_id": user, **body, "strict": True})
    assert (refused.status_code, refused.json()["type"]) == (404, "urn:rdrec:problem:unknown-item")


@pytest.mark.parametrize(("path", "field"), [(SEQUENTIAL, "include"), (TOPN, "candidates")])
@pytest.mark.parametrize("user", [None, user_id(3)])
def test_of_unknown_items_alone_nothing_can_be_answered(
    client: TestClient, path: str, field: str, user: str | None
) -> None:
    answer = client.post(path, json={"user_id": user, field: ["fresh", "fresher"]})
    assert (answer.status_code, answer.json()["items"]) == (200, [])
    assert answer.json()["ignored_items"] == ["fresh", "fresher"]


def test_a_purchase_of_an_item_that_no_model_knows_is_kept(client: TestClient) -> None:
    body = {"user_id": "early", "item_id": "added-this-morning"}
    written = client.post(WRITE, json=body)
    assert (written.status_code, written.json()["recorded"], written.json()["known_to_model"]) == (201, True, False)
    assert client.post(WRITE, json={**body, "item_id": "i0007"}).json()["known_to_model"] is True
    known = client.get("/users/early/history").json()["items"]
    assert known == [{"item_id": "added-this-morning", "title": None}, {"item_id": "i0007", "title": "Toy 7"}]
    answer = client.post(SEQUENTIAL, json={"user_id": "early", "n_items": 1}).json()
    assert (ids(answer), answer["ignored_items"]) == (["i0008"], [])


def test_an_item_that_the_next_bundle_knows_counts_from_then_on(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "first")
    with TestClient(create_app(fake_settings(bundle), open_engine=open_fake)) as client:
        client.post(WRITE, json={"user_id": "early", "item_id": "i0020"})
        client.post(WRITE, json={"user_id": "early", "item_id": "soon"})
        host = client.app.state.parts.host  # type: ignore[attr-defined]
        assert host.primary.find_item("soon") is None
        before = client.post(SEQUENTIAL, json={"user_id": "early", "n_items": 1}).json()
        host.primary.find_item = {"soon": 30, "i0020": 20}.get
        after = client.post(SEQUENTIAL, json={"user_id": "early", "n_items": 1}).json()
    assert (ids(before), ids(after)) == (["i0021"], ["i0031"])


@pytest.mark.parametrize(
    ("path", "body", "field", "said"),
    [
        (WRITE, {"user_id": "u", "item_id": "i0001", "timestamp": "2024-05-01T12:00:00Z"}, "timestamp", "number"),
        (WRITE, {"user_id": "u", "item_id": "i0001", "timestamp": 1714564800000}, "timestamp", "milliseconds"),
        (WRITE, {"user_id": "u", "item_id": "i0001", "timestamp": -1}, "timestamp", "greater than or equal to 0"),
        (SEQUENTIAL, {"user_id": "u", "n_items": "5"}, "n_items", "integer"),
        (SEQUENTIAL, {"history": [1, 42]}, "history[0]", "string"),
        (SEQUENTIAL, {"user_id": 7}, "user_id", "string"),
        (TOPN, {"candidates": [1, 2]}, "candidates[0]", "string"),
        (SEQUENTIAL, {"user_id": ""}, "user_id", "at least 1"),
    ],
)
def test_values_of_another_type_are_refused_by_field_and_type(
    client: TestClient, path: str, body: dict[str, Any], field: str, said: str
) -> None:
    refused = client.post(path, json=body)
    assert (refused.status_code, refused.json()["field"]) == (422, field)
    assert said in refused.json()["detail"]


def test_blanks_around_ids_are_no_part_of_them(client: TestClient) -> None:
    body = {"user_id": f" {user_id(3)}\t", "history": [" i0001", "i0002 "], "n_items": 1}
    answer = client.post(SEQUENTIAL, json=body).json()
    assert (ids(answer), answer["ignored_items"]) == (["i0003"], [])
    assert client.post(SEQUENTIAL, json={"user_id": None, "n_items": 2}).json()["strategy"] == "popularity"


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (SEQUENTIAL, {"user_id": "bot", "history": EVERYTHING, "include": EVERYTHING}, 0),
        (SEQUENTIAL, {"user_id": user_id(3), "history": EVERYTHING}, 0),
        (TOPN, {"user_id": user_id(3), "candidates": ["i0005", "i0006", "i0005"], "n_items": 100}, 2),
        (SEQUENTIAL, {"user_id": user_id(1), "history": [], "n_items": 3}, 3),
        (SEQUENTIAL, {"user_id": user_id(1), "include": ["i0009"], "exclude": ["i0009"]}, 0),
        (SEQUENTIAL, {"user_id": user_id(1), "history": EVERYTHING[:2], "include": EVERYTHING[:2]}, 0),
        (SEQUENTIAL, {"user_id": user_id(1), "include": ["i0017"], "beam_width": 100}, 1),
        (SEQUENTIAL, {"user_id": "nobody", "include": ["i0001"], "exclude": ["i0001"]}, 0),
        (SEQUENTIAL, {"history": ["i0001"] * 1000, "n_items": 3}, 3),
    ],
)
def test_as_many_items_as_there_are_with_finite_scores(
    client: TestClient, path: str, body: dict[str, Any], expected: int
) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == 200
    assert len(answer.json()["items"]) == expected
    assert all(math.isfinite(item["score"]) for item in answer.json()["items"])
