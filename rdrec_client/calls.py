"""The API as values: each endpoint is a function that says what to send and what comes back. Sends nothing itself.

The clients' methods are these functions (client.py), so their signatures stand here and nowhere else.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, Unpack
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from rdrec_client.errors import ProblemError, UnreadableAnswerError
from rdrec_client.models import (
    ArmName,
    AttributeValue,
    Batch,
    BatchResult,
    CatalogueItem,
    CataloguePage,
    Choice,
    Explain,
    Explanation,
    FeedbackTaken,
    History,
    HistoryItem,
    Interaction,
    ItemResults,
    Items,
    Model,
    Problem,
    PutItem,
    Ranking,
    Recorded,
    RecordResult,
    Results,
    Sequential,
    Similar,
    TopN,
    Users,
)
from rdrec_client.retrying import read_retry_after

A = TypeVar("A")
B = TypeVar("B", bound=BaseModel)

READ_S, EXPLAIN_S, BATCH_S, WRITE_S, ADMIN_S = 2.0, 6.0, 25.0, 5.0, 300.0
"""How long a call takes at most, all its tries together, unless the client is told otherwise."""


@dataclass(frozen=True, slots=True)
class Call(Generic[A]):
    """One request, and how its answer's body is read."""

    method: str
    path: str
    read: Callable[[bytes], A]
    body: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    query: dict[str, str | int] = field(default_factory=dict)
    timeout_s: float = READ_S
    is_read: bool = True
    """Changes nothing, so that a fallback may stand in for its answer."""
    is_retried: bool = True
    """Tried again unless told otherwise."""


def sequential(
    user_id: str | None = None,
    *,
    history: Sequence[str] | None = None,
    n_items: int | None = None,
    exclude_seen: bool | None = None,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    beam_width: int | None = None,
    prefer: str | None = None,
    prefer_weight: float | None = None,
    fusion: bool | None = None,
    strict: bool | None = None,
    arm: ArmName | None = None,
    **choice: Unpack[Choice],
) -> Call[Ranking]:
    """What will this user want next? (POST /recommend/sequential)"""
    request = Sequential(
        user_id=user_id, history=history, n_items=n_items, exclude_seen=exclude_seen, include=include,
        exclude=exclude, beam_width=beam_width, prefer=prefer, prefer_weight=prefer_weight, fusion=fusion,
        strict=strict, arm=arm, **choice,
    )  # fmt: skip
    return Call("POST", "/recommend/sequential", _reader(Ranking), _alone(request))


def topn(
    user_id: str | None = None,
    *,
    candidates: Sequence[str] | None = None,
    history: Sequence[str] | None = None,
    n_items: int | None = None,
    prefer: str | None = None,
    prefer_weight: float | None = None,
    fusion: bool | None = None,
    strict: bool | None = None,
    arm: ArmName | None = None,
    **choice: Unpack[Choice],
) -> Call[Ranking]:
    """Which of these candidates suit this user best? (POST /recommend/topn)"""
    request = TopN(
        user_id=user_id, candidates=candidates, history=history, n_items=n_items, prefer=prefer,
        prefer_weight=prefer_weight, fusion=fusion, strict=strict, arm=arm, **choice,
    )  # fmt: skip
    return Call("POST", "/recommend/topn", _reader(Ranking), _alone(request))


def similar(
    item_ids: Sequence[str],
    *,
    n_items: int | None = None,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    strict: bool | None = None,
    arm: ArmName | None = None,
    **choice: Unpack[Choice],
) -> Call[Ranking]:
    """What is like these items? (POST /recommend/similar)"""
    request = Similar(
        item_ids=item_ids, n_items=n_items, include=include, exclude=exclude, strict=strict, arm=arm, **choice
    )  # fmt: skip
    return Call("POST", "/recommend/similar", _reader(Ranking), _alone(request))


def popular(
    *,
    window: str | None = None,
    n_items: int | None = None,
    where: Mapping[str, Any] | None = None,
    exclude: Sequence[str] | None = None,
    strict: bool | None = None,
    arm: ArmName | None = None,
) -> Call[Ranking]:
    """What sells now? window: `7d`, `24h`. (POST /recommend/popular)"""
    body = {"window": window, "n_items": n_items, "where": where, "exclude": exclude, "strict": strict, "arm": arm}
    return Call("POST", "/recommend/popular", _reader(Ranking), _given(body))


