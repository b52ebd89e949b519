"""What may be asked of an engine, and why it may not be answered.

The engine's queue raises these, telemetry counts them, `problems.py` turns them into HTTP; none needs the others.
"""

from __future__ import annotations

from enum import StrEnum

from rdrec_core.errors import EngineError, RDRecError


class Kind(StrEnum):
    """What a job asks of the engine; only jobs of one kind share a batch."""

    RANK = "rank"
    SCORE = "score"
    TEXT = "text"
    CATALOGUE = "catalogue"
    """A change of what there is to rank; never queued, see `Batcher.tell`."""


class Line(StrEnum):
    """In which line a request stands: each has its own places, and its share of the engine where others wait too."""

    INTERACTIVE = "interactive"
    """Rankings that somebody waits for."""
    EXPLAIN = "explain"
    BATCH = "batch"
    """Parts of batches, and what a shadow computes."""
    OTHER = "other"
    """What asks no engine: histories, catalogue, pages."""


class QueueFullError(RDRecError):
    """No place, or no chance to be answered in time; nothing was queued."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineError(RDRecError):
    """The request's deadline passed before its answer was there."""


class EngineDownError(EngineError):
    """The engine is not running; it is being restarted."""


class UnknownImpressionError(RDRecError):
    """No list was answered under this id, or by somebody else."""


class OldImpressionError(RDRecError):
    """What became of the list is not asked any more."""


class RequestEndedEngineError(EngineError):
    """The engine ended while it computed this request alone; it is not computed again for a while."""


class CatalogueConflictError(RDRecError):
    """What was said of an item does not go with what the catalogue holds; `field` names it."""

    def __init__(self, message: str, *, field: str | None) -> None:
        super().__init__(message)
        self.field = field


class CatalogueFullError(RDRecError):
    """No place for a further item that the bundle does not know; nothing was kept."""
