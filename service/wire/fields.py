"""Fields that several bodies share, with their limits. External ids only; knows no model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, StrictStr, StringConstraints
from pydantic_core import PydanticCustomError

from rdrec_core.types import Strategy

MAX_HISTORY_SENT = 1000
MAX_CANDIDATES = 1000
MAX_PREFER = 500
MAX_PREFER_WEIGHT = 100.0
LATEST_S = 1e11
STRICT = "True answers 404 for an item that the model does not know, instead of leaving it out."
IGNORED = "Items of the request that the model does not know; they were left out."
UNAVAILABLE = "Candidates of the request that are not available; they were left out."
DEGRADED = (
    "True when the history store was away, so that an older history was used, or the engine, so that no model was."
)


def trimmed(value: str) -> str:
    """Without the blanks around it, as `rdrec prepare` writes ids into a bundle; blanks alone stay what they are."""
    return value.strip() or value


ItemId = Annotated[StrictStr, StringConstraints(min_length=1, max_length=128), AfterValidator(trimmed)]
UserId = Annotated[StrictStr, StringConstraints(min_length=1, max_length=128), AfterValidator(trimmed)]


def only_numbers(value: object) -> object:
    """JSON Schema's integers: 10 and 10.0, but neither "10" nor true."""
    if isinstance(value, str | bool):
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return value


def _no_milliseconds(value: object) -> object:
    """A time of the year 5138 is one that JavaScript or pandas counted in smaller units."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value > LATEST_S:
        raise PydanticCustomError(
            "timestamp_unit", "Input should be seconds since 1970; this looks like milliseconds or finer: divide it"
        )
    return value


Seconds = Annotated[
    float, Field(ge=0, le=LATEST_S, allow_inf_nan=False, strict=True), BeforeValidator(_no_milliseconds)
]

UpTo100 = Annotated[int, Field(ge=1, le=100), BeforeValidator(only_numbers)]

ArmChoice = Annotated[
    Literal["a", "b"] | None,
    Field(description="Who answers where two models are served; as configured unless given. `GET /v1/model` has both."),
]

Strict = Annotated[StrictBool, Field(description=STRICT)]
FoundBy = Strategy | Literal["popularity", "candidates", "words", "similar", "graph", "events", "latest"]
Prefer = Annotated[
    Annotated[StrictStr, StringConstraints(max_length=MAX_PREFER)] | None,
    Field(
        description="What is wanted, in words: items whose texts hold them come further up, and those that nothing "
        "else names may enter the list. Words that no item's text holds change nothing (`steered` false)."
    ),
]

PreferWeight = Annotated[
    Annotated[float, Field(ge=0, le=MAX_PREFER_WEIGHT, allow_inf_nan=False, strict=True)] | None,
    Field(description="How loud the words are; 1 is as loud as all that the history says. As fitted unless given."),
]

Include = Annotated[
    Annotated[list[ItemId], Field(min_length=1, max_length=MAX_CANDIDATES)] | None,
    Field(description="Only these items may be answered."),
]

Exclude = Annotated[
    Annotated[list[ItemId], Field(max_length=MAX_CANDIDATES)] | None,
    Field(description="These items may not be answered."),
]

WhereObject = Annotated[
    Annotated[dict[str, Any], Field(max_length=100)] | None,
    Field(
        description="Only items that are like this may be answered: fields of the catalogue, each with a value or a "
        "condition (`eq`, `in`, `lt`, `lte`, `gt`, `gte`, `any`, `all`), and `not` with what they must not be.",
        examples=[{"category": "Board Games", "price": {"lte": 25}, "not": {"brand": {"in": ["Acme"]}}}],
    ),
]
Diversity = Annotated[
    Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)],
    Field(description="How much being unlike the items above counts beside the rank, in texts and categories; 0: not."),
]
PerBrand = Annotated[UpTo100 | None, Field(description="Items of one brand in the list, at most.")]
PerCategory = Annotated[
    UpTo100 | None,
    Field(description="Items of one category in the list, at most; an item's last category counts, its narrowest."),
]
EventKind = Annotated[
    StrictStr,
    StringConstraints(min_length=1, max_length=32),
    Field(description="What happened; the kinds and what each counts are settings (`RDREC_EVENTS`)."),
]
HistorySource = Literal["request", "redis", "memory", "bundle", "none"]
