"""What the policies make of a load, in a model without noise: real limits and queue, made-up processors."""

from __future__ import annotations

import statistics

import pytest

from service.wire.work import Line
from tests.overload_model import DEADLINE_S, Service, closed_loop, open_loop

ENGINES = {"an engine that is the bottleneck": (0.004, 0.0018), "an engine that outruns HTTP": (0.002, 0.0005)}


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES.keys())
def test_what_is_asked_of_overload_is_kept(engine: tuple[float, float]) -> None:
    service = Service(*engine)
    closed_loop(service, 64, 2.0)
    capacity = closed_loop(service, 64, 5.0).goodput
    once = open_loop(service, capacity, 8.0, seed=1)
    assert once.share(429) < 0.05
    for seed in (2, 3):
        twice = open_loop(service, 2 * capacity, 8.0, seed)
        assert twice.goodput >= 0.9 * capacity
        assert statistics.quantiles(twice.latencies, n=100)[98] < DEADLINE_S
        assert set(twice.statuses) == {200, 429}


@pytest.mark.parametrize(
    ("engine", "stall_s"), list(zip(ENGINES.values(), (0.2, 0.15), strict=True)), ids=ENGINES.keys()
)
def test_half_the_load_gets_through_a_machine_that_stands_still_half_of_the_time(
    engine: tuple[float, float], stall_s: float
) -> None:
    service = Service(*engine, [(2 * stall_s * n, stall_s) for n in range(1, 100)])
    capacity = closed_loop(service, 64, 5.0).goodput
    assert open_loop(service, capacity / 2, 8.0, seed=1).share(429) < 0.01


def test_after_a_standstill_the_limit_comes_back() -> None:
    service = Service(0.004, 0.0018, [(2.0, 1.5)])
    capacity = closed_loop(service, 64, 5.0).goodput
    open_loop(service, capacity, 5.0, seed=1)
    assert open_loop(service, 0.9 * capacity, 5.0, seed=2).share(429) == 0.0
    assert service.admission.limits[Line.INTERACTIVE].limit > 64
