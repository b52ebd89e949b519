"""Lists that need no engine, from any thread: what graph, popularity and texts say of the items, and by what they are
chosen, spread out and explained.

Words that a user types (`Wish`) are one more channel of texts, which all items that hold them are reached by. Knows
texts by their protocol, and indices only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from rdrec_core.errors import BundleError
from rdrec_core.filters import ItemColumns, Where
from rdrec_core.fusion import WORDS_WEIGHT, FusionWeights, TaskWeights
from rdrec_core.item_graph import Eligible, Floats, ItemGraph, Mix, Prior
from rdrec_core.item_texts import NewTexts
from rdrec_core.ranked import UNKNOWN, Ranking, Signals, log_or_nan, ranked
from rdrec_core.spreading import CONSIDERED, likeness, spread_out
from rdrec_core.text_vectors import Rows
from rdrec_core.types import FloatArray, IntArray, ItemMask, RankRequest, Spread, Task, Wish

UNFITTED = 0.5
"""The graph's weight where words are asked for and none was fitted."""

NO_ITEMS = np.empty(0, dtype=np.int64)


class Texts(Protocol):
    """What is written about the items; `item_texts.ItemTexts`."""

    def affinity(self, text: str) -> FloatArray | None:
        """How well each item suits words that a user typed, (N,) from 0 to 1; None where no word of them is known."""
        ...

    def rows_of(self, items: IntArray) -> Rows | None:
        """The items' vectors, each of length one or of no entries; None where there are none at all."""
        ...

    def alike(self, items: IntArray) -> tuple[IntArray, Floats]:
        """(items ascending, cosine from 0 to 1) of all items whose words are at all like those of these."""
        ...

    def grown(self, n: int, vectors: Mapping[str, NewTexts]) -> Texts:
        """With n more items."""
        ...


@dataclass(frozen=True, slots=True)
class Evidence:
    """An item of the user's history that speaks for another; share: its part of all the history's support, 0 to 1."""

    item_index: int
    share: float


