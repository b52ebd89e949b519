"""The product's ranking: what the model, purchases and texts say, fused into one list with all three signals shown.

    log score = model log-probability + weight x log(popularity + channels of purchases + channels of texts + words)

over the union of the items that the model's search found and the graph's best, which the model scores exactly whether
its search reached them or not. Used by evaluation, `rdrec batch` and the service alike, so that what is measured is
what is served. Words that a user types (`Wish`) are one more channel of texts, which all items that hold them are
reached by. Knows engines and texts by their protocols, and indices only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rdrec_core.bundle import Bundle
from rdrec_core.engines.base import Engine
from rdrec_core.errors import BundleError
from rdrec_core.item_graph import Eligible, Floats, ItemGraph, Mix, Prior
from rdrec_core.item_texts import ItemTexts
from rdrec_core.ranked import UNKNOWN, Ranking, Signals, log_or_nan, ranked
from rdrec_core.types import FloatArray, IntArray, RankRequest, ScoreRequest, Task, Wish

GRAPH_CANDIDATES = 50
"""How many of the graph's best items join the model's: 100 change 1 list in 700 (docs/experiments.md)."""

WORDS_WEIGHT = 1.0
"""Of words that a user types, where none was fitted: as loud as everything that the history says."""
UNFITTED = 0.5
"""The graph's weight where words are asked for and none was fitted."""

_SEPARATOR = "."
_NO_ITEMS = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class TaskWeights:
    """Fusion for one ranking task: `graph` weights the graph's log score, `mix` says what that score is made of."""

    graph: float
    mix: Mix


@dataclass(frozen=True)
class FusionWeights:
    """What `rdrec fuse` fits, one set a ranking task, and how loud words that a user types are in both."""

    sequential: TaskWeights
    topn: TaskWeights
    words: float = WORDS_WEIGHT

    def to_manifest(self) -> dict[str, float]:
        """Flat form for `Description.fusion`: `<task>.graph`, `.popularity`, `.channel.<name>`, and `words.weight`."""
        out = {"words.weight": self.words}
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
        known = [key for key in flat if key.split(_SEPARATOR)[0] in ("sequential", "topn", "words", "build")]
        if len(known) != len(flat):
            raise BundleError(f"fusion weights hold unknown names: {sorted(set(flat) - set(known))}")
        return cls(one("sequential"), one("topn"), flat.get("words.weight", WORDS_WEIGHT))


