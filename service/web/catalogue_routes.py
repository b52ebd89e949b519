"""What a shop says of its items: put, changed, deleted, read. No logic beyond that."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query, Request, Response
from pydantic import AfterValidator

from service.web.openapi import problems
from service.web.routing import guard_of, guarded, json_answer, parts_of
from service.web.security import context_of
from service.wire.fields import trimmed
from service.wire.items import CataloguePage, ItemAnswer, ItemBody, ItemPatch, ItemResults, ItemsRequest

ItemPath = Annotated[str, AfterValidator(trimmed), Path(min_length=1, max_length=128)]
After = Annotated[str, Query(max_length=128)]
Limit = Annotated[int, Query(ge=1, le=1000)]
catalogue = APIRouter(route_class=guarded("catalog"), tags=["catalogue"])


@catalogue.get("/catalogue", response_model=CataloguePage, responses=problems())
async def list_catalogue(request: Request, after: After = "", limit: Limit = 100) -> Response:
    """What was said of items since the bundle was made, page by page in the order of their ids; deleted ones too."""
    return json_answer(await parts_of(request).catalogue.page(after, limit))


@catalogue.post("/items/batch", response_model=ItemResults, responses=problems(body=True))
async def put_items(request: Request, body: Annotated[ItemsRequest, Body()]) -> Response:
    """Put up to 1000 items; each has its own result. Of several with one id the last holds."""
    await guard_of(request).charge(request, len(body.items) - 1)
    return json_answer(await parts_of(request).catalogue.put_all(body.items, context_of(request)))


@catalogue.get("/items/{item_id:item}", response_model=ItemAnswer, responses=problems(item=True))
async def get_item(request: Request, item_id: ItemPath) -> Response:
    """What is known of an item: of the bundle, and what was said of it since."""
    return json_answer(await parts_of(request).catalogue.get(item_id))


@catalogue.put(
    "/items/{item_id:item}",
    response_model=ItemAnswer,
    responses={**problems(body=True, full=True), 201: {"model": ItemAnswer}},
)
async def put_item(request: Request, item_id: ItemPath, body: Annotated[ItemBody, Body()]) -> Response:
    """Say all of an item. An item that the bundle does not know is placed by its words and recommended from then on.

    200: it was known. 201: it is new.
    """
    answer, is_new = await parts_of(request).catalogue.put(item_id, body, context_of(request))
    return json_answer(answer, 201 if is_new else 200)


@catalogue.patch(
    "/items/{item_id:item}",
    response_model=ItemAnswer,
    responses=problems(body=True, full=True, item=True),
)
async def patch_item(request: Request, item_id: ItemPath, body: Annotated[ItemPatch, Body()]) -> Response:
    """Change availability or attributes of an item."""
    return json_answer(await parts_of(request).catalogue.patch(item_id, body, context_of(request)))


@catalogue.delete("/items/{item_id:item}", status_code=204, responses=problems(item=True))
async def delete_item(request: Request, item_id: ItemPath) -> Response:
    """Recommend the item nowhere any more, also when a bundle knows it; a `PUT` brings it back."""
    await parts_of(request).catalogue.delete(item_id, context_of(request))
    return Response(status_code=204)
