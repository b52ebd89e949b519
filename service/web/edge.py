"""The outermost layer of every HTTP request: identity, refusals that need no look at the body, log and metrics.

Plain ASGI, because it runs on every request. Nothing leaves it but a response: what nobody foresaw becomes a problem
here.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.settings import Settings
from service.telemetry.observability import Metrics, describe_error
from service.telemetry.tracing import Tracer
from service.web.exchange import METHOD_KEY, Exchange
from service.web.security import host_is_allowed
from service.wire.context import SCOPE_KEY, RequestContext
from service.wire.problems import OVERLOADED, UNKNOWN_HOST, ProblemError, problem_response

log = logging.getLogger("rdrec.access")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
CLIENT_GONE = 499
"""Status in logs and metrics of a request whose client hung up; nothing is sent."""


class Edge:
    """See the module.

    is_draining: whether connections are to be closed after their answer. seconds_ahead: how long the queue is.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        metrics: Metrics,
        tracer: Tracer | None,
        clock: Callable[[], float],
        is_draining: Callable[[], bool],
        seconds_ahead: Callable[[], float],
    ) -> None:
        self.app = app
        self._settings = settings
        self._metrics = metrics
        self._tracer = tracer
        self._clock = clock
        self._is_draining = is_draining
        self._seconds_ahead = seconds_ahead
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope = _plain(scope)
        headers = Headers(scope=scope)
        offered = headers.get("x-request-id", "")
        request_id = offered if _REQUEST_ID.fullmatch(offered) else uuid.uuid4().hex[:16]
        context = RequestContext(request_id, self._clock, self._clock())
        scope[SCOPE_KEY] = context
        exchange = Exchange(scope, receive, send, context, self._settings, close=self._is_draining())
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
        if path == "/metrics" or path.startswith("/health/"):  # probes know no host name and must get through when full
            return None
        if not host_is_allowed(headers.get("host", ""), self._settings.allowed_hosts):
            return ProblemError(UNKNOWN_HOST, "this service does not answer under this host name")
        if self._in_flight > self._settings.max_in_flight:
            limit = self._settings.max_in_flight
            wait_s = self._seconds_ahead()
            return ProblemError(OVERLOADED, f"{limit} requests are being served already", retry_after_s=wait_s)
        return None

    def _report(self, scope: Scope, context: RequestContext, status: int, headers: Headers) -> None:
        seconds = self._clock() - context.started_at
        context.endpoint = getattr(scope.get("route"), "path_format", "unmatched")
        self._metrics.observe_request(context, status, seconds)
        if self._tracer is not None:
            self._tracer.record(context, status, seconds, headers.get("traceparent"))
        if self._settings.access_log:
            log.info("request", extra=_log_fields(scope, context, status, seconds))


def _plain(scope: Scope) -> Scope:
    """The request as the routes know it, in a scope of our own.

    HEAD is GET whose body is not sent (`Exchange`): balancers and monitors ask so. A slash at the end of a path is no
    other path; a redirect would need to know by which name and scheme the caller came.
    """
    plain = {**scope, METHOD_KEY: scope["method"]}
    if scope["method"] == "HEAD":
        plain["method"] = "GET"
    path = scope["path"]
    if len(path) > 1 and path.endswith("/") and not path.startswith("/console/"):
        plain["path"] = path.rstrip("/") or "/"
    return plain


def _log_fields(scope: Scope, context: RequestContext, status: int, seconds: float) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "request_id": context.request_id,
        "method": scope[METHOD_KEY],
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
