"""Fit the weights of the fused ranking on validation users: what `rdrec fuse` runs.

Every user's candidates are looked up once, with the model's log-probability and each channel's strength; after that a
set of weights is tried in milliseconds, by coordinate search on NDCG@10. A channel that does not help ends at zero.
Knows the ranking's formula through `rdrec_core.ranking`, not files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rdrec_core.engines.base import Engine
from rdrec_core.fusion import TaskWeights
from rdrec_core.item_graph import TEXT_PREFIX, Eligible, ItemGraph, Mix
from rdrec_core.types import RankRequest, ScoreRequest, Task
from training.evaluation.measure import Progress
from training.evaluation.protocol import Questions
from training.learning.ranks import gains, hits, rank_by_score

Floats = npt.NDArray[np.float64]
CANDIDATES = 100
"""Of the graph's best items a user, looked at while fitting the sequential weights."""
_USERS_AT_ONCE = 256
_FACTORS = (0.0, 0.1, 0.3, 0.5, 0.7, 1.4, 2.0, 3.0, 10.0)
"""What a weight is multiplied by in one try."""
DENSE = ".dense"
"""How the names of a sentence encoder's channels end."""
_ROUNDS = 6
_NEGLIGIBLE = 1e-5
"""A gain in NDCG@10 below this does not move a weight: between equals the earlier, plainer one stays."""

START = TaskWeights(0.5, Mix(0.1, {"next": 1.0, "ridge": 0.5, "previous": 0.1, "reach": 0.3}))
"""Where the search starts: what did well on validation users of Beauty (docs/experiments.md)."""
START_TEXT = 1.0
"""Shared by the channels of text, which START does not name."""


@dataclass(frozen=True)
class Table:
    """Signals of C candidates for each of Q users; padding has log-probability -inf.

    target (Q,): the candidate that was bought, -1 where it is not among them. log_probs, popularity (Q, C);
    channels: name -> strengths (Q, C).
    """

    target: npt.NDArray[np.int64]
    log_probs: npt.NDArray[np.float32]
    popularity: npt.NDArray[np.float32]
    channels: Mapping[str, npt.NDArray[np.float32]]
    floor: float

    def ranks(self, weights: TaskWeights, *, model: float = 1.0) -> Floats:
        """Ranks of the targets under weights; ties share the middle, misses are infinite. model 0 leaves it out."""
        mixed = weights.mix.popularity * self.popularity.astype(np.float64) + self.floor
        for name, weight in weights.mix.channels.items():
            if weight > 0:
                part = weight * self.channels[name]
                if weights.mix.unbought != 1.0 and name.startswith(TEXT_PREFIX):
                    part = np.where(self.popularity > 0, part, weights.mix.unbought * part)
                mixed += part
        scores = weights.graph * np.log(mixed)
        scores = np.where(
            np.isneginf(self.log_probs), -np.inf, scores + model * np.nan_to_num(self.log_probs, neginf=0.0)
        )
        return np.where(self.target >= 0, rank_by_score(scores, self.target), np.inf)


def look_up(
    engine: Engine | None, graph: ItemGraph, asked: Questions, task: Task,
    candidates: list[npt.NDArray[np.int64]] | None, *, progress: Progress, beam_width: int = 20,
    start: TaskWeights | None = None, score_task: Task | None = None,
) -> Table:  # fmt: skip
    """Signals for every user. Sequential: the beam's items and the graph's best under `start`; top-N: the candidates.

    engine None looks up the graph's signals alone. score_task: under which source text top-N candidates are scored.
    """
    items: list[npt.NDArray[np.int64]] = []
    log_probs: list[npt.NDArray[np.float32]] = []
    mix = (start_of(graph) if start is None else known(start, graph)).mix
    for begin in range(0, len(asked), _USERS_AT_ONCE):
        batch = range(begin, min(len(asked), begin + _USERS_AT_ONCE))
        histories = [tuple(asked.history(q).tolist()) for q in batch]
        users = [asked.user(q) for q in batch]
        if candidates is not None:
            union = [candidates[q] for q in batch]
            task_of_source = score_task or Task.TOPN
        else:
            task_of_source = Task.SEQUENTIAL
            seen = [tuple(asked.seen(q).tolist()) for q in batch]
            union = [
                graph.prior(h, mix).best(CANDIDATES, Eligible(exclude=s)) for h, s in zip(histories, seen, strict=True)
            ]
            if engine is not None:
                found = engine.recommend(
                    [
                        RankRequest(u, h, n_items=beam_width, exclude=s, beam_width=beam_width)
                        for u, h, s in zip(users, histories, seen, strict=True)
                    ]
                )
                union = [np.union1d(a.item_indices, b) for a, b in zip(found, union, strict=True)]
        if engine is None:
            log_probs += [np.zeros(len(each), dtype=np.float32) for each in union]
        else:
            log_probs += engine.score(
                [
                    ScoreRequest(user, tuple(each.tolist()), history=history, task=task_of_source)
                    for user, each, history in zip(users, union, histories, strict=True)
                ]
            )
        items += union
        progress(len(batch))
    return _table(graph, asked, items, log_probs)


