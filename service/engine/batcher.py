"""One engine behind one bounded queue: every job that is accepted is resolved, whatever happens to the engine.

The policy is `batch_queue.py`; where a batch is computed is a Lane's business (`engine_thread.py`,
`engine_process.py`). Everything here runs on the event loop, so there is no lock to wait for.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rdrec_core.errors import EngineError, InputError
from service.engine.batch_queue import BatchQueue, Job
from service.wire.work import DeadlineError, EngineDownError, Kind, RequestEndedEngineError

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
    """Sends jobs through a Lane. `on_death` is called when the lane ends unasked, after all its jobs are resolved."""

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
        self._lane: Lane | None = None
        self._stopping = False
        self._running: dict[asyncio.Task[None], list[Job]] = {}
        self._last_finish = 0.0
        self._suspects = _Fingerprints(clock)
        self._blocked = _Fingerprints(clock)
        self.takes_requests = False
        """Whether what it computes are requests of callers, one of which may be to blame for the engine's end."""
        self._wake: asyncio.TimerHandle | None = None

    @property
    def is_alive(self) -> bool:
        """Whether jobs are accepted."""
        return self._lane is not None and not self._stopping

    @property
    def depth(self) -> int:
        """Jobs that wait for the engine."""
        return self._queue.depth

    def seconds_ahead(self) -> float:
        """See BatchQueue."""
        return self._queue.seconds_ahead()

    def busy_for_s(self) -> float:
        """How long the engine has been at the batch that it computes now."""
        if not self._running:
            return 0.0
        first = next(iter(self._running.values()))
        return self._clock() - max(first[0].started_at or 0.0, self._last_finish)

    def kill(self) -> bool:
        """End the engine, which hangs; what it computes is blamed. False where the lane cannot be ended."""
        return self._lane is not None and self._lane.kill()

    def start(self, lane: Lane) -> None:
        """Take jobs; also again after a death, with a new lane."""
        assert not self.is_alive
        self._lane = lane
        self._stopping = False
        self.takes_requests = False
        lane.watch(self._lane_ended)

    async def stop(self, *, within_s: float = 30.0) -> None:
        """Finish what was accepted, then close the lane; what is not finished after `within_s` fails."""
        self._stopping = True
        try:
            async with asyncio.timeout(within_s):
                while self._running or self._queue.depth:
                    await asyncio.wait(list(self._running))
        except TimeoutError:
            pass
        lane, self._lane = self._lane, None
        if lane is not None:
            await lane.close()
        self._fail_all("the engine was stopped")

    async def submit(self, kind: Kind, length: int, work: Any, deadline: float) -> Computed:
        """Queue one work and wait for its result.

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
        job = Job(kind, length, work, deadline, now, lambda value: _settle(future, value), alone)
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
        """Give the lane what it can take."""
        while self._lane is not None and len(self._running) < self._lane.depth:
            now = self._clock()
            decision = self._queue.take(now, engine_is_idle=not self._running)
            for job in decision.expired:
                self._observer.left_queue(job.kind, now - job.enqueued_at, expired=True)
                job.resolve(DeadlineError("the deadline passed in the queue"))
            if not decision.batch:
                self._wake_at(decision.wake_at)
                return
            for job in decision.batch:
                self._observer.left_queue(job.kind, now - job.enqueued_at, expired=False)
            task = asyncio.get_running_loop().create_task(self._run(self._lane, decision.batch))
            self._running[task] = decision.batch

    def _wake_at(self, at: float | None) -> None:
        if self._wake is not None:
            self._wake.cancel()
        self._wake = None
        if at is not None:
            self._wake = asyncio.get_running_loop().call_later(max(0.0, at - self._clock()), self._pump)

    async def _run(self, lane: Lane, batch: list[Job]) -> None:
        try:
            results, compute_s = await self._isolating(lane, batch)
        except LaneEndedError:
            return  # `_lane_ended` resolves what runs and what waits
        finally:
            task = asyncio.current_task()
            assert task is not None
            self._running.pop(task, None)
        finished = self._clock()
        seconds = finished - max(batch[0].started_at or 0.0, self._last_finish)
        self._last_finish = finished
        self._queue.finished(batch[0].kind, len(batch), seconds, compute_s, finished)
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

    def _lane_ended(self, cause: str) -> None:
        if self._lane is None:
            return
        self._lane = None
        if self.takes_requests and self._running:
            self._blame(next(iter(self._running.values())))
        self._fail_all(cause)
        self._on_death(cause)

    def _blame(self, batch: list[Job]) -> None:
        """The engine ended in this batch: who was alone in it did that; of several each is alone the next time."""
        if len(batch) == 1:
            self._blocked.add((batch[0].kind, batch[0].work))
            batch[0].resolve(RequestEndedEngineError("the engine ended while it computed this request"))
        else:
            for job in batch:
                self._suspects.add((job.kind, job.work))

    def _fail_all(self, cause: str) -> None:
        """Resolve everything that was accepted."""
        for job in [*(job for batch in self._running.values() for job in batch), *self._queue.clear()]:
            job.resolve(EngineDownError(cause))


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
