"""The product's ranking: what the model, purchases and texts say, fused into one list with all three signals shown.

    log score = model log-probability + weight x log(popularity + channels of purchases + channels of texts)

over the union of the items that the model's search found and the graph's best, which the model scores exactly whether
its search reached them or not. Used by evaluation, `rdrec batch` and the service alike, so that what is measured is
what is served. Knows engines by their protocol, and indices only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rdrec_core.bundle import Bundle
from rdrec_core.engines.base import Engine
from rdrec_core.errors import BundleError
from rdrec_core.item_graph import Eligible, Floats, ItemGraph, Mix, Prior
from rdrec_core.ranked import UNKNOWN, Ranking, Signals, ranked
from rdrec_core.types import FloatArray, IntArray, RankRequest, ScoreRequest, Task

GRAPH_CANDIDATES = 50
"""How many of the graph's best items join the model's: 100 change 1 list in 700 (docs/experiments.md)."""

_SEPARATOR = "."
_NO_ITEMS = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class TaskWeights:
    """Fusion for one ranking task: `graph` weights the graph's log score, `mix` says what that score is made of."""

    graph: float
    mix: Mix


@dataclass(frozen=True)
class FusionWeights:
    """What `rdrec fuse` fits, one set a ranking task."""

    sequential: TaskWeights
    topn: TaskWeights

    def to_manifest(self) -> dict[str, float]:
        """Flat form for `Description.fusion`: `<task>.graph`, `<task>.popularity`, `<task>.channel.<name>`."""
        out = {}
        for task in ("sequential", "topn"):
            weights: TaskWeights = getattr(self, task)
            out[f"{task}.graph"] = weights.graph
            out[f"{task}.popularity"] = weights.mix.popularity
            out |= {f"{task}.channel.{name}": value for name, value in weights.mix.channels.items()}
        return out

    @property
    def channels(self) -> frozenset[str]:
        """Names of the channels that have weight in either task."""
        mixes = (self.sequential.mix.channels, self.topn.mix.channels)
        return frozenset(name for mix in mixes for name, weight in mix.items() if weight > 0)

    @classmethod
    def from_manifest(cls, flat: Mapping[str, float]) -> FusionWeights:
        """Read what `to_manifest` wrote. Raises BundleError naming what is missing or unknown."""

        def one(task: str) -> TaskWeights:
            prefix = f"{task}.channel."
            try:
                mix = Mix(
                    flat[f"{task}.popularity"], {k[len(prefix) :]: v for k, v in flat.items() if k.startswith(prefix)}
                )
                return TaskWeights(flat[f"{task}.graph"], mix)
            except KeyError as error:
                raise BundleError(f"fusion weights lack {error.args[0]!r}") from error

        # `build.*` says how the graph was made, which is the builder's matter
        known = [key for key in flat if key.split(_SEPARATOR)[0] in ("sequential", "topn", "build")]
        if len(known) != len(flat):
            raise BundleError(f"fusion weights hold unknown names: {sorted(set(flat) - set(known))}")
        return cls(one("sequential"), one("topn"))


@dataclass(frozen=True, slots=True)
class Evidence:
    """An item of the user's history that speaks for another; share: its part of all the history's support, 0 to 1."""

    item_index: int
    share: float


def _widened(request: RankRequest, also: IntArray) -> RankRequest:
    """The whole beam is considered, and these items besides."""
    return replace(request, n_items=max(request.n_items, request.beam_width), also=tuple(also.tolist()))


def _log_popularity(graph: ItemGraph, items: IntArray) -> Floats:
    return np.log(graph.popularity[items].astype(np.float64) + graph.floor)


