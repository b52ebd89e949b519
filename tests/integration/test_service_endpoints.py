"""Every endpoint through the whole application, on a fake model whose answers can be computed by hand."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from rdrec_core.errors import InputError
from service.parts import Stores
from service.stores.history.base import HistoryUnavailableError, Kept
from service.stores.history.memory import MemoryHistoryStore
from service.stores.rate_limit import MemoryRateLimiter
from service.web.app import create_app
from tests.fake_service import N_ITEMS, FakeEngine, fake_settings, item_id, open_fake, user_id, write_bundle
from tests.fake_statements import fake_statements


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "first")


@pytest.fixture
def client(bundle: Path) -> Iterator[TestClient]:
    with TestClient(create_app(fake_settings(bundle), open_engine=open_fake)) as client:
        yield client


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def problem(response: Any) -> tuple[int, str, str | None]:
    assert response.headers["content-type"] == "application/problem+json"
    content = response.json()
    assert content["status"] == response.status_code
    assert content["request_id"] == response.headers["x-request-id"]
    assert content["title"]
    assert content["detail"]
    return response.status_code, content["type"].removeprefix("urn:rdrec:problem:"), content.get("field")


def test_sequential_of_a_known_user_reads_the_bundle(client: TestClient) -> None:
    answer = client.post("/recommend/sequential", json={"user_id": user_id(3), "n_items": 6}).json()
    assert ids(answer) == [item_id(n) for n in range(8, 14)]  # after the last item, 7, the next ones
    assert answer["history_source"] == "bundle"
    assert answer["degraded"] is False
    assert answer["score_mode"] == "trie"
    assert answer["strategy"] == "beam"
    first = answer["items"][0]
    assert (first["rank"], first["title"]) == (1, "Toy 8")
    considered = [math.exp(-0.5 - n / 4) for n in range(20)]  # the whole beam
    assert [item["score"] for item in answer["items"]] == pytest.approx([s / sum(considered) for s in considered[:6]])
    assert first["signals"]["model"] == -0.5
    texts = [item["signals"]["text"] for item in answer["items"]]
    assert texts[:5] == sorted(texts[:5])  # alike to the items 3 to 7, of which the last counts most
    assert texts[5] is None
    assert answer["steered"] is False
    assert first["signals"]["graph"] > answer["items"][1]["signals"]["graph"]


def test_sequential_of_an_unknown_user_with_a_history_is_the_models(client: TestClient) -> None:
    body = {"user_id": "stranger", "history": ["i0002", "i0030"], "n_items": 2}
    answer = client.post("/recommend/sequential", json=body).json()
    assert ids(answer) == ["i0031", "i0032"]
    assert answer["history_source"] == "request"


@pytest.mark.parametrize("body", [{"user_id": "stranger"}, {}, {"user_id": "stranger", "history": []}])
def test_somebody_of_whom_nothing_is_known_gets_the_popular_items(client: TestClient, body: dict[str, Any]) -> None:
    answer = client.post("/recommend/sequential", json={**body, "n_items": 4}).json()
    assert ids(answer) == ["i0000", "i0001", "i0002", "i0003"]
    assert (answer["history_source"], answer["degraded"], answer["strategy"]) == ("none", False, "popularity")
    assert answer["items"][0]["signals"]["model"] is None


def test_filters_hold_and_k_eligible_items_give_k(client: TestClient) -> None:
    body = {"user_id": user_id(3), "include": ["i0007", "i0009", "i0008", "i0030"], "exclude": ["i0030"], "n_items": 10}
    assert ids(client.post("/recommend/sequential", json=body).json()) == ["i0008", "i0009"]
    body["exclude_seen"] = False
    assert set(ids(client.post("/recommend/sequential", json=body).json())) == {"i0007", "i0008", "i0009"}
    everything = client.post("/recommend/sequential", json={"user_id": user_id(3), "n_items": 100}).json()
    assert len(everything["items"]) == N_ITEMS - 5


def test_filters_hold_for_popular_items_too(client: TestClient) -> None:
    body = {"include": ["i0009", "i0002", "i0001"], "exclude": ["i0001"]}
    assert ids(client.post("/recommend/sequential", json=body).json()) == ["i0002", "i0009"]


def test_words_move_the_list_and_what_they_reach_enters_it(client: TestClient) -> None:
    body = {"user_id": user_id(3), "n_items": 5, "exclude": ["i0001"]}
    plain = client.post("/recommend/sequential", json=body).json()
    red = client.post("/recommend/sequential", json={**body, "prefer": "a RED one", "prefer_weight": 100}).json()
    assert red["steered"] is True
    assert {"i0011", "i0016", "i0021"} <= set(ids(red)), "the red ones nearest above item 7"
    assert not {"i0001", "i0006"} & set(ids(red)), "excluded, and seen"
    assert red["items"][0]["signals"]["text"] > 0
    assert ids(red) != ids(plain)
    for unchanged in ({"prefer": ""}, {"prefer": "mauve"}, {"prefer": "red", "prefer_weight": 0}):
        answer = client.post("/recommend/sequential", json={**body, **unchanged}).json()
        assert (answer["items"], answer["steered"]) == (plain["items"], False)
    alone = client.post("/recommend/sequential", json={**body, "prefer": "red", "fusion": False}).json()
    assert (ids(alone), alone["steered"]) == (ids(plain), False)


def test_words_steer_topn_and_strangers(client: TestClient) -> None:
    body = {"user_id": user_id(3), "candidates": ["i0009", "i0010", "i0036"], "n_items": 3}
    plain = client.post("/recommend/topn", json=body).json()
    assert ids(plain) == ["i0009", "i0010", "i0036"]
    steered = client.post("/recommend/topn", json={**body, "prefer": "red", "prefer_weight": 1e2}).json()
    score = {answer["item_id"]: answer["score"] for answer in steered["items"]}
    assert score["i0036"] > 0.001 > plain["items"][2]["score"]
    drawn = {"user_id": user_id(3), "prefer": "green", "prefer_weight": 100, "n_items": 10}
    green = {item_id(n) for n in range(2, N_ITEMS, 5)}
    assert green - {"i0007"} <= set(ids(client.post("/recommend/topn", json=drawn).json())), "drawn by the words"
    stranger = client.post("/recommend/sequential", json={"prefer": "white", "n_items": 3}).json()
    assert (ids(stranger), stranger["strategy"]) == (["i0004", "i0009", "i0014"], "words")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"prefer": "x" * 501}, "prefer"),
        ({"prefer_weight": -1}, "prefer_weight"),
        ({"prefer_weight": True}, "prefer_weight"),
    ],
)
def test_wrong_words_are_named(client: TestClient, wrong: dict[str, Any], field: str) -> None:
    assert problem(client.post("/recommend/sequential", json=wrong)) == (422, "invalid-request", field)
    assert problem(client.post("/recommend/topn", json=wrong)) == (422, "invalid-request", field)


def test_similar_items_need_nobody(client: TestClient) -> None:
    answer = client.post("/recommend/similar", json={"item_ids": ["i0010"], "n_items": 9}).json()
    assert ids(answer) == ["i0011", "i0015"]  # what follows, and what is alike in colour: there is no more
    assert (answer["strategy"], answer["history_source"]) == ("similar", "request")
    follows, alike = (item["signals"] for item in answer["items"])
    assert (follows["text"], alike["graph"], follows["model"]) == (None, None, None)
    assert sum(item["score"] for item in answer["items"]) == pytest.approx(1.0)
    two = {"item_ids": ["i0010", "i0014"], "exclude": ["i0011"]}
    assert ids(client.post("/recommend/similar", json=two).json()) == ["i0015", "i0019"]
    only = {"item_ids": ["i0010"], "include": ["i0015", "i0030"]}
    assert ids(client.post("/recommend/similar", json=only).json()) == ["i0015"]


def test_similar_to_what_nobody_knows_is_told(client: TestClient) -> None:
    answer = client.post("/recommend/similar", json={"item_ids": ["nope"]}).json()
    assert (answer["items"], answer["ignored_items"]) == ([], ["nope"])
    strict = client.post("/recommend/similar", json={"item_ids": ["i0001", "nope"], "strict": True})
    assert problem(strict) == (404, "unknown-item", "item_ids[1]")
    assert problem(client.post("/recommend/similar", json={"item_ids": []})) == (422, "invalid-request", "item_ids")


def test_topn_ranks_given_candidates_in_chunks_of_the_trained_width(bundle: Path) -> None:
    engine = FakeEngine()
    with TestClient(create_app(fake_settings(bundle), open_engine=lambda b, s: engine)) as client:
        engine.calls.clear()
        candidates = [item_id(n) for n in range(9, 34)]
        body = {"user_id": user_id(3), "candidates": [*candidates, "i0010"], "n_items": 3}
        answer = client.post("/recommend/topn", json=body).json()
    assert ids(answer) == ["i0009", "i0010", "i0011"]
    assert engine.calls == [("score", 3)]  # 25 distinct candidates, 10 at a time


def test_topn_without_candidates_draws_unseen_ones(client: TestClient) -> None:
    answer = client.post("/recommend/topn", json={"user_id": user_id(3), "n_items": 5}).json()
    assert len(answer["items"]) == 5
    assert not set(ids(answer)) & {item_id(n) for n in range(3, 8)}
    assert ids(answer)[0] == "i0008"


def test_topn_of_a_stranger_ranks_candidates_by_popularity(client: TestClient) -> None:
    body = {"candidates": ["i0030", "i0004", "i0020"], "n_items": 2}
    answer = client.post("/recommend/topn", json=body).json()
    assert ids(answer) == ["i0004", "i0020"]
    assert answer["history_source"] == "none"


def test_without_statements_the_catalogue_explains(client: TestClient) -> None:
    answer = client.post("/explain", json={"user_id": user_id(3), "item_id": "i0008"}).json()
    assert answer["explanation"] == "Customers who chose Toy 7 often choose Toy 8 too."
    assert (answer["basis"], answer["statements"]) == ("catalogue", [])
    assert [answer[k] for k in ("user_preference", "item_attributes", "caution")] == [None] * 3
    assert [e["item_id"] for e in answer["evidence"]] == ["i0007", "i0003"]  # what it follows, and what it is alike to
    assert sum(e["share"] for e in answer["evidence"]) == pytest.approx(1.0)
    answer = client.post("/explain", json={"item_id": "i0030"}).json()
    assert answer["explanation"] == "This item was chosen by other customers of this shop."
    assert answer["history_source"] == "none"


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service whose bundle has statements, which shows quotes."""
    folder = tmp_path_factory.mktemp("told")
    bundle = write_bundle(folder / "bundle", statements=fake_statements(folder / "data"))
    with TestClient(create_app(fake_settings(bundle, explain_quotes=True), open_engine=open_fake)) as client:
        yield client


