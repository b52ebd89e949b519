"""What every history store promises, over every implementation and server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from service.stores.history.base import HistoryStore, Kept, Write, mark_of
from service.stores.history.memory import MemoryHistoryStore
from service.stores.history.redis import RedisHistoryStore
from service.stores.redis_gateway import RedisGateway
from tests.histories import add, recent

CAP = 5
SERVERS = ("memory", "redis_url", "unix_url", "tls_url", "valkey_url", "cluster_url", "sentinel_url")


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def store(gateway: RedisGateway | None, prefix: str) -> AsyncIterator[HistoryStore]:
    opened = MemoryHistoryStore(cap=CAP) if gateway is None else RedisHistoryStore(gateway, prefix=prefix, cap=CAP)
    yield opened
    await opened.close()


async def test_a_user_never_written_to_is_none(store: HistoryStore) -> None:
    assert await recent(store, "nobody") is None


async def test_the_oldest_fall_out_at_the_cap(store: HistoryStore) -> None:
    for number in range(CAP + 2):
        assert await add(store, "u", f"i{number}", float(number))
    assert await recent(store, "u") == ["i2", "i3", "i4", "i5", "i6"]


@pytest.mark.parametrize(("limit", "expected"), [(1, ["d"]), (2, ["c", "d"]), (4, ["a", "b", "c", "d"])])
async def test_limit_gives_the_latest(store: HistoryStore, limit: int, expected: list[str]) -> None:
    await store.append("u", [Write(item, float(n)) for n, item in enumerate("abcd")])
    assert await recent(store, "u", limit) == expected
    assert (await store.recent("u", 0)).purchases == []


async def test_purchases_stand_in_the_order_of_their_timestamps(store: HistoryStore) -> None:
    for item, timestamp in (("c", 30.0), ("a", 10.5), ("d", 40.0), ("b", 20.25)):
        assert await add(store, "u", item, timestamp)
    assert (await store.recent("u", 10)).purchases == [("a", 10.5), ("b", 20.25), ("c", 30.0), ("d", 40.0)]


async def test_what_has_one_timestamp_stays_in_the_order_in_which_it_came(store: HistoryStore) -> None:
    await store.append("u", [Write("late", 9.0), *(Write(item, 5.0) for item in "zyx")])
    assert await recent(store, "u") == ["z", "y", "x", "late"]


async def test_many_at_once_are_kept_in_place_and_repetitions_told(store: HistoryStore) -> None:
    assert await add(store, "u", "b", 2.0)
    writes = [Write("c", 3.0), Write("b", 2.0), Write("a", 1.0), Write("a", 1.0), Write("d:1", 4.0, "k")]
    assert await store.append("u", writes) == [True, False, True, False, True]
    assert await recent(store, "u") == ["a", "b", "c", "d:1"]


async def test_what_is_older_than_all_that_is_kept_falls_out_at_once(store: HistoryStore) -> None:
    await store.append("u", [Write(f"i{n}", 100.0 + n) for n in range(CAP)])
    await add(store, "u", "ancient", 1.0)
    assert await recent(store, "u") == [f"i{n}" for n in range(CAP)]


async def test_same_user_item_and_timestamp_is_one_write(store: HistoryStore) -> None:
    assert await add(store, "u", "a", 1.5)
    assert not await add(store, "u", "a", 1.5)
    assert await add(store, "u", "a", 1.6)
    assert await add(store, "u", "b", 1.5)
    assert await add(store, "v", "a", 1.5)
    assert await recent(store, "u") == ["a", "b", "a"]
    assert await recent(store, "v") == ["a"]


async def test_an_idempotency_key_is_one_write_whatever_the_timestamp(store: HistoryStore) -> None:
    assert await add(store, "u", "a", 1.0, idempotency_key="k")
    assert not await add(store, "u", "a", 9.0, idempotency_key="k")
    assert await add(store, "v", "a", 1.0, idempotency_key="k")
    assert await recent(store, "u") == ["a"]


async def test_a_key_used_again_for_another_item_loses_nothing(store: HistoryStore) -> None:
    assert await add(store, "u", "a", 1.0, idempotency_key="k")
    assert await add(store, "u", "b", 1.0, idempotency_key="k")
    assert await recent(store, "u") == ["a", "b"]


@pytest.mark.parametrize("in_bundle", [True, False])
async def test_who_is_forgotten_stays_so_and_may_begin_again(store: HistoryStore, in_bundle: bool) -> None:
    await add(store, "u", "c", 1.0)
    assert not (await store.recent("u", 5)).is_forgotten
    await store.forget("u", in_bundle=in_bundle)
    assert await store.recent("u", 5) == Kept([], is_forgotten=True)
    assert await add(store, "u", "c", 1.0)
    assert await store.recent("u", 5) == Kept([("c", 1.0)], is_forgotten=True)


async def test_who_is_in_the_bundle_alone_is_remembered_and_a_stranger_leaves_no_trace(store: HistoryStore) -> None:
    await store.forget("known", in_bundle=True)
    await store.forget("stranger", in_bundle=False)
    await store.sync()
    assert (await store.recent("known", 5)).is_forgotten
    assert await store.recent("stranger", 5) == Kept([], is_forgotten=False)
    assert await store.forgotten(["known", "stranger", "other"]) == {"known"}
    assert await store.forgotten([]) == set()
    assert [store.may_use_bundle(user) for user in ("known", "stranger", "other")] == [False, True, True]
    assert store.marks() == {mark_of("known")}


@pytest.mark.parametrize(
    "user", ["{a}", "a}b{c", "ü:ñ", "a b\n", "0" * 128, "rdrec", "\x00", "}", "%7D", "%", "\ud800"]
)
async def test_any_string_is_a_user(store: HistoryStore, user: str) -> None:
    await add(store, user, "item {1}: a", 1.0)
    assert await recent(store, user) == ["item {1}: a"]
    await store.forget(user, in_bundle=True)
    assert await recent(store, user) == []


async def test_concurrent_writes_are_all_kept(store: HistoryStore) -> None:
    added = await asyncio.gather(*(add(store, "u", f"i{n}", float(n)) for n in reversed(range(4))))
    assert added == [True] * 4
    assert await recent(store, "u") == ["i0", "i1", "i2", "i3"]


async def test_concurrent_repeats_of_one_write_are_added_once(store: HistoryStore) -> None:
    added = await asyncio.gather(*(add(store, "u", "i", 1.0, idempotency_key="k") for _ in range(8)))
    assert sorted(added) == [False] * 7 + [True]
    assert await recent(store, "u") == ["i"]


async def test_events_that_are_no_history_are_told_from_their_repetitions_alone(store: HistoryStore) -> None:
    writes = [
        Write("a", 1.0, event="view", in_history=False),
        Write("a", 1.0),
        Write("a", 1.0, event="view", in_history=False),
        Write("b", 2.0, "k", event="cart", in_history=False),
        Write("b", 3.0, event="cart", in_history=True),
    ]
    assert await store.append("u", writes) == [True, True, False, True, True]
    assert await store.append("u", writes) == [False] * 5
    assert (await store.recent("u", 9)).purchases == [("a", 1.0), ("b", 3.0)]
    await store.append("u", [Write("c", float(n), event="view", in_history=False) for n in range(3 * CAP)])
    assert await store.append("u", [Write("c", 3.0 * CAP - 1, event="view", in_history=False)]) == [False]
    assert await recent(store, "u") == ["a", "b"]
    await store.forget("u", in_bundle=False)
    assert await store.append("u", writes[:1]) == [True], "what was known of earlier writes is gone"
    assert (await store.recent("u", 9)).is_forgotten


async def test_close_twice(store: HistoryStore) -> None:
    await store.close()
    await store.close()
