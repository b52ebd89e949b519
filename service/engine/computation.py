"""What the engine computes: batches of rankings, scorings and texts, in indices.

Knows neither HTTP nor threads; `arm.py` puts it behind a queue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rdrec_core.bundle import Bundle
from rdrec_core.engines.base import Engine
from rdrec_core.errors import EngineError, RDRecError
from rdrec_core.item_graph import ItemGraph
from rdrec_core.ranking import Ranker
from rdrec_core.types import RankRequest, ScoreMode, ScoreRequest
from service.wire.work import Kind


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


def open_ranker(bundle: Bundle, open_engine: Callable[[], Engine]) -> Ranker:
    """The bundle's ranker, always with a graph: a bundle without one still knows what is popular.

    Raises RDRecError where the engine cannot be opened.
    """
    try:
        engine = open_engine()
    except RDRecError:
        raise
    except Exception as error:  # whatever a runtime raises for a graph or a device it does not like
        raise EngineError(f"{bundle.path}: the engine cannot be opened ({type(error).__name__})") from error
    ranker = Ranker.of_bundle(bundle, engine)
    if ranker.graph is None:
        counts = np.bincount(np.asarray(bundle.users.items), minlength=len(bundle.catalog)).astype(np.float32)
        ranker.graph = ItemGraph(counts / max(1.0, float(counts.sum())), {})
    return ranker


class Computation:
    """The engine's side of a Lane: RankWork and ScoreWork become a Ranking each, TextRequest a string."""

    def __init__(self, ranker: Ranker) -> None:
        self._ranker = ranker

    @property
    def score_mode(self) -> ScoreMode:
        """How the engine defines a log-probability."""
        return self._ranker.engine.score_mode

    @property
    def device(self) -> str:
        """Where the engine computes."""
        return self._ranker.engine.device

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
