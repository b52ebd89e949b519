"""Which requests may begin, on a clock that the test moves; and how the others are turned away, without a socket."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from service.engine.admission import LEAST, WINDOW_REQUESTS, WINDOW_S, AdaptiveLimit, Admission
from service.telemetry.observability import Metrics
from service.web.doorman import ADMITTED_KEY, LINES, Doorman, line_of, protocol_of
from service.wire.work import Line

IDLE_S = 75


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def window(limit: AdaptiveLimit, clock: Clock, share: float, *, reached: bool = True, late_of: int = 1) -> float:
    """A window in which every `late_of`-th request used this share of its time and the others none."""
    requests = max(WINDOW_REQUESTS, int(limit.limit)) if reached else WINDOW_REQUESTS
    for _ in range(requests):
        limit.enter()
    assert limit.is_full is (requests >= int(limit.limit))
    for n in range(requests):
        if n == requests - 1:
            clock.now += WINDOW_S
        limit.leave(share if n % late_of == 0 else 0.0)
    return limit.limit


def test_a_line_is_full_at_its_limit_and_has_a_place_again_after_an_end() -> None:
    limit = AdaptiveLimit(2, Clock())
    limit.enter()
    assert not limit.is_full
    limit.enter()
    assert limit.is_full
    limit.leave(0.0)
    assert not limit.is_full


def test_the_limit_is_cut_while_requests_are_late_and_grows_back_once_none_is() -> None:
    clock = Clock()
    limit = AdaptiveLimit(100, clock)
    cut = [window(limit, clock, 0.9) for _ in range(3)]
    assert cut == pytest.approx([85.0, 72.25, 61.4125])
    grown = [window(limit, clock, 0.1) for _ in range(12)]
    assert grown == sorted(grown)
    assert grown[-1] == 100.0, "and no further"


def test_it_is_never_cut_to_nothing() -> None:
    clock = Clock()
    limit = AdaptiveLimit(100, clock)
    for _ in range(60):
        window(limit, clock, 5.0)
    assert limit.limit == 100 * LEAST
    least = AdaptiveLimit(1, clock)
    for _ in range(60):
        window(least, clock, 5.0)
    assert least.limit == 1.0


def test_between_few_and_many_late_requests_it_stays() -> None:
    clock = Clock()
    limit = AdaptiveLimit(100, clock)
    window(limit, clock, 0.9)
    assert [window(limit, clock, 0.9, late_of=20) for _ in range(20)] == [85.0] * 20  # one in twenty


def test_a_limit_that_nobody_reached_does_not_grow() -> None:
    clock = Clock()
    limit = AdaptiveLimit(100, clock)
    window(limit, clock, 0.9)
    assert [window(limit, clock, 0.0, reached=False) for _ in range(5)] == [85.0] * 5


def test_within_a_window_nothing_changes() -> None:
    clock = Clock()
    limit = AdaptiveLimit(100, clock)
    for _ in range(100 * WINDOW_REQUESTS):
        limit.enter()
        limit.leave(1.0)
    assert limit.limit == 100.0


def test_lines_have_limits_of_their_own() -> None:
    admission = Admission(8, Clock(), lambda line: 7.5)
    for _ in range(2):
        admission.limits[Line.EXPLAIN].enter()
    refusal = admission.refusal(Line.EXPLAIN)
    assert refusal is not None
    assert refusal.retry_after_s == 7.5
    assert admission.refusal(Line.INTERACTIVE) is None
    assert admission.refusal(Line.BATCH) is None


def test_probes_are_in_no_line() -> None:
    assert [line_of(path) for path in ("/health/ready", "/metrics", "/explain", "/items")] == [
        None, None, Line.EXPLAIN, Line.OTHER,
    ]  # fmt: skip


class Transport(asyncio.Transport):
    """Writes into a list."""

    def __init__(self) -> None:
        super().__init__({"sockname": ("127.0.0.1", 1), "peername": ("127.0.0.1", 2)})
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Connection:
    """One connection to an application that tells which bodies it got."""

    def __init__(self, *, most: int, draining: bool = False) -> None:
        self.bodies: list[bytes] = []
        self.admission = Admission(most, Clock(), lambda line: 2.2)
        self.metrics = Metrics()
        doorman = Doorman(self.admission, self.metrics, Clock(), lambda: draining)
        config = uvicorn.Config(
            self.app, http=protocol_of(doorman), lifespan="off", log_config=None, interface="asgi3",
            timeout_keep_alive=IDLE_S,
        )  # fmt: skip
        config.load()
        self.protocol = protocol_of(doorman)(config, ServerState(), {})
        self.transport = Transport()
        self.protocol.connection_made(self.transport)

    async def app(self, scope: Any, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.bodies.append(body)
        if ADMITTED_KEY in scope:
            self.admission.limits[LINES[scope["path"]]].leave(0.0)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def send(self, *requests: bytes) -> list[bytes]:
        """The status lines of what came back."""
        self.transport.written = b""
        for request in requests:
            self.protocol.data_received(request)
        async with asyncio.timeout(5):
            while self.protocol.tasks:
                await asyncio.sleep(0)
        return re.findall(rb"HTTP/1.1 \d+ [A-Za-z ]+", self.transport.written)


def post(path: str = "/recommend/sequential", body: bytes = b'{"n": 1}', *headers: str) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: h", f"Content-Length: {len(body)}", *headers]
    return ("\r\n".join(head) + "\r\n\r\n").encode() + body


OK, FULL = b"HTTP/1.1 200 OK", b"HTTP/1.1 429 Too Many Requests"


async def test_a_request_of_a_full_line_is_refused_and_the_connection_goes_on() -> None:
    connection = Connection(most=1)
    assert await connection.send(post()) == [OK]
    connection.admission.limits[Line.INTERACTIVE].enter()
    assert await connection.send(post(body=b"x" * 50_000)) == [FULL]
    head, _, body = connection.transport.written.partition(b"\r\n\r\n")
    problem = json.loads(body)
    assert problem["type"] == "urn:rdrec:problem:overloaded"
    assert problem["status"] == 429
    headers = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert headers[b"x-request-id"].decode() == problem["request_id"]
    assert headers[b"retry-after"] == b"3"
    assert headers[b"content-type"] == b"application/problem+json"
    assert b"connection" not in headers
    connection.admission.limits[Line.INTERACTIVE].leave(0.0)
    assert await connection.send(post(body=b"last")) == [OK]
    assert connection.bodies == [b'{"n": 1}', b"last"]
    assert connection.admission.limits[Line.INTERACTIVE].under_way == 0


async def test_an_idle_connection_stays_open_for_the_time_that_is_set_whether_served_or_refused() -> None:
    connection, loop = Connection(most=1), asyncio.get_running_loop()
    for expected in (OK, FULL):
        assert await connection.send(post()) == [expected]
        closing = connection.protocol.timeout_keep_alive_task
        assert closing is not None
        assert closing.when() - loop.time() == pytest.approx(IDLE_S, abs=5)
        connection.admission.limits[Line.INTERACTIVE].enter()


async def test_a_body_in_pieces_behind_a_refusal_is_read_to_nowhere() -> None:
    connection = Connection(most=1)
    connection.admission.limits[Line.INTERACTIVE].enter()
    whole = post(body=b"a" * 100)
    assert await connection.send(whole[:-60]) == [FULL]
    assert await connection.send(whole[-60:-20]) == []
    assert connection.protocol.timeout_keep_alive_task is not None, "a body that never ends does not hold it for ever"
    connection.admission.limits[Line.INTERACTIVE].leave(0.0)
    assert await connection.send(whole[-20:] + post(body=b"next")) == [OK]
    assert connection.bodies == [b"next"]


async def test_a_known_request_id_is_given_back_and_a_wild_one_replaced() -> None:
    connection = Connection(most=1)
    connection.admission.limits[Line.INTERACTIVE].enter()
    await connection.send(post("/recommend/sequential", b"", "X-Request-ID: mine-1"))
    assert b"x-request-id: mine-1\r\n" in connection.transport.written
    await connection.send(post("/recommend/sequential", b"", 'X-Request-ID: "}\\'))
    assert b'"}\\' not in connection.transport.written


async def test_whoever_asked_to_close_or_comes_while_draining_is_told_that_it_closes() -> None:
    for connection, request in (
        (Connection(most=1), post("/explain", b"", "Connection: close")),
        (Connection(most=1, draining=True), post("/explain", b"")),
    ):
        connection.admission.limits[Line.EXPLAIN].enter()
        assert await connection.send(request) == [FULL]
        assert b"connection: close\r\n" in connection.transport.written
        assert connection.transport.closed


async def test_other_methods_paths_and_pipelined_requests_go_to_the_application() -> None:
    connection = Connection(most=1)
    for line in Line:
        connection.admission.limits[line].enter()
    get = b"GET /recommend/sequential HTTP/1.1\r\nHost: h\r\n\r\n"
    probe = b"GET /health/ready HTTP/1.1\r\nHost: h\r\n\r\n"
    assert await connection.send(get) == [OK]
    assert await connection.send(probe) == [OK]
    assert await connection.send(get + post()) == [OK, OK], "answers come in the order of the requests"


async def test_refusals_are_counted() -> None:
    connection = Connection(most=1)
    connection.admission.limits[Line.INTERACTIVE].enter()
    await connection.send(post(), post())
    value = connection.metrics.registry.get_sample_value
    assert value("rdrec_turned_away_total", {"line": "interactive"}) == 2
    labels = {"endpoint": "/recommend/sequential", "status": "429"}
    assert value("rdrec_request_seconds_count", labels) == 2