def test_statements_explain_to_a_user_who_said_the_like(told: TestClient) -> None:
    answer = told.post("/explain", json={"user_id": user_id(3), "item_id": "i0008"}).json()
    assert answer["explanation"] == "You liked the sturdy lid of Toy 7; 2 of 3 buyers say the same of Toy 8."
    assert answer["basis"] == "statements"
    assert [(s["about"], s["text"], s["count"], s["total"], s["polarity"]) for s in answer["statements"]] == [
        ("user", "sturdy lid", 1, 1, "positive"), ("item", "sturdy lid", 2, 3, "positive"),
    ]  # fmt: skip
    assert answer["user_preference"] == "Likes the sturdy lid."
    assert answer["caution"] == "One of 3 buyers finds it too small."
    assert answer["statements"][1]["quote"] == "A sturdy lid! I love it."
    metrics = told.get("/metrics").text
    assert 'rdrec_explanations_total{arm="a",basis="statements"}' in metrics
    assert 'rdrec_refused_texts_total{arm="a",why="not_whole"}' in metrics  # what the engine writes has no full stop


def test_a_history_alone_is_explained_to(told: TestClient) -> None:
    answer = told.post("/explain", json={"history": ["i0007", "gone"], "item_id": "i0008"}).json()
    assert answer["explanation"].startswith("2 of 3 buyers of Toy 8 praise the sturdy lid.")
    assert (answer["history_source"], answer["ignored_items"]) == ("request", ["gone"])
    assert answer["user_preference"] is None
    assert [e["item_id"] for e in answer["evidence"]] == ["i0007"]
    refused = told.post("/explain", json={"history": ["gone"], "item_id": "i0008", "strict": True})
    assert (refused.status_code, refused.json()["field"]) == (404, "history[0]")


