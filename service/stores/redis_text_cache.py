"""Generated texts in Redis, so that replicas do not write the same explanation twice. Never raises.

What was written for a user lies beside the user's history and goes with it (stores/history/redis.py).
"""

from __future__ import annotations

from service.stores.redis_gateway import LuaScript, RedisGateway, RedisUnavailableError, user_tag

_PUT = LuaScript("text_put")


class RedisTextCache:
    """See SharedCache. Texts of no user are keys `<prefix>:text:<key>`, a user's fields of `<prefix>:{<user>}:texts`.

    What expires or is evicted is only written again.
    """

    def __init__(self, gateway: RedisGateway, *, prefix: str = "rdrec") -> None:
        self._gateway = gateway
        self._prefix = prefix

    async def get(self, key: str, user_id: str | None) -> str | None:
        """See SharedCache."""
        if user_id is None:
            words = ["GET", f"{self._prefix}:text:{key}"]
        else:
            words = ["HGET", f"{user_tag(self._prefix, user_id)}:texts", key]
        try:
            text: str | None = await self._gateway.command(*words)
        except RedisUnavailableError:
            return None
        return text

    async def put(self, key: str, text: str, ttl_s: int, user_id: str | None) -> None:
        """See SharedCache."""
        try:
            if user_id is None:
                await self._gateway.command("SET", f"{self._prefix}:text:{key}", text, "EX", ttl_s)
            else:
                tag = user_tag(self._prefix, user_id)
                await self._gateway.script(_PUT, (f"{tag}:texts", f"{tag}:forgotten"), (key, text, ttl_s))
        except RedisUnavailableError:
            return
