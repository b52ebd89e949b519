"""How much happened lately: decay and windows against a sum over single events, and a store that is away."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.answers.event_counts import EventCounts
from service.stores.buckets import MemoryBuckets, Sums
from service.stores.history.base import HistoryUnavailableError

NOW = 1_700_000_123.0
DAY_S, HOUR_S = 86_400, 3600


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([1.0, 0.5]), st.floats(-HOUR_S, 100 * DAY_S))),
    st.sampled_from([HOUR_S, 24 * HOUR_S, 48 * HOUR_S, 3 * DAY_S, 7 * DAY_S, 90 * DAY_S]),
)
async def test_an_event_counts_half_after_half_of_the_window(
    events: list[tuple[str, float, float]], window_s: int
) -> None:
    counts = EventCounts(MemoryBuckets(lambda: NOW), lambda: NOW)
    length_s = HOUR_S if window_s <= 48 * HOUR_S else DAY_S
    expected: defaultdict[str, float] = defaultdict(float)
    for item, weight, age_s in events:
        counts.note(item, weight, NOW - age_s)
        bucket = min(NOW, NOW - age_s) // length_s
        if (
            bucket >= (NOW - window_s) // length_s
            and NOW - age_s + (49 * HOUR_S if length_s == HOUR_S else 91 * DAY_S) > NOW
        ):
            middle_s = max(0.0, NOW - (bucket + 0.5) * length_s)
            expected[item] += weight * 2 ** (-middle_s / (window_s / 2))
    found = await counts.weights(window_s)
    assert found == pytest.approx(dict(expected))
    for item, weight, age_s in events:
        if 0 <= age_s <= window_s:  # a bucket blurs the time by half of its length
            assert found[item] >= weight * 2 ** (-(age_s + length_s / 2) / (window_s / 2)) - 1e-9


class Away(MemoryBuckets):
    is_away = True

    async def add(self, sums: Sums) -> None:
        if self.is_away:
            raise HistoryUnavailableError("away")
        await super().add(sums)


async def test_what_a_store_could_not_take_is_given_to_it_later() -> None:
    store = Away(lambda: NOW)
    counts = EventCounts(store, lambda: NOW)
    counts.note("a", 1.0, NOW)
    with pytest.raises(HistoryUnavailableError):
        await counts.weights(HOUR_S)
    counts.note("a", 1.0, NOW - 60)
    await counts.close()
    store.is_away = False
    assert (await counts.weights(DAY_S))["a"] == pytest.approx(2.0, rel=0.05)


async def test_answers_are_kept_for_a_moment() -> None:
    now = NOW
    counts = EventCounts(MemoryBuckets(lambda: now), lambda: now)
    counts.note("a", 1.0, now)
    first = await counts.weights(HOUR_S)
    counts.note("b", 1.0, now)
    assert await counts.weights(HOUR_S) is first
    now += 3
    assert set(await counts.weights(HOUR_S)) == {"a", "b"}
