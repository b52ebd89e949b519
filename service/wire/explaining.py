"""A request for an explanation, and the explanation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from service.wire.base import Answer, RequestBody
from service.wire.fields import DEGRADED, IGNORED, MAX_HISTORY_SENT, ArmChoice, HistorySource, ItemId, Strict, UserId


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