def latest(
    *,
    n_items: int | None = None,
    where: Mapping[str, Any] | None = None,
    exclude: Sequence[str] | None = None,
    strict: bool | None = None,
    arm: ArmName | None = None,
) -> Call[Ranking]:
    """What is new? (POST /recommend/latest)"""
    body = {"n_items": n_items, "where": where, "exclude": exclude, "strict": strict, "arm": arm}
    return Call("POST", "/recommend/latest", _reader(Ranking), _given(body))


def explain(
    user_id: str | None,
    item_id: str,
    *,
    history: Sequence[str] | None = None,
    strict: bool | None = None,
    arm: ArmName | None = None,
) -> Call[Explanation]:
    """Why this item for this user? None for a user who is not known; a history alone will do. (POST /explain)"""
    body = _alone(Explain(user_id=user_id, item_id=item_id, history=history, strict=strict, arm=arm))
    return Call("POST", "/explain", _reader(Explanation), body, timeout_s=EXPLAIN_S)


def batch(requests: Sequence[Sequential | TopN | Similar | Explain]) -> Call[tuple[BatchResult, ...]]:
    """Several requests at once (up to 256); each has its own answer or problem, in order. (POST /recommend/batch)"""
    body = {"requests": [request.body() for request in requests]}
    return Call("POST", "/recommend/batch", lambda raw: _reader(Batch)(raw).results, body, timeout_s=BATCH_S)


def record(
    user_id: str,
    item_id: str,
    *,
    timestamp: float | None = None,
    event: str | None = None,
    quantity: int | None = None,
    context: Mapping[str, Any] | None = None,
    idempotency_key: str | None = None,
) -> Call[Recorded]:
    """Keep an event, a purchase unless told otherwise. The tries of one call are one write; pass a key to make several
    calls one. (POST /interactions)
    """
    body = Interaction(
        user_id=user_id, item_id=item_id, timestamp=timestamp, event=event, quantity=quantity, context=context
    ).body()
    headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
    return Call("POST", "/interactions", _reader(Recorded), body, headers, timeout_s=WRITE_S, is_read=False)


def record_all(
    interactions: Sequence[Interaction], *, idempotency_key: str | None = None
) -> Call[tuple[RecordResult, ...]]:
    """Keep up to 1000 interactions; each has its own result or problem, in order. (POST /interactions/batch)

    The tries of one call are one write; pass a key to make several calls one.
    """
    body = {"interactions": [interaction.body() for interaction in interactions]}
    headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
    return Call(
        "POST", "/interactions/batch", lambda raw: _reader(Results)(raw).results, body, headers,
        timeout_s=BATCH_S, is_read=False,
    )  # fmt: skip


def give_feedback(impression_id: str, item_id: str, event: str | None = None) -> Call[FeedbackTaken]:
    """What became of an item of a list: a click unless told otherwise; told twice it counts once. (POST /feedback)"""
    body = _given({"impression_id": impression_id, "item_id": item_id, "event": event})
    return Call("POST", "/feedback", _reader(FeedbackTaken), body, timeout_s=WRITE_S, is_read=False)


def history(user_id: str, *, limit: int | None = None) -> Call[History]:
    """What the service knows of the user, oldest first. (GET /history)"""
    query: dict[str, str | int] = {"user_id": user_id}
    return Call("GET", "/history", _reader(History), query=query | ({} if limit is None else {"limit": limit}))


def forget(user_id: str) -> Call[None]:
    """Forget the user, for good: what the bundle knows does not come back either. (DELETE /history)"""
    query: dict[str, str | int] = {"user_id": user_id}
    return Call("DELETE", "/history", lambda raw: None, query=query, timeout_s=WRITE_S, is_read=False)


def find_users(query: str = "", *, limit: int | None = None) -> Call[tuple[str, ...]]:
    """Users of the bundle whose id begins with `query`. (GET /users)"""
    return Call("GET", "/users", lambda raw: _reader(Users)(raw).user_ids, query=_look_up(query, limit))


