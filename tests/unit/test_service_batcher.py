"""The engine thread: whatever happens to it, every job that was accepted is resolved."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from rdrec_core.errors import EngineError, InputError
from service.engine.batch_queue import BatchQueue, Job
from service.engine.batcher import BLOCKED_S, Batcher, LaneEndedError
from service.engine.engine_thread import EngineThread
from service.wire.work import DeadlineError, EngineDownError, Kind, QueueFullError, RequestEndedEngineError


class Recorder:
    def __init__(self) -> None:
        self.batches: list[tuple[Kind, int]] = []
        self.expired = 0

    def batch_done(self, kind: Kind, jobs: int, seconds: float) -> None:
        self.batches.append((kind, jobs))

    def left_queue(self, kind: Kind, waited_s: float, *, expired: bool) -> None:
        self.expired += expired


class World:
    """A batcher over a thread that doubles numbers, and the means to disturb it."""

    def __init__(self, *, size: int = 100, batch_size: int = 8) -> None:
        self.recorder = Recorder()
        self.deaths: list[str] = []
        self.seen: list[list[Any]] = []
        self.gate: threading.Event | None = None
        self.entered = threading.Event()
        self.disturb: Callable[[Sequence[Any]], None] = lambda works: None
        queue = BatchQueue(size=size, batch_size=batch_size, wait_s=0.0)
        self.batcher = Batcher(queue, time.monotonic, self.recorder, self.deaths.append)

    def start(self) -> None:
        self.batcher.start(EngineThread(self.run))

    def run(self, kind: Kind, works: Sequence[Any]) -> Sequence[Any]:
        self.seen.append(list(works))
        self.entered.set()
        if self.gate is not None:
            assert self.gate.wait(10)
        self.disturb(works)
        return [2 * work for work in works]

    async def ask(self, work: Any, *, kind: Kind = Kind.RANK, timeout_s: float = 10.0) -> Any:
        return (await self.batcher.submit(kind, 1, work, time.monotonic() + timeout_s)).value

    async def busy(self) -> asyncio.Task[Any]:
        """Hold the engine in a batch of its own."""
        self.gate = threading.Event()
        self.entered.clear()
        blocker = asyncio.create_task(self.ask(0))
        await asyncio.to_thread(self.entered.wait, 10)
        return blocker

    def release(self) -> None:
        assert self.gate is not None
        self.gate.set()


@asynccontextmanager
async def world(**limits: int) -> AsyncIterator[World]:
    made = World(**limits)
    made.start()
    yield made
    if made.gate is not None:
        made.gate.set()
    await made.batcher.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_jobs_that_arrive_while_the_engine_is_busy_share_a_batch() -> None:
    async with world() as w:
        blocker = await w.busy()
        asked = [asyncio.create_task(w.ask(n)) for n in range(1, 6)]
        await until(lambda: w.batcher.depth == 5)
        w.release()
        assert await asyncio.gather(blocker, *asked) == [0, 2, 4, 6, 8, 10]
        assert w.seen == [[0], [1, 2, 3, 4, 5]]
        assert w.recorder.batches == [(Kind.RANK, 1), (Kind.RANK, 5)]


async def test_a_poison_job_fails_alone_and_its_batch_mates_are_answered() -> None:
    async with world() as w:

        def poison(works: Sequence[Any]) -> None:
            if 3 in works:
                raise ValueError("secret")

        w.disturb = poison
        blocker = await w.busy()
        asked = [asyncio.create_task(w.ask(n)) for n in range(1, 6)]
        await until(lambda: w.batcher.depth == 5)
        w.release()
        await blocker
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert [a for a in answers if not isinstance(a, Exception)] == [2, 4, 8, 10]
        assert isinstance(answers[2], EngineError)
        assert "secret" not in str(answers[2])
        assert isinstance(answers[2].__cause__, ValueError)
        assert await w.ask(7) == 14


async def test_an_input_error_reaches_its_own_caller_as_it_is() -> None:
    async with world() as w:
        error = InputError("index 99 is outside the catalogue", field="history")

        def refuse(works: Sequence[Any]) -> None:
            raise error

        w.disturb = refuse
        with pytest.raises(InputError) as raised:
            await w.ask(1)
        assert raised.value is error


async def test_a_runner_that_returns_too_few_results_is_an_engine_error() -> None:
    async with world() as w:
        await w.batcher.stop()
        w.batcher.start(EngineThread(lambda kind, works: []))
        with pytest.raises(EngineError, match="0 results for 1"):
            await w.ask(1)


async def test_a_death_resolves_running_and_waiting_jobs_and_is_reported_once() -> None:
    async with world() as w:

        def die(works: Sequence[Any]) -> None:
            raise SystemExit

        w.disturb = die
        blocker = await w.busy()
        asked = [asyncio.create_task(w.ask(n)) for n in range(3)]
        await until(lambda: w.batcher.depth == 3)
        w.release()
        answers = await asyncio.gather(blocker, *asked, return_exceptions=True)
        assert [type(a) for a in answers] == [RequestEndedEngineError] + [EngineDownError] * 3
        await until(lambda: len(w.deaths) == 1)
        assert "SystemExit" in w.deaths[0]
        assert not w.batcher.is_alive
        with pytest.raises(EngineDownError):
            await w.ask(1)
        w.disturb = lambda works: None
        w.start()
        assert await w.ask(4) == 8
        assert len(w.deaths) == 1


def die_of(work: int) -> Callable[[Sequence[Any]], None]:
    def disturb(works: Sequence[Any]) -> None:
        if work in works:
            raise SystemExit

    return disturb


async def test_of_several_the_one_that_ends_the_engine_is_found_alone_and_blocked() -> None:
    async with world() as w:
        w.disturb = die_of(3)
        blocker = await w.busy()
        asked = [asyncio.create_task(w.ask(n)) for n in range(1, 6)]
        await until(lambda: w.batcher.depth == 5)
        w.release()
        answers = await asyncio.gather(blocker, *asked, return_exceptions=True)
        assert [type(a) for a in answers[1:]] == [EngineDownError] * 5, "nobody is blamed for what another did"
        await until(lambda: len(w.deaths) == 1)
        w.start()
        w.seen.clear()
        blocker = await w.busy()
        asked = [asyncio.create_task(w.ask(n)) for n in (1, 2, 3)]
        await until(lambda: w.batcher.depth == 3)
        w.release()
        answers = await asyncio.gather(blocker, *asked, return_exceptions=True)
        assert answers[:3] == [0, 2, 4]
        assert isinstance(answers[3], RequestEndedEngineError)
        assert w.seen == [[0], [1], [2], [3]], "each of the suspects was computed alone"
        await until(lambda: len(w.deaths) == 2)
        with pytest.raises(RequestEndedEngineError):
            await w.ask(3)
        w.start()
        with pytest.raises(RequestEndedEngineError):
            await w.ask(3)
        assert await w.ask(1) == 2
        assert len(w.deaths) == 2


async def test_a_block_ends_in_time() -> None:
    now = 0.0
    lane = HandLane(1)
    queue = BatchQueue(size=10, batch_size=1, wait_s=0.0)
    batcher = Batcher(queue, lambda: now, Recorder(), lambda cause: None)
    for at, expected in ((0.0, RequestEndedEngineError), (BLOCKED_S - 1, RequestEndedEngineError)):
        now = at
        if at == 0.0:
            batcher.start(lane)
            asked = asyncio.create_task(batcher.submit(Kind.RANK, 1, 7, 1e9))
            await until(lambda: len(lane.given) == 1)
            lane.end("gone")
            with pytest.raises(expected):
                await asked
        else:
            with pytest.raises(expected):
                await batcher.submit(Kind.RANK, 1, 7, 1e9)
    now = BLOCKED_S + 1
    with pytest.raises(EngineDownError):
        await batcher.submit(Kind.RANK, 1, 7, 1e9)


async def test_past_the_deadline_in_the_queue_costs_the_engine_nothing() -> None:
    async with world() as w:
        blocker = await w.busy()
        with pytest.raises(DeadlineError):
            await w.ask(5, timeout_s=0.02)
        w.release()
        await blocker
        assert await w.ask(6) == 12
        assert w.seen == [[0], [6]]


async def test_past_the_deadline_in_the_engine_the_caller_is_told_and_the_engine_goes_on() -> None:
    async with world() as w:
        w.gate = threading.Event()
        with pytest.raises(DeadlineError):
            await w.ask(5, timeout_s=0.05)
        w.release()
        assert await w.ask(6) == 12


async def test_cancelling_the_caller_frees_the_place() -> None:
    async with world(size=1) as w:
        blocker = await w.busy()
        waiting = asyncio.create_task(w.ask(1))
        await until(lambda: w.batcher.depth == 1)
        with pytest.raises(QueueFullError):
            await w.ask(2)
        waiting.cancel()
        await until(lambda: w.batcher.depth == 0)
        third = asyncio.create_task(w.ask(3))
        await until(lambda: w.batcher.depth == 1)
        w.release()
        assert await asyncio.gather(blocker, third) == [0, 6]
        assert w.seen == [[0], [3]]


async def test_stop_finishes_what_was_accepted_and_takes_no_more() -> None:
    w = World()
    w.start()
    blocker = await w.busy()
    asked = [asyncio.create_task(w.ask(n)) for n in range(4)]
    await until(lambda: w.batcher.depth == 4)
    stopping = asyncio.create_task(w.batcher.stop())
    await asyncio.sleep(0)
    with pytest.raises(EngineDownError):
        await w.ask(9)
    w.release()
    await stopping
    assert await asyncio.gather(blocker, *asked) == [0, 0, 2, 4, 6]
    assert w.deaths == []


async def test_stop_gives_up_on_a_hanging_engine_and_resolves_its_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    w = World()
    w.start()
    blocker = await w.busy()
    assert w.batcher.busy_for_s() > 0
    monkeypatch.setattr(EngineThread.close, "__kwdefaults__", {"within_s": 0.01})
    await w.batcher.stop(within_s=0.01)
    with pytest.raises(EngineDownError):
        await blocker
    w.release()


def know_the_pace(queue: BatchQueue) -> None:
    queue.offer(Job(Kind.RANK, 1, object(), 1e9, 0.0, lambda value: None), 0.0)
    queue.finished(queue.take(0.0).batch, 1e-6, 1e-6, 0.0)


class HandLane:
    """A lane of any depth whose batches the test finishes by hand."""

    device = "cpu"

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.given: list[tuple[list[Any], asyncio.Future[Any]]] = []

    def watch(self, on_end: Callable[[str], None]) -> None:
        self.end = on_end

    async def compute(self, kind: Kind, works: Sequence[Any]) -> tuple[Sequence[Any], float]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.given.append((list(works), future))
        return await future, 1e-6 * len(works)

    def kill(self) -> bool:
        self.end("killed")
        return True

    async def close(self) -> None: ...


async def test_a_deep_lane_gets_full_batches_ahead_and_unfilled_ones_only_when_idle() -> None:
    lane = HandLane(3)
    queue = BatchQueue(size=100, batch_size=2, wait_s=0.0)
    batcher = Batcher(queue, time.monotonic, Recorder(), lambda cause: None)
    know_the_pace(queue)
    batcher.start(lane)
    asked = [asyncio.create_task(batcher.submit(Kind.RANK, 1, n, time.monotonic() + 10)) for n in range(8)]
    await until(lambda: batcher.depth == 3)
    assert [works for works, _ in lane.given] == [[0], [1, 2], [3, 4]]
    lane.given[0][1].set_result(["a"])
    await until(lambda: len(lane.given) == 4)
    assert lane.given[3][0] == [5, 6]
    assert batcher.depth == 1
    for works, future in lane.given[1:4]:
        future.set_result([str(work) for work in works])
    await until(lambda: len(lane.given) == 5)
    assert lane.given[4][0] == [7]
    lane.given[4][1].set_result(["7"])
    assert [outcome.value for outcome in await asyncio.gather(*asked)] == ["a", *"1234567"]
    await batcher.stop()


async def test_all_batches_of_a_deep_lane_are_answered_for_when_it_ends() -> None:
    lane = HandLane(2)
    deaths: list[str] = []
    queue = BatchQueue(size=100, batch_size=1, wait_s=0.0)
    batcher = Batcher(queue, time.monotonic, Recorder(), deaths.append)
    know_the_pace(queue)
    batcher.start(lane)
    asked = [asyncio.create_task(batcher.submit(Kind.RANK, 1, n, time.monotonic() + 10)) for n in range(3)]
    await until(lambda: len(lane.given) == 2)
    for _, future in lane.given:
        future.set_exception(LaneEndedError("gone"))
    lane.end("gone")
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(answer) for answer in answers] == [RequestEndedEngineError, EngineDownError, EngineDownError]
    assert deaths == ["gone"]


async def test_an_outcome_says_where_the_time_went() -> None:
    async with world() as w:
        outcome = await w.batcher.submit(Kind.RANK, 1, 1, time.monotonic() + 10)
        assert outcome.value == 2
        assert outcome.queue_s >= 0
        assert outcome.engine_s > 0


async def given(*lanes: HandLane, jobs: int, batch_size: int = 1) -> tuple[Batcher, list[asyncio.Task[Any]], list[str]]:
    """A batcher with jobs 0, 1, ... over lanes whose batches the test finishes."""
    deaths: list[str] = []
    queue = BatchQueue(size=100, batch_size=batch_size, wait_s=0.0)
    batcher = Batcher(queue, time.monotonic, Recorder(), deaths.append)
    for lane in lanes:
        batcher.start(lane)
    asked = [asyncio.create_task(batcher.submit(Kind.RANK, 1, n, time.monotonic() + 10)) for n in range(jobs)]
    await until(lambda: batcher.depth == jobs - len(lanes) * batch_size)
    await until(lambda: all(lane.given for lane in lanes))
    return batcher, asked, deaths


async def test_every_idle_engine_gets_a_batch_and_whoever_is_done_the_next() -> None:
    first, second = HandLane(1), HandLane(1)
    batcher, asked, _ = await given(first, second, jobs=4)
    assert [works for lane in (first, second) for works, _ in lane.given] == [[0], [1]]
    second.given[0][1].set_result(["1"])
    await until(lambda: len(second.given) == 2)
    second.given[1][1].set_result(["2"])
    await until(lambda: len(second.given) == 3)
    second.given[2][1].set_result(["3"])
    first.given[0][1].set_result(["0"])
    assert [outcome.value for outcome in await asyncio.gather(*asked)] == ["0", "1", "2", "3"]
    await batcher.stop()


async def test_what_waits_goes_on_to_the_engine_that_is_left() -> None:
    first, second = HandLane(1), HandLane(1)
    batcher, asked, deaths = await given(first, second, jobs=3)
    first.given[0][1].set_exception(LaneEndedError("gone"))
    first.end("gone")
    assert deaths == ["gone"]
    assert batcher.is_alive
    assert batcher.lanes == [second]
    second.given[0][1].set_result(["1"])
    await until(lambda: len(second.given) == 2)
    second.given[1][1].set_result(["2"])
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(answers[0], RequestEndedEngineError), "it was alone in the engine that ended"
    assert [outcome.value for outcome in answers[1:]] == ["1", "2"]
    batcher.start(third := HandLane(1))
    again = asyncio.create_task(batcher.submit(Kind.RANK, 1, 7, time.monotonic() + 10))
    await until(lambda: bool(second.given[2:] or third.given))
    for lane in (second, third):
        for _, future in lane.given:
            if not future.done():
                future.set_result(["7"])
    assert (await again).value == "7"
    await batcher.stop()


async def test_a_change_reaches_every_engine_behind_what_it_computes() -> None:
    first, second = HandLane(1), HandLane(1)
    batcher, asked, _ = await given(first, second, jobs=2)
    telling = asyncio.create_task(batcher.tell(Kind.RANK, "change"))
    await until(lambda: len(first.given) == len(second.given) == 2)
    assert [lane.given[1][0] for lane in (first, second)] == [["change"]] * 2
    first.given[1][1].set_result([None])
    second.given[1][1].set_exception(LaneEndedError("gone"))
    await telling
    for lane in (first, second):
        lane.given[0][1].set_result(["done"])
    await asyncio.gather(*asked)
    await batcher.stop()


async def test_only_the_engine_that_hangs_is_ended() -> None:
    now = 0.0
    first, second = HandLane(1), HandLane(1)
    deaths: list[str] = []
    batcher = Batcher(BatchQueue(size=10, batch_size=1, wait_s=0.0), lambda: now, Recorder(), deaths.append)
    batcher.start(first)
    asked = [asyncio.create_task(batcher.submit(Kind.RANK, 1, 1, 1e9))]
    await until(lambda: bool(first.given))
    now = 20.0
    batcher.start(second)
    asked.append(asyncio.create_task(batcher.submit(Kind.RANK, 1, 2, 1e9)))
    await until(lambda: bool(second.given))
    now = 31.0
    assert batcher.busy_for_s() == 31.0
    assert not batcher.kill(40.0)
    assert batcher.kill(30.0)
    assert (deaths, batcher.lanes) == (["killed"], [second])
    second.given[0][1].set_result(["2"])
    assert isinstance((await asyncio.gather(*asked, return_exceptions=True))[0], RequestEndedEngineError)
    await batcher.stop()
