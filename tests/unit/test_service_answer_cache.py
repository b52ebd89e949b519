"""Identical questions run once, answers expire, errors and cancellations leave nothing behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service.answer_cache import AnswerCache, SharedDeadline


class Counting:
    """A computation that can be held, failed and counted."""

    def __init__(self, error: Exception | None = None) -> None:
        self.runs = 0
        self.cancelled = 0
        self.error = error
        self.go = asyncio.Event()
        self.deadline: SharedDeadline | None = None

    async def __call__(self, deadline: SharedDeadline) -> Any:
        self.runs += 1
        self.deadline = deadline
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


async def test_concurrent_identical_questions_run_once_under_the_latest_deadline() -> None:
    cache = AnswerCache(10, 5.0, Clock())
    compute = Counting()
    asked = [asyncio.create_task(cache.get("k", deadline, compute)) for deadline in (1.0, 3.0, 2.0)]
    await settle()
    assert compute.deadline is not None
    assert compute.deadline.value == 3.0
    compute.go.set()
    assert await asyncio.gather(*asked) == [("answer 1", "miss"), ("answer 1", "joined"), ("answer 1", "joined")]
    assert compute.runs == 1


async def test_an_error_reaches_all_who_wait_and_is_not_kept() -> None:
    cache = AnswerCache(10, 5.0, Clock())
    compute = Counting(ValueError("no"))
    asked = [asyncio.create_task(cache.get("k", 1.0, compute)) for _ in range(3)]
    await settle()
    compute.go.set()
    assert [type(e) for e in await asyncio.gather(*asked, return_exceptions=True)] == [ValueError] * 3
    compute.error = None
    assert await cache.get("k", 1.0, compute) == ("answer 2", "miss")


async def test_one_who_leaves_does_not_stop_the_others_and_the_last_stops_the_work() -> None:
    cache = AnswerCache(10, 5.0, Clock())
    compute = Counting()
    first, second = (asyncio.create_task(cache.get("k", 1.0, compute)) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    assert compute.cancelled == 0
    second.cancel()
    await settle()
    assert compute.cancelled == 1
    again = Counting()
    again.go.set()
    assert await cache.get("k", 1.0, again) == ("answer 1", "miss")


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
    asked = [asyncio.create_task(cache.get("k", 1.0, compute)) for _ in range(2)]
    await settle()
    compute.go.set()
    assert [how for _, how in await asyncio.gather(*asked)] == ["miss", "joined"]
    assert (await cache.get("k", 1.0, compute))[1] == "miss"
