"""One engine thread behind one bounded queue: every job that it accepts is resolved, whatever happens to the engine.

The policy is `batch_queue.py`; what a batch computes is the Runner's business (`arm.py`). Here are the lock, the
thread, the splitting of failing batches, and the bridge to the event loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rdrec_core.errors import EngineError, InputError, RDRecError
from service.batch_queue import BatchQueue, Job, Kind, QueueFullError

Runner = Callable[[Kind, Sequence[Any]], Sequence[Any]]
"""Computes a batch of works of one kind, in order. Called by the engine thread only."""


class DeadlineError(RDRecError):
    """The request's deadline passed before its answer was there."""


class EngineDownError(EngineError):
    """The engine thread is not running; it is being restarted."""


class BatcherObserver(Protocol):
    """Hears of what happens inside, on the engine thread; must be quick and must not raise."""

    def batch_done(self, kind: Kind, jobs: int, seconds: float) -> None:
        """A batch was computed."""
        ...

    def left_queue(self, kind: Kind, waited_s: float, *, expired: bool) -> None:
        """A job left the queue, for the engine or because its deadline had passed."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """A job's result and where its time went."""

    value: Any
    queue_s: float
    engine_s: float


class Batcher:
    """Runs jobs through a Runner. `on_death` is called on the event loop when the engine thread ends unasked."""

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
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False
        self._running: list[Job] = []
        self._running_since: float | None = None

    @property
    def is_alive(self) -> bool:
        """Whether jobs are accepted."""
        return self._thread is not None and self._thread.is_alive() and not self._stopping

    @property
    def depth(self) -> int:
        """Jobs that wait for the engine."""
        return self._queue.depth

    def busy_for_s(self) -> float:
        """How long the running batch has been running."""
        since = self._running_since
        return 0.0 if since is None else self._clock() - since

    def start(self, runner: Runner) -> None:
        """Start the engine thread, from the event loop; also again after its death."""
        assert not self.is_alive
        self._loop = asyncio.get_running_loop()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, args=(runner,), name="rdrec-engine", daemon=True)
        self._thread.start()

    async def stop(self, *, within_s: float = 30.0) -> None:
        """Finish what was accepted, then end the thread; a thread that hangs is left behind after `within_s`."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            await asyncio.to_thread(thread.join, within_s)

    async def submit(self, kind: Kind, length: int, work: Any, deadline: float) -> Outcome:
        """Queue one work and wait for its result.

        Raises QueueFullError, EngineDownError, DeadlineError, or what the Runner raised for this work alone. Cancelling
        the caller frees the place.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        now = self._clock()
        job = Job(kind, length, work, deadline, now, lambda value: _settle(future, value))
        with self._changed:
            if not self.is_alive:
                raise EngineDownError("the engine is being restarted")
            self._queue.offer(job, now)
            self._changed.notify()
        try:
            async with asyncio.timeout(deadline - now):
                value = await future
        except TimeoutError as error:
            raise DeadlineError("the deadline passed before the answer was there") from error
        finally:
            if not future.done() or future.cancelled():
                with self._changed:
                    self._queue.cancel(job)
        started = job.started_at if job.started_at is not None else now
        finished = job.finished_at if job.finished_at is not None else started
        return Outcome(value, started - now, finished - started)

    def _run(self, runner: Runner) -> None:
        cause = "the engine thread ended"
        try:
            while (batch := self._next()) is not None:
                self._compute(runner, batch)
        except BaseException as error:  # also SystemExit: nothing may end this thread with jobs unresolved
            cause = f"the engine thread died of {type(error).__name__}"
        finally:
            self._bury(cause)

    def _next(self) -> list[Job] | None:
        """The next batch; None to stop."""
        with self._changed:
            while True:
                decision = self._queue.take(self._clock())
                self._resolve([(job, DeadlineError("the deadline passed in the queue")) for job in decision.expired])
                now = self._clock()
                for job in decision.expired:
                    self._observer.left_queue(job.kind, now - job.enqueued_at, expired=True)
                if decision.batch:
                    self._running = decision.batch
                    self._running_since = now
                    for job in decision.batch:
                        self._observer.left_queue(job.kind, now - job.enqueued_at, expired=False)
                    return decision.batch
                if self._stopping and decision.wake_at is None:
                    return None
                self._changed.wait(None if decision.wake_at is None else decision.wake_at - now)

    def _compute(self, runner: Runner, batch: list[Job]) -> None:
        started = self._clock()
        results = self._isolating(runner, batch)
        finished = self._clock()
        for job in batch:
            job.finished_at = finished
        self._resolve(results)
        kind = batch[0].kind
        with self._changed:
            self._running, self._running_since = [], None
            self._queue.finished(kind, len(batch), finished - started, finished)
        self._observer.batch_done(kind, len(batch), finished - started)

    def _isolating(self, runner: Runner, batch: list[Job]) -> list[tuple[Job, Any]]:
        """Run the batch; where it fails, run its halves, so that one poison job fails alone."""
        try:
            values = runner(batch[0].kind, [job.work for job in batch])
            if len(values) != len(batch):
                raise EngineError(f"the engine gave {len(values)} results for {len(batch)} requests")
            return list(zip(batch, values, strict=True))
        except Exception as error:
            if len(batch) > 1:
                half = len(batch) // 2
                return self._isolating(runner, batch[:half]) + self._isolating(runner, batch[half:])
            if isinstance(error, InputError | EngineError):
                return [(batch[0], error)]
            failure = EngineError(f"the engine failed with {type(error).__name__}")
            failure.__cause__ = error
            return [(batch[0], failure)]

    def _bury(self, cause: str) -> None:
        """Resolve everything that was accepted; report an unasked end."""
        with self._changed:
            expected = self._stopping
            self._thread = None
            lost = [*self._running, *self._queue.clear()]
            self._running, self._running_since = [], None
        self._resolve([(job, EngineDownError(cause)) for job in lost])
        if not expected:
            self._call_on_loop(lambda: self._on_death(cause))

    def _resolve(self, results: Sequence[tuple[Job, Any]]) -> None:
        def deliver() -> None:
            for job, value in results:
                job.resolve(value)

        if results:
            self._call_on_loop(deliver)

    def _call_on_loop(self, callback: Callable[[], Any]) -> None:
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback)


def _settle(future: asyncio.Future[Any], value: Any) -> None:
    if future.done():
        return
    if isinstance(value, BaseException):
        future.set_exception(value)
    else:
        future.set_result(value)


__all__ = ["Batcher", "BatcherObserver", "DeadlineError", "EngineDownError", "Outcome", "QueueFullError", "Runner"]
