"""What the engine computes: batches of rankings, scorings and texts, in indices.

Knows neither HTTP nor threads; `arm.py` puts it behind a queue.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from rdrec_core.bundle import Bundle
from rdrec_core.engines.base import Engine
from rdrec_core.errors import EngineError, InputError, RDRecError
from rdrec_core.filters import ItemColumns, ItemValues
from rdrec_core.growth import Growth
from rdrec_core.item_graph import ItemGraph
from rdrec_core.ranking import Ranker
from rdrec_core.types import RankRequest, ScoreMode, ScoreRequest
from service.telemetry.observability import describe_error
from service.wire.work import Kind

log = logging.getLogger("rdrec.engine")


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


@dataclass(frozen=True, slots=True)
class CatalogueChange:
    """New items behind the last, then what filters can ask of items, by index, and which may be answered, (N,).

    available None: as before, and the new ones.
    """

    growth: Growth | None = None
    values: Mapping[int, ItemValues] = field(default_factory=dict)
    available: npt.NDArray[np.bool_] | None = None


def take_values(columns: ItemColumns, values: Mapping[int, ItemValues]) -> None:
    """Write what filters can ask; of an item whose attributes are of other types than this bundle's, without them."""
    for index, item in values.items():
        try:
            columns.check_put(item)
        except InputError as error:
            log.warning("attributes_left_out", extra=describe_error(error))
            item = replace(item, attributes={})
        columns.put(
            index, brand=item.brand, categories=item.categories, arrived=item.arrived, attributes=item.attributes
        )  # fmt: skip


def open_ranker(bundle: Bundle, open_engine: Callable[[], Engine], *, new_words: float | None = None) -> Ranker:
    """The bundle's ranker, always with a graph: a bundle without one still knows what is popular.

    new_words: `Mix.unbought` in place of the fitted one, None for that.
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
    if new_words is not None and ranker.weights is not None:
        ranker.weights = ranker.weights.with_unbought(new_words)
    return ranker


class Computation:
    """The engine's side of a Lane: RankWork and ScoreWork become a Ranking each, TextRequest a string.

    A CatalogueChange becomes nothing; what is computed after it knows of it.
    """

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

    @property
    def can_grow(self) -> bool:
        """Whether the engine takes further items."""
        return self._ranker.engine.can_grow

    def _change(self, change: CatalogueChange) -> None:
        engine = self._ranker.engine
        if change.growth is not None:
            if change.growth.rows is not None:
                engine.grow(change.growth.rows)
            self._ranker = self._ranker.grown(change.growth)
        take_values(self._ranker.columns, change.values)
        if change.available is not None:
            self._ranker = self._ranker.with_available(change.available)
            engine.set_available(change.available[: self._ranker.n_modelled])

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
            case Kind.CATALOGUE:
                for change in works:
                    self._change(change)
                return [None] * len(works)
