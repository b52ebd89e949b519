"""The product's ranking: what the model, purchases and texts say, fused into one list with all three signals shown.

    log score = (model log-probability + weight x log(popularity + channels of purchases + channels of texts + words))
                / (1 + weight)

a weighted mean, so that scores are as sure of themselves as what they are made of. Over the union of the items that the
model's search found and the graph's best, which the model scores exactly whether its search reached them or not. Used
by evaluation, `rdrec batch` and the service alike, so that what is measured is what is served. Words that a user types
(`Wish`) are one more channel of texts, which all items that hold them are reached by. Knows engines and texts by their
protocols, and indices only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from rdrec_core.bundle import Bundle
from rdrec_core.engines.base import Engine
from rdrec_core.errors import BundleError
from rdrec_core.filters import GROUP as COLUMNS
from rdrec_core.filters import ItemColumns, Where
from rdrec_core.fusion import WORDS_WEIGHT, FusionWeights, TaskWeights
from rdrec_core.growth import Growth
from rdrec_core.item_graph import Eligible, Floats, ItemGraph, Mix, Prior
from rdrec_core.item_texts import ItemTexts, NewTexts
from rdrec_core.ranked import UNKNOWN, Ranking, Signals, log_or_nan, ranked
from rdrec_core.spreading import CONSIDERED, likeness, spread_out
from rdrec_core.text_vectors import Rows
from rdrec_core.types import FloatArray, IntArray, ItemMask, RankRequest, ScoreRequest, Spread, Task, Wish

GRAPH_CANDIDATES = 50
"""How many of the graph's best items join the model's: 100 change 1 list in 700 (docs/experiments.md)."""

UNFITTED = 0.5
"""The graph's weight where words are asked for and none was fitted."""

_NO_ITEMS = np.empty(0, dtype=np.int64)


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


def _widened(request: RankRequest, also: IntArray) -> RankRequest:
    """The whole beam is considered, and these items besides."""
    return replace(request, n_items=max(request.n_items, request.beam_width), also=tuple(also.tolist()))


