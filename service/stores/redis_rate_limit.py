"""Token buckets in Redis, so that replicas share one limit. Falls back to this process's buckets; never raises."""

from __future__ import annotations

from service.stores.rate_limit import RateLimit, RateLimiter
from service.stores.redis_gateway import LuaScript, RedisGateway, RedisUnavailableError

_TAKE = LuaScript("token_bucket")


class RedisRateLimiter:
    """See RateLimiter. `fallback` limits while Redis is away; n replicas may then let through n times as much."""

    def __init__(self, gateway: RedisGateway, fallback: RateLimiter, *, prefix: str = "rdrec") -> None:
        self._gateway = gateway
        self._fallback = fallback
        self._prefix = prefix

    async def take(self, bucket: str, limit: RateLimit, cost: int = 1) -> float:
        """See RateLimiter."""
        arguments = (limit.per_s, limit.burst, min(cost, limit.burst))
        try:
            return float(await self._gateway.script(_TAKE, (f"{self._prefix}:rate:{bucket}",), arguments))
        except RedisUnavailableError:
            return await self._fallback.take(bucket, limit, cost)
