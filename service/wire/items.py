"""What goes over the wire of the catalogue: items as a shop describes them, and what became of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    StringConstraints,
)
from pydantic_core import PydanticCustomError

from rdrec_core.filters import MAX_NUMBER
from service.wire.base import Answer, ProblemAnswer, RequestBody
from service.wire.fields import ItemId

MAX_ITEMS = 1000
MAX_INTEGER = 2**53
"""Larger ones are kept as floats are."""


def _encodable(value: str) -> str:
    """JSON may hold half of a surrogate pair, which is no text."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise PydanticCustomError("string_unicode", "Input should be valid text") from error
    return value


Text = Annotated[StrictStr, AfterValidator(_encodable)]
CatalogueId = Annotated[ItemId, AfterValidator(_encodable)]
ShortText = Annotated[Text, StringConstraints(max_length=1000)]
Name = Annotated[Text, StringConstraints(min_length=1, max_length=256)]
AttributeName = Annotated[Text, StringConstraints(min_length=1, max_length=64)]
Number = Annotated[StrictFloat, Field(ge=-MAX_NUMBER, le=MAX_NUMBER, allow_inf_nan=False)]
WholeNumber = Annotated[StrictInt, Field(ge=-MAX_INTEGER, le=MAX_INTEGER)]
AttributeValue = StrictBool | WholeNumber | Number | ShortText | Annotated[list[ShortText], Field(max_length=100)]
SentValue = bool | int | float | str | list[str]


class ItemBody(RequestBody):
    """All that the shop says of an item: what is not said is empty, or as the bundle says where it knows the item."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "title": "Red wooden train", "brand": "Holz", "categories": ["Toys", "Trains"],
                    "attributes": {"price": 24.5, "tags": ["wood", "gift"]},
                }
            ]
        }
    )  # fmt: skip

    title: ShortText | None = None
    brand: Annotated[Text, StringConstraints(max_length=256)] | None = None
    categories: Annotated[list[Name], Field(max_length=64)] = Field(default=[], description="General to special.")
    description: Annotated[Text, StringConstraints(max_length=20_000)] | None = None
    attributes: Annotated[dict[AttributeName, AttributeValue], Field(max_length=64)] = Field(
        default={}, description="Numbers, texts, booleans and lists of texts."
    )
    available: StrictBool = Field(default=True, description="False takes the item out of every answer.")


class ItemPart(ItemBody):
    """An item in a batch."""

    item_id: CatalogueId


class ItemPatch(RequestBody):
    """What changes of an item; the rest stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"available": False}]})

    available: StrictBool | None = None
    attributes: Annotated[dict[AttributeName, AttributeValue | None], Field(max_length=64)] | None = Field(
        default=None, description="Those named are set, null takes one away, the others stay."
    )


class ItemsRequest(RequestBody):
    """Several items at once: an import, or what changed since the last one."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"items": [{"item_id": "new-1", "title": "Red wooden train"}]}]}
    )

    items: Annotated[list[ItemPart], Field(min_length=1, max_length=MAX_ITEMS)]


class SentItem(Answer):
    """An item as it was sent."""

    item_id: str
    title: str | None
    brand: str | None
    categories: list[str]
    description: str | None
    attributes: dict[str, SentValue]
    available: bool
    arrived: float = Field(description="Seconds since 1970; the bundle's own time for an item of it, unless it says.")


class ItemAnswer(SentItem):
    """An item of the catalogue as the service knows it."""

    known_to_model: bool = Field(description="True for an item of the bundle, which is ranked by what training saw.")
    is_live: bool = Field(description="True once this replica answers so; the others follow within a second or two.")


class ItemResult(Answer):
    """What became of one item of a batch: status 200 or 201, or another with `problem`."""

    item_id: str
    status: int
    problem: ProblemAnswer | None = None


class ItemResults(Answer):
    """In the order of the request."""

    is_live: bool
    results: list[ItemResult]


class CatalogueEntry(Answer):
    """The last that was said of an item; null: it was deleted."""

    item_id: str
    version: int
    item: SentItem | None


class CataloguePage(Answer):
    """What was said of items since the bundle was made, in the order of their ids' bytes."""

    items: list[CatalogueEntry]
    next_after: str | None = Field(description="`after` of the next page; null where this is the last one.")
