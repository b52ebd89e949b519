"""What goes over the wire, with limits and examples. External ids only; knows no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictStr,
    StringConstraints,
)
from pydantic_core import PydanticCustomError

from rdrec_core.types import ScoreMode, Strategy

MAX_HISTORY_SENT = 1000
MAX_CANDIDATES = 1000
MAX_BATCH = 256
MAX_INTERACTIONS = 1000
MAX_PREFER = 500
MAX_PREFER_WEIGHT = 100.0
MAX_SIMILAR_TO = 100
LATEST_S = 1e11


def _trimmed(value: str) -> str:
    """Without the blanks around it, as `rdrec prepare` writes ids into a bundle; blanks alone stay what they are."""
    return value.strip() or value


ItemId = Annotated[StrictStr, StringConstraints(min_length=1, max_length=128), AfterValidator(_trimmed)]
UserId = Annotated[StrictStr, StringConstraints(min_length=1, max_length=128), AfterValidator(_trimmed)]


def _only_numbers(value: object) -> object:
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
UpTo100 = Annotated[int, Field(ge=1, le=100), BeforeValidator(_only_numbers)]
ArmChoice = Annotated[
    Literal["a", "b"] | None,
    Field(description="Who answers where two models are served; as configured unless given. `GET /v1/model` has both."),
]
STRICT = "True answers 404 for an item that the model does not know, instead of leaving it out."
Strict = Annotated[StrictBool, Field(description=STRICT)]
IGNORED = "Items of the request that the model does not know; they were left out."
DEGRADED = (
    "True when the history store was away, so that an older history was used, or the engine, so that no model was."
)
FoundBy = Strategy | Literal["popularity", "candidates", "words", "similar", "graph"]
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
HistorySource = Literal["request", "redis", "memory", "bundle", "none"]


class RequestBody(BaseModel):
    """Base of every request: unknown fields are refused, so that a misspelt one is noticed."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SequentialRequest(RequestBody):
    """What will this user want next?"""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": "u0007", "n_items": 5}, {"history": ["i0001", "i0042"]}]}
    )

    user_id: UserId | None = None
    history: Annotated[list[ItemId], Field(max_length=MAX_HISTORY_SENT)] | None = Field(
        default=None, description="Item ids, oldest first; replaces what the service knows of the user."
    )
    n_items: UpTo100 = 10
    exclude_seen: StrictBool = Field(default=True, description="Leave out the items of the history.")
    include: Include = None
    exclude: Exclude = None
    prefer: Prefer = None
    prefer_weight: PreferWeight = None
    beam_width: UpTo100 | None = Field(
        default=None, description="Beams of the search (strategy `beam`); 20 unless given."
    )
    fusion: StrictBool = Field(default=True, description="False ranks by the model alone.")
    strict: Strict = False
    arm: ArmChoice = None


class TopNRequest(RequestBody):
    """Which of these candidates suit this user best?"""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": "u0007", "candidates": ["i0001", "i0042", "i0100"], "n_items": 2}]}
    )

    user_id: UserId | None = None
    history: Annotated[list[ItemId], Field(max_length=MAX_HISTORY_SENT)] | None = Field(
        default=None, description="Item ids, oldest first; replaces what the service knows of the user."
    )
    candidates: Annotated[list[ItemId], Field(min_length=1, max_length=MAX_CANDIDATES)] | None = Field(
        default=None,
        description="Drawn by co-purchase and popularity where not given, without the items of the history.",
    )
    n_items: UpTo100 = 10
    prefer: Prefer = None
    prefer_weight: PreferWeight = None
    fusion: StrictBool = Field(default=True, description="False ranks by the model alone.")
    strict: Strict = False
    arm: ArmChoice = None


class SimilarRequest(RequestBody):
    """What is like these items? Nobody needs to ask."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"item_ids": ["i0042"], "n_items": 5}]})

    item_ids: Annotated[list[ItemId], Field(min_length=1, max_length=MAX_SIMILAR_TO)]
    n_items: UpTo100 = 10
    include: Include = None
    exclude: Exclude = None
    strict: Strict = False
    arm: ArmChoice = None


class ExplainRequest(RequestBody):
    """Why this item for this user?"""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"user_id": "u0007", "item_id": "i0042"}, {"history": ["i0001"], "item_id": "i0042"}]
        }
    )

    user_id: UserId | None = None
    history: Annotated[list[ItemId], Field(max_length=MAX_HISTORY_SENT)] | None = Field(
        default=None, description="Item ids, oldest first; replaces what the service knows of the user."
    )
    item_id: ItemId
    strict: Strict = False
    arm: ArmChoice = None


class SequentialPart(SequentialRequest):
    """A sequential request in a batch."""

    kind: Literal["sequential"]


class TopNPart(TopNRequest):
    """A top-N request in a batch."""

    kind: Literal["topn"]


class SimilarPart(SimilarRequest):
    """A request for similar items in a batch."""

    kind: Literal["similar"]


class ExplainPart(ExplainRequest):
    """An explanation in a batch."""

    kind: Literal["explain"]


BatchPart = Annotated[SequentialPart | TopNPart | SimilarPart | ExplainPart, Field(discriminator="kind")]


class BatchRequest(RequestBody):
    """Several requests at once; each has its own answer or problem."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "requests": [
                        {"kind": "sequential", "user_id": "u0007", "n_items": 3},
                        {"kind": "explain", "user_id": "u0007", "item_id": "i0042"},
                    ]
                }
            ]
        }
    )

    requests: Annotated[list[BatchPart], Field(min_length=1, max_length=MAX_BATCH)]


