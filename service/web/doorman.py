"""Turns requests away before anything is made of them: no task, no context, no look at the body.

A uvicorn protocol, because under overload most of what a process does is say no (docs/operations.md, Overload).
Whatever is not plainly a POST to an endpoint of a full line goes on to the edge, which asks the same `Admission` again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.engine.admission import Admission, Refusal
from service.telemetry.observability import Metrics
from service.wire.context import request_id_of
from service.wire.problems import MEDIA_TYPE, OVERLOADED
from service.wire.work import Line

log = logging.getLogger("rdrec.access")
LINES: dict[str, Line] = {
    "/recommend/sequential": Line.INTERACTIVE,
    "/recommend/topn": Line.INTERACTIVE,
    "/recommend/similar": Line.INTERACTIVE,
    "/explain": Line.EXPLAIN,
    "/recommend/batch": Line.BATCH,
}
_LINES = {path.encode(): line for path, line in LINES.items()}
_HEAD = (
    "HTTP/1.1 429 Too Many Requests\r\n"
    f"content-type: {MEDIA_TYPE}\r\nx-content-type-options: nosniff\r\ncache-control: no-store\r\n"
).encode()
_PROBLEM = (OVERLOADED.uri.encode(), OVERLOADED.title.encode())
ADMITTED_KEY = "rdrec.admitted"
"""In the scope of a request that its line's limit has counted in already."""
LOG_EVERY_S = 1.0
Headers = Sequence[tuple[bytes, bytes]]


def line_of(path: str) -> Line | None:
    """The line of a path; None for probes, which must get through when all is full."""
    if path == "/metrics" or path.startswith("/health/"):
        return None
    return LINES.get(path, Line.OTHER)


class Doorman:
    """What all connections share: whom to turn away, with which bytes, and how it is counted."""

    def __init__(
        self, admission: Admission, metrics: Metrics, clock: Callable[[], float], is_draining: Callable[[], bool]
    ) -> None:
        self._admission = admission
        self._clock = clock
        self._is_draining = is_draining
        self._requests = {path: metrics.requests.labels(path.decode(), "429") for path in _LINES}
        self._refused = {line: metrics.turned_away.labels(line.value) for line in Line}
        self._since_logged = 0
        self._log_at = 0.0

    def line_of(self, method: bytes, target: bytes) -> Line | None:
        """The line of a request that it can tell at a glance."""
        return _LINES.get(target) if method == b"POST" else None

    def admit(self, line: Line) -> Refusal | None:
        """Let a request begin, or say why not. Whoever serves it tells the line's limit when it has ended."""
        refusal = self._admission.refusal(line)
        if refusal is None:
            self._admission.limits[line].enter()
        return refusal

    def answer(
        self, target: bytes, refusal: Refusal, offered_id: bytes, defaults: Headers, *, keep_alive: bool
    ) -> tuple[bytes, bool]:
        """The response, and whether the connection stays open behind it. defaults: headers of every response."""
        started = self._clock()
        request_id = request_id_of(offered_id.decode("latin-1"))
        keep_alive = keep_alive and not self._is_draining()
        body = b'{"type":"%b","title":"%b","status":429,"detail":"%b","request_id":"%b"}' % (
            *_PROBLEM,
            refusal.detail.encode(),
            request_id.encode(),
        )
        retry_after_s = max(1, math.ceil(refusal.retry_after_s))
        head = b"content-length: %d\r\nretry-after: %d\r\nx-request-id: %b\r\n%b\r\n" % (
            len(body),
            retry_after_s,
            request_id.encode(),
            b"" if keep_alive else b"connection: close\r\n",
        )
        self._note(target, started)
        return b"".join([_HEAD, *(b"%b: %b\r\n" % pair for pair in defaults), head, body]), keep_alive

    def _note(self, target: bytes, started: float) -> None:
        now = self._clock()
        self._requests[target].observe(now - started)
        self._refused[_LINES[target]].inc()
        self._since_logged += 1
        if now >= self._log_at:  # a line for each would cost more than the refusal
            log.info("turned_away", extra={"requests": self._since_logged})
            self._since_logged, self._log_at = 0, now + LOG_EVERY_S


def protocol_of(doorman: Doorman) -> type[HttpToolsProtocol]:
    """The protocol of the connections that this doorman watches."""

    class Watched(HttpToolsProtocol):
        """uvicorn's protocol but for requests that are turned away: they are answered once their headers are there, and
        their bodies are read to nowhere.
        """

        _skips_body = False
        _last_was_refused = False

        def on_headers_complete(self) -> None:
            line = None
            # what is not the connection's only business keeps its order behind it
            if (self.cycle is None or self.cycle.response_complete) and not self.expect_100_continue:
                line = doorman.line_of(self.parser.get_method(), self.url)
            if self.flow.write_paused:
                line = None
            refusal = None if line is None else doorman.admit(line)
            self._last_was_refused = refusal is not None
            if refusal is None:
                if line is not None:
                    self.scope[ADMITTED_KEY] = True  # type: ignore[literal-required]
                super().on_headers_complete()
                return
            self._skips_body = True
            self.server_state.total_requests += 1
            offered = next((value for name, value in self.headers if name == b"x-request-id"), b"")
            answer, stays_open = doorman.answer(
                self.url,
                refusal,
                offered,
                self.server_state.default_headers,
                keep_alive=self.parser.should_keep_alive() and self.parser.get_http_version() != "1.0",
            )
            self.transport.write(answer)
            if not stays_open:
                self.transport.close()

        def on_body(self, body: bytes) -> None:
            if not self._skips_body:
                super().on_body(body)

        def on_message_complete(self) -> None:
            if self._skips_body:
                self._skips_body = False
            else:
                super().on_message_complete()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._last_was_refused and self.timeout_keep_alive_task is None and not self.transport.is_closing():
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )

    return Watched
