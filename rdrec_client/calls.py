"""The API as values: each endpoint is a function that says what to send and what comes back. Sends nothing itself."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from rdrec_client.errors import ProblemError, UnreadableAnswerError
from rdrec_client.models import (
    Batch,
    Explain,
    Explanation,
    History,
    Items,
    Model,
    Problem,
    Ranking,
    Recorded,
    Sequential,
    TopN,
    Users,
)
from rdrec_client.retrying import read_retry_after

A = TypeVar("A", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Call(Generic[A]):
    """One request; `answer` is None where a success has no body."""

    method: str
    path: str
    answer: type[A] | None
    body: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    query: dict[str, str | int] = field(default_factory=dict)


def sequential(request: Sequential) -> Call[Ranking]:
    """POST /recommend/sequential."""
    return Call("POST", "/recommend/sequential", Ranking, _alone(request))


def topn(request: TopN) -> Call[Ranking]:
    """POST /recommend/topn."""
    return Call("POST", "/recommend/topn", Ranking, _alone(request))


def explain(request: Explain) -> Call[Explanation]:
    """POST /explain."""
    return Call("POST", "/explain", Explanation, _alone(request))


def batch(requests: Sequence[Sequential | TopN | Explain]) -> Call[Batch]:
    """POST /recommend/batch."""
    return Call("POST", "/recommend/batch", Batch, {"requests": [request.body() for request in requests]})


def record(user_id: str, item_id: str, timestamp: float | None, idempotency_key: str | None) -> Call[Recorded]:
    """POST /interactions. Without a key one is made, so that the tries of one call are one write."""
    body: dict[str, Any] = {"user_id": user_id, "item_id": item_id}
    if timestamp is not None:
        body["timestamp"] = timestamp
    return Call("POST", "/interactions", Recorded, body, {"Idempotency-Key": idempotency_key or uuid.uuid4().hex})


def history(user_id: str, limit: int | None) -> Call[History]:
    """GET /users/{user_id}/history."""
    return Call("GET", _history_path(user_id), History, query={} if limit is None else {"limit": limit})


def forget(user_id: str) -> Call[BaseModel]:
    """DELETE /users/{user_id}/history."""
    return Call("DELETE", _history_path(user_id), None)


def find_users(query: str, limit: int | None) -> Call[Users]:
    """GET /users."""
    return Call("GET", "/users", Users, query=_look_up(query, limit))


def find_items(query: str, limit: int | None) -> Call[Items]:
    """GET /items."""
    return Call("GET", "/items", Items, query=_look_up(query, limit))


def model() -> Call[Model]:
    """GET /v1/model."""
    return Call("GET", "/v1/model", Model)


def load_bundle(path: str | None) -> Call[Model]:
    """POST /admin/bundle."""
    return Call("POST", "/admin/bundle", Model, {} if path is None else {"path": path})


def answer_of(call: Call[A], response: httpx.Response) -> A | None:
    """The answer. Raises ProblemError for a problem, UnreadableAnswerError for what is neither."""
    try:
        if response.is_success:
            return None if call.answer is None else call.answer.model_validate_json(response.content)
        problem = Problem.model_validate_json(response.content)
    except ValidationError as error:
        problem = _of_another_server(response)
        if response.is_success:
            where = ".".join(str(part) for part in error.errors()[0]["loc"]) or "body"
            raise UnreadableAnswerError(
                f"{call.method} {call.path}: the {response.status_code} answer is not as expected at {where}"
            ) from error
    raise ProblemError(problem, retry_after_s=read_retry_after(response.headers))


def _of_another_server(response: httpx.Response) -> Problem:
    """A problem for an error that a proxy in between wrote in its own way."""
    return Problem(
        type="about:blank",
        title=response.reason_phrase or "Error",
        status=response.status_code,
        detail="the answer is not a problem document; a proxy in between may have written it",
        request_id=response.headers.get("x-request-id", "unknown"),
    )


def _alone(request: Sequential | TopN | Explain) -> dict[str, Any]:
    """Body of a request outside a batch, where its path says its kind."""
    return {name: value for name, value in request.body().items() if name != "kind"}


def _look_up(query: str, limit: int | None) -> dict[str, str | int]:
    return {"query": query} | ({} if limit is None else {"limit": limit})


def _history_path(user_id: str) -> str:
    return f"/users/{quote(user_id, safe='')}/history"
