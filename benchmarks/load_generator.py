"""Requests over keep-alive connections by plain epoll, in closed and in open loop, and what became of each.

Every microsecond that the generator takes on the service's cores is one that the service does not get, so it knows just
enough of HTTP/1.1 for this service. Latency counts from the time at which a request was due, so a stalled service
cannot hide its delays. Knows bytes, not what they ask.
"""

from __future__ import annotations

import os
import random
import select
import socket
import statistics
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, Literal

BACK_OFF_S = 0.1
"""How long a caller of the closed loop waits after a 429."""
GRACE_S = 5.0
"""An answer that is later than the deadline by more than this counts as none."""
CONTRACT_5XX = {503, 504}
Lost = Literal["refused connection", "closed idle connection", "closed connection", "late"]


@dataclass
class Result:
    """One load: statuses, latencies of the answers 200 in seconds, and why what never came back was lost."""

    seconds: float
    offered: float
    deadline_s: float = 1.0
    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    lost: Counter[Lost] = field(default_factory=Counter)

    def note(self, status: int, latency: float) -> None:
        self.statuses[status] += 1
        if status == 200:
            self.latencies.append(latency)

    @property
    def goodput(self) -> float:
        """Answers 200 a second."""
        return self.statuses[200] / self.seconds

    def share(self, status: int) -> float:
        return self.statuses[status] / max(1, sum(self.statuses.values()) + self.lost.total())

    def percentile_s(self, percent: int) -> float:
        """Of the latencies of answers 200."""
        if len(self.latencies) < 2:
            return float("nan")
        return statistics.quantiles(self.latencies, n=100)[percent - 1]

    def summary(self) -> dict[str, Any]:
        return {
            "offered_per_s": round(self.offered, 1),
            "goodput_per_s": round(self.goodput, 1),
            **{f"p{percent}_ms": round(1000 * self.percentile_s(percent), 1) for percent in (50, 95, 99)},
            "shares": {str(status): round(self.share(status), 4) for status in sorted(self.statuses)},
            "unexpected_5xx": sum(n for k, n in self.statuses.items() if k >= 500 and k not in CONTRACT_5XX),
            "unanswered": self.lost.total(),
            "lost": dict(self.lost),
        }


@dataclass
class Stream:
    """Poisson arrivals of requests at `rate` a second."""

    rate: float
    requests: Iterator[bytes]
    deadline_s: float = 1.0