class GraphRanker:
    """See the module. Whoever has an engine besides is a `Ranker`."""

    def __init__(
        self,
        graph: ItemGraph | None,
        weights: FusionWeights | None,
        *,
        texts: Texts | None = None,
        columns: ItemColumns | None = None,
        available: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """graph None answers nothing. texts None: no wish moves anything. columns: what items may be chosen by."""
        self.graph, self.weights, self.texts, self._available = graph, weights, texts, available
        self.columns = columns if columns is not None else ItemColumns()
        self._masks: WeakKeyDictionary[ItemMask, tuple[object, ItemMask]] = WeakKeyDictionary()
        """What of a mask is available, by which availability; kept as long as the table keeps the mask."""
        if graph is not None and weights is not None:
            for task in (weights.sequential, weights.topn):
                weighted = {name for name, weight in task.mix.channels.items() if weight > 0}
                if unknown := weighted - set(graph.channels):
                    raise BundleError(f"fusion weights name channels that the graph lacks: {sorted(unknown)}")

    def open_to(self, where: Where | None) -> ItemMask | None:
        """The available items that meet the expression, from any thread; None for no expression.

        The same object until items or their availability change. Raises InputError as `ItemColumns.check`.
        """
        if where is None:
            return None
        asked, available = self.columns.mask(where), self._available
        kept = self._masks.get(asked)
        if kept is None or kept[0] is not available:
            items = asked.items.copy()
            if available is not None:
                items = np.zeros(len(available), dtype=np.bool_)
                items[: len(asked.items)] = asked.items[: len(items)]
                items &= available
            kept = self._masks[asked] = (available, ItemMask(items))
        return kept[1]

    def candidates(
        self, history: Sequence[int], n: int, *, exclude: Sequence[int] = (), include: Sequence[int] | None = None,
        wish: Wish | None = None, where: Where | None = None,
    ) -> IntArray:  # fmt: skip
        """What `/recommend/topn` scores where the caller names no candidates: the graph's best, then popular items."""
        prior = self._graph().prior(history, self._weights_of(Task.TOPN).mix, words=self._words(wish))
        return prior.best(n, self._eligible(exclude, include, self.open_to(where)))

    def at_once(self, request: RankRequest) -> Ranking | None:
        """The answer that needs no engine, from any thread: the popular items for somebody of whom nothing is known.

        None for everybody else. The items considered are those of `include`, else the catalogue, so that their scores
        are shares of all purchases. Words that are wished for are weighed against popularity.
        """
        if self.graph is None or request.user_index is not None or request.history:
            return None
        words = self._words(request.wish)
        mix = Mix(popularity=1.0) if words is None else self._weights_of(Task.SEQUENTIAL).mix
        prior = self.graph.prior((), mix, words=words)
        total = prior.log_total() if request.include is None else _log_sum(prior, np.unique(request.include))
        return self._by_graph(request, prior, total)

    def similar(
        self, items: Sequence[int], n: int, *, exclude: Sequence[int] = (), include: Sequence[int] | None = None,
        where: Where | None = None, spread: Spread | None = None,
    ) -> Ranking:  # fmt: skip
        """At most n items that the channels, mixed as fitted, hold to be like these, from any thread.

        Fewer where the channels reach fewer: an item that only many people buy is like nothing. Channels hold the
        nearest items alone, so where a filter leaves too few of those, items come behind them that share words of the
        catalogue. The items asked for count the same each, and are never among the answers.
        """
        prior = self._graph().prior(tuple(dict.fromkeys(items)), self._weights_of(Task.SEQUENTIAL).mix, alike=True)
        found = prior.reached if include is None else np.intersect1d(prior.reached, np.asarray(include, dtype=np.int64))
        eligible = self._eligible((*exclude, *items), None, self.open_to(where))
        found = eligible.keep(found)
        bought, texts = prior.parts(found)
        if where is not None and len(found) < n and self.texts is not None:
            further, cosine = self.texts.alike(np.asarray(items, dtype=np.int64))
            left = further if include is None else np.intersect1d(further, np.asarray(include, dtype=np.int64))
            left = np.setdiff1d(eligible.keep(left), found)
            weakest = float((bought + texts).min()) if len(found) else 1.0
            texts = np.concatenate([texts, weakest * np.minimum(cosine[np.searchsorted(further, left)], 0.999)])
            found, bought = np.concatenate([found, left]), np.concatenate([bought, np.zeros(len(left))])
        signals = Signals(UNKNOWN, log_or_nan(bought), log_or_nan(texts))
        return self._spread_out(ranked(found, np.log(bought + texts), signals, fused=True), spread, n)

    def popular(self, n: int, counts: Mapping[int, float], *, exclude: Sequence[int] = (), where: Where | None = None
    ) -> Ranking:  # fmt: skip
        """The n items of which most happened, from any thread; counts: how much, by item index.

        All purchases of the training data together weigh as much as one event, and so decide where nothing happened.
        """
        graph, eligible = self._graph(), self._eligible(exclude, None, self.open_to(where))
        happened = np.asarray(sorted(counts), dtype=np.int64)
        rest = graph.most_popular(n, eligible, skip=happened)
        found = np.concatenate([eligible.keep(happened), rest])
        weights = np.asarray([counts.get(item, 0.0) for item in found.tolist()])
        shares = (weights + graph.popularity[found]) / (sum(counts.values()) + 1)
        return ranked(found, np.log(shares + graph.floor), Signals(), fused=True, total=0.0).first(n)

    def latest(self, n: int, *, exclude: Sequence[int] = (), where: Where | None = None) -> Ranking:
        """The n items that arrived last, from any thread; what has no time of arrival comes last."""
        eligible = self._eligible(exclude, None, self.open_to(where))
        order, found, start, chunk = self.columns.latest(), NO_ITEMS, 0, max(256, 2 * n)
        order = order[order < len(self._graph())]  # the table is written to by other threads, and may be ahead
        while len(found) < n and start < len(order):
            found = np.concatenate([found, eligible.keep(order[start : start + chunk])])
            start, chunk = start + chunk, 2 * chunk
        found = found[:n]
        even = np.full(len(found), 1 / max(len(found), 1), dtype=np.float32)
        nothing = np.full(len(found), UNKNOWN, dtype=np.float32)
        return Ranking(found, even, np.log(even), nothing, nothing, nothing, fused=False)

    def without_model(self, request: RankRequest, task: Task = Task.SEQUENTIAL) -> Ranking:
        """What graph and popularity say alone, from any thread: the answer while the engine is away."""
        if (answer := self.at_once(request)) is not None:
            return answer
        prior = self._graph().prior(request.history, self._weights_of(task).mix, words=self._words(request.wish))
        return self._by_graph(request, prior)

    def evidence(self, history: Sequence[int], item: int, n: int = 3) -> list[Evidence]:
        """The at most n items of the history that speak most for `item`, strongest first; empty where none does."""
        others = [h for h in history if h != item]
        support = self._graph().contributions(others, item, self._weights_of(Task.SEQUENTIAL).mix)
        total = support.sum()
        by_item: dict[int, float] = {}
        for other, value in zip(others, support, strict=True):
            if value > 0:
                by_item[other] = by_item.get(other, 0.0) + float(value / total)
        strongest = sorted(by_item.items(), key=lambda pair: (-pair[1], pair[0]))
        return [Evidence(other, share) for other, share in strongest[:n]]

    def _graph(self) -> ItemGraph:
        if self.graph is None:
            raise BundleError("this bundle has no item graph; export it again")
        return self.graph

    def _weights_of(self, task: Task) -> TaskWeights:
        if self.weights is None:
            return TaskWeights(UNFITTED, self._graph().default_mix())
        return self.weights.topn if task is Task.TOPN else self.weights.sequential

    def _words(self, wish: Wish | None) -> tuple[IntArray, Floats] | None:
        """Items that the words reach, with strengths; None where there are no words or none of them is known."""
        if wish is None or self.texts is None:
            return None
        weight = wish.weight
        if weight is None:
            weight = WORDS_WEIGHT if self.weights is None else self.weights.words
        affinity = self.texts.affinity(wish.text) if weight > 0 else None
        if affinity is None:
            return None
        items = np.flatnonzero(affinity > 0)
        return items, weight * affinity[items].astype(np.float64)

    def _narrowed(self, request: RankRequest) -> RankRequest:
        return request if request.where is None else replace(request, among=self.open_to(request.where))

    def _eligible(
        self, exclude: Sequence[int], include: Sequence[int] | None, among: ItemMask | None
    ) -> Eligible:  # fmt: skip
        """among: what `open_to` left, None for all that is available."""
        return Eligible(exclude, include, self._available if among is None else among.items)

    def _eligible_for(self, request: RankRequest) -> Eligible:
        return self._eligible(request.exclude, request.include, request.among)

    def _by_graph(self, request: RankRequest, prior: Prior, total: float | None = None) -> Ranking:
        """The graph's list; total as for `ranked`."""
        request = self._narrowed(request)
        items = self._best_of_graph(request, prior)
        signals = Signals(UNKNOWN, *prior.signals(items))
        ranking = ranked(items, prior.log_scores(items), signals, fused=True, steered=prior.steered, total=total)
        return self._spread_out(ranking, request.spread, request.n_items)

    def _best_of_graph(self, request: RankRequest, prior: Prior) -> IntArray:
        """As many of the graph's best as the list needs, which may have to be made of more than it has items."""
        if request.spread is None:
            return prior.best(request.n_items, self._eligible_for(request))
        n = max(CONSIDERED, request.n_items)
        while True:
            found = prior.best(n, self._eligible_for(request))
            limits = replace(request.spread, diversity=0.0)
            if len(found) < n or len(self._places(found, limits, request.n_items)) == request.n_items:
                return found
            n *= 10

    def _spread_out(self, ranking: Ranking, spread: Spread | None, n: int) -> Ranking:
        """At most n items of a list, the best of them, unlike each other as far as is asked for."""
        return ranking.first(n) if spread is None else ranking.at(self._places(ranking.item_indices, spread, n))

    def _places(self, items: IntArray, spread: Spread, n: int) -> list[int]:
        categories = self.columns.categories_of(items)
        alike = None
        if spread.diversity:
            rows = None if self.texts is None else self.texts.rows_of(items[:CONSIDERED])
            alike = likeness(rows, categories[:CONSIDERED])
        return spread_out(spread, n, self.columns.brands_of(items), categories, alike)


def _log_sum(prior: Prior, items: IntArray) -> float:
    return float(np.logaddexp.reduce(prior.log_scores(items)))
