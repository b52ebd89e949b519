"""The service's admission and queue on a clock of their own, before an HTTP process and an engine of known costs.

Time runs on two scales: what the processors have computed, and the wall, which also runs while something else has them
(stalls). Costs and arrivals are of the sample bundle on the sample machine.
"""

from __future__ import annotations

import heapq
import itertools
import random
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.load_generator import BACK_OFF_S, Result
from service.engine.admission import Admission
from service.engine.batch_queue import BatchQueue, Job
from service.wire.work import Kind, Line, QueueFullError

DOOR_S, READ_S, REFUSE_S, ANSWER_S = 0.00004, 0.0005, 0.00025, 0.0003
"""The HTTP process's time: refusing at the door, reading a request, refusing it in the queue, answering it."""
DEADLINE_S = 1.0


class Service:
    """One HTTP process and one engine process, each with a processor.

    batch_s, job_s: the engine's time for a batch and for each job in it. stalls: when (wall, seconds) and how long.
    """

    def __init__(self, batch_s: float, job_s: float, stalls: Sequence[tuple[float, float]] = ()) -> None:
        self._batch_s, self._job_s = batch_s, job_s
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._computed = 0.0
        self._stalls_at: list[float] = []
        self._stalled = [0.0]
        self._stalls_at_wall = [at for at, _ in stalls]
        for at, length in stalls:
            self._stalls_at.append(at - self._stalled[-1])
            self._stalled.append(self._stalled[-1] + length)
        self.queue = BatchQueue(size=256, batch_size=16, wait_s=0.002, shares={})
        self.admission = Admission(256, self.wall, lambda line: 1.0)
        self._http: deque[Callable[[], tuple[float, Callable[[], None]]]] = deque()
        self._http_is_busy = False
        self._batches: deque[list[Job]] = deque()
        self._last_finish = 0.0

    def wall(self) -> float:
        return self._computed + self._stalled[bisect_right(self._stalls_at, self._computed)]

    def _at(self, wall: float) -> float:
        """What will have been computed by then."""
        begun = bisect_right(self._stalls_at_wall, wall)
        since = wall - self._stalled[begun]
        return since if begun == 0 else max(self._stalls_at[begun - 1], since)

    def _later(self, computed: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (computed, next(self._numbers), event))

    def run(self) -> None:
        while self._events:
            self._computed, _, event = heapq.heappop(self._events)
            event()

    def _do(self, work: Callable[[], tuple[float, Callable[[], None]]]) -> None:
        """Have the HTTP process do it: what it costs is known when its turn comes, what follows comes behind."""
        self._http.append(work)
        self._turn()

    def _turn(self) -> None:
        if self._http_is_busy or not self._http:
            return
        self._http_is_busy = True
        cost, then = self._http.popleft()()

        def done() -> None:
            self._http_is_busy = False
            then()
            self._turn()

        self._later(self._computed + cost, done)

    def ask(self, due: float, on_end: Callable[[int, float], None]) -> None:
        """A request that is due then (wall); hears its status and latency."""
        self._later(max(self._computed, self._at(due)), lambda: self._do(lambda: self._arrived(due, on_end)))

    def _arrived(self, due: float, on_end: Callable[[int, float], None]) -> tuple[float, Callable[[], None]]:
        limit = self.admission.limits[Line.INTERACTIVE]
        if self.admission.refusal(Line.INTERACTIVE) is not None:
            return DOOR_S, lambda: on_end(429, self.wall() - due)
        limit.enter()
        began = self.wall()

        def answered(value: Any) -> None:
            status = value if isinstance(value, int) else 200
            late = status == 504 or self.wall() - began > DEADLINE_S
            limit.leave(1.0 if status != 200 else (self.wall() - began) / DEADLINE_S)
            on_end(504 if late else status, self.wall() - due)

        def offer() -> None:
            now = self.wall()

            def resolve(value: Any) -> None:
                self._do(lambda: (ANSWER_S, lambda: answered(value)))

            job = Job(Kind.RANK, 5, object(), began + DEADLINE_S, now, resolve)
            try:
                self.queue.offer(job, now)
            except QueueFullError:
                self._do(lambda: (REFUSE_S, lambda: answered(429)))
            self._pump()

        return READ_S, offer

    def _pump(self) -> None:
        while len(self._batches) < 2:
            now = self.wall()
            decision = self.queue.take(now, engine_is_idle=not self._batches)
            for job in decision.expired:
                job.resolve(504)
            if decision.wake_at is not None:
                self._later(self._at(decision.wake_at) + 1e-6, self._pump)
            if not decision.batch:
                return
            self._batches.append(decision.batch)
            if len(self._batches) == 1:
                self._compute()

    def _compute(self) -> None:
        batch = self._batches[0]
        started = self.wall()
        self._later(
            self._computed + self._batch_s + self._job_s * len(batch),
            lambda: self._do(lambda: (0.0001, lambda: self._finished(batch, started))),
        )

    def _finished(self, batch: list[Job], started: float) -> None:
        now = self.wall()
        self._batches.popleft()
        if self._batches:
            self._compute()
        self.queue.finished(batch, now - max(batch[0].started_at or 0.0, self._last_finish), now - started, now)
        self._last_finish = now
        self._pump()
        for job in batch:
            job.resolve(None)


def open_loop(service: Service, rate: float, seconds: float, seed: int) -> Result:
    """Poisson arrivals."""
    rng, outcome = random.Random(seed), Result(seconds, rate)
    due = start = service.wall()

    while (due := due + rng.expovariate(rate)) < start + seconds:
        service.ask(due, outcome.note)
    service.run()
    outcome.seconds = max(seconds, service.wall() - start)
    return outcome


def closed_loop(service: Service, clients: int, seconds: float) -> Result:
    """Callers that ask again as soon as they have their answer, and after BACK_OFF_S where they were turned away."""
    outcome = Result(seconds, float("nan"))
    start = service.wall()

    def ask(due: float) -> None:
        service.ask(due, note)

    def note(status: int, latency: float) -> None:
        outcome.note(status, latency)
        if service.wall() < start + seconds:
            ask(service.wall() + (BACK_OFF_S if status == 429 else 0.0))

    for _ in range(clients):
        ask(start)
    service.run()
    outcome.seconds = service.wall() - start
    return outcome
