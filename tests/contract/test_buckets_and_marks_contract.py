"""What stores of sums and of marks promise, over those in memory and in Redis, one server and a cluster."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from service.stores.buckets import KEPT_S, READ_AT_MOST, Buckets, MemoryBuckets
from service.stores.history.base import HistoryUnavailableError
from service.stores.marks import Marks, MemoryMarks
from service.stores.redis_buckets import RedisBuckets
from service.stores.redis_gateway import RedisGateway
from service.stores.redis_marks import RedisMarks

HOUR, DAY = f"h{int(time.time() // 3600)}", f"d{int(time.time() // 86_400)}"


@pytest.fixture(params=["memory", "redis_url", "cluster_url"])
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def buckets(gateway: RedisGateway | None, prefix: str) -> Buckets:
    return MemoryBuckets() if gateway is None else RedisBuckets(gateway, prefix=prefix)


@pytest.fixture
def marks(gateway: RedisGateway | None, prefix: str) -> Marks:
    return MemoryMarks(time.monotonic, ttl_s=60) if gateway is None else RedisMarks(gateway, prefix=prefix, ttl_s=60)


async def test_what_is_added_is_summed_by_bucket_and_item(buckets: Buckets) -> None:
    assert await buckets.read(HOUR) == {}
    await asyncio.gather(*(buckets.add({HOUR: {"a": 1.0, "ü {}": 0.1}, DAY: {"a": 2.5}}) for _ in range(3)))
    assert await buckets.read(HOUR) == pytest.approx({"a": 3.0, "ü {}": 0.3})
    assert await buckets.read(DAY) == {"a": 7.5}


async def test_of_a_large_bucket_the_greatest_are_read(buckets: Buckets) -> None:
    n = READ_AT_MOST + 500
    for start in range(0, n, 3000):
        await buckets.add({DAY: {f"i{k}": float(k) for k in range(start, min(n, start + 3000))}})
    found = await buckets.read(DAY)
    assert set(found) == {f"i{k}" for k in range(500, n)}


async def test_each_mark_is_new_once(marks: Marks) -> None:
    assert await marks.put("one", ["click:a", "taken"]) == [True, True]
    assert await marks.put("one", ["click:b", "taken", "click:a"]) == [True, False, False]
    assert await marks.put("other", ["click:a", "click:a"]) == [True, False]
    found = await asyncio.gather(*(marks.put("both", ["m"]) for _ in range(8)))
    assert sorted(found) == [[False]] * 7 + [[True]]


async def test_the_secret_is_one_for_all_who_share_the_marks(
    marks: Marks, gateway: RedisGateway | None, prefix: str
) -> None:
    secret = await marks.secret()
    assert len(secret) == 32
    other: Marks = marks if gateway is None else RedisMarks(gateway, prefix=prefix, ttl_s=60)
    assert await other.secret() == secret
    if gateway is not None:
        assert await RedisMarks(gateway, prefix=f"{prefix}-2", ttl_s=60).secret() != secret


async def test_what_no_window_reaches_any_more_is_dropped() -> None:
    now = 1e9
    memory = MemoryBuckets(lambda: now)
    old, young = f"h{int(now // 3600) - 60}", f"d{int(now // 86_400) - 60}"
    await memory.add({old: {"a": 1.0}, young: {"a": 1.0}})
    assert (await memory.read(old), await memory.read(young)) == ({}, {"a": 1.0})


async def test_marks_in_memory_are_bounded_in_time_and_number() -> None:
    now = 0.0
    memory = MemoryMarks(lambda: now, ttl_s=10, size=2)
    assert await memory.put("a", ["m"]) == [True]
    now = 9.0
    assert await memory.put("a", ["m"]) == [False]
    now = 20.0
    assert await memory.put("a", ["m"]) == [True]
    for thing in ("b", "c"):
        await memory.put(thing, ["m"])
    assert await memory.put("a", ["m"]) == [True], "the oldest made room"


async def test_keys_in_redis_expire(redis_url: str, prefix: str) -> None:
    gateway = RedisGateway.open(redis_url, timeout_s=5.0, max_connections=4)
    await RedisBuckets(gateway, prefix=prefix).add({HOUR: {"a": 1.0}, DAY: {"a": 1.0}})
    await RedisMarks(gateway, prefix=prefix, ttl_s=77).put("thing", ["m"])

    async def ttl(key: str) -> Any:
        return await gateway.command("TTL", f"{prefix}:{key}")

    assert KEPT_S["h"] - 60 < await ttl(f"{{%sums}}:{HOUR}") <= KEPT_S["h"]
    assert KEPT_S["d"] - 60 < await ttl(f"{{%sums}}:{DAY}") <= KEPT_S["d"]
    assert 70 < await ttl("marks:thing") <= 77
    await gateway.close()


async def test_a_redis_that_is_away_is_told() -> None:
    gateway = RedisGateway.open("redis://127.0.0.1:1/0", timeout_s=0.2, max_connections=4)
    for call in (
        RedisBuckets(gateway).add({HOUR: {"a": 1.0}}), RedisBuckets(gateway).read(HOUR),
        RedisMarks(gateway, ttl_s=1).put("a", ["m"]), RedisMarks(gateway, ttl_s=1).secret(),
    ):  # fmt: skip
        with pytest.raises(HistoryUnavailableError):
            await call
    await gateway.close()