def _table(
    graph: ItemGraph, asked: Questions, items: list[npt.NDArray[np.int64]], log_probs: list[npt.NDArray[np.float32]]
) -> Table:
    width = max(map(len, items))
    shape = (len(asked), width)
    model = np.full(shape, -np.inf, dtype=np.float32)
    popularity = np.zeros(shape, dtype=np.float32)
    channels = {name: np.zeros(shape, dtype=np.float32) for name in graph.channels}
    target = np.full(len(asked), -1, dtype=np.int64)
    for q, own in enumerate(items):
        model[q, : len(own)] = log_probs[q]
        popularity[q, : len(own)] = graph.popularity[own]
        for name, strengths in channels.items():
            alone = graph.prior(asked.history(q), Mix(0.0, {name: 1.0}))
            strengths[q, : len(own)] = np.exp(alone.log_scores(own)) - graph.floor
        place = np.flatnonzero(own == asked.targets[q])
        target[q] = place[0] if len(place) else -1
    return Table(target, model, popularity, channels, graph.floor)


def known(weights: TaskWeights, graph: ItemGraph) -> TaskWeights:
    """Weights over exactly the graph's channels."""
    channels = {name: weights.mix.channels.get(name, 0.0) for name in graph.channels}
    return replace(weights, mix=replace(weights.mix, channels=channels))


def start_of(graph: ItemGraph) -> TaskWeights:
    """START over exactly the graph's channels, those of text sharing START_TEXT."""
    text = [name for name in graph.channels if name.startswith(TEXT_PREFIX)]
    channels = {**START.mix.channels, **{name: START_TEXT / len(text) for name in text}}
    return known(replace(START, mix=replace(START.mix, channels=channels)), graph)


def quality(ranks: Floats) -> float:
    """What is maximised: NDCG@10, with a little of HR@10 to tell weights apart that NDCG@10 does not."""
    return float(gains(ranks, 10).mean() + 0.05 * hits(ranks, 10).mean())


@dataclass(frozen=True)
class Fit:
    """Weights and the quality of each step that led to them."""

    weights: TaskWeights
    steps: tuple[tuple[str, float], ...]


def fit(table: Table, graph: ItemGraph, *, model: float = 1.0, also: Sequence[TaskWeights] = ()) -> Fit:
    """The best of coordinate searches: one weight at a time, multiplied by each factor, until a round changes nothing.

    Deterministic. model 0 fits the graph alone. A search ends where no single weight helps, so there are several:
    from START, where there are channels of a sentence encoder also without them, and from each of `also`.
    """
    start = start_of(graph)
    sparse = {name: 0.0 if name.endswith(DENSE) else value for name, value in start.mix.channels.items()}
    starts = [start, *also]
    if sparse != start.mix.channels:
        starts.append(replace(start, mix=replace(start.mix, channels=sparse)))
    return max((_search(table, graph, each, model) for each in starts), key=lambda found: found.steps[-1][1])


def _search(table: Table, graph: ItemGraph, current: TaskWeights, model: float) -> Fit:
    best = quality(table.ranks(current, model=model))
    steps = [("start", best)]
    names = ["popularity", *sorted(graph.channels)] if model == 0 else ["graph", "popularity", *sorted(graph.channels)]
    for _ in range(_ROUNDS):
        moved = False
        for name in names:
            tried = [(quality(table.ranks(option, model=model)), option) for option in _options(current, name)]
            top, option = max(tried, key=lambda pair: pair[0])
            if top > best + _NEGLIGIBLE:
                current, best, moved = option, top, True
                steps.append((name, best))
        if not moved:
            break
    return Fit(_scaled(current), tuple(steps))


def _options(current: TaskWeights, name: str) -> list[TaskWeights]:
    def values(value: float) -> list[float]:
        # a weight at zero would stay there for ever, so it is tried at some share of the loudest
        return [value * f for f in _FACTORS] if value > 0 else [0.01, 0.1, 0.3]

    if name == "graph":
        return [replace(current, graph=value) for value in values(current.graph)]
    mix = current.mix
    if name == "popularity":
        return [replace(current, mix=replace(mix, popularity=value)) for value in values(mix.popularity)]
    return [
        replace(current, mix=replace(mix, channels={**mix.channels, name: value}))
        for value in values(mix.channels[name])
    ]


def _scaled(weights: TaskWeights) -> TaskWeights:
    """The same ranking with mix weights that add up to one, rounded to what the fit can tell apart."""
    total = sum(weights.mix.channels.values()) + weights.mix.popularity
    total = total if total > 0 else 1.0
    channels = {name: round(value / total, 6) for name, value in weights.mix.channels.items()}
    mix = Mix(round(weights.mix.popularity / total, 6), channels, weights.mix.unbought)
    return TaskWeights(round(weights.graph, 6), mix)
