"""Ask one system all questions and note the ranks: the loop of every ranking evaluation.

Knows the protocol's questions and a ranking or scoring system, not where either comes from. `Progress` is called with
the number of questions answered, so that the screen, or nobody, may follow.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rdrec_core.ranking import Ranker
from rdrec_core.types import RankRequest, ScoreRequest
from training.evaluation.protocol import Questions
from training.learning.ranks import LIST_LENGTH, rank_by_score, rank_in_list

Progress = Callable[[int], None]
Ints = npt.NDArray[np.int64]
_QUESTIONS_AT_ONCE = 256
SCORES_BYTES = 1 << 29
"""What the scores of a block of questions may take, with the copies that ranking them makes."""
_SCORE_BYTES = 4 * 8
"""Of one score: the scorer's, ours, its negative and its place."""


class Scorer(Protocol):
    """A system that scores the whole catalogue: histories in, (B, N) out, higher is better."""

    def __call__(self, histories: list[Ints]) -> npt.NDArray[np.floating]:
        """Scores of all items for each history, oldest first."""
        ...


@dataclass(frozen=True)
class Answers:
    """What one system answered. ranks (Q,), infinite where missed; lists (Q, 10) item indices, -1 where shorter."""

    ranks: npt.NDArray[np.float64]
    lists: Ints
    seconds: float

    @property
    def users_per_s(self) -> float:
        """Questions answered a second."""
        return len(self.ranks) / self.seconds if self.seconds > 0 else 0.0


def rank_sequential(ranker: Ranker, asked: Questions, *, fusion: bool, beam_width: int, progress: Progress) -> Answers:
    """Full ranking through the product's own path; what the user already has is excluded, as in serving."""
    ranks = np.full(len(asked), np.inf)
    lists = np.full((len(asked), LIST_LENGTH), -1, dtype=np.int64)
    started = time.perf_counter()
    for batch in _batches(len(asked)):
        requests = []
        for q in batch:
            history = tuple(asked.history(q).tolist())
            requests.append(
                RankRequest(
                    asked.user(q),
                    history,
                    n_items=LIST_LENGTH,
                    exclude=tuple(asked.seen(q).tolist()),
                    beam_width=beam_width,
                )
            )
        for q, answer in zip(batch, ranker.recommend(requests, fusion=[fusion] * len(requests)), strict=True):
            lists[q, : len(answer.item_indices)] = answer.item_indices
            ranks[q] = rank_in_list(int(asked.targets[q]), answer.item_indices)
        progress(len(batch))
    return Answers(ranks, lists, time.perf_counter() - started)


def rank_candidates(
    ranker: Ranker, asked: Questions, candidates: list[Ints], *, fusion: bool, progress: Progress
) -> Answers:
    """Top-N: the candidates of each question, ordered by the product's own path."""
    ranks = np.full(len(asked), np.inf)
    lists = np.full((len(asked), LIST_LENGTH), -1, dtype=np.int64)
    started = time.perf_counter()
    for batch in _batches(len(asked)):
        requests = [
            ScoreRequest(asked.user(q), tuple(candidates[q].tolist()), history=tuple(asked.history(q).tolist()))
            for q in batch
        ]
        for q, answer in zip(batch, ranker.topn(requests, fusion=[fusion] * len(requests)), strict=True):
            best = answer.item_indices[:LIST_LENGTH]
            lists[q, : len(best)] = best
            ranks[q] = rank_in_list(int(asked.targets[q]), answer.item_indices)
        progress(len(batch))
    return Answers(ranks, lists, time.perf_counter() - started)


def rank_by_scorer(scorer: Scorer, asked: Questions, candidates: list[Ints] | None, progress: Progress) -> Answers:
    """Full ranking (candidates None; the history's items are out) or top-N by scores of the whole catalogue."""
    ranks = np.full(len(asked), np.inf)
    lists = np.full((len(asked), LIST_LENGTH), -1, dtype=np.int64)
    started = time.perf_counter()
    start, size = 0, 1  # how many items a scorer knows is seen from its first answer
    while start < len(asked):
        batch = list(range(start, min(len(asked), start + size)))
        start += len(batch)
        histories = [asked.history(q) for q in batch]
        scores = np.array(scorer(histories), dtype=np.float64)
        size = max(1, min(_QUESTIONS_AT_ONCE, SCORES_BYTES // (_SCORE_BYTES * scores.shape[1])))
        for row, q in enumerate(batch):
            if candidates is None:
                scores[row, asked.seen(q)] = -np.inf
            else:
                others = np.full(scores.shape[1], -np.inf)
                others[candidates[q]] = scores[row, candidates[q]]
                scores[row] = others
        ranks[batch] = rank_by_score(scores, asked.targets[batch])
        n = min(LIST_LENGTH, scores.shape[1])
        head = np.argpartition(-scores, n - 1, axis=1)[:, :n]
        order = np.argsort(-np.take_along_axis(scores, head, axis=1), axis=1, kind="stable")
        best = np.take_along_axis(head, order, axis=1)
        lists[batch, :n] = np.where(np.isneginf(np.take_along_axis(scores, best, axis=1)), -1, best)
        progress(len(batch))
    return Answers(ranks, lists, time.perf_counter() - started)


def _batches(n: int) -> list[list[int]]:
    return [list(range(start, min(n, start + _QUESTIONS_AT_ONCE))) for start in range(0, n, _QUESTIONS_AT_ONCE)]
