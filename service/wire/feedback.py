"""What became of a list that was answered."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StrictStr, StringConstraints

from service.wire.base import Answer, RequestBody
from service.wire.fields import EventKind, ItemId


class FeedbackRequest(RequestBody):
    """Somebody took an item of a list."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"impression_id": "AGks...", "item_id": "i0042", "event": "click"}]}
    )

    impression_id: Annotated[StrictStr, StringConstraints(min_length=1, max_length=1024)] = Field(
        description="Of the answer that the list was in."
    )
    item_id: ItemId
    event: EventKind = "click"


class FeedbackAnswer(Answer):
    """It is counted."""

    recorded: bool = Field(description="False when the same event of the same item of the list was counted before.")
    arm: Literal["a", "b"]
    rank: int = Field(description="The item's rank in the list.")
