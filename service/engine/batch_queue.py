"""Which requests enter the engine together, which are turned away, and which are dropped: the policy without an engine.

Pure bookkeeping on a clock that the caller reads; `batcher.py` puts an engine behind it. Knows nothing of
what a job computes.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.wire.work import Kind, Line, QueueFullError

SENT_AHEAD_S = 0.05
"""Computing time of what an engine may be given ahead; once there, it can be neither cancelled nor dropped."""
BACKGROUND_S = 0.025
"""Computing time of one batch of a line other than the interactive one, so that who comes behind it waits no longer; it
may be twice that of a lone job where that is more, because texts cost hardly more together than alone."""

KEPT = 0.9
"""Weight of what was learned of a kind of job before, at each batch of it."""


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
    line: Line = Line.INTERACTIVE
    charged_s: float = 0.0
    """Computing time that its line was charged for it when it entered a batch."""
    cancelled: bool = False
    started_at: float | None = None
    finished_at: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now: run `batch` if any, else look again at `wake_at` (None: on arrival). `expired` left the queue."""

    batch: list[Job] = field(default_factory=list)
    expired: list[Job] = field(default_factory=list)
    wake_at: float | None = None


class _SecondsAJob(dict[Kind, float]):
    """Seconds over jobs of the latest batches, so that a batch counts as much as there is in it: one that is small, or
    that something held up, must not tell how long a full one takes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._sums: dict[Kind, tuple[float, float]] = {}

    def learn(self, kind: Kind, jobs: int, seconds: float) -> None:
        """A batch took so long."""
        all_jobs, all_seconds = self._sums.get(kind, (0.0, 0.0))
        all_jobs, all_seconds = KEPT * all_jobs + jobs, KEPT * all_seconds + seconds
        self._sums[kind] = all_jobs, all_seconds
        self[kind] = all_seconds / all_jobs


def length_band(length: int) -> int:
    """Lengths within a factor of four of each other share a band."""
    return (max(1, length).bit_length() + 1) // 2


class BatchQueue:
    """Bounded; lines get their shares of the engine, groups of like jobs in a line come in order of arrival.

    Fair by start times: a line is charged the computing time of its batches over its share, and the line that was
    charged least comes next. One that had nothing waiting joins at the charge of the batch that was taken last, so that
    it neither owes nor has saved anything. Measures how long a job of each kind takes.

    A lone request never waits. Only in the `wait_s` after a batch of several jobs, whose callers are likely to ask
    again, does an unfilled batch wait for company.
    """

    def __init__(
        self, *, size: int, batch_size: int, wait_s: float, shares: Mapping[Line, float] | None = None
    ) -> None:
        """size: jobs that may wait in each line. shares: of the engine's time, relative to each other; 1 by default."""
        self._size = size
        self._batch_size = batch_size
        self._wait_s = wait_s
        self._shares = {**dict.fromkeys(Line, 1.0), **(shares or {})}
        self._groups: dict[tuple[Line, Kind, int], deque[Job]] = {}
        self._waiting: Counter[tuple[Line, Kind]] = Counter()
        self._pace = _SecondsAJob()
        """From one job's end to the next one's, with all that lies between engine and caller."""
        self._compute = _SecondsAJob()
        """Of one engine alone."""
        self._lone = _SecondsAJob()
        """The same for jobs that were computed alone."""
        self._in_engine: Counter[Kind] = Counter()
        self._charged: dict[Line, float] = dict.fromkeys(Line, 0.0)
        self._taken_at_charge = 0.0
        self._company_until = 0.0
        self._places_alone = 0
        self.engines = 1
        """How many engines take from it."""

    @property
    def depth(self) -> int:
        """Jobs that wait."""
        return self._waiting.total()

    def waiting_in(self, line: Line) -> int:
        """Jobs of a line that wait."""
        return sum(self._waiting[line, kind] for kind in Kind)

    def seconds_ahead(self, line: Line = Line.INTERACTIVE) -> float:
        """Estimated time until a job that arrives in the line now would start: what the engines have and what waits.

        Of the other lines that wait counts what their shares let pass meanwhile.
        """
        waiting = dict.fromkeys(Line, 0.0)
        for (each, kind), jobs in self._waiting.items():
            waiting[each] += self._pace.get(kind, 0.0) * jobs
        own = waiting.pop(line)
        others = sum(min(other, own * self._shares[each] / self._shares[line]) for each, other in waiting.items())
        return own + others + sum(seconds * self._in_engine[kind] for kind, seconds in self._pace.items())

    def offer(self, job: Job, now: float) -> None:
        """Queue the job, or raise QueueFullError with the time after which a place is likely."""
        ahead_s = self.seconds_ahead(job.line)
        waiting = self.waiting_in(job.line)
        if waiting >= self._size:
            raise QueueFullError(f"all {self._size} places of the queue are taken", retry_after_s=ahead_s)
        own_s = self._pace.get(job.kind, 0.0)
        if waiting and now + ahead_s + own_s > job.deadline:
            raise QueueFullError(
                f"the queue is {math.ceil(ahead_s * 1000)} ms long, the deadline is nearer",
                retry_after_s=now + ahead_s + own_s - job.deadline,
            )
        if not waiting:
            self._charged[job.line] = max(self._charged[job.line], self._taken_at_charge)
        self._places_alone += job.alone
        band = -self._places_alone if job.alone else length_band(job.length)
        self._groups.setdefault((job.line, job.kind, band), deque()).append(job)
        self._waiting[job.line, job.kind] += 1

    def cancel(self, job: Job) -> None:
        """Free the place of a job that nobody waits for any more; no effect once it has left the queue."""
        if job.cancelled or job.started_at is not None:
            return
        job.cancelled = True
        self._waiting[job.line, job.kind] -= 1

    def take(self, now: float, *, engine_is_idle: bool = True) -> Decision:
        """The next batch: of the line whose turn it is the group whose oldest job came first, without expired jobs.

        An engine that still has a batch gets only full ones, and no more of them than it computes in SENT_AHEAD_S.
        """
        expired: list[Job] = []
        while True:
            self._drop_cancelled_heads()
            if not self._groups:
                return Decision(expired=expired)
            key = min(self._groups, key=lambda k: (self._charged[k[0]], self._groups[k][0].enqueued_at))
            line, kind, _ = key
            group = self._groups[key]
            most = self._most_at_once(line, kind)
            if not engine_is_idle and (len(group) < most or not self._may_send_ahead()):
                return Decision(expired=expired)
            if now < self._company_until and len(group) < most:
                return Decision(expired=expired, wake_at=self._company_until)
            batch: list[Job] = []
            while group and len(batch) < most:
                job = group.popleft()
                if job.cancelled:
                    continue
                self._waiting[line, kind] -= 1
                if job.deadline <= now:
                    job.cancelled = True
                    expired.append(job)
                else:
                    job.started_at = now
                    batch.append(job)
            if not group:
                del self._groups[key]
            if batch:
                self._in_engine[kind] += len(batch)
                self._taken_at_charge = self._charged[line]
                self._charge(batch, self._compute.get(kind, 0.0))
                return Decision(batch=batch, expired=expired)

    def finished(self, batch: Sequence[Job], seconds: float, compute_s: float, now: float) -> None:
        """Learn from a batch that came back `seconds` after it or its predecessor, having computed for `compute_s`."""
        kind, jobs = batch[0].kind, len(batch)
        self._pace.learn(kind, jobs, seconds)
        self._compute.learn(kind, jobs, compute_s)
        if jobs == 1:
            self._lone.learn(kind, jobs, compute_s)
        self._in_engine[kind] -= jobs
        self._charge(batch, compute_s / jobs)
        self._company_until = now + self._wait_s if jobs > 1 else 0.0

    def lost(self, batch: Sequence[Job]) -> None:
        """An engine ended with this batch."""
        self._in_engine[batch[0].kind] -= len(batch)

    def clear(self) -> Iterable[Job]:
        """Remove and return everything that waits."""
        jobs = [job for group in self._groups.values() for job in group if not job.cancelled]
        for job in jobs:
            job.cancelled = True
        self._groups.clear()
        self._waiting.clear()
        return jobs

    def _charge(self, batch: Sequence[Job], seconds_a_job: float) -> None:
        """Charge the line so much for each job in place of what it was charged before."""
        for job in batch:
            self._charged[job.line] += (seconds_a_job - job.charged_s) / self._shares[job.line]
            job.charged_s = seconds_a_job

    def _most_at_once(self, line: Line, kind: Kind) -> int:
        if line is Line.INTERACTIVE or not self._compute.get(kind):
            return self._batch_size
        within_s = max(BACKGROUND_S, 2 * self._lone.get(kind, 0.0))
        return max(1, min(self._batch_size, int(within_s / self._compute[kind])))

    def _may_send_ahead(self) -> bool:
        given = {kind: jobs for kind, jobs in self._in_engine.items() if jobs}
        if not all(kind in self._compute for kind in given):
            return False
        return sum(self._compute[kind] * jobs for kind, jobs in given.items()) < SENT_AHEAD_S * self.engines

    def _drop_cancelled_heads(self) -> None:
        for key in list(self._groups):
            group = self._groups[key]
            while group and group[0].cancelled:
                group.popleft()
            if not group:
                del self._groups[key]
