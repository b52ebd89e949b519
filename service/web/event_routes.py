"""What customers do, and what is known of them: which body, which answer, who may ask. No logic beyond that."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Header, Path, Query, Request, Response
from pydantic import StringConstraints

from service.web.openapi import problems
from service.web.routing import guard_of, guarded, json_answer, name_user, parts_of
from service.web.security import context_of
from service.wire.feedback import FeedbackAnswer, FeedbackRequest
from service.wire.interactions import (
    HistoryAnswer,
    InteractionAnswer,
    InteractionRequest,
    InteractionsAnswer,
    InteractionsRequest,
)

UserPath = Annotated[str, Path(min_length=1, max_length=128)]
UserQuery = Annotated[str, Query(min_length=1, max_length=128)]
Limit = Annotated[int, Query(ge=1, le=1000)]
Key = Annotated[
    Annotated[str, StringConstraints(min_length=1, max_length=128)] | None,
    Header(alias="Idempotency-Key", description="Repeat it with the repeated request: what it adds is added once."),
]
write = APIRouter(route_class=guarded("write"), tags=["histories"])
read = APIRouter(route_class=guarded("recommend"), tags=["histories"])


@write.post(
    "/interactions", status_code=201, response_model=InteractionAnswer, responses=problems(body=True, history=True)
)
async def add_interaction(
    request: Request,
    body: Annotated[InteractionRequest, Body()],
    idempotency_key: Key = None,
) -> Response:
    """Add an interaction to the user's history. 201: it is kept, and every later answer knows it."""
    parts = parts_of(request)
    name_user(request, body.user_id)
    return json_answer(await parts.histories.append(body, idempotency_key, context_of(request)), 201)


@write.post("/interactions/batch", response_model=InteractionsAnswer, responses=problems(body=True, history=True))
async def add_interactions(
    request: Request,
    body: Annotated[InteractionsRequest, Body()],
    idempotency_key: Key = None,
) -> Response:
    """Add up to 1000 interactions; each has its own result, and those of one user are kept together or not at all.

    They are put in the order of their timestamps, before what is known already where they are older.
    """
    parts = parts_of(request)
    await guard_of(request).charge(request, len(body.interactions) - 1)
    results = await parts.histories.append_all(body.interactions, idempotency_key, context_of(request))
    return json_answer(InteractionsAnswer(history_source=parts.stores.history.name, results=results))


@write.post(
    "/feedback", status_code=201, response_model=FeedbackAnswer, responses=problems(body=True, history=True, gone=True)
)
async def give_feedback(request: Request, body: Annotated[FeedbackRequest, Body()]) -> Response:
    """What became of a list: somebody clicked on one of its items, or bought it. Counted by arm, each once.

    It is no interaction: tell `/interactions` of the purchase too.
    """
    return json_answer(await parts_of(request).feedback.take(body), 201)


@read.get("/users/{user_id:anything}/history", response_model=HistoryAnswer, responses=problems())
async def get_history(request: Request, user_id: UserPath, limit: Limit = 100) -> Response:
    """What the service knows of the user, oldest first; empty for a user of whom it knows nothing."""
    parts = parts_of(request)
    name_user(request, user_id)
    return json_answer(await parts.histories.read(user_id, limit, context_of(request)))


@read.get("/history", response_model=HistoryAnswer, responses=problems())
async def get_history_by_query(request: Request, user_id: UserQuery, limit: Limit = 100) -> Response:
    """The same for any id: clients and proxies rewrite paths that hold `/`, `.` or `..`, and no query."""
    return await get_history(request, user_id, limit)


@write.delete("/users/{user_id:anything}/history", status_code=204, responses=problems(history=True))
async def forget_user(request: Request, user_id: UserPath) -> Response:
    """Forget the user: the history, the bundle's part of it, and every text that was written from them.

    204: from now on no replica uses or shows them, also after a restart. On a 503 nothing is promised; repeat it.
    """
    parts = parts_of(request)
    name_user(request, user_id)
    await parts.histories.forget(user_id, context_of(request))
    return Response(status_code=204)


@write.delete("/history", status_code=204, responses=problems(history=True))
async def forget_user_by_query(request: Request, user_id: UserQuery) -> Response:
    """The same for any id, see `GET /history`."""
    return await forget_user(request, user_id)
