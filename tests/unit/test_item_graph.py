"""The graph's queries against dense linear algebra."""

from __future__ import annotations

import numpy as np
import pytest

from rdrec_core import item_graph
from rdrec_core.item_graph import Channel, Eligible, ItemGraph, Mix


def channel(dense: np.ndarray, decay: float, window: int) -> Channel:
    rows, items = np.nonzero(dense)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(dense)))]).astype(np.int64)
    return Channel(indptr, items.astype(np.int32), dense[rows, items].astype(np.float32), decay, window)


TEXT = "text.catalogue.sparse"


class World:
    """A random graph with its dense twin."""

    def __init__(self, seed: int, n: int = 25) -> None:
        rng = np.random.default_rng(seed)
        self.n = n
        self.dense = {name: rng.random((n, n)) * (rng.random((n, n)) < 0.15) for name in ("near", "wide", TEXT)}
        self.recency = {"near": (0.5, 3), "wide": (0.9, 8), TEXT: (0.8, 5)}
        popularity = np.repeat(rng.random(n // 2 + 1), 2)[:n]  # in pairs, so that ties are met
        popularity[rng.integers(n)] = 0.0
        self.popularity = (popularity / popularity.sum()).astype(np.float32)
        self.graph = ItemGraph(self.popularity, {k: channel(v, *self.recency[k]) for k, v in self.dense.items()})

    def log_scores(self, history: list[int], mix: Mix) -> np.ndarray:
        return np.log(self.bought(history, mix) + self.texts(history, mix))

    def bought(self, history: list[int], mix: Mix) -> np.ndarray:
        popularity = mix.popularity * self.popularity.astype(np.float64) + self.graph.floor
        return popularity + self._channels(history, {k: v for k, v in mix.channels.items() if k != TEXT})

    def texts(self, history: list[int], mix: Mix) -> np.ndarray:
        return self._channels(history, {k: v for k, v in mix.channels.items() if k == TEXT})

    def _channels(self, history: list[int], weights: dict[str, float]) -> np.ndarray:
        total = np.zeros(self.n)
        for name, weight in weights.items():
            decay, window = self.recency[name]
            read = history[-window:]
            raw = [decay ** (len(read) - 1 - i) for i in range(len(read))]
            for item, w in zip(read, raw, strict=True):
                total = total + weight * w / sum(raw) * self.dense[name][item].astype(np.float32)
        return total


MIX = Mix(popularity=0.3, channels={TEXT: 0.7, "near": 1.0, "wide": 0.4})


@pytest.mark.parametrize("history", [[], [3], [4, 4, 7], list(range(12))])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dense", [0, 10**6])  # a small catalogue is one row, a large one a sorted list
def test_scores_equal_dense_algebra(seed: int, history: list[int], dense: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_graph, "_DENSE", dense)
    world = World(seed)
    everything, prior = np.arange(world.n), world.graph.prior(history, MIX)
    np.testing.assert_allclose(prior.log_scores(everything), world.log_scores(history, MIX), rtol=1e-6)
    bought, texts = prior.signals(everything)
    np.testing.assert_allclose(bought, np.log(world.bought(history, MIX)), rtol=1e-6)
    expected = world.texts(history, MIX)
    np.testing.assert_array_equal(np.isnan(texts), expected == 0)
    np.testing.assert_allclose(np.exp(texts[expected > 0]), expected[expected > 0], rtol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_best_items_are_those_of_a_full_sort(seed: int) -> None:
    world = World(seed)
    rng = np.random.default_rng(seed + 100)
    history = rng.integers(0, world.n, 5).tolist()
    available = rng.random(world.n) < 0.8
    exclude = history
    for include in (None, rng.permutation(world.n)[:8].tolist()):
        scores = world.log_scores(history, MIX)
        allowed = [i for i in range(world.n) if available[i] and i not in exclude and (include is None or i in include)]
        expected = sorted(allowed, key=lambda i: (-round(scores[i], 9), i))
        for n in (1, 4, 200):
            found = world.graph.prior(history, MIX).best(n, Eligible(exclude, include, available))
            assert found.tolist() == expected[:n]
            popular = world.graph.most_popular(n, Eligible(exclude, include, available))
            assert popular.tolist() == sorted(allowed, key=lambda i: (-world.popularity[i], i))[:n]


def test_a_long_tail_of_excluded_items_is_searched_to_its_end() -> None:
    n = 2000
    graph = ItemGraph(np.full(n, 1 / n, dtype=np.float32), {})
    found = graph.prior([], Mix()).best(3, Eligible(exclude=range(n - 2)))
    assert found.tolist() == [n - 2, n - 1]


def test_contributions_add_up_to_the_channel_part() -> None:
    world = World(1)
    history = [1, 5, 5, 9, 20, 2]
    mix = Mix(popularity=0.0, channels=MIX.channels)
    for item in range(world.n):
        total = world.graph.contributions(history, item, mix).sum()
        assert np.log(total + world.graph.floor) == pytest.approx(world.log_scores(history, mix)[item], rel=1e-6)


def test_arrays_round_trip() -> None:
    world = World(2)
    again = ItemGraph.from_arrays(world.graph.arrays())
    items = np.arange(world.n)
    for history in ([], [1, 2, 3]):
        np.testing.assert_array_equal(
            again.prior(history, MIX).log_scores(items), world.graph.prior(history, MIX).log_scores(items)
        )
    assert again.order.tolist() == world.graph.order.tolist()