class InteractionRequest(RequestBody):
    """Somebody took an item; the model need not know it yet."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "u0007", "item_id": "i0042"}]})

    user_id: UserId
    item_id: ItemId
    timestamp: Seconds | None = Field(
        default=None,
        description="Seconds since 1970; now unless given. The same user, item and timestamp is one write.",
    )


class InteractionsRequest(RequestBody):
    """Several at once, of any users: an import, or what piled up while something was away."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"interactions": [{"user_id": "u0007", "item_id": "i0042", "timestamp": 1.7e9}]}]
        }
    )

    interactions: Annotated[list[InteractionRequest], Field(min_length=1, max_length=MAX_INTERACTIONS)]


class BundleRequest(RequestBody):
    """Serve another bundle."""

    path: Annotated[StrictStr, StringConstraints(min_length=1, max_length=1024)] | None = Field(
        default=None,
        description="A folder under the bundle root; the folder that is served now, read again, if absent.",
    )


class Answer(BaseModel):
    """Base of what is sent."""

    model_config = ConfigDict(frozen=True)


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
    items: list[RecommendedItem]
    score_mode: ScoreMode
    strategy: Annotated[FoundBy, Field(description="How the items were found; `popularity` if nothing is known.")]
    steered: Annotated[bool, Field(description="True where the words of `prefer` had a say.")]


class Provenance(Answer):
    """Which model answered, and from which history."""

    model_version: str
    history_source: HistorySource
    degraded: bool = Field(description=DEGRADED)
    ignored_items: list[str] = Field(default=[], description=IGNORED)


class Evidence(Answer):
    """An item of the user's history that speaks for the explained one."""

    item_id: str
    title: str | None
    share: float = Field(description="Its part of the support that the whole history gives, 0 to 1.")


class SpokenStatement(Answer):
    """What reviews say, that the explanation speaks from."""

    text: str
    about: Literal["user", "item"] = Field(description="Said by the user of other items, or by buyers of this one.")
    count: int = Field(description="Reviews that say it.")
    total: int = Field(description="Reviews with text of this user, or of this item.")
    share: float = Field(ge=0, le=1)
    polarity: Literal["positive", "negative"]
    quote: str | None = Field(description="A reviewer's own sentence, where the shop shows them.")


class ExplainAnswer(Provenance):
    """Why this item for this user."""

    item_id: str
    title: str | None
    explanation: str = Field(description="One or two whole sentences to the reader.")
    basis: Literal["statements", "model", "catalogue"] = Field(
        description="What speaks: statements of reviews, the model's text that they bear out, or the catalogue alone."
    )
    statements: list[SpokenStatement]
    user_preference: str | None = Field(
        description="What this user praises and looks for; null where nothing is known."
    )
    item_attributes: str | None = Field(description="What buyers of this item praise; null where nothing is known.")
    caution: str | None = Field(description="The commonest complaint, where a tenth of the reviews or more have it.")
    evidence: list[Evidence]


class InteractionAnswer(Answer):
    """The write is kept."""

    recorded: bool = Field(description="False when the same write was recorded before; nothing was added.")
    history_source: HistorySource
    known_to_model: bool = Field(description="False for an item that counts only once a model knows it.")


class HistoryItem(Answer):
    """One interaction; the title is null for items that the catalogue does not hold."""

    item_id: str
    title: str | None


class HistoryAnswer(Answer):
    """Oldest first."""

    user_id: str
    history_source: HistorySource
    degraded: bool
    items: list[HistoryItem]


class UsersAnswer(Answer):
    """Users whom the bundle knows, by the beginning of their id."""

    user_ids: list[str]


class ItemsAnswer(Answer):
    """Items by the beginning of their id or a part of their title."""

    items: list[HistoryItem]


class ArmAnswer(Answer):
    """What one arm serves."""

    model_version: str
    score_mode: ScoreMode


class ModelAnswer(Answer):
    """What is being served."""

    model_version: str
    name: str
    created_at: str
    recipe: dict[str, Any]
    protocol: str
    label_scheme: str
    n_users: int
    n_items: int
    score_mode: ScoreMode
    score_modes: list[ScoreMode]
    strategy: Strategy
    candidate_width: int
    text_tasks: list[str]
    fusion: dict[str, float] | None
    metrics: dict[str, float]
    arms: dict[str, ArmAnswer] = Field(description="What is served by arm, `a` and where there is a second one `b`.")


class SwapAnswer(ModelAnswer):
    """What is being served now."""

    survives_restart: bool = Field(
        description="False where a restart would serve the bundle of the settings again, which are no link to this one."
    )


class HealthAnswer(Answer):
    """`reasons` says what is missing for `ready`."""

    status: Literal["ok", "ready", "degraded", "not ready", "dead"]
    reasons: list[str] = []


class FieldError(Answer):
    """One wrong field of a request."""

    field: str
    message: str


class ProblemAnswer(Answer):
    """RFC 9457 problem details."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:rdrec:problem:unknown-item",
                    "title": "Unknown item",
                    "status": 404,
                    "detail": "item 'nope' is not in the catalogue of 240 items",
                    "request_id": "0f8e1c6a5d3b4a7f",
                    "field": "history[3]",
                }
            ]
        }
    )

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    field: str | None = None
    errors: list[FieldError] | None = None


class InteractionResult(Answer):
    """Status 201 with `recorded` and `known_to_model`, or another status with `problem`."""

    status: int
    recorded: bool | None = None
    known_to_model: bool | None = None
    problem: ProblemAnswer | None = None


class InteractionsAnswer(Answer):
    """In the order of the interactions."""

    history_source: HistorySource
    results: list[InteractionResult]


class BatchResult(Answer):
    """Status 200 with `answer`, or another status with `problem`."""

    status: int
    answer: RankingAnswer | ExplainAnswer | None = None
    problem: ProblemAnswer | None = None


class BatchAnswer(Answer):
    """In the order of the requests."""

    results: list[BatchResult]
