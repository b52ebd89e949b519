"""What is known of one HTTP request while it is served: identity, deadline, where its time went, how it was answered.

Made by `edge.py`, filled on the way, read when the access log and the metrics are written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from service.wire.work import Line

Phase = Literal["queue", "history", "engine"]
SCOPE_KEY = "rdrec.context"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_id_of(offered: str) -> str:
    """The caller's `X-Request-ID` where it may be written into logs, else a new one."""
    return offered if _REQUEST_ID.fullmatch(offered) else os.urandom(8).hex()


@dataclass(slots=True)
class RequestContext:
    """Mutable on purpose, and private to one request. Times are seconds of `clock`, monotonic."""

    request_id: str
    clock: Callable[[], float]
    started_at: float
    deadline: float = float("inf")
    endpoint: str = "unmatched"
    line: Line = Line.INTERACTIVE
    caller: str | None = None
    """Name of the API key."""
    user_hash: str | None = None
    model_version: str | None = None
    arm: str | None = None
    history_source: str | None = None
    degraded: bool = False
    is_too_late: bool = False
    """The queue was too long for it."""
    cache: Literal["hit", "miss", "joined"] | None = None
    seconds: dict[Phase, float] = field(default_factory=dict)

    def remaining_s(self) -> float:
        """Until the deadline; negative past it."""
        return self.deadline - self.clock()

    def share_of_time(self) -> float:
        """What the request has used of the time until its deadline, all of it where the queue was too long; 0 where it
        has none.
        """
        return 1.0 if self.is_too_late else (self.clock() - self.started_at) / (self.deadline - self.started_at)

    def spend(self, phase: Phase, seconds: float) -> None:
        """A phase took so long. What runs side by side (the texts of an explanation) counts once, the longest."""
        self.seconds[phase] = max(self.seconds.get(phase, 0.0), seconds)

    @contextmanager
    def timing(self, phase: Phase) -> Iterator[None]:
        """The block is spent in a phase."""
        started = self.clock()
        try:
            yield
        finally:
            self.spend(phase, self.clock() - started)

    def part(self) -> RequestContext:
        """The context of one part of a batch: own timings and outcome, same identity and deadline."""
        return RequestContext(
            self.request_id, self.clock, self.clock(), self.deadline, self.endpoint, self.line, self.caller
        )

    def absorb(self, part: RequestContext) -> None:
        """Take over a finished part's times, and what it shares with its siblings."""
        for phase, seconds in part.seconds.items():
            self.spend(phase, seconds)
        self.degraded = self.degraded or part.degraded
        self.model_version = part.model_version or self.model_version
