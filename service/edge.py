"""The outermost layer of every HTTP request: identity, limits on the body, disconnects, headers, log and metrics.

Plain ASGI, because it runs on every request. Nothing leaves it but a response: what nobody foresaw becomes a problem
here.
"""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.context import SCOPE_KEY, RequestContext
from service.observability import Metrics, describe_error
from service.problems import (
    OVERLOADED,
    SLOW_BODY,
    TOO_LARGE,
    UNKNOWN_HOST,
    BodyError,
    ProblemError,
    problem_response,
)
from service.security import host_is_allowed, security_headers
from service.settings import Settings
from service.tracing import Tracer

log = logging.getLogger("rdrec.access")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
CLIENT_GONE = 499
"""Status in logs and metrics of a request whose client hung up; nothing is sent."""


class Edge:
    """See the module. `is_draining` says whether connections are to be closed after their answer."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        metrics: Metrics,
        tracer: Tracer | None,
        clock: Callable[[], float],
        is_draining: Callable[[], bool],
    ) -> None:
        self.app = app
        self._settings = settings
        self._metrics = metrics
        self._tracer = tracer
        self._clock = clock
        self._is_draining = is_draining
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        offered = headers.get("x-request-id", "")
        request_id = offered if _REQUEST_ID.fullmatch(offered) else uuid.uuid4().hex[:16]
        context = RequestContext(request_id, self._clock, self._clock())
        scope[SCOPE_KEY] = context
        exchange = _Exchange(scope, receive, send, context, self._settings, close=self._is_draining())
        self._in_flight += 1
        self._metrics.in_flight.inc()
        try:
            if (refusal := self._refusal(scope, headers)) is not None:
                await problem_response(refusal, request_id)(scope, receive, exchange.send)
            else:
                await exchange.run(self.app)
        except Exception as error:
            log.error("unforeseen_error", extra={"request_id": request_id, **describe_error(error)})
            if exchange.status is None:
                await problem_response(error, request_id)(scope, receive, exchange.send)
        finally:
            self._in_flight -= 1
            self._metrics.in_flight.dec()
            self._report(scope, context, exchange.status or CLIENT_GONE, headers)

    def _refusal(self, scope: Scope, headers: Headers) -> ProblemError | None:
        path = scope["path"]
        if path == "/metrics" or path.startswith(
            "/health/"
        ):  # probes know no host name, and must get through when full
            return None
        if not host_is_allowed(headers.get("host", ""), self._settings.allowed_hosts):
            return ProblemError(UNKNOWN_HOST, "this service does not answer under this host name")
        if self._in_flight > self._settings.max_in_flight:
            limit = self._settings.max_in_flight
            return ProblemError(OVERLOADED, f"{limit} requests are being served already", retry_after_s=1.0)
        return None

    def _report(self, scope: Scope, context: RequestContext, status: int, headers: Headers) -> None:
        seconds = self._clock() - context.started_at
        context.endpoint = getattr(scope.get("route"), "path", "unmatched")
        self._metrics.observe_request(context, status, seconds)
        if self._tracer is not None:
            self._tracer.record(context, status, seconds, headers.get("traceparent"))
        if self._settings.access_log:
            log.info("request", extra=_log_fields(scope, context, status, seconds))


def _log_fields(scope: Scope, context: RequestContext, status: int, seconds: float) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "request_id": context.request_id,
        "method": scope["method"],
        "endpoint": context.endpoint,
        "status": status,
        "ms": round(seconds * 1000, 2),
        "caller": context.caller,
        "user": context.user_hash,
        "model_version": context.model_version,
        "arm": context.arm,
        "history_source": context.history_source,
        "cache": context.cache,
        **{f"{phase}_ms": round(spent * 1000, 2) for phase, spent in context.seconds.items()},
    }
    if context.degraded:
        fields["degraded"] = True
    return {name: value for name, value in fields.items() if value is not None}


class _Exchange:
    """One request and its response on their way through the edge."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, context: RequestContext, settings: Settings, *, close: bool
    ) -> None:
        self.status: int | None = None
        self._scope = scope
        self._receive = receive
        self._send = send
        self._context = context
        self._limit = settings.max_body_bytes
        self._body_deadline = asyncio.get_running_loop().time() + settings.body_timeout_s
        self._close = close
        self._received = 0
        self._is_whole = False
        self._gone = asyncio.Event()
        self._task = asyncio.current_task()
        self._watcher: asyncio.Task[None] | None = None

    async def run(self, app: ASGIApp) -> None:
        """Let the application answer; a client that hangs up cancels it, which frees its place in the queue."""
        try:
            await app(self._scope, self.receive, self.send)
        except asyncio.CancelledError:
            if not self._gone.is_set() or self._task is None:
                raise
            self._task.uncancel()
        finally:
            if self._watcher is not None:
                self._watcher.cancel()

    async def receive(self) -> Message:
        """The next piece of the body, within its limits; then nothing until the client is gone."""
        if self._is_whole:
            await self._gone.wait()
            return {"type": "http.disconnect"}
        length = Headers(scope=self._scope).get("content-length", "")
        if length.isdigit() and len(length) < 20 and int(length) > self._limit:
            raise self._too_large()
        try:
            async with asyncio.timeout_at(self._body_deadline):
                message = await self._receive()
        except TimeoutError:
            raise BodyError(SLOW_BODY, "the body did not arrive in time") from None
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            if self._received > self._limit:
                raise self._too_large()
            if not message.get("more_body", False):
                self._is_whole = True
                self._watcher = asyncio.create_task(self._watch())
        return message

    def _too_large(self) -> BodyError:
        return BodyError(TOO_LARGE, f"the body is larger than {self._limit} bytes")

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone.set()
        if self.status is None and self._task is not None:
            self._task.cancel()

    async def send(self, message: Message) -> None:
        """Add the headers that every response has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message.get("headers", ()), *self._headers()]}
        await self._send(message)

    def _headers(self) -> list[tuple[bytes, bytes]]:
        context = self._context
        spent: list[tuple[str, float]] = [*context.seconds.items(), ("total", context.clock() - context.started_at)]
        timing = ", ".join(f"{phase};dur={seconds * 1000:.2f}" for phase, seconds in spent)
        headers = [
            (b"x-request-id", context.request_id.encode()),
            (b"server-timing", timing.encode()),
            *security_headers(self._scope["path"]),
        ]
        return [*headers, (b"connection", b"close")] if self._close else headers
