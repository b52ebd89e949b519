"""What every endpoint stands on: keys and deadlines before the body is read, and how an answer is written."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.convertors import PathConvertor, register_url_convertor

from service.parts import Parts
from service.settings import Scope
from service.telemetry.observability import user_hash
from service.web.security import Guard, context_of
from service.wire.problems import INVALID_REQUEST, WRONG_MEDIA_TYPE, ProblemError
from service.wire.rankings import RankingAnswer

MAX_TIMEOUT_MS = 60_000


class _Anything(PathConvertor):
    """Like `path`, but the id may hold line ends too."""

    regex = "(?s:.*)"


class _Item(PathConvertor):
    """Any id but `batch`, which is an endpoint."""

    regex = r"(?!batch\Z)(?s:.*)"


register_url_convertor("anything", _Anything())
register_url_convertor("item", _Item())


Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def guarded(scope: Scope, *, direct: bool = False) -> type[APIRoute]:
    """Routes that check key, rate, media type and deadline before the body is read.

    direct: endpoints of (request, body) alone get their body from pydantic's own JSON parser, past the framework's
    resolution of parameters, which costs as much as everything else that the service does for a request.
    """

    class GuardedRoute(APIRoute):
        def get_route_handler(self) -> Handler:
            """See APIRoute."""
            inner = _direct_handler(self) if direct else super().get_route_handler()

            async def handle(request: Request) -> Response:
                parts = parts_of(request)
                await guard_of(request).admit(request, scope)
                if self.body_field is not None:
                    _require_json(request)
                _set_deadline(request, parts.settings.default_timeout_ms(self.path))
                return await inner(request)

            return handle

    return GuardedRoute


def _direct_handler(route: APIRoute) -> Handler:
    assert route.body_field is not None
    body_type: Any = route.body_field.field_info.annotation
    adapter: TypeAdapter[Any] = TypeAdapter(body_type)

    async def handle(request: Request) -> Response:
        try:
            body = adapter.validate_json(await request.body())
        except ValidationError as error:
            errors = error.errors(include_url=False, include_context=False, include_input=False)
            raise RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in errors]) from None
        answer: Response = await route.endpoint(request, body)
        return answer

    return handle


def parts_of(request: Request) -> Parts:
    """The parts of the service that answers this request."""
    parts = request.app.state.parts
    assert isinstance(parts, Parts)
    return parts


def guard_of(request: Request) -> Guard:
    """Who lets this request in."""
    guard = request.app.state.guard
    assert isinstance(guard, Guard)
    return guard


def name_user(request: Request, user_id: str | None) -> None:
    """Let the log know the request's user, hashed."""
    if user_id is not None:
        salt = parts_of(request).settings.log_salt.get_secret_value()
        context_of(request).user_hash = user_hash(user_id, salt)


def _require_json(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise ProblemError(WRONG_MEDIA_TYPE, f"the body is {media_type or 'of no stated type'}, not application/json")


def _set_deadline(request: Request, default_ms: int) -> None:
    context = context_of(request)
    asked = request.headers.get("x-request-timeout-ms")
    if asked is None:
        timeout_ms = default_ms
    elif asked.isascii() and asked.isdigit() and len(asked) <= 6 and 1 <= int(asked) <= MAX_TIMEOUT_MS:
        timeout_ms = int(asked)
    else:
        raise ProblemError(
            INVALID_REQUEST,
            f"X-Request-Timeout-Ms is a whole number from 1 to {MAX_TIMEOUT_MS}",
            field="X-Request-Timeout-Ms",
        )
    context.deadline = context.started_at + timeout_ms / 1000


def json_answer(answer: BaseModel | RankingAnswer, status: int = 200) -> Response:
    """The answer as it is: nothing but this service made it."""
    content = orjson.dumps(answer) if isinstance(answer, RankingAnswer) else answer.model_dump_json()
    return Response(content, status_code=status, media_type="application/json")
