"""Lists and explanations: which body, which answer, who may ask. No logic beyond that."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Request, Response

from service.web.batch_answers import answer_batch
from service.web.openapi import problems
from service.web.routing import guard_of, guarded, json_answer, name_user, parts_of
from service.web.security import context_of
from service.wire.batches import BatchAnswer, BatchRequest
from service.wire.explaining import ExplainAnswer, ExplainRequest
from service.wire.rankings import (
    LatestRequest,
    PopularRequest,
    RankingAnswer,
    SequentialRequest,
    SimilarRequest,
    TopNRequest,
)

ask = APIRouter(route_class=guarded("recommend", direct=True), tags=["recommendations"])


@ask.post("/recommend/sequential", response_model=RankingAnswer, responses=problems(body=True, engine=True))
async def recommend_sequential(request: Request, body: Annotated[SequentialRequest, Body()]) -> Response:
    """What will this user want next?

    The history is the request's, else the one that the service keeps, else the bundle's. A user of whom nothing is
    known gets the popular items, with `history_source: "none"`.
    """
    parts = parts_of(request)
    name_user(request, body.user_id)
    return json_answer(await parts.recommender.sequential(body, context_of(request)))


@ask.post("/recommend/topn", response_model=RankingAnswer, responses=problems(body=True, engine=True))
async def recommend_topn(request: Request, body: Annotated[TopNRequest, Body()]) -> Response:
    """Which of these candidates suit this user best?

    Up to 1000 candidates, scored in chunks of the width that the model was trained with. Without candidates the service
    draws them by co-purchase and popularity.
    """
    parts = parts_of(request)
    name_user(request, body.user_id)
    return json_answer(await parts.recommender.topn(body, context_of(request)))


@ask.post("/recommend/similar", response_model=RankingAnswer, responses=problems(body=True))
async def recommend_similar(request: Request, body: Annotated[SimilarRequest, Body()]) -> Response:
    """What is like these items, by who bought them together and by what is written about them?

    No user is needed and no model is asked. Fewer items come back where fewer are like these at all.
    """
    return json_answer(await parts_of(request).recommender.similar(body, context_of(request)))


@ask.post("/recommend/popular", response_model=RankingAnswer, responses=problems(body=True))
async def recommend_popular(request: Request, body: Annotated[PopularRequest, Body()]) -> Response:
    """What sells now, by the events of the last days?

    `strategy` is `events`, or `popularity` where no event speaks for any of the items and the training data decides.
    """
    return json_answer(await parts_of(request).shelf.popular(body, context_of(request)))


@ask.post("/recommend/latest", response_model=RankingAnswer, responses=problems(body=True))
async def recommend_latest(request: Request, body: Annotated[LatestRequest, Body()]) -> Response:
    """What arrived last?"""
    return json_answer(await parts_of(request).shelf.latest(body, context_of(request)))


@ask.post("/explain", response_model=ExplainAnswer, responses=problems(body=True, engine=True))
async def explain(request: Request, body: Annotated[ExplainRequest, Body()]) -> Response:
    """Why this item for this user?

    One or two sentences from what reviews say of the item and what the user said before, the statements that they speak
    from, a caution where many complain, and the items of the history that speak for it.
    """
    parts = parts_of(request)
    name_user(request, body.user_id)
    return json_answer(await parts.recommender.explain(body, context_of(request)))


@ask.post("/recommend/batch", response_model=BatchAnswer, responses=problems(body=True, engine=True))
async def recommend_batch(request: Request, body: Annotated[BatchRequest, Body()]) -> Response:
    """Up to 256 requests at once, each with its own answer or problem.

    `kind` is `sequential`, `topn`, `similar` or `explain`.
    """
    parts = parts_of(request)
    await guard_of(request).charge(request, len(body.requests) - 1)
    at_once = 2 * parts.settings.batch_size
    return json_answer(await answer_batch(parts.recommender, body, context_of(request), at_once=at_once))
