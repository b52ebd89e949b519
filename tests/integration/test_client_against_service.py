"""Every method of the Python client against a real process, and its models against the API's document."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import httpx
import pytest
from pydantic import BaseModel

from rdrec_client import Explain, ProblemError, RDRecClient, RetryPolicy, Sequential, TopN, models
from tests.fake_service import N_ITEMS, item_id, user_id, write_bundle
from tests.replica import Replica, running_replica

KEY = "client-test-key"


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    folder = tmp_path_factory.mktemp("service")
    keys = [
        {
            "name": "test",
            "sha256": hashlib.sha256(KEY.encode()).hexdigest(),
            "scopes": ["recommend", "write", "catalog", "admin"],
        }
    ]
    arms = {"second_score_mode": "full", "second_mode": "on_request"}
    settings = {"api_keys": json.dumps(keys), "timeout_ms": 20_000, **arms}
    with running_replica(write_bundle(folder / "bundle"), folder / "log.txt", **settings) as process:
        yield process


@pytest.fixture
def client(replica: Replica) -> Iterator[RDRecClient]:
    with RDRecClient(replica.url, api_key=KEY, timeout_s=20) as opened:
        yield opened


def test_every_endpoint(client: RDRecClient) -> None:
    assert client.is_ready()
    assert client.model().n_items == N_ITEMS
    assert client.find_users("u000", limit=3) == tuple(user_id(n) for n in range(3))
    assert [item.item_id for item in client.find_items("Toy 39")] == [item_id(39)]

    ranking = client.sequential(user_id(1), n_items=3, include=[item_id(7), item_id(8)])
    assert [item.item_id for item in ranking.items] == [item_id(7), item_id(8)]
    assert ranking.history_source == "bundle"
    chosen = client.topn(history=[item_id(1)], candidates=[item_id(2), item_id(20)], n_items=1)
    assert [(item.rank, item.item_id) for item in chosen.items] == [(1, item_id(2))]
    assert client.explain(user_id(1), item_id(6)).item_id == item_id(6)

    assert client.record("client-user", item_id(3), timestamp=5.0).recorded
    assert client.record("client-user", item_id(3), timestamp=5.0).recorded, "two calls are two writes, as told"
    shown = client.popular(window="24h", n_items=3, where={"price": {"lt": 30}})
    assert len(shown.items) == 3
    assert client.latest(n_items=1, exclude=[item_id(39)]).items[0].item_id == item_id(38)
    assert client.give_feedback(shown.impression_id, shown.items[1].item_id).rank == 2
    assert not client.give_feedback(shown.impression_id, shown.items[1].item_id, "click").recorded
    seen = client.record("client-user", item_id(5), event="view", quantity=2, context={"page": "search"})
    assert seen.recorded
    assert seen.event_id
    assert client.record("client-user", item_id(4), idempotency_key="k").recorded
    assert not client.record("client-user", item_id(4), idempotency_key="k").recorded
    history = client.history("client-user", limit=1)
    assert [(item.item_id, item.title) for item in history.items] == [(item_id(4), "Toy 4")]
    client.forget("client-user")
    assert client.history("client-user").items == ()

    assert {name: arm.score_mode for name, arm in client.model().arms.items()} == {"a": "trie", "b": "full"}
    assert client.sequential(user_id(1), arm="b").score_mode == "full"
    assert client.topn(history=[item_id(1)], candidates=[item_id(2)], arm="b").score_mode == "full"
    assert client.explain(user_id(1), item_id(6), arm="b").item_id == item_id(6)

    results = client.batch(
        [
            Sequential(user_id=user_id(1), n_items=1),
            TopN(user_id="x", candidates=["nope"], strict=True),
            Explain(user_id="x", item_id=item_id(2)),
        ]
    )
    assert [result.status for result in results] == [200, 404, 200]
    assert isinstance(results[0].answer, models.Ranking)
    assert isinstance(results[2].answer, models.Explanation)
    assert results[1].problem is not None
    assert results[1].problem.field == "candidates[0]"
    new = "new/1 %"  # which a path must hold all the same
    put = client.put_item(new, title="Red lamp", categories=["Home"], attributes={"price": 3, "tags": ["a"]})
    assert (put.item_id, put.known_to_model, put.is_live) == (new, False, True)
    assert client.get_item(new) == put
    assert client.patch_item(new, available=False, attributes={"tags": None}).attributes == {"price": 3}
    assert client.topn(history=[item_id(1)], candidates=[new, item_id(2)]).unavailable_items == (new,)
    batch = client.put_items([models.PutItem(item_id="b", title="B"), models.PutItem(item_id=item_id(1), brand="X")])
    assert [result.status for result in batch.results] == [201, 200]
    page = client.catalogue(limit=2)
    assert [entry.item_id for entry in page.items] == ["b", item_id(1)]
    assert [entry.item_id for entry in client.catalogue(page.next_after or "").items] == [new]
    client.delete_item(new)
    assert client.catalogue(item_id(1)).items[0].item is None

    assert client.load_bundle().model_version == ranking.model_version


def test_problems_are_exceptions(client: RDRecClient, replica: Replica) -> None:
    with pytest.raises(ProblemError) as unknown:
        client.sequential(history=["nope"], strict=True)
    assert (unknown.value.slug, unknown.value.problem.field) == ("unknown-item", "history[0]")
    with pytest.raises(ProblemError) as invalid:
        client.sequential("u", n_items=0)
    assert invalid.value.problem.errors is not None
    assert invalid.value.problem.errors[0].field == "n_items"
    with RDRecClient(replica.url, api_key="wrong", timeout_s=20) as stranger, pytest.raises(ProblemError) as refused:
        stranger.model()
    assert (refused.value.status, refused.value.slug) == (401, "unauthenticated")
    with RDRecClient("http://127.0.0.1:1", retry=RetryPolicy(attempts=1)) as nobody:
        assert not nobody.is_ready()


PAIRS: list[tuple[str, type[BaseModel]]] = [
    ("RankingAnswer", models.Ranking), ("ExplainAnswer", models.Explanation), ("InteractionAnswer", models.Recorded),
    ("HistoryAnswer", models.History), ("ModelAnswer", models.Model), ("ProblemAnswer", models.Problem),
    ("BatchResult", models.BatchResult), ("BatchAnswer", models.Batch), ("UsersAnswer", models.Users),
    ("ItemsAnswer", models.Items), ("RecommendedItem", models.Item), ("Signals", models.Signals),
    ("FeedbackAnswer", models.FeedbackTaken), ("Evidence", models.Evidence), ("ArmAnswer", models.Arm),
    ("ItemAnswer", models.CatalogueItem),
    ("CataloguePage", models.CataloguePage), ("ItemResults", models.ItemResults), ("ItemPart", models.PutItem),
    ("SequentialPart", models.Sequential), ("TopNPart", models.TopN), ("ExplainPart", models.Explain),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "model"), PAIRS, ids=lambda value: value if isinstance(value, str) else "")
def test_models_have_the_fields_of_the_api_document(replica: Replica, schema: str, model: type[BaseModel]) -> None:
    document = httpx.get(f"{replica.url}/openapi.json", headers={"X-API-Key": KEY}).json()
    assert set(model.model_fields) == set(document["components"]["schemas"][schema]["properties"])
