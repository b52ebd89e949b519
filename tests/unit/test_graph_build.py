"""The graph's builder against plain loops and dense algebra."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tests.ranking_dataset import chained_histories
from training.signals import graph as graph_module
from training.signals.graph import GraphConfig, Sequences, graph_of, local_ridge, ordered_pairs, strongest, two_steps

N = 15


def sequences(seed: int = 0, *, timed: bool = False) -> tuple[Sequences, list[list[int]]]:
    histories = chained_histories(np.random.default_rng(seed), 40, N)
    indptr = np.concatenate([[0], np.cumsum([len(h) for h in histories])]).astype(np.int64)
    items = np.concatenate(histories).astype(np.int32)
    times = np.concatenate([np.arange(len(h)) * 86_400 * 100 for h in histories]) if timed else None
    return Sequences(indptr, items, N, times), histories


def pairs_by_hand(histories: list[list[int]], window: int) -> np.ndarray:
    out = np.zeros((N, N))
    for history in histories:
        for a, first in enumerate(history):
            for b in range(a + 1, min(len(history), a + window + 1)):
                out[first, history[b]] += 1 / (1 + b - a)
    return out


@pytest.mark.parametrize("window", [1, 3, 20])
def test_ordered_pairs_equal_a_double_loop(window: int) -> None:
    source, histories = sequences()
    found = ordered_pairs(source, GraphConfig(window=window)).toarray()
    np.testing.assert_allclose(found, pairs_by_hand(histories, window), rtol=1e-5)


def test_old_pairs_count_half_a_half_life_ago() -> None:
    source, _ = sequences(timed=True)
    assert source.times is not None
    newest = source.times.max()
    expected = np.zeros((N, N))
    for start, stop in zip(source.indptr[:-1], source.indptr[1:], strict=True):
        for a in range(start, stop):
            for b in range(a + 1, stop):
                age = (newest - source.times[b]) / 86_400
                expected[source.items[a], source.items[b]] += 0.5 ** (age / 200) / (1 + b - a)
    found = ordered_pairs(source, GraphConfig(half_life_days=200)).toarray()
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_ridge_over_all_predecessors_is_the_dense_solution() -> None:
    source, _ = sequences()
    pairs = ordered_pairs(source, GraphConfig())
    dense = pairs.toarray().astype(float)
    purchases = np.bincount(source.items, minlength=N).astype(float)
    found = local_ridge(pairs, purchases, N, 3.0).toarray()
    gram = dense + dense.T + np.diag(purchases + 3.0)
    for item in range(N):
        before = np.flatnonzero(dense[:, item])
        expected = np.zeros(N)
        expected[before] = np.linalg.solve(gram[np.ix_(before, before)], dense[before, item])
        np.testing.assert_allclose(found[:, item], np.maximum(expected, 0), atol=1e-5)


def test_ridge_uses_the_strongest_predecessors_only() -> None:
    source, _ = sequences()
    pairs = ordered_pairs(source, GraphConfig())
    found = local_ridge(pairs, np.bincount(source.items, minlength=N).astype(float), 2, 3.0).toarray()
    dense = pairs.toarray()
    for item in range(N):
        strongest_two = set(np.argsort(-dense[:, item], kind="stable")[:2].tolist())
        assert set(np.flatnonzero(found[:, item]).tolist()) <= strongest_two


def test_ridge_of_items_none_of_whose_predecessors_go_together() -> None:
    pairs = ordered_pairs(Sequences(np.asarray([0, 2]), np.asarray([0, 1], dtype=np.int32), 3), GraphConfig())
    found = local_ridge(pairs, np.asarray([1.0, 1.0, 0.0]), 5, 3.0).toarray()
    np.testing.assert_allclose(found, [[0, 0.5 / 4, 0], [0, 0, 0], [0, 0, 0]], atol=1e-6)


def test_two_steps_are_the_square_of_the_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.signals.graph._ROWS_AT_ONCE", 4)  # several blocks
    monkeypatch.setattr("training.signals.graph._ENTRIES_AT_ONCE", 5)
    source, _ = sequences()
    pairs = ordered_pairs(source, GraphConfig())
    dense = pairs.toarray().astype(float)
    walk = dense + dense.T
    walk /= walk.sum(axis=1, keepdims=True)
    expected = walk @ walk
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(two_steps(pairs, N, N).toarray(), expected, atol=1e-6)


def test_strongest_keeps_the_largest_of_each_row_and_breaks_ties_by_column() -> None:
    from scipy.sparse import csr_array

    dense = np.array([[1.0, 3.0, 3.0, 3.0], [0.0, -1.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert strongest(csr_array(dense), 2).toarray().tolist() == [[0, 3, 3, 0], [0, 0, 0.5, 0], [0, 0, 0, 0]]


def test_popularity_is_the_share_of_purchases_and_unbought_items_stay_answerable() -> None:
    source, histories = sequences()
    wider = Sequences(source.indptr, source.items, N + 2)
    graph = graph_of(wider, GraphConfig(neighbours=3))
    counts = Counter(item for history in histories for item in history)
    np.testing.assert_allclose(graph.popularity[:N], [counts[i] / counts.total() for i in range(N)], rtol=1e-6)
    assert graph.popularity[N:].tolist() == [0.0, 0.0]
    assert np.isfinite(graph.prior([N], graph.default_mix()).log_scores(np.arange(N + 2))).all()
    for channel in graph.channels.values():
        assert np.diff(channel.indptr).max() <= 3
        assert (channel.weights >= 0).all()


def test_a_catalogue_too_large_for_its_memory_keeps_fewer_entries_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    source, _ = sequences()
    monkeypatch.setattr(graph_module, "FEWEST", 2)
    for most, kept in ((15 * 4, 4), (15, 2)):  # of 15 items
        monkeypatch.setattr(graph_module, "MOST_ENTRIES", most)
        for each in graph_of(source, GraphConfig()).channels.values():
            assert np.diff(each.indptr).max() == kept


def test_the_graph_finds_the_planted_chain() -> None:
    source, _ = sequences()
    graph = graph_of(source, GraphConfig())
    after = [int(graph.prior([i], graph.default_mix()).log_scores(np.arange(N)).argmax()) for i in range(N)]
    assert sum(found == (i + 1) % N for i, found in enumerate(after)) >= N - 2


def test_settings_round_trip_through_the_fusion_weights() -> None:
    config = GraphConfig(decay=0.4, neighbours=50, half_life_days=90)
    flat = config.to_fusion()
    assert flat == {"build.decay": 0.4, "build.neighbours": 50.0, "build.half_life_days": 90.0}
    assert GraphConfig.from_fusion(flat | {"sequential.graph": 1.0}) == config
    assert GraphConfig().to_fusion() == {}
