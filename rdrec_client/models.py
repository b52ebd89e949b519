"""What goes over the wire, seen from the caller. Answers ignore fields that a newer service adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from pydantic import BaseModel, ConfigDict

AttributeValue = bool | int | float | str | list[str]
ArmName = Literal["a", "b"]
HistorySource = Literal["request", "redis", "memory", "bundle", "none"]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def body(self) -> dict[str, Any]:
        """JSON body; what was not given is left to the service's defaults."""
        return self.model_dump(mode="json", exclude_none=True)


class Choice(TypedDict, total=False):
    """What a list of recommendations may hold, and how unlike its items are to be."""

    where: Mapping[str, Any] | None
    """`{"category": "Board Games", "price": {"lte": 25}, "not": {"brand": "Acme"}}`; see docs/api.md."""
    diversity: float | None
    """0 to 1: how much being unlike the items above counts beside the rank."""
    max_per_brand: int | None
    max_per_category: int | None


class _Choosing(_Request):
    n_items: int | None = None
    where: Mapping[str, Any] | None = None
    diversity: float | None = None
    max_per_brand: int | None = None
    max_per_category: int | None = None
    strict: bool | None = None
    """True makes an item that the model does not know a 404; else it is left out and named in `ignored_items`."""
    arm: ArmName | None = None
    """Who answers where two models are served; as configured unless given."""


class _ForUser(_Choosing):
    user_id: str | None = None
    history: Sequence[str] | None = None
    """Item ids, oldest first; replaces what the service knows of the user."""
    prefer: str | None = None
    """What is wanted, in words; the answer's `steered` says whether any of them was known."""
    prefer_weight: float | None = None
    """How loud the words are; 1 is as loud as all that the history says."""
    fusion: bool | None = None
    """False ranks by the model alone."""


class Sequential(_ForUser):
    """What will this user want next?"""

    kind: Literal["sequential"] = "sequential"
    exclude_seen: bool | None = None
    include: Sequence[str] | None = None
    exclude: Sequence[str] | None = None
    beam_width: int | None = None


class TopN(_ForUser):
    """Which of these candidates suit this user best?"""

    kind: Literal["topn"] = "topn"
    candidates: Sequence[str] | None = None
    """Drawn by the service where not given."""


class Similar(_Choosing):
    """What is like these items?"""

    kind: Literal["similar"] = "similar"
    item_ids: Sequence[str]
    include: Sequence[str] | None = None
    exclude: Sequence[str] | None = None


class Explain(_Request):
    """Why this item for this user?"""

    kind: Literal["explain"] = "explain"
    item_id: str
    user_id: str | None = None
    history: Sequence[str] | None = None
    """Item ids, oldest first; replaces what the service knows of the user."""
    strict: bool | None = None
    arm: ArmName | None = None


class PutItem(_Request):
    """All that a shop says of an item."""

    item_id: str
    title: str | None = None
    brand: str | None = None
    categories: Sequence[str] | None = None
    description: str | None = None
    attributes: Mapping[str, AttributeValue] | None = None
    available: bool | None = None
    """False takes it out of every answer."""


class Interaction(_Request):
    """Somebody did something with an item. timestamp: seconds since 1970; now unless given."""

    user_id: str
    item_id: str
    timestamp: float | None = None
    event: str | None = None
    """`purchase` unless given, or another kind that the service's settings name."""
    quantity: int | None = None
    context: Mapping[str, Any] | None = None
    """Texts, numbers and booleans by name, for the service's log."""


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Signals(_Answer):
    """What a score was made of, as logs; None where a signal was not asked or has nothing to say."""

    model: float | None = None
    """Log-probability that the model gives the item."""
    graph: float | None = None
    """What purchases say."""
    text: float | None = None
    """What titles, reviews and rationales say."""


class Item(_Answer):
    """One place of a ranking."""

    item_id: str
    title: str | None = None
    rank: int
    score: float
    """Share of the probability of all items that were considered, 0 to 1."""
    signals: Signals


class _Provenance(_Answer):
    model_version: str
    history_source: HistorySource
    degraded: bool
    """True when the history store was out of reach and an older history was used."""
    ignored_items: tuple[str, ...] = ()
    """Items of the request that the model does not know."""


class Ranking(_Provenance):
    """Items, best first."""

    items: tuple[Item, ...]
    score_mode: str
    strategy: str
    unavailable_items: tuple[str, ...] = ()
    """Candidates that were left out, being out of stock."""
    steered: bool = False
    """Whether the words of `prefer` had a say."""
    arm: str = "a"
    """Which of two models answered."""
    impression_id: str = ""
    """By which `give_feedback` says what became of the list."""


