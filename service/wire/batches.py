"""Many requests in one body; each part is one of the single requests with its kind."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from service.wire.base import Answer, ProblemAnswer, RequestBody
from service.wire.explaining import ExplainAnswer, ExplainRequest
from service.wire.rankings import RankingAnswer, SequentialRequest, SimilarRequest, TopNRequest

MAX_BATCH = 256


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


class BatchResult(Answer):
    """Status 200 with `answer`, or another status with `problem`."""

    status: int
    answer: RankingAnswer | ExplainAnswer | None = None
    problem: ProblemAnswer | None = None


class BatchAnswer(Answer):
    """In the order of the requests."""

    results: list[BatchResult]