def find_items(query: str = "", *, limit: int | None = None) -> Call[tuple[HistoryItem, ...]]:
    """Items whose id begins with `query` or whose title holds it. (GET /items)"""
    return Call("GET", "/items", lambda raw: _reader(Items)(raw).items, query=_look_up(query, limit))


def put_item(
    item_id: str,
    *,
    title: str | None = None,
    brand: str | None = None,
    categories: Sequence[str] | None = None,
    description: str | None = None,
    attributes: Mapping[str, AttributeValue] | None = None,
    available: bool | None = None,
) -> Call[CatalogueItem]:
    """Say all of an item, which is recommended from then on. (PUT /items/{item_id})"""
    item = PutItem(
        item_id=item_id, title=title, brand=brand, categories=categories, description=description,
        attributes=attributes, available=available,
    )  # fmt: skip
    body = {name: value for name, value in item.body().items() if name != "item_id"}
    return Call("PUT", _path_of(item_id), _reader(CatalogueItem), body, timeout_s=WRITE_S, is_read=False)


def put_items(items: Sequence[PutItem]) -> Call[ItemResults]:
    """Say all of up to 1000 items; each has its own result or problem, in order. (POST /items/batch)"""
    body = {"items": [item.body() for item in items]}
    return Call("POST", "/items/batch", _reader(ItemResults), body, timeout_s=BATCH_S, is_read=False)


def patch_item(
    item_id: str, *, available: bool | None = None, attributes: Mapping[str, AttributeValue | None] | None = None
) -> Call[CatalogueItem]:
    """Change an item's availability, or some attributes: None takes one away. (PATCH /items/{item_id})"""
    body: dict[str, Any] = {} if available is None else {"available": available}
    if attributes is not None:
        body["attributes"] = dict(attributes)
    return Call("PATCH", _path_of(item_id), _reader(CatalogueItem), body, timeout_s=WRITE_S, is_read=False)


def delete_item(item_id: str) -> Call[None]:
    """Have an item recommended nowhere any more. (DELETE /items/{item_id})"""
    return Call("DELETE", _path_of(item_id), lambda raw: None, timeout_s=WRITE_S, is_read=False)


def get_item(item_id: str) -> Call[CatalogueItem]:
    """What is known of an item. (GET /items/{item_id})"""
    return Call("GET", _path_of(item_id), _reader(CatalogueItem))


def catalogue(after: str = "", *, limit: int | None = None) -> Call[CataloguePage]:
    """What was said of items since the bundle was made, page by page. (GET /catalogue)"""
    query: dict[str, str | int] = {"after": after} | ({} if limit is None else {"limit": limit})
    return Call("GET", "/catalogue", _reader(CataloguePage), query=query)


def model() -> Call[Model]:
    """What is being served. (GET /v1/model)"""
    return Call("GET", "/v1/model", _reader(Model))


def load_bundle(path: str | None = None) -> Call[Model]:
    """Serve another bundle, or read the present one again; needs the scope admin. (POST /admin/bundle)"""
    body: dict[str, Any] = {} if path is None else {"path": path}
    return Call("POST", "/admin/bundle", _reader(Model), body, timeout_s=ADMIN_S, is_read=False, is_retried=False)


def answer_of(call: Call[A], response: httpx.Response) -> A:
    """The answer. Raises ProblemError for a problem, UnreadableAnswerError for what is neither."""
    try:
        if response.is_success:
            return call.read(response.content)
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


def _reader(model: type[B]) -> Callable[[bytes], B]:
    return model.model_validate_json


def _alone(request: Sequential | TopN | Similar | Explain) -> dict[str, Any]:
    """Body of a request outside a batch, where its path says its kind."""
    return {name: value for name, value in request.body().items() if name != "kind"}


def _given(body: dict[str, Any]) -> dict[str, Any]:
    """Without what is left to the service's defaults."""
    return {name: value for name, value in body.items() if value is not None}


def _path_of(item_id: str) -> str:
    return f"/items/{quote(item_id, safe='')}"


def _look_up(query: str, limit: int | None) -> dict[str, str | int]:
    return {"query": query} | ({} if limit is None else {"limit": limit})