def test_a_forgotten_users_words_are_not_served(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", statements=fake_statements(tmp_path / "data"))
    with TestClient(create_app(fake_settings(bundle), open_engine=open_fake)) as client:
        body = {"user_id": user_id(3), "item_id": "i0008"}
        before = client.post("/explain", json=body).json()
        assert before["user_preference"]
        assert all(s["quote"] is None for s in before["statements"])  # not shown unless the shop says so
        assert client.delete(f"/users/{user_id(3)}/history").status_code == 204
        after = client.post("/explain", json=body).json()
    assert after["user_preference"] is None
    assert "You" not in after["explanation"]
    assert [s["about"] for s in after["statements"]] == ["item"]


def test_a_text_that_the_statements_bear_out_is_served_and_an_engine_that_fails_is_no_error(tmp_path: Path) -> None:
    class Writing(FakeEngine):
        written = "The sturdy lid."

        def generate_text(self, requests: Sequence[Any]) -> list[str]:
            if not self.written:
                raise RuntimeError("broken")
            return [self.written] * len(requests)

    engine = Writing()
    bundle = write_bundle(tmp_path / "bundle", statements=fake_statements(tmp_path / "data"))
    settings = fake_settings(bundle, cache_size=0)
    with TestClient(create_app(settings, open_engine=lambda *_: engine)) as client:
        body = {"user_id": user_id(3), "item_id": "i0008"}
        answer = client.post("/explain", json=body).json()
        assert (answer["basis"], answer["explanation"]) == ("model", "The sturdy lid.")
        engine.written = "The sturdy lid is of gold."
        assert client.post("/explain", json=body).json()["basis"] == "statements"
        engine.written = ""
        answer = client.post("/explain", json=body)
        assert (answer.status_code, answer.json()["basis"]) == (200, "statements")
        assert 'rdrec_refused_texts_total{arm="a",why="engine"} 1.0' in client.get("/metrics").text


def test_frames_that_are_not_whole_are_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "frames.json").write_text("{}")
    bundle = write_bundle(tmp_path / "bundle")
    settings = fake_settings(bundle, explain_frames=tmp_path / "frames.json")
    with pytest.raises(InputError, match="lacks the frames"), TestClient(create_app(settings, open_engine=open_fake)):
        pass


