"""Identical questions run once, answers expire, errors and cancellations leave nothing behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service.answers.answer_cache import AnswerCache
from service.wire.work import DeadlineError


class Counting:
    """A computation that can be held, failed and counted."""

    def __init__(self, error: Exception | None = None) -> None:
        self.runs = 0
        self.cancelled = 0
        self.error = error
        self.go = asyncio.Event()

    async def __call__(self) -> Any:
        self.runs += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return f"answer {self.runs}"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_finished_answer_is_found_until_it_expires() -> None:
    clock = Clock()
    cache = AnswerCache(10, 5.0, clock)
    compute = Counting()
    compute.go.set()
    assert await cache.get("k", 1.0, compute) == ("answer 1", "miss")
    clock.now = 4.9
    assert await cache.get("k", 1.0, compute) == ("answer 1", "hit")
    clock.now = 5.0
    assert await cache.get("k", 1.0, compute) == ("answer 2", "miss")
    assert await cache.get("other", 1.0, compute) == ("answer 3", "miss")


async def test_concurrent_identical_questions_run_once() -> None:
    cache = AnswerCache(10, 5.0, Clock())
    compute = Counting()
    asked = [asyncio.create_task(cache.get("k", 100.0, compute)) for _ in range(3)]
    await settle()
    compute.go.set()
    assert await asyncio.gather(*asked) == [("answer 1", "miss"), ("answer 1", "joined"), ("answer 1", "joined")]
    assert compute.runs == 1


async def test_an_error_reaches_all_who_wait_and_is_not_kept() -> None:
    cache = AnswerCache(10, 5.0, Clock())
    compute = Counting(ValueError("no"))
    asked = [asyncio.create_task(cache.get("k", 100.0, compute)) for _ in range(3)]
    await settle()
    compute.go.set()
    assert [type(e) for e in await asyncio.gather(*asked, return_exceptions=True)] == [ValueError] * 3
    compute.error = None
    assert await cache.get("k", 1.0, compute) == ("answer 2", "miss")


async def test_where_the_first_leaves_another_takes_over_and_the_last_stops_the_work() -> None:
    cache = AnswerCache(10, 5.0, Clock())
    compute = Counting()
    first, second, third = (asyncio.create_task(cache.get("k", 100.0, compute)) for _ in range(3))
    await settle()
    third.cancel()
    await settle()
    assert (compute.runs, compute.cancelled) == (1, 0)
    first.cancel()
    await settle()
    assert (compute.runs, compute.cancelled) == (2, 1)
    second.cancel()
    await settle()
    assert (compute.runs, compute.cancelled) == (2, 2)
    compute.go.set()
    assert await cache.get("k", 100.0, compute) == ("answer 3", "miss")


async def test_where_the_first_runs_out_of_time_another_takes_over() -> None:
    cache = AnswerCache(10, 5.0, Clock())
    compute = Counting(DeadlineError("late"))
    first, second = (asyncio.create_task(cache.get("k", 100.0, compute)) for _ in range(2))
    await settle()
    compute.go.set()
    with pytest.raises(DeadlineError):
        await first
    compute.error = None
    assert await second == ("answer 2", "miss")


async def test_who_joins_has_a_deadline_of_its_own() -> None:
    cache = AnswerCache(10, 5.0, Clock())
    compute = Counting()
    first = asyncio.create_task(cache.get("k", 100.0, compute))
    await settle()
    with pytest.raises(DeadlineError):
        await cache.get("k", 0.01, compute)
    compute.go.set()
    assert await first == ("answer 1", "miss")


async def test_the_longest_unused_answer_makes_room() -> None:
    cache = AnswerCache(2, 100.0, Clock())
    compute = Counting()
    compute.go.set()
    for key in ("a", "b", "a", "c"):
        await cache.get(key, 1.0, compute)
    assert (await cache.get("a", 1.0, compute))[1] == "hit"
    assert (await cache.get("b", 1.0, compute))[1] == "miss"
    assert len(cache) == 2


@pytest.mark.parametrize("size", [0])
async def test_without_room_answers_are_shared_but_not_kept(size: int) -> None:
    cache = AnswerCache(size, 100.0, Clock())
    compute = Counting()
    asked = [asyncio.create_task(cache.get("k", 100.0, compute)) for _ in range(2)]
    await settle()
    compute.go.set()
    assert [how for _, how in await asyncio.gather(*asked)] == ["miss", "joined"]
    assert (await cache.get("k", 1.0, compute))[1] == "miss"
