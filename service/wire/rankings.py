"""Requests for lists of items, and the list that answers them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StrictBool, StrictStr, StringConstraints

from rdrec_core.types import ScoreMode
from service.wire.base import RequestBody
from service.wire.fields import (
    DEGRADED,
    IGNORED,
    MAX_CANDIDATES,
    MAX_HISTORY_SENT,
    UNAVAILABLE,
    ArmChoice,
    Diversity,
    Exclude,
    FoundBy,
    HistorySource,
    Include,
    ItemId,
    PerBrand,
    PerCategory,
    Prefer,
    PreferWeight,
    Strict,
    UpTo100,
    UserId,
    WhereObject,
)

MAX_SIMILAR_TO = 100
WINDOW = "^(([1-9]|[1-3][0-9]|4[0-8])h|([1-9]|[1-8][0-9]|90)d)$"


class ListRequest(RequestBody):
    """What every list may be asked with."""

    n_items: UpTo100 = 10
    where: WhereObject = None
    strict: Strict = False
    arm: ArmChoice = None


class _SpreadRequest(ListRequest):
    diversity: Diversity = 0.0
    max_per_brand: PerBrand = None
    max_per_category: PerCategory = None


class _UserRequest(_SpreadRequest):
    user_id: UserId | None = None
    history: Annotated[list[ItemId], Field(max_length=MAX_HISTORY_SENT)] | None = Field(
        default=None, description="Item ids, oldest first; replaces what the service knows of the user."
    )
    prefer: Prefer = None
    prefer_weight: PreferWeight = None
    fusion: StrictBool = Field(default=True, description="False ranks by the model alone.")


class SequentialRequest(_UserRequest):
    """What will this user want next?"""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": "u0007", "n_items": 5}, {"history": ["i0001", "i0042"]}]}
    )

    exclude_seen: StrictBool = Field(default=True, description="Leave out the items of the history.")
    include: Include = None
    exclude: Exclude = None
    beam_width: UpTo100 | None = Field(
        default=None, description="Beams of the search (strategy `beam`); 20 unless given."
    )


class TopNRequest(_UserRequest):
    """Which of these candidates suit this user best?"""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": "u0007", "candidates": ["i0001", "i0042", "i0100"], "n_items": 2}]}
    )

    candidates: Annotated[list[ItemId], Field(min_length=1, max_length=MAX_CANDIDATES)] | None = Field(
        default=None,
        description="Drawn by co-purchase and popularity where not given, without the items of the history.",
    )


class SimilarRequest(_SpreadRequest):
    """What is like these items? Nobody needs to ask."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"item_ids": ["i0042"], "n_items": 5}]})

    item_ids: Annotated[list[ItemId], Field(min_length=1, max_length=MAX_SIMILAR_TO)]
    include: Include = None
    exclude: Exclude = None


class PopularRequest(ListRequest):
    """What sells now? Nobody needs to ask."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"window": "7d", "n_items": 5}]})

    window: Annotated[StrictStr, StringConstraints(pattern=WINDOW)] = Field(
        default="7d", description="Hours, 1h to 48h, or days, 1d to 90d; an event counts half after half of it."
    )
    exclude: Exclude = None


class LatestRequest(ListRequest):
    """What is new? Nobody needs to ask."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"n_items": 5}]})

    exclude: Exclude = None


# The answers of the hot path are plain dataclasses: made and written several times faster than pydantic models.


@dataclass(slots=True)
class Signals:
    """What the score was made of."""

    model: Annotated[float | None, Field(description="Log-probability of the item's label; null where not asked for.")]
    graph: Annotated[float | None, Field(description="Log of what purchases say: who bought what after what.")]
    text: Annotated[float | None, Field(description="Log of what texts say; null where they say nothing of the item.")]


@dataclass(slots=True)
class RecommendedItem:
    """One place of the list."""

    item_id: str
    title: str | None
    rank: int
    score: Annotated[
        float, Field(ge=0, le=1, description="The item's share of the probability of all items that were considered.")
    ]
    signals: Signals


@dataclass(slots=True)
class RankingAnswer:
    """Items, best first."""

    model_version: str
    history_source: HistorySource
    degraded: Annotated[bool, Field(description=DEGRADED)]
    ignored_items: Annotated[list[str], Field(description=IGNORED)]
    unavailable_items: Annotated[list[str], Field(description=UNAVAILABLE)]
    items: list[RecommendedItem]
    score_mode: ScoreMode
    strategy: Annotated[FoundBy, Field(description="How the items were found; `popularity` if nothing is known.")]
    steered: Annotated[bool, Field(description="True where the words of `prefer` had a say.")]
    arm: Annotated[Literal["a", "b"], Field(description="Which of two models answered; `a` where there is one.")]
    impression_id: Annotated[str, Field(description="By which `POST /feedback` says what became of this list.")] = ""
