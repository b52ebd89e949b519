"""Generated texts in Redis, so that replicas do not write the same explanation twice. Never raises."""

from __future__ import annotations

from service.stores.redis_gateway import RedisGateway, RedisUnavailableError


class RedisTextCache:
    """See SharedCache. Keys are `<prefix>:text:<key>`; what expires or is evicted is only written again."""

    def __init__(self, gateway: RedisGateway, *, prefix: str = "rdrec") -> None:
        self._gateway = gateway
        self._prefix = prefix

    async def get(self, key: str) -> str | None:
        """See SharedCache."""
        try:
            text: str | None = await self._gateway.command("GET", f"{self._prefix}:text:{key}")
        except RedisUnavailableError:
            return None
        return text

    async def put(self, key: str, text: str, ttl_s: int) -> None:
        """See SharedCache."""
        try:
            await self._gateway.command("SET", f"{self._prefix}:text:{key}", text, "EX", ttl_s)
        except RedisUnavailableError:
            return
