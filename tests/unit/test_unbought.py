"""How loud texts are for items that nobody has bought: by hand in the graph, and what the fit hides and chooses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from rdrec_core.fusion import FusionWeights, TaskWeights
from rdrec_core.item_graph import Channel, Eligible, ItemGraph, Mix
from rdrec_core.ranking import Ranker
from rdrec_core.types import RankRequest, ScoreRequest
from tests.ranking_dataset import chained_histories, write_dataset
from tests.unit.test_fusion import AnyUserEngine
from training.data.cold_items import hidden_items
from training.evaluation.fusion import look_up
from training.evaluation.protocol import questions
from training.evaluation.unbought import FACTORS, fit_unbought, without_purchases
from training.signals.graph import GraphConfig, Sequences, channel, graph_of

N = 24
TEXT = "text.catalogue.sparse"


def next_by_text() -> Channel:
    """Every item's words are like those of the item after it, and a little like those of the one after that."""
    rows = np.concatenate([np.arange(N), np.arange(N)])
    columns = np.concatenate([(np.arange(N) + 1) % N, (np.arange(N) + 2) % N])
    values = np.concatenate([np.full(N, 0.9), np.full(N, 0.1)]).astype(np.float32)
    return channel(csr_array((values, (rows, columns)), shape=(N, N)), 0.5, 20)