class Ranker:
    """Fused lists for batches of requests. As thread-safe as its engine: one thread calls it at a time."""

    def __init__(
        self,
        engine: Engine,
        graph: ItemGraph | None,
        weights: FusionWeights | None,
        *,
        available: npt.NDArray[np.bool_] | None = None,
        topn_task: Task = Task.TOPN,
        candidate_width: int = 100,
        graph_candidates: int = GRAPH_CANDIDATES,
    ) -> None:
        """weights None ranks by the model alone; the graph then still gives candidates, evidence and cold answers.

        candidate_width: how many candidates one top-N source holds at most, as trained.
        """
        self.engine, self.graph, self.weights = engine, graph, weights
        self._available, self._topn_task, self._width = available, topn_task, candidate_width
        self._graph_candidates = graph_candidates
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
            engine, ItemGraph.from_arrays(arrays) if arrays else None, weights,
            available=bundle.catalog.available, topn_task=manifest.topn_task, candidate_width=manifest.candidate_width,
        )  # fmt: skip

    def set_available(self, available: npt.NDArray[np.bool_]) -> None:
        """Replace which items may be answered, (N,) by item index; tell the engine as well."""
        self._available = available

    @property
    def can_fuse(self) -> bool:
        """Whether there are both a graph and fitted weights."""
        return self.graph is not None and self.weights is not None

    def recommend(self, requests: Sequence[RankRequest], *, fusion: Sequence[bool] | None = None) -> list[Ranking]:
        """The best min(n_items, eligible) items of each request. fusion[i] False ranks request i by the model alone."""
        at_once = [self.at_once(r) for r in requests]
        asked = [i for i, answer in enumerate(at_once) if answer is None]
        fuse = [self.can_fuse and (fusion is None or fusion[i]) for i in range(len(requests))]
        priors = {i: self._prior(requests[i].history, Task.SEQUENTIAL) for i in asked if self.graph is not None}
        also = {i: self._best_of_graph(requests[i], priors[i]) if fuse[i] else _NO_ITEMS for i in asked}
        found = self.engine.recommend([_widened(requests[i], also[i]) for i in asked])
        beams = dict(zip(asked, found, strict=True))
        answers = []
        for i, request in enumerate(requests):
            if (answer := at_once[i]) is not None:
                answers.append(answer)
                continue
            items, log_probs = beams[i].item_indices, beams[i].log_probs
            if fuse[i]:
                new = ~np.isin(also[i], items)
                items = np.concatenate([items, also[i][new]])
                log_probs = np.concatenate([log_probs, beams[i].also_log_probs[new]])
            answers.append(
                self._fused(items, log_probs, priors.get(i), Task.SEQUENTIAL, fuse[i]).first(request.n_items)
            )
        return answers

    def topn(self, requests: Sequence[ScoreRequest], *, fusion: Sequence[bool] | None = None) -> list[Ranking]:
        """All candidates of each request, best first. The request's `task` is replaced by the one that was trained.

        More candidates than a source holds are scored in chunks of equal size.
        """
        at_once = [
            self.at_once(RankRequest(r.user_index, r.history, len(r.candidates), include=r.candidates))
            for r in requests
        ]  # fmt: skip
        chunks: list[ScoreRequest] = []
        owners: list[int] = []
        for i, request in enumerate(requests):
            if at_once[i] is None:
                n_chunks = -(-len(request.candidates) // self._width)
                for part in np.array_split(np.asarray(request.candidates, dtype=np.int64), n_chunks):
                    chunks.append(replace(request, candidates=tuple(part.tolist()), task=self._topn_task))
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
            prior = self._prior(request.history, Task.TOPN) if self.graph is not None else None
            fuse = self.can_fuse and (fusion is None or fusion[i])
            answers.append(self._fused(items, np.concatenate(parts[i]), prior, Task.TOPN, fuse))
        return answers

    def candidates(
        self, history: Sequence[int], n: int, *, exclude: Sequence[int] = (), include: Sequence[int] | None = None
    ) -> IntArray:
        """What `/recommend/topn` scores where the caller names no candidates: the graph's best, then popular items."""
        return self._prior(history, Task.TOPN).best(n, Eligible(exclude, include, self._available))

    def at_once(self, request: RankRequest) -> Ranking | None:
        """The answer that needs no engine, from any thread: the popular items for somebody of whom nothing is known.

        None for everybody else. The items considered are those of `include`, else the catalogue, so that their scores
        are shares of all purchases.
        """
        if self.graph is None or request.user_index is not None or request.history:
            return None
        graph = self.graph
        items = graph.most_popular(request.n_items, Eligible(request.exclude, request.include, self._available))
        scores = _log_popularity(graph, items)
        total = math.log1p(len(graph) * graph.floor)
        if request.include is not None:
            total = float(np.logaddexp.reduce(_log_popularity(graph, np.unique(request.include))))
        return ranked(items, scores, Signals(graph=scores), fused=True, total=total)

    def without_model(self, request: RankRequest, task: Task = Task.SEQUENTIAL) -> Ranking:
        """What graph and popularity say alone, from any thread: the answer while the engine is away."""
        if (answer := self.at_once(request)) is not None:
            return answer
        prior = self._prior(request.history, task)
        items = prior.best(request.n_items, Eligible(request.exclude, request.include, self._available))
        return ranked(items, prior.log_scores(items), Signals(UNKNOWN, *prior.signals(items)), fused=True)

    def evidence(self, history: Sequence[int], item: int, n: int = 3) -> list[Evidence]:
        """The at most n items of the history that speak most for `item`, strongest first; empty where none does."""
        others = [h for h in history if h != item]
        support = self._graph().contributions(others, item, self._mix(Task.SEQUENTIAL))
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

    def _mix(self, task: Task) -> Mix:
        if self.weights is None:
            return self._graph().default_mix()
        return self._task_weights(task).mix

    def _task_weights(self, task: Task) -> TaskWeights:
        assert self.weights is not None
        return self.weights.topn if task is Task.TOPN else self.weights.sequential

    def _prior(self, history: Sequence[int], task: Task) -> Prior:
        return self._graph().prior(history, self._mix(task))

    def _best_of_graph(self, request: RankRequest, prior: Prior) -> IntArray:
        eligible = Eligible(request.exclude, request.include, self._available)
        return prior.best(max(self._graph_candidates, request.n_items), eligible)

    def _fused(self, items: IntArray, log_probs: FloatArray, prior: Prior | None, task: Task, fuse: bool) -> Ranking:
        scores, signals = log_probs.astype(np.float64), Signals(log_probs)
        if prior is not None:
            signals = Signals(log_probs, *prior.signals(items))
        if fuse:
            assert prior is not None
            scores = scores + self._task_weights(task).graph * prior.log_scores(items)
        return ranked(items, scores, signals, fused=fuse)
