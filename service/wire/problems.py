"""The one place where errors become HTTP: every failure is an RFC 9457 problem with a stable type.

Knows the domain's errors and their status; nothing of a request or a traceback is ever copied into a problem.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from rdrec_core.errors import BundleError, EngineError, InputError, UnknownItemError
from service.stores.catalogue.base import CatalogueUnavailableError
from service.stores.history.base import HistoryUnavailableError
from service.wire.base import FieldError, ProblemAnswer
from service.wire.work import (
    CatalogueConflictError,
    CatalogueFullError,
    DeadlineError,
    EngineDownError,
    OldImpressionError,
    QueueFullError,
    RequestEndedEngineError,
    UnknownImpressionError,
)

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class ProblemType:
    """A row of the table in docs/api.md; `slug` makes the type URI and never changes."""

    slug: str
    status: int
    title: str

    @property
    def uri(self) -> str:
        """`urn:rdrec:problem:<slug>`."""
        return f"urn:rdrec:problem:{self.slug}"


INVALID_REQUEST = ProblemType("invalid-request", 422, "Invalid request")
UNREADABLE_BODY = ProblemType("unreadable-body", 400, "Unreadable body")
UNKNOWN_HOST = ProblemType("unknown-host", 400, "Unknown host")
UNAUTHENTICATED = ProblemType("unauthenticated", 401, "API key missing or unknown")
FORBIDDEN = ProblemType("forbidden", 403, "Not allowed with this API key")
NOT_FOUND = ProblemType("not-found", 404, "No such page")
UNKNOWN_ITEM = ProblemType("unknown-item", 404, "Unknown item")
METHOD_NOT_ALLOWED = ProblemType("method-not-allowed", 405, "Method not allowed")
SLOW_BODY = ProblemType("slow-body", 408, "The body took too long")
UNKNOWN_IMPRESSION = ProblemType("unknown-impression", 404, "Unknown impression")
IMPRESSION_GONE = ProblemType("impression-gone", 410, "The impression is too old")
CATALOGUE_CONFLICT = ProblemType("catalogue-conflict", 409, "Not as the catalogue's other items")
BUNDLE_REFUSED = ProblemType("bundle-refused", 409, "The bundle was refused")
TOO_LARGE = ProblemType("body-too-large", 413, "Body too large")
WRONG_MEDIA_TYPE = ProblemType("wrong-media-type", 415, "The body must be application/json")
RATE_LIMITED = ProblemType("rate-limited", 429, "Too many requests with this API key")
OVERLOADED = ProblemType("overloaded", 429, "The service is full")
INTERNAL = ProblemType("internal-error", 500, "Internal error")
ENGINE_ENDED = ProblemType("engine-ended", 500, "This request ended the engine")
ENGINE_FAILED = ProblemType("engine-failed", 503, "The engine failed on this request")
ENGINE_DOWN = ProblemType("engine-down", 503, "The engine is being restarted")
CATALOGUE_UNAVAILABLE = ProblemType("catalogue-unavailable", 503, "The catalogue store is out of reach")
HISTORY_UNAVAILABLE = ProblemType("history-unavailable", 503, "The history store is out of reach")
DEADLINE = ProblemType("deadline-exceeded", 504, "Deadline exceeded")
CATALOGUE_FULL = ProblemType("catalogue-full", 507, "No room for further items")

PROBLEM_TYPES: tuple[ProblemType, ...] = tuple(
    sorted((v for v in list(globals().values()) if isinstance(v, ProblemType)), key=lambda p: (p.status, p.slug))
)
_BY_STATUS = {404: NOT_FOUND, 405: METHOD_NOT_ALLOWED, 400: UNREADABLE_BODY}


class ProblemError(Exception):
    """Raised where HTTP itself is the matter (authorisation, body limits)."""

    def __init__(
        self,
        problem: ProblemType,
        detail: str,
        *,
        field: str | None = None,
        retry_after_s: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.problem = problem
        self.detail = detail
        self.field = field
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))


class BodyError(HTTPException):
    """A problem found while the framework reads the body, where it lets HTTPException alone pass through."""

    def __init__(self, problem: ProblemType, detail: str) -> None:
        super().__init__(problem.status, detail)
        self.problem = problem


def as_problem(error: Exception) -> ProblemError:
    """The problem that tells the caller of an error; for an unforeseen one, nothing but that it happened."""
    match error:
        case ProblemError():
            return error
        case UnknownItemError():
            return ProblemError(UNKNOWN_ITEM, str(error), field=error.field)
        case InputError():
            return ProblemError(INVALID_REQUEST, str(error), field=error.field)
        case UnknownImpressionError():
            return ProblemError(UNKNOWN_IMPRESSION, str(error), field="impression_id")
        case OldImpressionError():
            return ProblemError(IMPRESSION_GONE, str(error), field="impression_id")
        case QueueFullError():
            return ProblemError(OVERLOADED, str(error), retry_after_s=error.retry_after_s)
        case HistoryUnavailableError():
            return ProblemError(HISTORY_UNAVAILABLE, str(error), retry_after_s=error.retry_after_s)
        case CatalogueUnavailableError():
            return ProblemError(CATALOGUE_UNAVAILABLE, str(error), retry_after_s=error.retry_after_s)
        case CatalogueConflictError():
            return ProblemError(CATALOGUE_CONFLICT, str(error), field=error.field)
        case CatalogueFullError():
            return ProblemError(CATALOGUE_FULL, str(error))
        case DeadlineError():
            return ProblemError(DEADLINE, str(error))
        case RequestEndedEngineError():
            return ProblemError(ENGINE_ENDED, str(error))
        case EngineDownError():
            return ProblemError(ENGINE_DOWN, str(error), retry_after_s=1.0)
        case EngineError():
            return ProblemError(ENGINE_FAILED, str(error), retry_after_s=1.0)
        case BundleError():
            return ProblemError(BUNDLE_REFUSED, str(error))
        case BodyError():
            return ProblemError(error.problem, error.detail, headers={"Connection": "close"})
        case HTTPException():
            problem = _BY_STATUS.get(error.status_code)
            if problem is None:
                problem = ProblemType(
                    f"http-{error.status_code}", error.status_code, HTTPStatus(error.status_code).phrase
                )
            return ProblemError(problem, str(error.detail), headers=dict(error.headers or {}))
        case _:
            return ProblemError(INTERNAL, "something went wrong here; the request_id finds it in the logs")


def field_name(location: tuple[int | str, ...]) -> str:
    """`("body", "requests", 3, "sequential", "history", 0)` -> `requests[3].history[0]`."""
    name = ""
    for part in location[1:]:
        if isinstance(part, int):
            name += f"[{part}]"
        elif part not in {"sequential", "topn", "similar", "explain"} and not part.startswith(
            ("list[", "function-", "constrained-")
        ):
            name += f".{part}" if name else part
    return name or str(location[0] if location else "body")


def _validation_answer(error: RequestValidationError, request_id: str) -> ProblemAnswer:
    first = error.errors()[0] if error.errors() else {"loc": ("body",), "msg": "invalid", "type": ""}
    problem = UNREADABLE_BODY if first["type"] == "json_invalid" else INVALID_REQUEST
    if problem is UNREADABLE_BODY:
        errors = [FieldError(field="body", message="the body is not valid JSON")]
    else:
        errors = [FieldError(field=field_name(tuple(e["loc"])), message=str(e["msg"])) for e in error.errors()[:20]]
    return ProblemAnswer(
        type=problem.uri,
        title=problem.title,
        status=problem.status,
        detail=f"{errors[0].field}: {errors[0].message}",
        request_id=request_id,
        field=errors[0].field,
        errors=errors,
    )


def problem_answer(error: Exception, request_id: str) -> ProblemAnswer:
    """The body that tells of an error."""
    if isinstance(error, RequestValidationError):
        return _validation_answer(error, request_id)
    problem = as_problem(error)
    kind = problem.problem
    return ProblemAnswer(
        type=kind.uri,
        title=kind.title,
        status=kind.status,
        detail=problem.detail,
        request_id=request_id,
        field=problem.field,
    )


def problem_response(error: Exception, request_id: str) -> JSONResponse:
    """The response that tells of an error."""
    answer = problem_answer(error, request_id)
    headers = {} if isinstance(error, RequestValidationError) else as_problem(error).headers
    content: dict[str, Any] = answer.model_dump(exclude_none=True)
    return JSONResponse(content, status_code=answer.status, media_type=MEDIA_TYPE, headers=headers)
