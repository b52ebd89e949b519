"""The in-memory store holds to its bound in bytes, as Python counts them."""

from __future__ import annotations

import tracemalloc

from service.stores.history.base import Write
from service.stores.history.memory import MemoryHistoryStore

BOUND = 2_000_000


async def test_memory_is_bounded_by_bytes_and_the_longest_silent_go_first() -> None:
    store = MemoryHistoryStore(cap=50, max_bytes=BOUND)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for user in range(1500):
        for purchase in range(1 + user % 20):
            await store.append(f"user-{user:06d}", [Write(f"item-{user}-{purchase}", 1.7e9 + purchase)])
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert store.size_bytes <= BOUND
    assert 0.5 * BOUND < taken < 1.1 * BOUND, "the estimate is near what Python takes, and not below it"
    assert (await store.recent("user-001499", 5)).purchases
    assert not (await store.recent("user-000000", 5)).purchases


async def test_one_user_stays_whatever_the_bound() -> None:
    store = MemoryHistoryStore(cap=200, max_bytes=1000)
    await store.append("u", [Write(f"i{n}", float(n)) for n in range(100)])
    assert len((await store.recent("u", 200)).purchases) == 100


async def test_who_was_forgotten_is_never_dropped_for_room() -> None:
    store = MemoryHistoryStore(cap=5, max_bytes=1000)
    await store.forget("gone", in_bundle=True)
    for user in range(50):
        await store.append(f"u{user}", [Write("i", 1.0)])
    assert (await store.recent("gone", 5)).is_forgotten
