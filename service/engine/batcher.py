"""Engines behind one bounded queue: every job that is accepted is resolved, whatever happens to an engine.

The policy is `batch_queue.py`; where a batch is computed is a Lane's business (`engine_thread.py`,
`engine_process.py`). Everything here runs on the event loop, so there is no lock to wait for.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rdrec_core.errors import EngineError, InputError
from service.engine.batch_queue import BatchQueue, Job
from service.wire.work import DeadlineError, EngineDownError, Kind, Line, RequestEndedEngineError

BLOCKED_S = 600.0
"""How long a request that ended the engine is not computed again."""
BLOCKED_AT_MOST = 1000


class LaneEndedError(Exception):
    """The engine's thread or process is gone, and the batch with it."""


class Lane(Protocol):
    """Where batches are computed, in the order in which they were given."""

    @property
    def depth(self) -> int:
        """Batches that it takes at a time; all but one wait inside, so that the engine need not wait for the loop."""
        ...

    @property
    def device(self) -> str:
        """Where its engine computes."""
        ...

    def watch(self, on_end: Callable[[str], None]) -> None:
        """Have `on_end` called on the event loop, once, with a cause, when the lane ends unasked."""
        ...

    async def compute(self, kind: Kind, works: Sequence[Any]) -> tuple[Sequence[Any], float]:
        """Results in order, and the seconds that the engine took. Raises what the engine raised, or LaneEndedError."""
        ...

    def kill(self) -> bool:
        """End it as a crash would; False where that cannot be done."""
        ...

    async def close(self) -> None:
        """End it, whatever it is doing. Idempotent."""
        ...


class BatcherObserver(Protocol):
    """Hears of what happens inside; must be quick and must not raise."""

    def batch_done(self, kind: Kind, jobs: int, seconds: float) -> None:
        """A batch was computed, and took the engine so long."""
        ...

    def left_queue(self, kind: Kind, waited_s: float, *, expired: bool) -> None:
        """A job left the queue, for the engine or because its deadline had passed."""
        ...


@dataclass(frozen=True, slots=True)
class Computed:
    """A job's result and where its time went."""

    value: Any
    queue_s: float
    engine_s: float


