"""The circuit breaker against a clock that the test turns."""

from __future__ import annotations

import asyncio

import pytest

from service.stores.breaker import BreakerOpenError, CircuitBreaker


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker(clock, failures=3, window=6, open_for_s=1.0)


def attempt(breaker: CircuitBreaker, outcome: BaseException | None = None) -> None:
    with breaker.attempt((OSError,)):
        if outcome is not None:
            raise outcome


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(OSError, match="down"):
            attempt(breaker, OSError("down"))


def test_opens_at_the_third_failure_of_the_window_and_refuses_without_entering(breaker: CircuitBreaker) -> None:
    fail(breaker, 2)
    attempt(breaker)
    assert breaker.state == "closed"
    fail(breaker)
    assert breaker.state == "open"
    with pytest.raises(BreakerOpenError) as refused, breaker.attempt((OSError,)):
        pytest.fail("entered")
    assert refused.value.retry_after_s == pytest.approx(1.0)


def test_failures_that_left_the_window_are_forgotten(breaker: CircuitBreaker) -> None:
    fail(breaker, 2)
    for _ in range(6):
        attempt(breaker)
    fail(breaker, 2)
    assert breaker.state == "closed"


def test_one_attempt_goes_through_half_open_and_closes_it(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 1.0
    assert breaker.state == "half-open"
    with breaker.attempt((OSError,)):
        assert breaker.state == "open", "a second one must wait for the outcome of the first"
    assert breaker.state == "closed"
    fail(breaker, 2)
    assert breaker.state == "closed", "failures from before count no longer"


def test_a_failed_probe_opens_it_again_for_the_whole_time(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 1.5
    fail(breaker)
    assert breaker.state == "open"
    clock.now += 0.9
    assert breaker.state == "open"
    clock.now += 0.1
    assert breaker.state == "half-open"


def test_a_cancelled_probe_decides_nothing_and_frees_its_place(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 1.0
    with pytest.raises(asyncio.CancelledError):
        attempt(breaker, asyncio.CancelledError())
    assert breaker.state == "half-open"


def test_an_error_that_is_an_answer_counts_as_a_success(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 1.0
    with pytest.raises(KeyError):
        attempt(breaker, KeyError("answered"))
    assert breaker.state == "closed"
