"""The collaborative prior: item popularity and sparse item-to-item channels, as flat arrays that can be memory-mapped.

A channel says, for each item that a user had, which items it speaks for and how loudly; a query adds up a few rows, so
it costs the same at ten million items. Built by `training/signals/graph.py`; knows nothing of how the weights came
about, of the model, or of fusion (`ranking.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rdrec_core.catalog import Arrays
from rdrec_core.types import IntArray

Floats = npt.NDArray[np.float64]
_FIRST_CHUNK = 256
_DENSE = 16
"""Up to so many items of the catalogue for each entry that a history reaches, a row of the catalogue is filled."""


@dataclass(frozen=True)
class Channel:
    """One kind of item-to-item weight, as CSR rows of an item's strongest neighbours; weights are not negative.

    indptr (N + 1,) int64, items (E,) int32 ascending within a row, weights (E,) float32. A query reads the last
    `window` items of a history, each counting `decay` times the one after it.
    """

    indptr: npt.NDArray[np.int64]
    items: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]
    decay: float
    window: int

    def recency(self, n: int) -> Floats:
        """Weights of the last min(n, window) items of a history, oldest first, adding up to one."""
        steps_back = np.arange(min(n, self.window) - 1, -1, -1)
        weights = self.decay ** steps_back.astype(np.float64)
        return weights / weights.sum() if len(weights) else weights

    def gather(self, history: npt.NDArray[np.int64]) -> tuple[IntArray, Floats, IntArray]:
        """Every entry that the history reaches, not yet added up: item, weight, position in the history."""
        recency = self.recency(len(history))
        first = len(history) - len(recency)
        rows = history[first:]
        starts = self.indptr[rows]
        lengths = self.indptr[rows + 1] - starts
        source = np.repeat(np.arange(len(rows)), lengths)
        within = np.arange(len(source)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        entries = starts[source] + within
        return self.items[entries].astype(np.int64), self.weights[entries] * recency[source], source + first


@dataclass(frozen=True)
class Mix:
    """How loud each part of the graph is; `popularity` weights an item's share of all purchases."""

    popularity: float = 0.01
    channels: Mapping[str, float] = field(default_factory=dict)


def _among(items: IntArray, ascending: IntArray) -> npt.NDArray[np.bool_]:
    """Which items are in an ascending array; several times faster than `np.isin` on lists of a request's size."""
    if not len(ascending):
        return np.zeros(len(items), dtype=np.bool_)
    at = np.minimum(np.searchsorted(ascending, items), len(ascending) - 1)
    found: npt.NDArray[np.bool_] = ascending[at] == items
    return found


@dataclass(frozen=True)
class Prior:
    """The graph's opinion on one history: log(popularity part + channel part) for any item, best items first.

    reached: items ascending that a channel speaks for, strengths: their channel part.
    """

    graph: ItemGraph
    mix: Mix
    reached: IntArray
    strengths: Floats

    def log_scores(self, items: npt.NDArray[np.int64]) -> Floats:
        """Log score of each item, finite for every item."""
        base = self.mix.popularity * self.graph.popularity[items].astype(np.float64)
        if len(self.reached):
            at = np.minimum(np.searchsorted(self.reached, items), len(self.reached) - 1)
            base += np.where(self.reached[at] == items, self.strengths[at], 0.0)
        return np.log(base + self.graph.floor)

    def best(self, n: int, eligible: Eligible) -> IntArray:
        """The n eligible items with the highest scores (fewer only where fewer are eligible), best first.

        Equal scores go by item index.
        """
        if eligible.include is not None:
            pool = eligible.keep(np.unique(np.asarray(eligible.include, dtype=np.int64)))
        else:
            pool = eligible.keep(self.reached)
            # an unreached item scores by popularity alone, so the n most popular of them are enough
            popular = self.graph.most_popular(n, eligible, skip=self.reached)
            pool = np.concatenate([pool, popular])
        return pool[np.lexsort((pool, -self.log_scores(pool)))[:n]]


@dataclass(frozen=True)
class Eligible:
    """Which items may be answered: available and (include is None or in include) and not in exclude."""

    exclude: Sequence[int] = ()
    include: Sequence[int] | None = None
    available: npt.NDArray[np.bool_] | None = None

    def keep(self, items: IntArray) -> IntArray:
        """The eligible ones among items that are already restricted to `include`, in their order."""
        mask = ~_among(items, np.sort(np.asarray(self.exclude, dtype=np.int64)))
        if self.available is not None:
            mask &= self.available[items]
        return items[mask]