class Texts(Protocol):
    """What is written about the items; `item_texts.ItemTexts`."""

    def affinity(self, text: str) -> FloatArray | None:
        """How well each item suits words that a user typed, (N,) from 0 to 1; None where no word of them is known."""
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
        available: npt.NDArray[np.bool_] | None = None,
        topn_task: Task = Task.TOPN,
        candidate_width: int = 100,
        graph_candidates: int = GRAPH_CANDIDATES,
    ) -> None:
        """weights None ranks by the model alone; the graph then still gives candidates, evidence and cold answers.

        texts None: no wish moves anything. candidate_width: how many candidates one top-N source holds at most, as
        trained.
        """
        self.engine, self.graph, self.weights, self._texts = engine, graph, weights, texts
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
            engine, ItemGraph.from_arrays(arrays) if arrays else None, weights, texts=ItemTexts.of_bundle(bundle),
            available=bundle.catalog.available, topn_task=manifest.topn_task, candidate_width=manifest.candidate_width,
        )  # fmt: skip

    def set_available(self, available: npt.NDArray[np.bool_]) -> None:
        """Replace which items may be answered, (N,) by item index; tell the engine as well."""
        self._available = available

    def recommend(self, requests: Sequence[RankRequest], *, fusion: Sequence[bool] | None = None) -> list[Ranking]:
        """The best min(n_items, eligible) items of each request. fusion[i] False ranks request i by the model alone.

        A wish whose words are known is weighed in even there where no weights were fitted.
        """
        at_once = [self.at_once(r) for r in requests]
        asked = [i for i, answer in enumerate(at_once) if answer is None]
        wanted = [True] * len(requests) if fusion is None else fusion
        priors = {i: self._prior(requests[i], Task.SEQUENTIAL, wanted[i]) for i in asked}
        fuse = {i: wanted[i] and self._can_fuse(priors[i]) for i in asked}
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
            answers.append(self._fused(items, log_probs, priors[i], Task.SEQUENTIAL, fuse[i]).first(request.n_items))
        return answers

    def topn(self, requests: Sequence[ScoreRequest], *, fusion: Sequence[bool] | None = None) -> list[Ranking]:
        """All candidates of each request, best first. The request's `task` is replaced by the one that was trained.

        More candidates than a source holds are scored in chunks of equal size.
        """
        at_once = [
            self.at_once(RankRequest(r.user_index, r.history, len(r.candidates), include=r.candidates, wish=r.wish))
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
            wanted = fusion is None or fusion[i]
            prior = self._prior(request, Task.TOPN, wanted)
            fuse = wanted and self._can_fuse(prior)
            answers.append(self._fused(items, np.concatenate(parts[i]), prior, Task.TOPN, fuse))
        return answers

    def candidates(
        self, history: Sequence[int], n: int, *, exclude: Sequence[int] = (), include: Sequence[int] | None = None,
        wish: Wish | None = None,
    ) -> IntArray:  # fmt: skip
        """What `/recommend/topn` scores where the caller names no candidates: the graph's best, then popular items."""
        prior = self._graph().prior(history, self._weights_of(Task.TOPN).mix, words=self._words(wish))
        return prior.best(n, Eligible(exclude, include, self._available))

    def at_once(self, request: RankRequest) -> Ranking | None:
        """The answer that needs no engine, from any thread: the popular items for somebody of whom nothing is known.

        None for everybody else. The items considered are those of `include`, else the catalogue, so that their scores
        are shares of all purchases. Words that are wished for are weighed against popularity.
        """
        if self.graph is None or request.user_index is not None or request.history:
            return None
        eligible = Eligible(request.exclude, request.include, self._available)
        words = self._words(request.wish)
        mix = Mix(popularity=1.0) if words is None else self._weights_of(Task.SEQUENTIAL).mix
        prior = self.graph.prior((), mix, words=words)
        items = prior.best(request.n_items, eligible)
        total = prior.log_total() if request.include is None else _log_sum(prior, np.unique(request.include))
        signals = Signals(UNKNOWN, *prior.signals(items))
        return ranked(items, prior.log_scores(items), signals, fused=True, steered=prior.steered, total=total)

    def similar(
        self, items: Sequence[int], n: int, *, exclude: Sequence[int] = (), include: Sequence[int] | None = None
    ) -> Ranking:
        """At most n items that the channels, mixed as fitted, hold to be like these, from any thread.

        Fewer where the channels reach fewer: an item that only many people buy is like nothing. The items asked for
        count the same each, and are never among the answers.
        """
        prior = self._graph().prior(tuple(dict.fromkeys(items)), self._weights_of(Task.SEQUENTIAL).mix, alike=True)
        found = prior.reached if include is None else np.intersect1d(prior.reached, np.asarray(include, dtype=np.int64))
        found = Eligible((*exclude, *items), available=self._available).keep(found)
        bought, texts = prior.parts(found)
        signals = Signals(UNKNOWN, log_or_nan(bought), log_or_nan(texts))
        return ranked(found, np.log(bought + texts), signals, fused=True).first(n)

    def without_model(self, request: RankRequest, task: Task = Task.SEQUENTIAL) -> Ranking:
        """What graph and popularity say alone, from any thread: the answer while the engine is away."""
        if (answer := self.at_once(request)) is not None:
            return answer
        prior = self._graph().prior(request.history, self._weights_of(task).mix, words=self._words(request.wish))
        items = prior.best(request.n_items, Eligible(request.exclude, request.include, self._available))
        signals = Signals(UNKNOWN, *prior.signals(items))
        return ranked(items, prior.log_scores(items), signals, fused=True, steered=prior.steered)

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
        if wish is None or self._texts is None:
            return None
        weight = wish.weight
        if weight is None:
            weight = WORDS_WEIGHT if self.weights is None else self.weights.words
        affinity = self._texts.affinity(wish.text) if weight > 0 else None
        if affinity is None:
            return None
        items = np.flatnonzero(affinity > 0)
        return items, weight * affinity[items].astype(np.float64)

    def _best_of_graph(self, request: RankRequest, prior: Prior | None) -> IntArray:
        assert prior is not None
        eligible = Eligible(request.exclude, request.include, self._available)
        return prior.best(max(self._graph_candidates, request.n_items), eligible)

    def _fused(self, items: IntArray, log_probs: FloatArray, prior: Prior | None, task: Task, fuse: bool) -> Ranking:
        scores, signals = log_probs.astype(np.float64), Signals(log_probs)
        if prior is not None:
            signals = Signals(log_probs, *prior.signals(items))
        if fuse:
            assert prior is not None
            scores = scores + self._weights_of(task).graph * prior.log_scores(items)
        return ranked(items, scores, signals, fused=fuse, steered=fuse and prior is not None and prior.steered)


def _log_sum(prior: Prior, items: IntArray) -> float:
    return float(np.logaddexp.reduce(prior.log_scores(items)))