class Ranker:
    """Fused lists for batches of requests. As thread-safe as its engine: one thread calls it at a time."""

    def __init__(
        self,
        engine: Engine,
        graph: ItemGraph | None,
        weights: FusionWeights | None,
        *,
        texts: Texts | None = None,
        columns: ItemColumns | None = None,
        available: npt.NDArray[np.bool_] | None = None,
        topn_task: Task = Task.TOPN,
        candidate_width: int = 100,
        graph_candidates: int = GRAPH_CANDIDATES,
        n_modelled: int | None = None,
    ) -> None:
        """weights None ranks by the model alone; the graph then still gives candidates, evidence and cold answers.

        texts None: no wish moves anything. columns: what items may be chosen by. candidate_width: how many candidates
        one top-N source holds at most, as trained. n_modelled: only the first items are known to the engine, None for
        all; the others live from the graph.
        """
        self.engine, self.graph, self.weights, self.texts = engine, graph, weights, texts
        self._available, self._topn_task, self._width = available, topn_task, candidate_width
        self._graph_candidates = graph_candidates
        self.columns = columns if columns is not None else ItemColumns()
        self._masks: WeakKeyDictionary[ItemMask, tuple[object, ItemMask]] = WeakKeyDictionary()
        """What of a mask is available, by which availability; kept as long as the table keeps the mask."""
        self._cut: WeakKeyDictionary[ItemMask, ItemMask] = WeakKeyDictionary()
        """What of a mask the engine can read."""
        self.n_modelled = n_modelled
        """How many items the engine knows, the first ones; None: all."""
        if graph is not None and weights is not None:
            for task in (weights.sequential, weights.topn):
                weighted = {name for name, weight in task.mix.channels.items() if weight > 0}
                if unknown := weighted - set(graph.channels):
                    raise BundleError(f"fusion weights name channels that the graph lacks: {sorted(unknown)}")

    @classmethod
    def of_bundle(cls, bundle: Bundle, engine: Engine) -> Ranker:
        """The ranker that the bundle describes."""
        arrays = bundle.arrays("graph")
        manifest = bundle.manifest
        weights = FusionWeights.from_manifest(manifest.fusion) if manifest.fusion and arrays else None
        return cls(
            engine, ItemGraph.from_arrays(arrays) if arrays else None, weights, texts=ItemTexts.of_bundle(bundle),
            columns=ItemColumns.from_arrays(bundle.arrays(COLUMNS), len(bundle.catalog)),
            available=bundle.catalog.available, topn_task=manifest.topn_task, candidate_width=manifest.candidate_width,
        )  # fmt: skip

    def grown(self, growth: Growth) -> Ranker:
        """This ranker with more items, over the same engine, which must know of those that have rows.

        Items without a row are ranked by the graph; to the model they are as likely as its typical candidate.
        """
        assert self.graph is not None, "a service's ranker always has a graph"
        n_modelled = self.n_modelled
        if growth.rows is None and n_modelled is None:
            n_modelled = len(self.graph)
        texts = None if self.texts is None else self.texts.grown(growth.n, growth.texts)
        available = None if self._available is None else np.append(self._available, np.ones(growth.n, dtype=np.bool_))
        return self._with(self.graph.grown(growth.n, growth.channels), texts, available, n_modelled)

    def with_available(self, available: npt.NDArray[np.bool_]) -> Ranker:
        """This ranker with these items to be answered, (N,) by item index, over the same engine, which must be told."""
        return self._with(self.graph, self.texts, available, self.n_modelled)

    def _with(
        self, graph: ItemGraph | None, texts: Texts | None, available: npt.NDArray[np.bool_] | None,
        n_modelled: int | None,
    ) -> Ranker:  # fmt: skip
        return Ranker(
            self.engine, graph, self.weights, texts=texts, available=available, topn_task=self._topn_task,
            candidate_width=self._width, graph_candidates=self._graph_candidates, n_modelled=n_modelled,
            columns=self.columns,
        )  # fmt: skip

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

    def _narrowed(self, request: RankRequest) -> RankRequest:
        return request if request.where is None else replace(request, among=self.open_to(request.where))

    def _eligible(self, request: RankRequest) -> Eligible:
        available = self._available if request.among is None else request.among.items
        return Eligible(request.exclude, request.include, available)

    def recommend(self, requests: Sequence[RankRequest], *, fusion: Sequence[bool] | None = None) -> list[Ranking]:
        """The best min(n_items, eligible) items of each request. fusion[i] False ranks request i by the model alone.

        A wish whose words are known is weighed in even there where no weights were fitted.
        """
        requests = [self._narrowed(request) for request in requests]
        at_once = [self.at_once(r) for r in requests]
        asked = [i for i, answer in enumerate(at_once) if answer is None]
        wanted = [True] * len(requests) if fusion is None else fusion
        priors = {i: self._prior(requests[i], Task.SEQUENTIAL, wanted[i]) for i in asked}
        fuse = {i: wanted[i] and self._can_fuse(priors[i]) for i in asked}
        also = {i: self._besides(requests[i], priors[i], fuse[i]) for i in asked}
        found = self.engine.recommend([self._modelled(_widened(requests[i], also[i])) for i in asked])
        beams = dict(zip(asked, found, strict=True))
        answers = []
        for i, request in enumerate(requests):
            if (answer := at_once[i]) is not None:
                answers.append(answer)
                continue
            items, log_probs = beams[i].item_indices, beams[i].log_probs
            if len(also[i]):
                also_log_probs = np.full(len(also[i]), UNKNOWN, dtype=np.float32)
                also_log_probs[self._is_modelled(also[i])] = beams[i].also_log_probs
                new = ~np.isin(also[i], items)
                items = np.concatenate([items, also[i][new]])
                log_probs = np.concatenate([log_probs, also_log_probs[new]])
            ranking = self._fused(items, log_probs, priors[i], Task.SEQUENTIAL, fuse[i])
            answers.append(self._spread_out(ranking, request.spread, request.n_items))
        return answers

    def topn(self, requests: Sequence[ScoreRequest], *, fusion: Sequence[bool] | None = None) -> list[Ranking]:
        """All candidates of each request, best first. The request's `task` is replaced by the one that was trained.

        More candidates than a source holds are scored in chunks of equal size. Where a list is to be spread, the first
        CONSIDERED of its items are, and what has no place in it any more is left out.
        """
        at_once = [
            self.at_once(
                RankRequest(
                    r.user_index, r.history, len(r.candidates), include=r.candidates, wish=r.wish, spread=r.spread
                )
            )
            for r in requests
        ]
        chunks: list[ScoreRequest] = []
        owners: list[int] = []
        for i, request in enumerate(requests):
            candidates = np.asarray(request.candidates, dtype=np.int64)
            candidates = candidates[self._is_modelled(candidates)]
            if at_once[i] is None and len(candidates):
                history = request.history
                if self.n_modelled is not None:
                    history = tuple(item for item in history if item < self.n_modelled)
                n_chunks = -(-len(candidates) // self._width)
                for part in np.array_split(candidates, n_chunks):
                    asked = replace(request, candidates=tuple(part.tolist()), history=history, task=self._topn_task)
                    chunks.append(asked)
                    owners.append(i)
        parts: dict[int, list[FloatArray]] = {}
        for owner, log_probs in zip(owners, self.engine.score(chunks) if chunks else [], strict=True):
            parts.setdefault(owner, []).append(log_probs)
        answers = []
        for i, request in enumerate(requests):
            if (answer := at_once[i]) is not None:
                answers.append(answer)
                continue
            items = np.asarray(request.candidates, dtype=np.int64)
            wanted = fusion is None or fusion[i]
            prior = self._prior(request, Task.TOPN, wanted)
            fuse = wanted and self._can_fuse(prior)
            log_probs = np.full(len(items), UNKNOWN, dtype=np.float32)
            if i in parts:
                log_probs[self._is_modelled(items)] = np.concatenate(parts[i])
            ranking = self._fused(items, log_probs, prior, Task.TOPN, fuse)
            answers.append(self._spread_out(ranking, request.spread, len(items)))
        return answers

    def candidates(
        self, history: Sequence[int], n: int, *, exclude: Sequence[int] = (), include: Sequence[int] | None = None,
        wish: Wish | None = None, where: Where | None = None,
    ) -> IntArray:  # fmt: skip
        """What `/recommend/topn` scores where the caller names no candidates: the graph's best, then popular items."""
        prior = self._graph().prior(history, self._weights_of(Task.TOPN).mix, words=self._words(wish))
        among = self.open_to(where)
        return prior.best(n, Eligible(exclude, include, self._available if among is None else among.items))

    def at_once(self, request: RankRequest) -> Ranking | None:
        """The answer that needs no engine, from any thread: the popular items for somebody of whom nothing is known.

        None for everybody else. The items considered are those of `include`, else the catalogue, so that their scores
        are shares of all purchases. Words that are wished for are weighed against popularity.
        """
        if self.graph is None or request.user_index is not None or request.history:
            return None
        request = self._narrowed(request)
        words = self._words(request.wish)
        mix = Mix(popularity=1.0) if words is None else self._weights_of(Task.SEQUENTIAL).mix
        prior = self.graph.prior((), mix, words=words)
        items = self._best_of_graph(request, prior)
        total = prior.log_total() if request.include is None else _log_sum(prior, np.unique(request.include))
        signals = Signals(UNKNOWN, *prior.signals(items))
        ranking = ranked(items, prior.log_scores(items), signals, fused=True, steered=prior.steered, total=total)
        return self._spread_out(ranking, request.spread, request.n_items)

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
        among = self.open_to(where)
        available = self._available if among is None else among.items
        eligible = Eligible((*exclude, *items), available=available)
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
        graph, among = self._graph(), self.open_to(where)
        eligible = Eligible(exclude, available=self._available if among is None else among.items)
        happened = np.asarray(sorted(counts), dtype=np.int64)
        rest = graph.most_popular(n, eligible, skip=happened)
        found = np.concatenate([eligible.keep(happened), rest])
        weights = np.asarray([counts.get(item, 0.0) for item in found.tolist()])
        shares = (weights + graph.popularity[found]) / (sum(counts.values()) + 1)
        return ranked(found, np.log(shares + graph.floor), Signals(), fused=True, total=0.0).first(n)

    def latest(self, n: int, *, exclude: Sequence[int] = (), where: Where | None = None) -> Ranking:
        """The n items that arrived last, from any thread; what has no time of arrival comes last."""
        among = self.open_to(where)
        eligible = Eligible(exclude, available=self._available if among is None else among.items)
        order, found, start, chunk = self.columns.latest(), _NO_ITEMS, 0, max(256, 2 * n)
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
        request = self._narrowed(request)
        items = self._best_of_graph(request, prior)
        signals = Signals(UNKNOWN, *prior.signals(items))
        ranking = ranked(items, prior.log_scores(items), signals, fused=True, steered=prior.steered)
        return self._spread_out(ranking, request.spread, request.n_items)

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

    def _is_modelled(self, items: IntArray) -> npt.NDArray[np.bool_]:
        """Which items the engine knows."""
        return items < (np.iinfo(np.int64).max if self.n_modelled is None else self.n_modelled)

    def _modelled(self, request: RankRequest) -> RankRequest:
        """The request as the engine can read it: without the items that it does not know."""
        n = self.n_modelled
        if n is None:
            return request
        history, exclude, also = (
            tuple(item for item in items if item < n) for items in (request.history, request.exclude, request.also)
        )
        include = None if request.include is None else tuple(item for item in request.include if item < n)
        among = request.among
        if among is not None:
            among = self._cut.setdefault(among, ItemMask(among.items[:n]))
        return replace(request, history=history, exclude=exclude, include=include, also=also, among=among)

    def _graph(self) -> ItemGraph:
        if self.graph is None:
            raise BundleError("this bundle has no item graph; export it again")
        return self.graph

    def _weights_of(self, task: Task) -> TaskWeights:
        if self.weights is None:
            return TaskWeights(UNFITTED, self._graph().default_mix())
        return self.weights.topn if task is Task.TOPN else self.weights.sequential

    def _prior(self, request: RankRequest | ScoreRequest, task: Task, fusion: bool) -> Prior | None:
        if self.graph is None:
            return None
        words = self._words(request.wish) if fusion else None
        return self.graph.prior(request.history, self._weights_of(task).mix, words=words)

    def _can_fuse(self, prior: Prior | None) -> bool:
        """Words are weighed in even where no weights were fitted: nobody asks for them to see nothing change."""
        return prior is not None and (self.weights is not None or prior.steered)

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

    def _besides(self, request: RankRequest, prior: Prior | None, fuse: bool) -> IntArray:
        """Items that join those that the model's search finds.

        The graph's best, and where a list has limits so many items that it can be filled within them.
        """
        if prior is None or not (fuse or (request.spread is not None and request.spread.has_limits)):
            return _NO_ITEMS if prior is None or request.among is None else self._unknown_to_model(request, prior)
        n = max(self._graph_candidates, request.n_items)
        if request.spread is None or not request.spread.has_limits:
            return prior.best(n, self._eligible(request))
        found = self._best_of_graph(request, prior)
        within = self._places(found, replace(request.spread, diversity=0.0), request.n_items)
        return np.unique(np.concatenate([found[: n if fuse else 0], found[within]]))

    def _unknown_to_model(self, request: RankRequest, prior: Prior) -> IntArray:
        """What fills the list of the model alone where a filter leaves too few of the items that it knows."""
        assert request.among is not None
        open_to_model = int(request.among.items[: self.n_modelled].sum()) - len(request.exclude)
        if self.n_modelled is None or open_to_model >= request.n_items:
            return _NO_ITEMS
        found = prior.best(len(self._graph()), self._eligible(request))
        return found[~self._is_modelled(found)][: request.n_items]

    def _best_of_graph(self, request: RankRequest, prior: Prior) -> IntArray:
        """As many of the graph's best as the list needs, which may have to be made of more than it has items."""
        if request.spread is None:
            return prior.best(request.n_items, self._eligible(request))
        n = max(CONSIDERED, request.n_items)
        while True:
            found = prior.best(n, self._eligible(request))
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

    def _fused(self, items: IntArray, log_probs: FloatArray, prior: Prior | None, task: Task, fuse: bool) -> Ranking:
        scores, signals = log_probs.astype(np.float64), Signals(log_probs)
        if self.n_modelled is not None and np.isnan(scores).any():
            scores = np.where(np.isnan(scores), 0.0 if np.isnan(scores).all() else np.nanmedian(scores), scores)
        if prior is not None:
            signals = Signals(log_probs, *prior.signals(items))
        if fuse:
            assert prior is not None
            weight = self._weights_of(task).graph
            scores = (scores + weight * prior.log_scores(items)) / (1 + weight)
        return ranked(items, scores, signals, fused=fuse, steered=fuse and prior is not None and prior.steered)


def _log_sum(prior: Prior, items: IntArray) -> float:
    return float(np.logaddexp.reduce(prior.log_scores(items)))
