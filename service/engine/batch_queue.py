"""Which requests enter the engine together, which are turned away, and which are dropped: the policy without an engine.

Pure bookkeeping on a clock that the caller reads; `batcher.py` puts an engine behind it. Knows nothing of
what a job computes.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from service.wire.work import Kind, QueueFullError

SENT_AHEAD_S = 0.05
"""Computing time of what an engine may be given ahead; once there, it can be neither cancelled nor dropped."""


@dataclass(eq=False, slots=True)
class Job:
    """One engine request in the queue. Times are seconds of the caller's monotonic clock."""

    kind: Kind
    length: int
    """Rough source length (history items, candidates); decides with whom the job shares a batch."""
    work: Any
    deadline: float
    enqueued_at: float
    resolve: Callable[[Any], None]
    """Called once, with a result or an exception."""
    alone: bool = False
    """Shares a batch with no other: it may be what ended the engine before."""
    cancelled: bool = False
    started_at: float | None = None
    finished_at: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now: run `batch` if any, else look again at `wake_at` (None: on arrival). `expired` left the queue."""

    batch: list[Job] = field(default_factory=list)
    expired: list[Job] = field(default_factory=list)
    wake_at: float | None = None


def length_band(length: int) -> int:
    """Lengths within a factor of four of each other share a band."""
    return (max(1, length).bit_length() + 1) // 2


class BatchQueue:
    """Bounded; first come, first served between groups; measures how long a job of each kind takes.

    A lone request never waits. Only in the `wait_s` after a batch of several jobs, whose callers are likely to ask
    again, does an unfilled batch wait for company.
    """

    def __init__(self, *, size: int, batch_size: int, wait_s: float) -> None:
        self._size = size
        self._batch_size = batch_size
        self._wait_s = wait_s
        self._groups: dict[tuple[Kind, int], deque[Job]] = {}
        self._waiting: Counter[Kind] = Counter()
        self._pace: dict[Kind, float] = {}
        """Seconds from one job's end to the next one's, with all that lies between engine and caller."""
        self._compute: dict[Kind, float] = {}
        """Seconds of the engine alone for a job."""
        self._in_engine: Counter[Kind] = Counter()
        self._company_until = 0.0
        self._places_alone = 0

    @property
    def depth(self) -> int:
        """Jobs that wait."""
        return self._waiting.total()

    def seconds_ahead(self) -> float:
        """Estimated time until a job that arrives now would start: what waits and what the engine has."""
        paces = self._pace.items()
        return sum(seconds * (self._waiting[kind] + self._in_engine[kind]) for kind, seconds in paces)

    def offer(self, job: Job, now: float) -> None:
        """Queue the job, or raise QueueFullError with the time after which a place is likely."""
        ahead_s = self.seconds_ahead()
        if self.depth >= self._size:
            raise QueueFullError(f"all {self._size} places of the queue are taken", retry_after_s=ahead_s)
        own_s = self._pace.get(job.kind, 0.0)
        if self.depth and now + ahead_s + own_s > job.deadline:
            raise QueueFullError(
                f"the queue is {math.ceil(ahead_s * 1000)} ms long, the deadline is nearer",
                retry_after_s=now + ahead_s + own_s - job.deadline,
            )
        self._places_alone += job.alone
        band = -self._places_alone if job.alone else length_band(job.length)
        self._groups.setdefault((job.kind, band), deque()).append(job)
        self._waiting[job.kind] += 1

    def cancel(self, job: Job) -> None:
        """Free the place of a job that nobody waits for any more; no effect once it has left the queue."""
        if job.cancelled or job.started_at is not None:
            return
        job.cancelled = True
        self._waiting[job.kind] -= 1

    def take(self, now: float, *, engine_is_idle: bool = True) -> Decision:
        """The next batch: the group whose oldest job came first, without expired and cancelled jobs.

        An engine that still has a batch gets only full ones, and no more of them than it computes in SENT_AHEAD_S.
        """
        expired: list[Job] = []
        while True:
            self._drop_cancelled_heads()
            if not self._groups:
                return Decision(expired=expired)
            key = min(self._groups, key=lambda k: self._groups[k][0].enqueued_at)
            group = self._groups[key]
            if not engine_is_idle and (len(group) < self._batch_size or not self._may_send_ahead()):
                return Decision(expired=expired)
            if now < self._company_until and len(group) < self._batch_size:
                return Decision(expired=expired, wake_at=self._company_until)
            batch: list[Job] = []
            while group and len(batch) < self._batch_size:
                job = group.popleft()
                if job.cancelled:
                    continue
                self._waiting[job.kind] -= 1
                if job.deadline <= now:
                    job.cancelled = True
                    expired.append(job)
                else:
                    job.started_at = now
                    batch.append(job)
            if not group:
                del self._groups[key]
            if batch:
                self._in_engine[key[0]] += len(batch)
                return Decision(batch=batch, expired=expired)

    def finished(self, kind: Kind, jobs: int, seconds: float, compute_s: float, now: float) -> None:
        """Learn from a batch that came back `seconds` after it or its predecessor, having computed for `compute_s`."""
        for measured, known in ((seconds / jobs, self._pace), (compute_s / jobs, self._compute)):
            known[kind] = 0.8 * known.get(kind, measured) + 0.2 * measured
        self._in_engine[kind] -= jobs
        self._company_until = now + self._wait_s if jobs > 1 else 0.0

    def clear(self) -> Iterable[Job]:
        """Remove and return everything that waits; the engine has lost what it had."""
        jobs = [job for group in self._groups.values() for job in group if not job.cancelled]
        for job in jobs:
            job.cancelled = True
        self._groups.clear()
        self._waiting.clear()
        self._in_engine.clear()
        return jobs

    def _may_send_ahead(self) -> bool:
        return all(
            kind in self._compute and self._compute[kind] * jobs < SENT_AHEAD_S
            for kind, jobs in self._in_engine.items()
            if jobs
        )

    def _drop_cancelled_heads(self) -> None:
        for key in list(self._groups):
            group = self._groups[key]
            while group and group[0].cancelled:
                group.popleft()
            if not group:
                del self._groups[key]