class Watched(AnyUserEngine):
    """Keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[RankRequest | ScoreRequest] = []

    def recommend(self, requests: Sequence[RankRequest]):  # type: ignore[no-untyped-def]
        self.asked += requests
        return super().recommend(requests)

    def score(self, requests: Sequence[ScoreRequest]):  # type: ignore[no-untyped-def]
        self.asked += requests
        return super().score(requests)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tests.unit.test_ranking.UNAVAILABLE", set())
    data = write_dataset(tmp_path / "d", chained_histories(np.random.default_rng(1), 150, N), N)
    graph = graph_of(Sequences.of(data, "train"), GraphConfig())
    return data, ItemGraph(graph.popularity, {**graph.channels, TEXT: next_by_text()})


def test_texts_count_more_for_items_that_nobody_has_bought_and_for_no_other() -> None:
    graph = ItemGraph(np.array([0.5, 0.5, 0.0], dtype=np.float32), {TEXT: Channel(
        np.array([0, 2, 2, 2]), np.array([1, 2], dtype=np.int32), np.array([0.3, 0.2], dtype=np.float32), 0.5, 20
    )})  # fmt: skip
    items = np.array([1, 2])
    plain = graph.prior([0], Mix(0.0, {TEXT: 1.0}))
    loud = graph.prior([0], Mix(0.0, {TEXT: 1.0}, unbought=2.0))
    np.testing.assert_allclose(np.exp(plain.log_scores(items)), [0.3, 0.2], atol=1e-3)
    np.testing.assert_allclose(np.exp(loud.log_scores(items)), [0.3, 0.4], atol=1e-3)
    assert plain.best(2, Eligible(exclude=[0])).tolist() == [1, 2]
    assert loud.best(2, Eligible(exclude=[0])).tolist() == [2, 1]


def test_the_weight_survives_the_manifest_and_the_table_ranks_by_it_as_is_served(world) -> None:
    data, graph = world
    hidden = np.zeros(N, dtype=np.bool_)
    hidden[::5] = True
    graph = without_purchases(graph, hidden)
    weights = TaskWeights(2.0, Mix(0.05, {"next": 0.5, TEXT: 0.3}, unbought=3.0))
    flat = FusionWeights(weights, weights).to_manifest()
    assert FusionWeights.from_manifest(flat).sequential == weights
    del flat["sequential.unbought"]  # as bundles before this one have it
    assert FusionWeights.from_manifest(flat).sequential.mix.unbought == 1.0

    engine, asked = AnyUserEngine(), questions(data, "val")
    table = look_up(engine, graph, asked, 0, None, progress=lambda _: None, start=weights)  # type: ignore[arg-type]
    ranker = Ranker(engine, graph, FusionWeights(weights, weights), graph_candidates=N)
    for q, rank in enumerate(table.ranks(weights)):
        seen = tuple(asked.seen(q).tolist())
        request = RankRequest(asked.user(q), tuple(asked.history(q).tolist()), 10, exclude=seen, beam_width=20)
        place = np.flatnonzero(ranker.recommend([request])[0].item_indices == asked.targets[q])
        assert (place[0] + 1 if len(place) else np.inf) == (rank if rank <= 10 else np.inf)


def test_hidden_items_have_no_purchases_left_and_keep_their_words(world) -> None:
    _, graph = world
    hidden = np.zeros(N, dtype=np.bool_)
    hidden[[3, 8]] = True
    left = without_purchases(graph, hidden)
    assert left.popularity[hidden].tolist() == [0.0, 0.0]
    assert left.popularity.sum() == pytest.approx(1.0)
    for name, each in left.channels.items():
        if name == TEXT:
            assert each == graph.channels[name]
            continue
        assert not hidden[each.items].any()
        assert np.diff(each.indptr)[hidden].sum() == 0
        before = graph.channels[name]
        rows = np.repeat(np.arange(N), np.diff(before.indptr))
        kept = ~hidden[before.items] & ~hidden[rows]
        np.testing.assert_array_equal(each.weights, before.weights[kept])


def test_the_fit_hides_what_it_asks_for_and_takes_the_loudest_that_costs_no_more_than_allowed(
    world, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, graph = world
    monkeypatch.setattr("training.evaluation.unbought.SHARE", 4 / N)
    engine = Watched()
    forgotten: list[int] = []

    def forgetting(items):  # type: ignore[no-untyped-def]
        forgotten.extend(items.tolist())
        return engine

    weights = TaskWeights(3.0, Mix(0.05, {"next": 0.5, "ridge": 0.5, TEXT: 0.3}))
    asked = questions(data, "val")
    found = {
        price: fit_unbought(
            forgetting, graph, asked, weights, price=price, seed=0, limit=1000, progress=lambda _: None
        )
        for price in (0.0, 0.05, 1.0)
    }  # fmt: skip
    assert len(set(forgotten)) == 4
    assert engine.asked
    for request in engine.asked:
        assert request.history
        assert not set(request.history) & set(forgotten)
    assert found[0.0].n_hidden == sum(int(target) in forgotten for target in asked.targets)
    quality = found[0.0].quality
    assert found[1.0].factor == max(FACTORS)
    assert found[0.0].factor <= found[0.05].factor <= found[1.0].factor
    assert quality[max(FACTORS)][0] > quality[1.0][0]  # the words know who comes next
    for price, each in found.items():
        assert quality[each.factor][1] >= (1 - price) * quality[1.0][1]
        assert all(quality[f][1] < (1 - price) * quality[1.0][1] for f in FACTORS if f > each.factor)


def test_where_a_dataset_hides_items_others_are_hidden_beside_them(world, monkeypatch: pytest.MonkeyPatch) -> None:
    data, graph = world
    monkeypatch.setattr("training.evaluation.unbought.SHARE", 4 / N)
    never_bought = hidden_items(N, 4 / N, 0)
    cold = np.isin(np.arange(N), never_bought)
    forgotten: list[int] = []

    def forgetting(items):  # type: ignore[no-untyped-def]
        forgotten.extend(items.tolist())
        return AnyUserEngine()

    weights = TaskWeights(3.0, Mix(0.05, {"next": 0.5, "ridge": 0.5, TEXT: 0.3}))
    found = fit_unbought(
        forgetting, without_purchases(graph, cold), questions(data, "val"), weights, price=0.05, seed=0, limit=1000,
        progress=lambda _: None,
    )  # fmt: skip
    assert forgotten
    assert not set(forgotten) & set(never_bought.tolist())
    assert found.n_hidden


def test_where_nothing_can_be_hidden_texts_count_once(world) -> None:
    data, graph = world
    nobody = ItemGraph(np.zeros(N, dtype=np.float32), graph.channels)
    weights = TaskWeights(1.0, Mix(0.05, {TEXT: 1.0}))
    found = fit_unbought(
        lambda _: AnyUserEngine(), nobody, questions(data, "val"), weights, price=0.0, seed=0, limit=10,
        progress=lambda _: None,
    )  # fmt: skip
    assert (found.factor, found.quality) == (1.0, {})
