"""What somebody did, and what is known of what they did."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, StrictStr, StringConstraints

from service.wire.base import Answer, ProblemAnswer, RequestBody
from service.wire.fields import EventKind, HistorySource, ItemId, Seconds, UserId, only_numbers

MAX_INTERACTIONS = 1000
ContextName = Annotated[StrictStr, StringConstraints(min_length=1, max_length=64)]
ContextValue = (
    Annotated[StrictStr, StringConstraints(max_length=256)]
    | StrictBool
    | StrictInt
    | Annotated[float, Field(strict=True, allow_inf_nan=False)]
    | None
)


class InteractionRequest(RequestBody):
    """Somebody took an item; the model need not know it yet."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user_id": "u0007", "item_id": "i0042"},
                {"user_id": "u0007", "item_id": "i0042", "event": "view", "context": {"page": "search"}},
            ]
        }
    )

    user_id: UserId
    item_id: ItemId
    timestamp: Seconds | None = Field(
        default=None,
        description="Seconds since 1970; now unless given. The same user, item, event and timestamp is one write.",
    )
    event: EventKind = "purchase"
    quantity: Annotated[int, Field(ge=1, le=1_000_000), BeforeValidator(only_numbers)] = Field(
        default=1, description="Goes to the log; an event counts once, however many pieces it is of."
    )
    context: Annotated[dict[ContextName, ContextValue], Field(max_length=32)] | None = Field(
        default=None, description="Whatever else is to stand in the log with the event: a device, a page, an order."
    )


class InteractionsRequest(RequestBody):
    """Several at once, of any users: an import, or what piled up while something was away."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"interactions": [{"user_id": "u0007", "item_id": "i0042", "timestamp": 1.7e9}]}]
        }
    )

    interactions: Annotated[list[InteractionRequest], Field(min_length=1, max_length=MAX_INTERACTIONS)]


class InteractionAnswer(Answer):
    """The write is kept."""

    recorded: bool = Field(description="False when the same write was recorded before; nothing was added.")
    history_source: HistorySource
    known_to_model: bool = Field(description="False for an item that counts only once a model knows it.")
    event_id: str = Field(description="Names the event in the log; the same for a repetition.")


class InteractionResult(Answer):
    """Status 201 with `recorded` and `known_to_model`, or another status with `problem`."""

    status: int
    recorded: bool | None = None
    known_to_model: bool | None = None
    event_id: str | None = None
    problem: ProblemAnswer | None = None


class InteractionsAnswer(Answer):
    """In the order of the interactions."""

    history_source: HistorySource
    results: list[InteractionResult]


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