class Batcher:
    """Sends jobs through its Lanes, to each that is free.

    `on_death` is called when a lane ends unasked, after its jobs are resolved; what waits goes on to the lanes that are
    left, and is resolved too where none is.
    """

    def __init__(
        self,
        queue: BatchQueue,
        clock: Callable[[], float],
        observer: BatcherObserver,
        on_death: Callable[[str], None],
    ) -> None:
        self._queue = queue
        self._clock = clock
        self._observer = observer
        self._on_death = on_death
        self._lanes: dict[Lane, _Work] = {}
        self._stopping = False
        self._last_finish = 0.0
        self._suspects = _Fingerprints(clock)
        self._blocked = _Fingerprints(clock)
        self._wake: asyncio.TimerHandle | None = None

    @property
    def is_alive(self) -> bool:
        """Whether jobs are accepted."""
        return bool(self._lanes) and not self._stopping

    @property
    def lanes(self) -> list[Lane]:
        """The engines that run."""
        return list(self._lanes)

    @property
    def depth(self) -> int:
        """Jobs that wait for an engine."""
        return self._queue.depth

    def seconds_ahead(self, line: Line = Line.INTERACTIVE) -> float:
        """See BatchQueue."""
        return self._queue.seconds_ahead(line)

    def busy_for_s(self) -> float:
        """How long the slowest engine has been at the batch that it computes now."""
        now = self._clock()
        return max((work.busy_for_s(now) for work in self._lanes.values()), default=0.0)

    def kill(self, busy_for_s: float = 0.0) -> bool:
        """End the engines that have been at a batch for so long: they hang, and what they compute is blamed.

        False where a lane cannot be ended, or none is that busy.
        """
        now = self._clock()
        hanging = [lane for lane, work in self._lanes.items() if work.batches and work.busy_for_s(now) >= busy_for_s]
        killed = [lane.kill() for lane in hanging]
        return any(killed)

    def start(self, lane: Lane) -> None:
        """Give a lane jobs from now on: the first, one more, or a new one for one that ended."""
        self._stopping = False
        self._lanes[lane] = _Work()
        self._queue.engines = len(self._lanes)
        lane.watch(lambda cause: self._lane_ended(lane, cause))
        self._pump()

    async def tell(self, kind: Kind, work: Any) -> None:
        """Have every engine take over a change, each behind the batches that it has. Lanes that end meanwhile miss it:
        whoever opens the next one tells it.
        """
        told = {lane: lane.compute(kind, [work]) for lane in self._lanes}
        outcomes = await asyncio.gather(*told.values(), return_exceptions=True)
        for lane, outcome in zip(told, outcomes, strict=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, LaneEndedError) and not lane.kill():
                raise outcome  # else it holds half of the change and is ended: a new one is told all of it

    async def stop(self, *, within_s: float = 30.0) -> None:
        """Finish what was accepted, then close the lanes; what is not finished after `within_s` fails."""
        self._stopping = True
        try:
            async with asyncio.timeout(within_s):
                while self._lanes:
                    running = [task for work in self._lanes.values() for task in work.batches]
                    if running:
                        await asyncio.wait(running)
                    elif self._queue.depth:
                        await asyncio.sleep(0.001)  # an unfilled batch waits for company
                    else:
                        break
        except TimeoutError:
            pass
        lanes, self._lanes = self._lanes, {}
        await asyncio.gather(*(lane.close() for lane in lanes))
        for work in lanes.values():
            self._fail(work, "the engine was stopped")
        self._fail_waiting("the engine was stopped")

    async def submit(
        self, kind: Kind, length: int, work: Any, deadline: float, *, line: Line = Line.INTERACTIVE
    ) -> Computed:
        """Queue one work in a line and wait for its result.

        Raises QueueFullError, EngineDownError, DeadlineError, RequestEndedEngineError, or what the engine raised for
        this work alone. Cancelling the caller frees the place.
        """
        fingerprint = (kind, work)
        if fingerprint in self._blocked:
            raise RequestEndedEngineError("the engine ended on this very request before; it is not tried again yet")
        if not self.is_alive:
            raise EngineDownError("the engine is being restarted")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        now = self._clock()
        alone = fingerprint in self._suspects
        job = Job(kind, length, work, deadline, now, lambda value: _settle(future, value), alone, line)
        self._queue.offer(job, now)
        self._pump()
        late = DeadlineError("the deadline passed before the answer was there")
        timer = loop.call_later(deadline - now, _settle, future, late)
        try:
            value = await future
        finally:
            timer.cancel()
            self._queue.cancel(job)
        if alone:
            self._suspects.discard(fingerprint)
        started = job.started_at if job.started_at is not None else now
        finished = job.finished_at if job.finished_at is not None else started
        return Computed(value, started - now, finished - started)

    def _pump(self) -> None:
        """Give the lanes what they can take, those with the fewest batches first."""
        while self._lanes:
            lane = min(self._lanes, key=lambda each: len(self._lanes[each].batches))
            work = self._lanes[lane]
            if len(work.batches) >= lane.depth:
                return
            now = self._clock()
            decision = self._queue.take(now, engine_is_idle=not work.batches)
            for job in decision.expired:
                self._observer.left_queue(job.kind, now - job.enqueued_at, expired=True)
                job.resolve(DeadlineError("the deadline passed in the queue"))
            if not decision.batch:
                self._wake_at(decision.wake_at)
                return
            for job in decision.batch:
                self._observer.left_queue(job.kind, now - job.enqueued_at, expired=False)
            task = asyncio.get_running_loop().create_task(self._run(lane, work, decision.batch))
            work.batches[task] = decision.batch

    def _wake_at(self, at: float | None) -> None:
        if self._wake is not None:
            self._wake.cancel()
        self._wake = None
        if at is not None:
            self._wake = asyncio.get_running_loop().call_later(max(0.0, at - self._clock()), self._pump)

    async def _run(self, lane: Lane, work: _Work, batch: list[Job]) -> None:
        try:
            results, compute_s = await self._isolating(lane, batch)
        except LaneEndedError:
            self._queue.lost(batch)
            return  # `_lane_ended` resolves what runs and what waits
        finally:
            task = asyncio.current_task()
            assert task is not None
            work.batches.pop(task, None)
        finished = self._clock()
        seconds = finished - max(batch[0].started_at or 0.0, self._last_finish)
        self._last_finish = work.last_finish = finished
        self._queue.finished(batch, seconds, compute_s, finished)
        self._pump()  # before the callers: the engine is the scarcer of the two
        for job, value in results:
            job.finished_at = finished
            job.resolve(value)
        self._observer.batch_done(batch[0].kind, len(batch), compute_s)

    async def _isolating(self, lane: Lane, batch: list[Job]) -> tuple[list[tuple[Job, Any]], float]:
        """Compute the batch; where it fails, compute its halves, so that one poison job fails alone."""
        try:
            values, seconds = await lane.compute(batch[0].kind, [job.work for job in batch])
            if len(values) != len(batch):
                raise EngineError(f"the engine gave {len(values)} results for {len(batch)} requests")
            return list(zip(batch, values, strict=True)), seconds
        except LaneEndedError:
            raise
        except Exception as error:
            if len(batch) > 1:
                half = len(batch) // 2
                first, first_s = await self._isolating(lane, batch[:half])
                second, second_s = await self._isolating(lane, batch[half:])
                return first + second, first_s + second_s
            if isinstance(error, InputError | EngineError):
                return [(batch[0], error)], 0.0
            failure = EngineError(f"the engine failed with {type(error).__name__}")
            failure.__cause__ = error
            return [(batch[0], failure)], 0.0

    def _lane_ended(self, lane: Lane, cause: str) -> None:
        work = self._lanes.pop(lane, None)
        if work is None:
            return
        self._queue.engines = max(1, len(self._lanes))
        if work.batches:
            self._blame(next(iter(work.batches.values())))
        self._fail(work, cause)
        if not self._lanes:
            self._fail_waiting(cause)
        self._on_death(cause)
        self._pump()

    def _blame(self, batch: list[Job]) -> None:
        """The engine ended in this batch: who was alone in it did that; of several each is alone the next time."""
        if len(batch) == 1:
            self._blocked.add((batch[0].kind, batch[0].work))
            batch[0].resolve(RequestEndedEngineError("the engine ended while it computed this request"))
        else:
            for job in batch:
                self._suspects.add((job.kind, job.work))

    def _fail(self, work: _Work, cause: str) -> None:
        """Resolve what a lane computes."""
        for job in (job for batch in work.batches.values() for job in batch):
            job.resolve(EngineDownError(cause))

    def _fail_waiting(self, cause: str) -> None:
        for job in self._queue.clear():
            job.resolve(EngineDownError(cause))


