"""What every history store promises, over every implementation. A store joins by an entry in STORES."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from service.stores.history.base import HistoryStore
from service.stores.history.memory import MemoryHistoryStore
from service.stores.history.redis import RedisHistoryStore
from service.stores.redis_gateway import RedisGateway

CAP = 5
OpenStore = Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[HistoryStore]]


@asynccontextmanager
async def memory_store(request: pytest.FixtureRequest) -> AsyncIterator[HistoryStore]:
    store = MemoryHistoryStore(cap=CAP)
    yield store
    await store.close()


def redis_store(url_fixture: str) -> OpenStore:
    @asynccontextmanager
    async def open_store(request: pytest.FixtureRequest) -> AsyncIterator[HistoryStore]:
        # The time-out is generous: what is tested here is the outcome, and the machine may be busy.
        gateway = RedisGateway.open(request.getfixturevalue(url_fixture), timeout_s=5.0, max_connections=16)
        store = RedisHistoryStore(gateway, prefix=f"test-{uuid.uuid4().hex}", cap=CAP)
        yield store
        await store.close()

    return open_store


STORES: dict[str, OpenStore] = {
    "memory": memory_store,
    "redis": redis_store("redis_url"),
    "redis-unix": redis_store("unix_url"),
    "redis-tls": redis_store("tls_url"),
    "valkey": redis_store("valkey_url"),
    "redis-cluster": redis_store("cluster_url"),
    "redis-sentinel": redis_store("sentinel_url"),
}


@pytest.fixture(params=sorted(STORES))
async def store(request: pytest.FixtureRequest) -> AsyncIterator[HistoryStore]:
    async with STORES[request.param](request) as opened:
        yield opened


async def recent(store: HistoryStore, user: str, limit: int = 100) -> list[str] | None:
    items = await store.recent(user, limit)
    return None if items is None else list(items)


async def test_a_user_never_written_to_is_none(store: HistoryStore) -> None:
    assert await recent(store, "nobody") is None


async def test_first_write_puts_the_base_in_front_and_later_writes_do_not(store: HistoryStore) -> None:
    assert await store.append("u", "c", 1.0, base=["a", "b"])
    assert await store.append("u", "d", 2.0, base=["a", "b"])
    assert await recent(store, "u") == ["a", "b", "c", "d"]
    assert await recent(store, "other") is None


async def test_the_oldest_fall_out_at_the_cap(store: HistoryStore) -> None:
    await store.append("u", "x", 1.0, base=[f"b{n}" for n in range(10)])
    assert await recent(store, "u") == ["b6", "b7", "b8", "b9", "x"]
    await store.append("u", "y", 2.0)
    assert await recent(store, "u") == ["b7", "b8", "b9", "x", "y"]


@pytest.mark.parametrize(("limit", "expected"), [(0, []), (1, ["d"]), (2, ["c", "d"]), (4, ["a", "b", "c", "d"])])
async def test_limit_gives_the_latest(store: HistoryStore, limit: int, expected: list[str]) -> None:
    await store.append("u", "d", 1.0, base=["a", "b", "c"])
    assert await recent(store, "u", limit) == expected


async def test_same_user_item_and_timestamp_is_one_write(store: HistoryStore) -> None:
    assert await store.append("u", "a", 1.5)
    assert not await store.append("u", "a", 1.5)
    assert await store.append("u", "a", 1.6)
    assert await store.append("u", "b", 1.5)
    assert await store.append("v", "a", 1.5)
    assert await recent(store, "u") == ["a", "a", "b"]
    assert await recent(store, "v") == ["a"]


async def test_an_idempotency_key_is_one_write_whatever_the_timestamp(store: HistoryStore) -> None:
    assert await store.append("u", "a", 1.0, idempotency_key="k")
    assert not await store.append("u", "a", 9.0, idempotency_key="k")
    assert await store.append("v", "a", 1.0, idempotency_key="k")
    assert await recent(store, "u") == ["a"]


async def test_a_key_used_again_for_another_item_loses_nothing(store: HistoryStore) -> None:
    assert await store.append("u", "a", 1.0, idempotency_key="k")
    assert await store.append("u", "b", 1.0, idempotency_key="k")
    assert await recent(store, "u") == ["a", "b"]


async def test_forget_empties_the_history_and_the_base_does_not_return(store: HistoryStore) -> None:
    await store.append("u", "c", 1.0, base=["a", "b"])
    await store.forget("u")
    assert await recent(store, "u") == []
    assert await store.append("u", "c", 1.0, base=["a", "b"])
    assert await recent(store, "u") == ["c"]


async def test_forget_before_any_write_also_holds(store: HistoryStore) -> None:
    await store.forget("u")
    assert await recent(store, "u") == []
    assert await recent(store, "v") is None


@pytest.mark.parametrize(
    "user", ["{a}", "a}b{c", "ü:ñ", "a b\n", "0" * 128, "rdrec", "\x00", "}", "%7D", "%", "\ud800"]
)
async def test_any_string_is_a_user(store: HistoryStore, user: str) -> None:
    await store.append(user, "item {1}", 1.0, base=["ü"])
    assert await recent(store, user) == ["ü", "item {1}"]
    await store.forget(user)
    assert await recent(store, user) == []


async def test_concurrent_first_writes_seed_once(store: HistoryStore) -> None:
    added = await asyncio.gather(*(store.append("u", f"i{n}", float(n), base=["a"]) for n in range(4)))
    items = await recent(store, "u")
    assert added == [True] * 4
    assert items is not None
    assert items[0] == "a"
    assert sorted(items[1:]) == ["i0", "i1", "i2", "i3"]


async def test_concurrent_repeats_of_one_write_are_added_once(store: HistoryStore) -> None:
    added = await asyncio.gather(*(store.append("u", "i", 1.0, idempotency_key="k") for _ in range(8)))
    assert sorted(added) == [False] * 7 + [True]
    assert await recent(store, "u") == ["i"]


async def test_close_twice(store: HistoryStore) -> None:
    await store.close()
    await store.close()