def test_an_interaction_changes_the_next_answer(client: TestClient) -> None:
    asked = {"user_id": user_id(3), "n_items": 1}
    assert ids(client.post("/recommend/sequential", json=asked).json()) == ["i0008"]
    written = client.post("/interactions", json={"user_id": user_id(3), "item_id": "i0020", "timestamp": 5})
    kept = {"recorded": True, "history_source": "memory", "known_to_model": True}
    assert (written.status_code, {**written.json(), "event_id": None}) == (201, {**kept, "event_id": None})
    answer = client.post("/recommend/sequential", json=asked).json()
    assert (ids(answer), answer["history_source"]) == (["i0021"], "memory")
    again = client.post("/interactions", json={"user_id": user_id(3), "item_id": "i0020", "timestamp": 5.0})
    assert again.json()["recorded"] is False


def test_an_idempotency_key_makes_a_repetition_harmless(client: TestClient) -> None:
    body = {"user_id": "u", "item_id": "i0001"}
    answers = [client.post("/interactions", json=body, headers={"Idempotency-Key": "k"}).json() for _ in range(2)]
    assert [a["recorded"] for a in answers] == [True, False]
    assert ids(client.get("/users/u/history").json()) == ["i0001"]


def test_history_is_read_written_and_forgotten(client: TestClient) -> None:
    path = f"/users/{user_id(0)}/history"
    assert ids(client.get(path).json()) == [item_id(n) for n in range(5)]
    assert ids(client.get(path, params={"limit": 2}).json()) == ["i0003", "i0004"]
    assert client.delete(path).status_code == 204
    after = client.get(path).json()
    assert (after["items"], after["history_source"]) == ([], "memory")
    assert client.get("/users/stranger/history").json()["history_source"] == "none"


