"""`POST /recommend/batch`: many requests at once, each with its own answer or problem. One failing part fails alone."""

from __future__ import annotations

import asyncio

from rdrec_core.errors import RDRecError
from service.answers.recommender import Recommender
from service.wire.batches import (
    BatchAnswer,
    BatchPart,
    BatchRequest,
    BatchResult,
    SequentialPart,
    SimilarPart,
    TopNPart,
)
from service.wire.context import RequestContext
from service.wire.explaining import ExplainAnswer
from service.wire.problems import as_problem, problem_answer
from service.wire.rankings import RankingAnswer
from service.wire.work import DeadlineError


async def answer_batch(
    recommender: Recommender, request: BatchRequest, context: RequestContext, *, at_once: int
) -> BatchAnswer:
    """All answers in the order of the requests; at most `at_once` parts are in the queue at a time.

    Parts that are not computed by the deadline have problem 504 as their result.
    """
    places = asyncio.Semaphore(at_once)

    async def one(part: BatchPart) -> BatchResult:
        own = context.part()
        try:
            async with places:
                if own.remaining_s() <= 0:
                    raise DeadlineError("the batch's deadline passed before this part's turn")
                answer = await _answer(recommender, part, own)
            return BatchResult(status=200, answer=answer)
        except RDRecError as error:
            return BatchResult(
                status=as_problem(error).problem.status, problem=problem_answer(error, context.request_id)
            )
        finally:
            context.absorb(own)

    return BatchAnswer(results=list(await asyncio.gather(*(one(part) for part in request.requests))))


async def _answer(recommender: Recommender, part: BatchPart, context: RequestContext) -> RankingAnswer | ExplainAnswer:
    match part:
        case SequentialPart():
            return await recommender.sequential(part, context)
        case TopNPart():
            return await recommender.topn(part, context)
        case SimilarPart():
            return await recommender.similar(part, context)
        case _:
            return await recommender.explain(part, context)
