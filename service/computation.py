"""What the engine thread computes: batches of rankings, scorings and texts, in indices.

Knows neither HTTP nor threads; `arm.py` puts it behind a queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rdrec_core.ranking import Ranker
from rdrec_core.types import RankRequest, ScoreRequest
from service.batch_queue import Kind


@dataclass(frozen=True, slots=True)
class RankWork:
    """Sequential: the best of the catalogue."""

    request: RankRequest
    fusion: bool


@dataclass(frozen=True, slots=True)
class ScoreWork:
    """Top-N: the best `n_items` of the candidates."""

    request: ScoreRequest
    n_items: int
    fusion: bool


class Computation:
    """A Runner: RankWork and ScoreWork become a Ranking each, TextRequest a string."""

    def __init__(self, ranker: Ranker) -> None:
        self._ranker = ranker

    def __call__(self, kind: Kind, works: Sequence[Any]) -> Sequence[Any]:
        """Compute a batch of works of one kind, in order."""
        match kind:
            case Kind.RANK:
                return self._ranker.recommend([w.request for w in works], fusion=[w.fusion for w in works])
            case Kind.SCORE:
                ranked = self._ranker.topn([w.request for w in works], fusion=[w.fusion for w in works])
                return [ranking.first(work.n_items) for ranking, work in zip(ranked, works, strict=True)]
            case Kind.TEXT:
                return self._ranker.engine.generate_text(works)