class Evidence(_Answer):
    """An item of the user's history that speaks for the explained one."""

    item_id: str
    title: str | None = None
    share: float
    """Its part of the support that the whole history gives, 0 to 1."""


class SpokenStatement(_Answer):
    """What reviews say, that an explanation speaks from."""

    text: str
    about: Literal["user", "item"]
    count: int
    """Reviews that say it."""
    total: int
    """Reviews with text, of the user or of the item."""
    share: float
    polarity: Literal["positive", "negative"]
    quote: str | None = None


class Explanation(_Provenance):
    """Why an item for a user. basis: `statements`, `model` or `catalogue`."""

    item_id: str
    title: str | None = None
    explanation: str
    basis: str
    statements: tuple[SpokenStatement, ...] = ()
    user_preference: str | None = None
    """None where nothing is known of the user."""
    item_attributes: str | None = None
    caution: str | None = None
    """The commonest complaint, where many have it."""
    evidence: tuple[Evidence, ...]


class Recorded(_Answer):
    """An interaction is kept."""

    recorded: bool
    """False when the same write was kept before."""
    history_source: HistorySource
    known_to_model: bool = True
    """False for an item that counts only once a model knows it."""
    event_id: str | None = None
    """Names the event in the service's log."""


class FeedbackTaken(_Answer):
    """An event of an item of a list is counted."""

    recorded: bool
    """False when it was counted before."""
    arm: str
    rank: int
    """The item's, in the list."""


class HistoryItem(_Answer):
    """One interaction."""

    item_id: str
    title: str | None = None


class History(_Answer):
    """Oldest first."""

    user_id: str
    history_source: HistorySource
    degraded: bool
    items: tuple[HistoryItem, ...]


class Users(_Answer):
    """Users of the bundle."""

    user_ids: tuple[str, ...]


class Items(_Answer):
    """Items of the catalogue."""

    items: tuple[HistoryItem, ...]


class CatalogueItem(_Answer):
    """An item as the service knows it."""

    item_id: str
    title: str | None = None
    brand: str | None = None
    categories: tuple[str, ...] = ()
    description: str | None = None
    attributes: dict[str, AttributeValue] = {}
    available: bool
    arrived: float
    """Seconds since 1970."""
    known_to_model: bool = False
    """True for an item of the bundle, which is ranked by what training saw."""
    is_live: bool = True
    """False where the replica that was asked does not answer so yet."""


class CatalogueEntry(_Answer):
    """The last that was said of an item; item None: it was deleted."""

    item_id: str
    version: int
    item: CatalogueItem | None = None


class CataloguePage(_Answer):
    """In the order of the ids' bytes; next_after is None on the last page."""

    items: tuple[CatalogueEntry, ...]
    next_after: str | None = None


class Arm(_Answer):
    """What one arm serves."""

    model_version: str
    score_mode: str


class Model(_Answer):
    """What is being served."""

    model_version: str
    name: str
    created_at: str
    recipe: dict[str, Any]
    protocol: str
    label_scheme: str
    n_users: int
    n_items: int
    score_mode: str
    score_modes: tuple[str, ...]
    strategy: str
    candidate_width: int
    text_tasks: tuple[str, ...]
    fusion: dict[str, float] | None = None
    metrics: dict[str, float]
    devices: tuple[str, ...] = ()
    """Where its engines compute, one each."""
    arms: dict[str, Arm]
    """`a`, and where there is a second one `b`."""


class FieldError(_Answer):
    """One wrong field of a request."""

    field: str
    message: str


class Problem(_Answer):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    field: str | None = None
    errors: tuple[FieldError, ...] | None = None


class BatchResult(_Answer):
    """One part's answer or problem."""

    status: int
    answer: Ranking | Explanation | None = None
    problem: Problem | None = None


class RecordResult(_Answer):
    """Of one interaction of a batch: status 201, or another one with its problem."""

    status: int
    recorded: bool | None = None
    known_to_model: bool | None = None
    event_id: str | None = None
    problem: Problem | None = None


class ItemResult(_Answer):
    """Of one item of a batch: status 200 or 201, or another one with its problem."""

    item_id: str
    status: int
    problem: Problem | None = None


class ItemResults(_Answer):
    """In the order of the items."""

    is_live: bool
    results: tuple[ItemResult, ...]


class Results(_Answer):
    """In the order of the interactions."""

    results: tuple[RecordResult, ...]


class Batch(_Answer):
    """In the order of the requests."""

    results: tuple[BatchResult, ...]
