"""The item graph: popularity and sparse item-to-item channels, as flat arrays that can be memory-mapped.

A channel says, for each item that a user had, which items it speaks for and how loudly; a query adds up a few rows, so
it costs the same at ten million items. Channels of who bought what make the signal `graph`, those of what is written
about items (named `text.`) the signal `text`. Built by `training/signals/`; knows nothing of how the weights came
about, of the model, or of fusion (`ranking.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from rdrec_core.catalog import Arrays
from rdrec_core.types import IntArray

Floats = npt.NDArray[np.float64]
Row = tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]
"""Items, ascending, and their weights."""
TEXT_PREFIX = "text."
"""Channels whose name begins so are made of words, not of purchases."""
_FIRST_CHUNK = 256
_DENSE = 16
"""Up to so many items of the catalogue for each entry that a history reaches, a row of the catalogue is filled."""


@dataclass(frozen=True)
class Channel:
    """One kind of item-to-item weight, as CSR rows of an item's strongest neighbours; weights are not negative.

    indptr (N + 1,) int64, items (E,) int32 ascending within a row, weights (E,) float32. A query reads the last
    `window` items of a history, each counting `decay` times the one after it. changed: rows that are no longer as the
    arrays have them; of an item behind the arrays' last one they have the only row, or it has none.
    """

    indptr: npt.NDArray[np.int64]
    items: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]
    decay: float
    window: int
    changed: Mapping[int, Row] = field(default_factory=dict)

    def row(self, item: int) -> Row:
        """The row of an item; empty where it has none."""
        if item in self.changed:
            return self.changed[item]
        if item >= len(self.indptr) - 1:
            return self.items[:0], self.weights[:0]
        entries = slice(self.indptr[item], self.indptr[item + 1])
        return self.items[entries], self.weights[entries]

    def recency(self, n: int) -> Floats:
        """Weights of the last min(n, window) items of a history, oldest first, adding up to one."""
        steps_back = np.arange(min(n, self.window) - 1, -1, -1)
        weights = self.decay ** steps_back.astype(np.float64)
        return weights / weights.sum() if len(weights) else weights

    def gather(self, history: npt.NDArray[np.int64], *, alike: bool = False) -> tuple[IntArray, Floats, IntArray]:
        """Every entry that the history reaches, not yet added up: item, weight, position in the history.

        alike: all items count the same, whatever their place.
        """
        n = len(history)
        recency = np.full(n, 1 / max(n, 1)) if alike else self.recency(n)
        first = len(history) - len(recency)
        rows = history[first:]
        if len(rows) and (self.changed or rows.max() >= len(self.indptr) - 1):
            found = [self.row(item) for item in rows.tolist()]
            source = np.repeat(np.arange(len(rows)), [len(items) for items, _ in found])
            items = np.concatenate([items for items, _ in found]).astype(np.int64)
            return items, np.concatenate([weights for _, weights in found]) * recency[source], source + first
        starts = self.indptr[rows]
        lengths = self.indptr[rows + 1] - starts
        source = np.repeat(np.arange(len(rows)), lengths)
        within = np.arange(len(source)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        entries = starts[source] + within
        return self.items[entries].astype(np.int64), self.weights[entries] * recency[source], source + first


@dataclass(frozen=True)
class Mix:
    """How loud each part of the graph is; `popularity` weights an item's share of all purchases.

    unbought: what texts say of an item that nobody has bought counts so many times, as nothing else speaks for it.
    """

    popularity: float = 0.01
    channels: Mapping[str, float] = field(default_factory=dict)
    unbought: float = 1.0


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

    reached: items ascending that a channel speaks for; bought, texts: the parts of its channels of purchases and of
    texts.
    """

    graph: ItemGraph
    mix: Mix
    reached: IntArray
    bought: Floats
    texts: Floats
    steered: bool = False
    """Whether words were among the texts."""

    def log_scores(self, items: npt.NDArray[np.int64]) -> Floats:
        """Log score of each item, finite for every item."""
        return np.log(self._purchases(items) + self._at(items, self.texts))

    def signals(self, items: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
        """What the log score is made of: logs of the purchases' part and of the texts', NaN where they say nothing."""
        texts = self._at(items, self.texts)
        log_texts = np.log(texts, out=np.full(len(items), np.nan), where=texts > 0)
        return np.log(self._purchases(items)), log_texts

    def parts(self, items: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
        """What the channels of purchases and those of texts say of each item, 0 where nothing."""
        return self._at(items, self.bought), self._at(items, self.texts)

    def log_total(self) -> float:
        """Log of what all items of the catalogue score together."""
        alone = self.mix.popularity + len(self.graph) * self.graph.floor
        return math.log(alone + float(self.bought.sum() + self.texts.sum()))

    def _purchases(self, items: npt.NDArray[np.int64]) -> Floats:
        popularity = self.mix.popularity * self.graph.popularity[items].astype(np.float64)
        return popularity + self._at(items, self.bought) + self.graph.floor

    def _at(self, items: npt.NDArray[np.int64], strengths: Floats) -> Floats:
        if not len(self.reached):
            return np.zeros(len(items))
        at = np.minimum(np.searchsorted(self.reached, items), len(self.reached) - 1)
        return np.where(self.reached[at] == items, strengths[at], 0.0)

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


def channel_names(arrays: Iterable[str]) -> frozenset[str]:
    """The channels whose arrays `ItemGraph.arrays` named so."""
    return frozenset(key.removesuffix(".recency") for key in arrays if key.endswith(".recency"))


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

    def grown(self, n: int, changed: Mapping[str, Mapping[int, Row]]) -> ItemGraph:
        """With n more items, which nobody bought yet; changed: by channel, rows that are new or not as before."""
        channels = {
            name: replace(channel, changed={**channel.changed, **changed[name]}) if name in changed else channel
            for name, channel in self.channels.items()
        }
        popularity = np.concatenate([self.popularity, np.zeros(n, dtype=np.float32)])
        order = np.concatenate([self.order, np.arange(len(self), len(self) + n, dtype=np.int32)])
        return ItemGraph(popularity, channels, order=order)

    def prior(
        self, history: Sequence[int], mix: Mix, *, alike: bool = False, words: tuple[IntArray, Floats] | None = None
    ) -> Prior:
        """The graph's opinion on a history, oldest first; alike: on a set of items, none of which counts more.

        words: items and strengths that add to what the channels of texts say.
        """
        rows = np.asarray(history, dtype=np.int64)
        items, values = [np.empty(0, dtype=np.int64)], [np.empty(0)]
        n_bought = 0
        for name in sorted(mix.channels, key=lambda name: name.startswith(TEXT_PREFIX)):  # texts stand last
            if mix.channels[name] > 0:
                found, weights, _ = self.channels[name].gather(rows, alike=alike)
                items.append(found)
                values.append(weights * mix.channels[name])
                n_bought += 0 if name.startswith(TEXT_PREFIX) else len(found)
        if words is not None:
            items.append(words[0])
            values.append(words[1])
        prior = self._added_up(mix, np.concatenate(items), np.concatenate(values), n_bought)
        return prior if words is None else replace(prior, steered=True)

    def _added_up(self, mix: Mix, items: IntArray, values: Floats, n_bought: int) -> Prior:
        """The prior of these entries, of which the first n_bought are of purchases and the others of texts."""
        if len(self) <= _DENSE * len(items):  # adding into one row of the catalogue is quicker than sorting
            place, n, reached = items, len(self), None
        else:
            reached, place = np.unique(items, return_inverse=True)
            n = len(reached)
        bought = np.bincount(place[:n_bought], weights=values[:n_bought], minlength=n).astype(np.float64, copy=False)
        texts = np.bincount(place[n_bought:], weights=values[n_bought:], minlength=n).astype(np.float64, copy=False)
        if reached is None:
            reached = np.flatnonzero(bought + texts if n_bought < len(items) else bought)
            bought, texts = bought[reached], texts[reached]
        if mix.unbought != 1.0:
            texts = np.where(self.popularity[reached] > 0, texts, mix.unbought * texts)
        return Prior(self, mix, reached, bought, texts)

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
            if weight == 0:  # of such a channel the graph may know nothing at all
                continue
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
        for name in sorted(channel_names(arrays)):
            decay, window = arrays[f"{name}.recency"].tolist()
            indptr, items, weights = (arrays[f"{name}.{part}"] for part in ("indptr", "items", "weights"))
            channels[name] = Channel(indptr, items, weights, decay, int(window))  # type: ignore[arg-type]
        return cls(arrays["popularity"], channels, order=arrays["order"])  # type: ignore[arg-type]