class ItemGraph:
    """Popularity and channels of N items. Immutable; any thread may query it."""

    def __init__(self, popularity: npt.NDArray[np.float32], channels: Mapping[str, Channel], *,
                 order: npt.NDArray[np.int32] | None = None) -> None:  # fmt: skip
        """popularity (N,): shares of all purchases, adding up to one; order: item indices by falling popularity."""
        self.popularity = popularity
        self.channels = dict(channels)
        self.order = order if order is not None else np.argsort(-popularity, kind="stable").astype(np.int32)
        self.floor = 1e-3 / max(len(popularity), 1) ** 2
        """Keeps the logarithm finite for items nobody bought, far below one purchase."""

    def __len__(self) -> int:
        return len(self.popularity)

    def default_mix(self) -> Mix:
        """All channels alike: what is used while no weights were fitted."""
        return Mix(channels=dict.fromkeys(self.channels, 1.0))

    def prior(self, history: Sequence[int], mix: Mix) -> Prior:
        """The graph's opinion on a history, oldest first."""
        rows = np.asarray(history, dtype=np.int64)
        parts = [(self.channels[name].gather(rows), weight) for name, weight in mix.channels.items() if weight > 0]
        items = np.concatenate([part[0] for part, _ in parts] or [np.empty(0, dtype=np.int64)])
        values = np.concatenate([part[1] * weight for part, weight in parts] or [np.empty(0)])
        if len(self) <= _DENSE * len(items):  # adding into one row of the catalogue is quicker than sorting
            row = np.bincount(items, weights=values, minlength=len(self)).astype(np.float64, copy=False)
            reached = np.flatnonzero(row)
            return Prior(self, mix, reached, row[reached])
        reached, place = np.unique(items, return_inverse=True)
        strengths = np.bincount(place, weights=values, minlength=len(reached)).astype(np.float64, copy=False)
        return Prior(self, mix, reached, strengths)

    def most_popular(self, n: int, eligible: Eligible, *, skip: IntArray | None = None) -> IntArray:
        """The n most popular eligible items that are not in `skip` (ascending), best first."""
        if eligible.include is not None:
            pool = eligible.keep(np.unique(np.asarray(eligible.include, dtype=np.int64)))
            pool = pool if skip is None else pool[~_among(pool, skip)]
            return pool[np.lexsort((pool, -self.popularity[pool]))[:n]]
        found: list[IntArray] = []
        missing, start, chunk = n, 0, max(_FIRST_CHUNK, 2 * n)
        while missing > 0 and start < len(self):
            items = eligible.keep(self.order[start : start + chunk].astype(np.int64))
            items = (items if skip is None else items[~_among(items, skip)])[:missing]
            found.append(items)
            missing, start, chunk = missing - len(items), start + chunk, 2 * chunk
        return np.concatenate(found) if found else np.empty(0, dtype=np.int64)

    def contributions(self, history: Sequence[int], item: int, mix: Mix) -> Floats:
        """How much each item of the history adds to the channel part of `item`'s score, (len(history),)."""
        rows = np.asarray(history, dtype=np.int64)
        out = np.zeros(len(rows))
        for name, weight in mix.channels.items():
            items, values, sources = self.channels[name].gather(rows)
            np.add.at(out, sources[items == item], weight * values[items == item])
        return out

    def arrays(self) -> Arrays:
        """Everything, for `BundleWriter.add_arrays("graph", ...)`."""
        out: Arrays = {"popularity": self.popularity, "order": self.order}
        for name, channel in self.channels.items():
            out |= {
                f"{name}.indptr": channel.indptr, f"{name}.items": channel.items, f"{name}.weights": channel.weights,
                f"{name}.recency": np.asarray([channel.decay, channel.window], dtype=np.float64),
            }  # fmt: skip
        return out

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> ItemGraph:
        """Read what `arrays` wrote."""
        channels = {}
        for name in sorted(key.removesuffix(".recency") for key in arrays if key.endswith(".recency")):
            decay, window = arrays[f"{name}.recency"].tolist()
            indptr, items, weights = (arrays[f"{name}.{part}"] for part in ("indptr", "items", "weights"))
            channels[name] = Channel(indptr, items, weights, decay, int(window))  # type: ignore[arg-type]
        return cls(arrays["popularity"], channels, order=arrays["order"])  # type: ignore[arg-type]
