"""What every rate limiter promises. Buckets are drained fast and refilled slowly, so no test waits for a refill."""

from __future__ import annotations

import asyncio
import time
import uuid

import pytest

from service.stores.rate_limit import MemoryRateLimiter, RateLimit, RateLimiter
from service.stores.redis_gateway import RedisGateway
from service.stores.redis_rate_limit import RedisRateLimiter

SLOW = RateLimit(per_s=0.001, burst=5)


def redis_limiter(url: str) -> RedisRateLimiter:
    gateway = RedisGateway.open(url, timeout_s=5.0, max_connections=8)
    return RedisRateLimiter(gateway, MemoryRateLimiter(time.monotonic), prefix=f"test-{uuid.uuid4().hex}")


@pytest.fixture(params=["memory", "redis_url", "valkey_url", "cluster_url"])
def limiter(request: pytest.FixtureRequest) -> RateLimiter:
    if request.param == "memory":
        return MemoryRateLimiter(time.monotonic)
    return redis_limiter(request.getfixturevalue(request.param))


async def test_the_burst_passes_and_the_next_is_told_when(limiter: RateLimiter) -> None:
    assert [await limiter.take("a", SLOW) for _ in range(5)] == [0.0] * 5
    assert await limiter.take("a", SLOW) == pytest.approx(1000, rel=0.05)
    assert await limiter.take("a", SLOW, 2) == pytest.approx(2000, rel=0.05)


async def test_buckets_are_separate(limiter: RateLimiter) -> None:
    await limiter.take("a", SLOW, 5)
    assert await limiter.take("b", SLOW, 5) == 0.0


async def test_nothing_is_taken_when_refused(limiter: RateLimiter) -> None:
    await limiter.take("a", SLOW, 3)
    assert await limiter.take("a", SLOW, 4) > 0
    assert await limiter.take("a", SLOW, 2) == 0.0


async def test_a_cost_above_the_burst_passes_on_a_full_bucket_only(limiter: RateLimiter) -> None:
    assert await limiter.take("a", SLOW, 50) == 0.0
    assert await limiter.take("a", SLOW) > 0


async def test_tokens_flow_back(limiter: RateLimiter) -> None:
    fast = RateLimit(per_s=100.0, burst=1)
    await limiter.take("a", fast)
    await asyncio.sleep(0.05)
    assert await limiter.take("a", fast) == 0.0


async def test_concurrent_takes_share_the_bucket(limiter: RateLimiter) -> None:
    waits = await asyncio.gather(*(limiter.take("a", SLOW) for _ in range(20)))
    assert sum(wait == 0.0 for wait in waits) == 5


async def test_two_replicas_share_one_bucket_and_its_key_expires(redis_url: str) -> None:
    one = redis_limiter(redis_url)
    two = RedisRateLimiter(
        RedisGateway.open(redis_url, timeout_s=5.0, max_connections=8),
        MemoryRateLimiter(time.monotonic),
        prefix=one._prefix,
    )
    waits = [await limiter.take("a", SLOW) for limiter in (one, two) * 4]
    assert [wait == 0.0 for wait in waits] == [True] * 5 + [False] * 3
    assert await one._gateway.command("TTL", f"{one._prefix}:rate:a") == pytest.approx(5001, abs=2)


async def test_without_redis_this_process_limits() -> None:
    limiter = redis_limiter("redis://127.0.0.1:1")
    waits = [await limiter.take("a", SLOW) for _ in range(6)]
    assert [wait == 0.0 for wait in waits] == [True] * 5 + [False]
