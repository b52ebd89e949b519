"""Typed Python client of the RDRec service: sync and async, over httpx. Imports none of the service's code.

with RDRecClient("http://127.0.0.1:8000") as client:
    for item in client.sequential("u0007", n_items=5).items:
        print(item.rank, item.title)
"""

from rdrec_client.client import AsyncRDRecClient, Options, RDRecClient
from rdrec_client.errors import ProblemError, RDRecClientError, UnreachableError, UnreadableAnswerError
from rdrec_client.models import (
    Arm,
    BatchResult,
    CatalogueItem,
    CataloguePage,
    Evidence,
    Explain,
    Explanation,
    FeedbackTaken,
    History,
    HistoryItem,
    Interaction,
    Item,
    Model,
    Problem,
    PutItem,
    Ranking,
    Recorded,
    RecordResult,
    Sequential,
    Signals,
    Similar,
    SpokenStatement,
    TopN,
)
from rdrec_client.retrying import RetryPolicy

__all__ = [
    "Arm",
    "AsyncRDRecClient",
    "BatchResult",
    "CatalogueItem",
    "CataloguePage",
    "Evidence",
    "Explain",
    "Explanation",
    "FeedbackTaken",
    "History",
    "HistoryItem",
    "Interaction",
    "Item",
    "Model",
    "Options",
    "Problem",
    "ProblemError",
    "PutItem",
    "RDRecClient",
    "RDRecClientError",
    "Ranking",
    "RecordResult",
    "Recorded",
    "RetryPolicy",
    "Sequential",
    "Signals",
    "Similar",
    "SpokenStatement",
    "TopN",
    "UnreachableError",
    "UnreadableAnswerError",
]