@dataclass(slots=True)
class _Work:
    """What one lane has: its batches in the order in which they were given."""

    batches: dict[asyncio.Task[None], list[Job]] = field(default_factory=dict)
    last_finish: float = 0.0

    def busy_for_s(self, now: float) -> float:
        """How long it has been at the first of them."""
        if not self.batches:
            return 0.0
        first = next(iter(self.batches.values()))
        return now - max(first[0].started_at or 0.0, self.last_finish)


class _Fingerprints:
    """The latest requests of one kind of memory, for BLOCKED_S each, BLOCKED_AT_MOST of them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: OrderedDict[Hashable, float] = OrderedDict()

    def __contains__(self, fingerprint: Hashable) -> bool:
        return bool(self._until) and self._until.get(fingerprint, 0.0) > self._clock()

    def add(self, fingerprint: Hashable) -> None:
        self._until[fingerprint] = self._clock() + BLOCKED_S
        self._until.move_to_end(fingerprint)
        if len(self._until) > BLOCKED_AT_MOST:
            self._until.popitem(last=False)

    def discard(self, fingerprint: Hashable) -> None:
        self._until.pop(fingerprint, None)


def _settle(future: asyncio.Future[Any], value: Any) -> None:
    if future.done():
        return
    if isinstance(value, BaseException):
        future.set_exception(value)
    else:
        future.set_result(value)