def request_bytes(endpoint: str, body: bytes, deadline_s: float) -> bytes:
    head = (
        f"POST {endpoint} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"X-Request-Timeout-Ms: {round(deadline_s * 1000)}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Load:
    """Connections to one service, one request at a time on each."""

    def __init__(self, port: int) -> None:
        self._address = ("127.0.0.1", port)
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._used: set[int] = set()
        """Connections that brought an answer before."""
        self._free: list[int] = []
        self._due: dict[int, tuple[float, Result]] = {}
        """When the request that a connection carries was due and where it counts, by file number, as they were sent."""
        self._parts: dict[int, bytes] = {}

    def closed_loop(
        self, requests: Iterator[bytes], clients: int, seconds: float, deadline_s: float = Result.deadline_s
    ) -> Result:
        """`clients` callers, each asking again as soon as it has its answer, and after BACK_OFF_S where it was turned
        away: one that does not wait at all takes from the others what the capacity is made of.
        """
        result = Result(seconds, float("nan"), deadline_s)
        started = time.perf_counter()
        resting: deque[float] = deque()
        while (now := time.perf_counter()) < started + seconds:
            while resting and resting[0] <= now:
                resting.popleft()
            while len(self._due) + len(resting) < clients:
                self._ask(now, next(requests), result)
            refused = result.statuses[429]
            self._collect(min(0.05, resting[0] - now) if resting else 0.05)
            resting.extend([time.perf_counter() + BACK_OFF_S] * (result.statuses[429] - refused))
        self._wait_for_the_rest()
        result.seconds = time.perf_counter() - started
        return result

    def open_loop(self, streams: Sequence[Stream], seconds: float, seed: int) -> list[Result]:
        """Arrivals of all streams, whatever becomes of the earlier ones; one result a stream."""
        rng = random.Random(seed)
        results = [Result(seconds, stream.rate, stream.deadline_s) for stream in streams]
        rate = sum(stream.rate for stream in streams)
        choices = list(zip(streams, results, strict=True))
        weights = [stream.rate for stream in streams]
        due = started = time.perf_counter()
        while (due := due + rng.expovariate(rate)) < started + seconds:
            stream, result = choices[0] if len(choices) == 1 else rng.choices(choices, weights)[0]
            self._collect(0.0)
            while (ahead := due - time.perf_counter()) > 0:
                self._collect(ahead)
            self._ask(due, next(stream.requests), result)
        self._wait_for_the_rest()
        for result in results:
            result.seconds = max(seconds, time.perf_counter() - started)
        return results

    def _ask(self, due: float, request: bytes, result: Result) -> None:
        while self._free:
            number = self._free.pop()
            try:
                self._sockets[number].send(request)
            except OSError:  # closed while it was idle: nothing was asked on it
                self._drop(number)
                continue
            self._due[number] = (due, result)
            return
        try:
            connection = socket.create_connection(self._address, timeout=1.0)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.send(request)
        except OSError:
            result.lost["refused connection"] += 1
            return
        connection.setblocking(False)
        number = connection.fileno()
        self._sockets[number] = connection
        self._epoll.register(number, select.EPOLLIN)
        self._due[number] = (due, result)

    def _collect(self, wait_s: float) -> None:
        for number, _ in self._epoll.poll(max(0.0, wait_s), 256):
            before = self._parts.pop(number, b"")
            try:
                received = self._sockets[number].recv(65536)
            except OSError:
                received = b""
            if not received:
                self._closed(number, is_partial=bool(before))
                continue
            received = before + received
            head, separator, body = received.partition(b"\r\n\r\n")
            if not separator or len(body) < _length(head):
                self._parts[number] = received
                continue
            due, result = self._due.pop(number)
            result.note(int(head[9:12]), time.perf_counter() - due)
            self._used.add(number)
            if b"connection: close" in head:
                self._drop(number)
            else:
                self._free.append(number)

    def _closed(self, number: int, *, is_partial: bool) -> None:
        asked = self._due.pop(number, None)
        if asked is not None:
            was_idle = number in self._used and not is_partial
            asked[1].lost["closed idle connection" if was_idle else "closed connection"] += 1
        self._drop(number)

    def _drop(self, number: int) -> None:
        if number in self._free:
            self._free.remove(number)
        self._used.discard(number)
        self._epoll.unregister(number)
        self._sockets.pop(number).close()

    def _wait_for_the_rest(self) -> None:
        """Until every request is answered, or too late to count."""
        while self._due:
            due, result = next(iter(self._due.values()))
            if time.perf_counter() - due >= result.deadline_s + GRACE_S:
                break
            self._collect(0.1)
        for number, (_, result) in list(self._due.items()):
            result.lost["late"] += 1
            del self._due[number]
            self._drop(number)


def _length(head: bytes) -> int:
    at = head.index(b"content-length: ") + 16
    return int(head[at : (head + b"\r").index(b"\r", at)])


def endless(requests: Sequence[bytes]) -> Iterator[bytes]:
    return cycle(requests)


@dataclass(frozen=True)
class Placement:
    """Which processors the service gets, and which the generator."""

    service: frozenset[int]
    generator: frozenset[int]

    @classmethod
    def of(cls, cpus: Sequence[int]) -> Placement:
        """From four on the generator has one of its own; with fewer it shares them all."""
        ordered = sorted(cpus)
        if len(ordered) < 4:
            return cls(frozenset(ordered), frozenset(ordered))
        return cls(frozenset(ordered[:-1]), frozenset(ordered[-1:]))

    def __str__(self) -> str:
        if self.service == self.generator:
            return f"service and load generator share {len(self.service)} processors: what one takes the other lacks"
        return f"service on {len(self.service)} processors, load generator on one of its own"

    def enter(self, cpus: frozenset[int]) -> None:
        os.sched_setaffinity(0, cpus)