def test_a_batch_answers_each_part_or_says_why_not(client: TestClient) -> None:
    parts = [
        {"kind": "sequential", "user_id": user_id(3), "n_items": 1},
        {"kind": "topn", "user_id": user_id(3), "candidates": ["nope"], "strict": True},
        {"kind": "explain", "user_id": user_id(3), "item_id": "i0008"},
        {"kind": "similar", "item_ids": ["i0010"], "n_items": 1},
    ]
    results = client.post("/recommend/batch", json={"requests": parts}).json()["results"]
    assert [r["status"] for r in results] == [200, 404, 200, 200]
    assert ids(results[3]["answer"]) == ["i0011"]
    assert ids(results[0]["answer"]) == ["i0008"]
    assert results[1]["answer"] is None
    assert results[1]["problem"]["field"] == "candidates[0]"
    assert results[2]["answer"]["explanation"] == "Customers who chose Toy 7 often choose Toy 8 too."


def test_a_batch_of_256_is_answered_though_the_queue_is_smaller(bundle: Path) -> None:
    settings = fake_settings(bundle, queue_size=32, batch_size=8)
    parts = [{"kind": "sequential", "history": [item_id(n % N_ITEMS), item_id(n // N_ITEMS)]} for n in range(256)]
    with TestClient(create_app(settings, open_engine=open_fake)) as client:
        results = client.post("/recommend/batch", json={"requests": parts}).json()["results"]
        assert [r["status"] for r in results] == [200] * 256
        assert problem(client.post("/recommend/batch", json={"requests": [*parts, parts[0]]}))[0] == 422


def test_the_model_and_the_lookups(client: TestClient) -> None:
    model = client.get("/v1/model").json()
    assert model["model_version"].startswith("fake-")
    assert model["arms"] == {"a": {"model_version": model["model_version"], "score_mode": "trie"}}
    assert client.get("/users", params={"query": "u000", "limit": 2}).json() == {"user_ids": ["u0000", "u0001"]}
    found = client.get("/items", params={"query": "TOY 3"}).json()["items"]
    assert [item["item_id"] for item in found] == [item_id(3), *(item_id(n) for n in range(31, 40))]


class KeptTexts(dict[str, str]):
    """A SharedCache."""

    async def get(self, key: str, user_id: str | None) -> str | None:  # type: ignore[override]
        return super().get(f"{user_id} {key}")

    async def put(self, key: str, text: str, ttl_s: int, user_id: str | None) -> None:
        self[f"{user_id} {key}"] = text


def test_a_request_chooses_its_arm_and_no_cache_mixes_them(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", statements=fake_statements(tmp_path / "data"))
    texts = KeptTexts()
    stores = Stores(MemoryHistoryStore(), MemoryRateLimiter(lambda: 0.0), texts)
    settings = fake_settings(bundle, second_score_mode="full", second_mode="on_request")
    with TestClient(create_app(settings, open_engine=open_fake, stores=stores)) as client:
        arms = client.get("/v1/model").json()["arms"]
        assert {name: arm["score_mode"] for name, arm in arms.items()} == {"a": "trie", "b": "full"}
        assert arms["a"]["model_version"] == arms["b"]["model_version"]
        asked = {"user_id": user_id(3), "n_items": 1}  # whose last item is 7
        chosen = {None: ("i0008", "trie"), "a": ("i0008", "trie"), "b": ("i0011", "full")}
        candidates = [item_id(n) for n in range(8, 14)]
        for _ in range(2):
            for path, body in (("sequential", asked), ("topn", {**asked, "candidates": candidates})):
                for arm, expected in chosen.items():
                    answer = client.post(f"/recommend/{path}", json={**body, "arm": arm}).json()
                    assert (ids(answer)[0], answer["score_mode"]) == expected, (path, arm)
        parts = [{"kind": "sequential", **asked, "arm": arm} for arm in chosen]
        results = client.post("/recommend/batch", json={"requests": parts}).json()["results"]
        assert [ids(result["answer"])[0] for result in results] == ["i0008", "i0008", "i0011"]
        for arm in ("a", "b"):
            assert client.post("/explain", json={"user_id": user_id(3), "item_id": "i0008", "arm": arm}).is_success
        assert len(texts) == 2  # one text by each arm's weights
        assert 'rdrec_answer_cache_total{outcome="miss"} 6.0' in client.get("/metrics").text


@pytest.mark.parametrize("path", ["/recommend/sequential", "/recommend/topn", "/explain"])
def test_an_arm_that_is_not_served_is_a_problem_that_says_what_is(client: TestClient, path: str) -> None:
    body = {"user_id": user_id(3), "arm": "b", **({"item_id": "i0008"} if path == "/explain" else {})}
    refused = client.post(path, json=body)
    assert problem(refused) == (422, "invalid-request", "arm")
    assert refused.json()["detail"] == "no arm b is served here, only a"
    part = {"kind": path.rpartition("/")[2], **body}
    (result,) = client.post("/recommend/batch", json={"requests": [part]}).json()["results"]
    assert (result["status"], result["problem"]["field"]) == (422, "arm")


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/recommend/sequential", {"arm": "c"}, (422, "invalid-request", "arm")),
        ("/recommend/sequential", {"history": ["i0001", "nope"], "strict": True}, (404, "unknown-item", "history[1]")),
        ("/recommend/sequential", {"exclude": ["nope"], "strict": True}, (404, "unknown-item", "exclude[0]")),
        ("/recommend/sequential", {"include": []}, (422, "invalid-request", "include")),
        ("/recommend/sequential", {"n_items": 101}, (422, "invalid-request", "n_items")),
        ("/recommend/sequential", {"n_items": "3"}, (422, "invalid-request", "n_items")),
        ("/recommend/sequential", {"n_items": True}, (422, "invalid-request", "n_items")),
        ("/recommend/sequential", {"exclude_seen": 1}, (422, "invalid-request", "exclude_seen")),
        ("/recommend/sequential", {"beam_width": 0}, (422, "invalid-request", "beam_width")),
        ("/recommend/sequential", {"user": "u"}, (422, "invalid-request", "user")),
        ("/recommend/sequential", {"history": ["i0001", 3]}, (422, "invalid-request", "history[1]")),
        ("/recommend/sequential", {"history": ["i0001"] * 1001}, (422, "invalid-request", "history")),
        ("/recommend/sequential", {"user_id": "u" * 129}, (422, "invalid-request", "user_id")),
        ("/recommend/sequential", [], (422, "invalid-request", "body")),
        ("/recommend/topn", {"candidates": []}, (422, "invalid-request", "candidates")),
        ("/recommend/topn", {"candidates": ["i0001"] * 1001}, (422, "invalid-request", "candidates")),
        ("/explain", {"user_id": "u"}, (422, "invalid-request", "item_id")),
        ("/explain", {"user_id": "u", "item_id": "nope"}, (404, "unknown-item", "item_id")),
        ("/interactions", {"user_id": "u", "item_id": "i0001", "timestamp": -1}, (422, "invalid-request", "timestamp")),
        (
            "/recommend/batch",
            {"requests": [{"kind": "topn"}, {"kind": "sequential", "n_items": 0}]},
            (422, "invalid-request", "requests[1].n_items"),
        ),
        ("/nowhere", {}, (404, "not-found", None)),
        ("/health/live", {}, (405, "method-not-allowed", None)),
    ],
)
def test_a_wrong_request_is_a_problem_that_names_its_field(
    client: TestClient, path: str, body: Any, expected: tuple[int, str, str | None]
) -> None:
    assert problem(client.post(path, json=body)) == expected


@pytest.mark.parametrize("value", ["0", "-5", "1.5", "soon", "60001", "٣", "9" * 400])
def test_a_wrong_timeout_header_is_a_problem(client: TestClient, value: str) -> None:
    headers = {b"X-Request-Timeout-Ms": value.encode()}
    response = client.post("/recommend/sequential", json={}, headers=headers)  # type: ignore[arg-type]
    assert problem(response) == (422, "invalid-request", "X-Request-Timeout-Ms")


def test_every_answer_carries_its_identity_and_its_timings(client: TestClient) -> None:
    answer = client.post("/recommend/sequential", json={"user_id": user_id(1)}, headers={"X-Request-ID": "abc-1"})
    assert answer.headers["x-request-id"] == "abc-1"
    assert [part.split(";")[0] for part in answer.headers["server-timing"].split(", ")] == [
        "history", "queue", "engine", "total",
    ]  # fmt: skip
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    made = client.get("/health/live", headers={"X-Request-ID": "not ok!"}).headers["x-request-id"]
    assert made != "not ok!"
    assert len(made) == 16


def test_metrics_count_what_happened(client: TestClient) -> None:
    for _ in range(2):
        client.post("/recommend/sequential", json={"user_id": user_id(1)})
    client.post("/recommend/sequential", json={"n_items": 0})
    text = client.get("/metrics").text
    for line in (
        'rdrec_request_seconds_count{endpoint="/recommend/sequential",status="200"} 2.0',
        'rdrec_request_seconds_count{endpoint="/recommend/sequential",status="422"} 1.0',
        'rdrec_answers_total{endpoint="/recommend/sequential",history_source="bundle"} 2.0',
        'rdrec_answer_cache_total{outcome="hit"} 1.0',
        'rdrec_answer_cache_total{outcome="miss"} 1.0',
        'rdrec_queue_depth{arm="a"} 0.0',
        "rdrec_ready 1.0",
    ):
        assert line in text


def test_docs_and_console_come_without_a_network(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    assert "https://" not in page.text
    assert client.get("/static-offline-docs/swagger-ui-bundle.js").status_code == 200
    console = client.get("/")
    assert "script-src 'self';" in console.headers["content-security-policy"]
    assert problem(client.get("/console/nothing.js"))[0] == 404


class BrokenStore(MemoryHistoryStore):
    async def recent(self, user_id: str, limit: int) -> Kept:
        raise HistoryUnavailableError("the store is away", retry_after_s=2.2)

    async def append(self, *args: Any, **kwargs: Any) -> list[bool]:
        raise HistoryUnavailableError("the store is away", retry_after_s=2.2)

    async def forgotten(self, user_ids: Any) -> set[str]:
        raise HistoryUnavailableError("the store is away", retry_after_s=2.2)

    async def forget(self, user_id: str, *, in_bundle: bool, log: str | None = None) -> None:
        raise HistoryUnavailableError("the store is away", retry_after_s=2.2)


def test_without_the_store_answers_are_degraded_and_writes_refused(bundle: Path) -> None:
    stores = Stores(BrokenStore(), MemoryRateLimiter(lambda: 0.0))
    with TestClient(create_app(fake_settings(bundle), open_engine=open_fake, stores=stores)) as client:
        answer = client.post("/recommend/sequential", json={"user_id": user_id(3), "n_items": 1}).json()
        assert (ids(answer), answer["history_source"], answer["degraded"]) == (["i0008"], "bundle", True)
        stranger = client.post("/recommend/sequential", json={"user_id": "stranger"}).json()
        assert (stranger["history_source"], stranger["degraded"]) == ("none", True)
        assert client.get(f"/users/{user_id(3)}/history").json()["degraded"] is True
        for write in (
            client.post("/interactions", json={"user_id": "u", "item_id": "i0001"}),
            client.delete("/users/u/history"),
        ):
            assert problem(write) == (503, "history-unavailable", None)
            assert write.headers["retry-after"] == "3"
        assert "rdrec_degraded_answers_total" in client.get("/metrics").text


def key(secret: str, name: str, *scopes: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "sha256": hashlib.sha256(secret.encode()).hexdigest(), "scopes": scopes, **more}


def test_keys_open_what_their_scopes_say(bundle: Path) -> None:
    keys = [
        key("old", "shop", "recommend", "write"),
        key("new", "shop", "recommend", "write"),
        key("root", "ops", "admin"),
    ]
    settings = fake_settings(bundle, api_keys=keys)
    with TestClient(create_app(settings, open_engine=open_fake)) as client:
        ask = {"method": "POST", "url": "/recommend/sequential", "json": {}}
        refused = client.request(**ask)  # type: ignore[arg-type]
        assert problem(refused) == (401, "unauthenticated", None)
        assert refused.headers["www-authenticate"] == "Bearer"
        for headers, status in (
            ({"Authorization": "Bearer old"}, 200),
            ({"Authorization": "bearer new"}, 200),
            ({"X-API-Key": "new"}, 200),
            ({"X-API-Key": "wrong"}, 401),
            ({"Authorization": "Basic old"}, 401),
            ({"Authorization": "Bearer root"}, 403),
        ):
            assert client.request(**ask, headers=headers).status_code == status, headers  # type: ignore[arg-type]
        assert client.post("/admin/bundle", json={}, headers={"X-API-Key": "old"}).status_code == 403
        assert client.post("/admin/bundle", json={}, headers={"X-API-Key": "root"}).status_code == 200
        assert client.get("/health/ready").status_code == 200
        assert (
            "security" in client.get("/openapi.json", headers={"X-API-Key": "old"}).json()["paths"]["/explain"]["post"]
        )


def test_a_key_has_its_rate_and_a_batch_costs_its_parts(bundle: Path) -> None:
    now = [0.0]
    stores = Stores(MemoryHistoryStore(), MemoryRateLimiter(lambda: now[0]))
    settings = fake_settings(bundle, api_keys=[key("k", "shop", "recommend", rate_per_s=2, burst=4)])
    with TestClient(create_app(settings, open_engine=open_fake, stores=stores), headers={"X-API-Key": "k"}) as client:
        part = {"kind": "sequential", "n_items": 1}
        assert client.post("/recommend/batch", json={"requests": [part] * 3}).status_code == 200
        assert client.post("/recommend/sequential", json={}).status_code == 200
        limited = client.post("/recommend/sequential", json={})
        assert problem(limited) == (429, "rate-limited", None)
        assert limited.headers["retry-after"] == "1"
        now[0] = 0.5
        assert client.post("/recommend/sequential", json={}).status_code == 200


def test_nobody_is_an_administrator_without_keys(client: TestClient) -> None:
    assert problem(client.post("/admin/bundle", json={})) == (403, "forbidden", None)


def test_other_hosts_and_origins_are_refused(bundle: Path) -> None:
    settings = fake_settings(
        bundle, allowed_hosts=["shop.example", "*.inner.example"], cors_origins=["https://a.example"]
    )
    with TestClient(create_app(settings, open_engine=open_fake)) as client:
        for host, status in (
            ("shop.example", 200), ("SHOP.example:80", 200), ("x.inner.example", 200), ("inner.example", 400),
            ("evil.example", 400), ("shop.example.evil", 400),
        ):  # fmt: skip
            assert client.get("/v1/model", headers={"Host": host}).status_code == status, host
        assert problem(client.get("/v1/model", headers={"Host": "evil"}))[1] == "unknown-host"
        assert client.get("/health/ready", headers={"Host": "10.0.0.1"}).status_code == 200
        for origin, allowed in (("https://a.example", "https://a.example"), ("https://b.example", None)):
            answer = client.get("/v1/model", headers={"Host": "shop.example", "Origin": origin})
            assert answer.headers.get("access-control-allow-origin") == allowed


def test_no_origin_is_allowed_by_default(client: TestClient) -> None:
    assert "access-control-allow-origin" not in client.get("/v1/model", headers={"Origin": "https://a.example"}).headers


def test_the_console_and_its_lookups_can_be_turned_off(bundle: Path) -> None:
    with TestClient(create_app(fake_settings(bundle, console=False), open_engine=open_fake)) as client:
        assert [client.get(path).status_code for path in ("/", "/users", "/items", "/console/index.html")] == [404] * 4
        assert client.get("/v1/model").status_code == 200


def test_the_application_imports_no_torch_and_an_engine_process_no_web_server() -> None:
    code = (
        "import sys, service.__main__, service.engine.engine_process, service.engine.opening\n"
        "print([m for m in ('fastapi', 'starlette', 'uvicorn') if m in sys.modules])\n"
        "import service.server\n"
        "print([m for m in ('torch', 'transformers', 'polars') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "[]"]
