"""The outermost layer of every HTTP request: identity, refusals that need no look at the body, log and metrics.

Plain ASGI, because it runs on every request. Nothing leaves it but a response: what nobody foresaw becomes a problem
here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.engine.admission import Admission
from service.settings import Settings
from service.telemetry.observability import Metrics, describe_error
from service.telemetry.tracing import Tracer
from service.web.doorman import ADMITTED_KEY, line_of
from service.web.exchange import METHOD_KEY, Exchange
from service.web.security import host_is_allowed
from service.wire.context import SCOPE_KEY, RequestContext, request_id_of
from service.wire.problems import OVERLOADED, UNKNOWN_HOST, ProblemError, problem_response
from service.wire.work import Line

log = logging.getLogger("rdrec.access")
CLIENT_GONE = 499
"""Status in logs and metrics of a request whose client hung up; nothing is sent."""


class Edge:
    """See the module.

    is_draining: whether connections are to be closed after their answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        metrics: Metrics,
        tracer: Tracer | None,
        clock: Callable[[], float],
        is_draining: Callable[[], bool],
        admission: Admission,
    ) -> None:
        self.app = app
        self._settings = settings
        self._metrics = metrics
        self._tracer = tracer
        self._clock = clock
        self._is_draining = is_draining
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope = _plain(scope)
        headers = Headers(scope=scope)
        request_id = request_id_of(headers.get("x-request-id", ""))
        context = RequestContext(request_id, self._clock, self._clock())
        line = line_of(scope["path"])
        context.line = line or Line.OTHER
        scope[SCOPE_KEY] = context
        exchange = Exchange(scope, receive, send, context, self._settings, close=self._is_draining())
        self._metrics.in_flight.inc()
        limit = None if line is None else self._admission.limits[line]
        is_in = ADMITTED_KEY in scope
        try:
            if (refusal := self._refusal(headers, line, is_in=is_in)) is not None:
                await problem_response(refusal, request_id)(scope, receive, exchange.send)
            else:
                if limit is not None and not is_in:
                    limit.enter()
                    is_in = True
                await exchange.run(self.app)
        except Exception as error:
            log.error("unforeseen_error", extra={"request_id": request_id, **describe_error(error)})
            if exchange.status is None:
                await problem_response(error, request_id)(scope, receive, exchange.send)
        finally:
            if limit is not None and is_in:
                limit.leave(context.share_of_time())
            self._metrics.in_flight.dec()
            self._report(scope, context, exchange.status or CLIENT_GONE, headers)

    def _refusal(self, headers: Headers, line: Line | None, *, is_in: bool) -> ProblemError | None:
        if line is None:  # probes know no host name and must get through when full
            return None
        if not host_is_allowed(headers.get("host", ""), self._settings.allowed_hosts):
            return ProblemError(UNKNOWN_HOST, "this service does not answer under this host name")
        if not is_in and (refusal := self._admission.refusal(line)) is not None:
            self._metrics.turned_away.labels(line.value).inc()
            return ProblemError(OVERLOADED, refusal.detail, retry_after_s=refusal.retry_after_s)
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
