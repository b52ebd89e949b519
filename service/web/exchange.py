"""One HTTP request and its response on their way through the edge: limits on the body, disconnects, common headers.

Timers rather than tasks and time-out scopes: this runs for every request, and most are answered before it matters.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.settings import Settings
from service.web.security import security_headers
from service.wire.context import RequestContext
from service.wire.problems import SLOW_BODY, TOO_LARGE, BodyError, problem_response

METHOD_KEY = "rdrec.method"
"""Where in the scope the method is by which the caller really asked."""
WATCH_AFTER_S = 0.05
"""A client that hangs up is looked for once its request has taken this long; most never do."""


class Exchange:
    """`status` is None until the response has begun."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, context: RequestContext, settings: Settings, *, close: bool
    ) -> None:
        self.status: int | None = None
        self._scope = scope
        self._receive = receive
        self._send = send
        self._context = context
        self._limit = settings.max_body_bytes
        self._body_timeout_s = settings.body_timeout_s
        self._close = close
        self._received = 0
        self._is_whole = False
        self._is_slow = False
        self._is_gone = False
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def run(self, app: ASGIApp) -> None:
        """Let the application answer; a client that hangs up cancels it, which frees its place in the queue."""
        try:
            await app(self._scope, self.receive, self.send)
        except asyncio.CancelledError:
            if self._task is None or not (self._is_gone or self._is_slow):
                raise
            self._task.uncancel()
            if self._is_slow and self.status is None:
                slow = BodyError(SLOW_BODY, f"the body did not arrive within {self._body_timeout_s:g} s")
                await problem_response(slow, self._context.request_id)(self._scope, self._receive, self.send)
        finally:
            if self._timer is not None:
                self._timer.cancel()
            if self._watcher is not None:
                self._watcher.cancel()

    async def receive(self) -> Message:
        """The next piece of the body, within its limits; after it nothing, for as long as the application asks."""
        if self._is_whole:
            await self._loop.create_future()
        if self._timer is None:
            self._refuse_announced_length()
            self._timer = self._loop.call_later(self._body_timeout_s, self._give_up)
        message = await self._receive()
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            if self._received > self._limit:
                raise self._too_large()
            if not message.get("more_body", False):
                self._is_whole = True
                self._timer.cancel()
                self._timer = self._loop.call_later(WATCH_AFTER_S, self._watch)
        return message

    def _refuse_announced_length(self) -> None:
        for name, value in self._scope["headers"]:
            if name == b"content-length" and value.isdigit() and (len(value) > 18 or int(value) > self._limit):
                raise self._too_large()

    def _too_large(self) -> BodyError:
        return BodyError(TOO_LARGE, f"the body is larger than {self._limit} bytes")

    def _give_up(self) -> None:
        self._is_slow = True
        if self._task is not None:
            self._task.cancel()

    def _watch(self) -> None:
        self._watcher = self._loop.create_task(self._wait_for_disconnect())

    async def _wait_for_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self.status is None and self._task is not None:
            self._is_gone = True
            self._task.cancel()

    async def send(self, message: Message) -> None:
        """Add the headers that every response has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message.get("headers", ()), *self._headers()]}
        elif self._scope[METHOD_KEY] == "HEAD" and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)

    def _headers(self) -> list[tuple[bytes, bytes]]:
        context = self._context
        spent = [*context.seconds.items(), ("total", context.clock() - context.started_at)]
        timing = ", ".join([f"{phase};dur={seconds * 1000:.2f}" for phase, seconds in spent])
        headers = [
            (b"x-request-id", context.request_id.encode()),
            (b"server-timing", timing.encode()),
            *security_headers(self._scope["path"]),
        ]
        return [*headers, (b"connection", b"close")] if self._close else headers
