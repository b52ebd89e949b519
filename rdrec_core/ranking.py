"""The product's ranking: what the model, purchases and texts say, fused into one list with all three signals shown.

    log score = (model log-probability + weight x log(popularity + channels of purchases + channels of texts + words))
                / (1 + weight)

a weighted mean, so that scores are as sure of themselves as what they are made of. Over the union of the items that the
model's search found and the graph's best, which the model scores exactly whether its search reached them or not. Used
by evaluation, `rdrec batch` and the service alike, so that what is measured is what is served. Knows engines by their
protocol, and indices only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from rdrec_core.bundle import Bundle
from rdrec_core.engines.base import Engine
from rdrec_core.filters import GROUP as COLUMNS
from rdrec_core.filters import ItemColumns
from rdrec_core.fusion import FusionWeights
from rdrec_core.graph_ranking import NO_ITEMS, GraphRanker, Texts
from rdrec_core.growth import Growth
from rdrec_core.item_graph import ItemGraph, Prior
from rdrec_core.item_texts import ItemTexts
from rdrec_core.ranked import UNKNOWN, Ranking, Signals, ranked
from rdrec_core.types import FloatArray, IntArray, ItemMask, RankRequest, ScoreRequest, Task

GRAPH_CANDIDATES = 50
"""How many of the graph's best items join the model's: 100 change 1 list in 700 (docs/experiments.md)."""


def _widened(request: RankRequest, also: IntArray) -> RankRequest:
    """The whole beam is considered, and these items besides."""
    return replace(request, n_items=max(request.n_items, request.beam_width), also=tuple(also.tolist()))


class Ranker(GraphRanker):
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

        candidate_width: how many candidates one top-N source holds at most, as trained. n_modelled: only the first
        items are known to the engine, None for all; the others live from the graph. The rest as for `GraphRanker`.
        """
        super().__init__(graph, weights, texts=texts, columns=columns, available=available)
        self.engine, self._topn_task, self._width = engine, topn_task, candidate_width
        self._graph_candidates = graph_candidates
        self._cut: WeakKeyDictionary[ItemMask, ItemMask] = WeakKeyDictionary()
        """What of a mask the engine can read."""
        self.n_modelled = n_modelled
        """How many items the engine knows, the first ones; None: all."""

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

    def _prior(self, request: RankRequest | ScoreRequest, task: Task, fusion: bool) -> Prior | None:
        if self.graph is None:
            return None
        words = self._words(request.wish) if fusion else None
        return self.graph.prior(request.history, self._weights_of(task).mix, words=words)

    def _can_fuse(self, prior: Prior | None) -> bool:
        """Words are weighed in even where no weights were fitted: nobody asks for them to see nothing change."""
        return prior is not None and (self.weights is not None or prior.steered)

    def _besides(self, request: RankRequest, prior: Prior | None, fuse: bool) -> IntArray:
        """Items that join those that the model's search finds.

        The graph's best, and where a list has limits so many items that it can be filled within them.
        """
        if prior is None or not (fuse or (request.spread is not None and request.spread.has_limits)):
            return NO_ITEMS if prior is None or request.among is None else self._unknown_to_model(request, prior)
        n = max(self._graph_candidates, request.n_items)
        if request.spread is None or not request.spread.has_limits:
            return prior.best(n, self._eligible_for(request))
        found = self._best_of_graph(request, prior)
        within = self._places(found, replace(request.spread, diversity=0.0), request.n_items)
        return np.unique(np.concatenate([found[: n if fuse else 0], found[within]]))

    def _unknown_to_model(self, request: RankRequest, prior: Prior) -> IntArray:
        """What fills the list of the model alone where a filter leaves too few of the items that it knows."""
        assert request.among is not None
        open_to_model = int(request.among.items[: self.n_modelled].sum()) - len(request.exclude)
        if self.n_modelled is None or open_to_model >= request.n_items:
            return NO_ITEMS
        found = prior.best(len(self._graph()), self._eligible_for(request))
        return found[~self._is_modelled(found)][: request.n_items]

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
