"""Sums by item in Redis, so that what sells is the same at every replica; see buckets.py."""

from __future__ import annotations

from typing import Any

from service.stores.buckets import KEPT_S, READ_AT_MOST, Sums
from service.stores.history.base import HistoryUnavailableError
from service.stores.redis_gateway import LuaScript, RedisGateway, RedisUnavailableError

_ADD = LuaScript("buckets_add")


class RedisBuckets:
    """See Buckets; `<prefix>:{%sums}:<bucket>`, a ZSET each. A sum whose answer is lost may have been added."""

    def __init__(self, gateway: RedisGateway, *, prefix: str = "rdrec") -> None:
        self._gateway = gateway
        self._prefix = prefix

    async def add(self, sums: Sums) -> None:
        """See Buckets."""
        keys = [self._key(bucket) for bucket in sums]
        arguments: list[str | int | float] = []
        for bucket, items in sums.items():
            arguments += [KEPT_S[bucket[0]], len(items)]
            for item_id, value in items.items():
                arguments += [repr(float(value)), item_id]
        try:
            await self._gateway.script(_ADD, keys, arguments)
        except RedisUnavailableError as error:
            raise _unavailable(error) from error

    async def read(self, bucket: str) -> dict[str, float]:
        """See Buckets."""
        words = ("ZRANGE", self._key(bucket), 0, READ_AT_MOST - 1, "REV", "WITHSCORES")
        try:
            found: list[Any] = await self._gateway.command(*words, is_read=True)
        except RedisUnavailableError as error:
            raise _unavailable(error) from error
        if found and isinstance(found[0], str):  # as a server answers that speaks RESP2: one flat list
            found = list(zip(found[::2], found[1::2], strict=True))
        return {item_id: float(value) for item_id, value in found}

    def _key(self, bucket: str) -> str:
        return f"{self._prefix}:{{%sums}}:{bucket}"


def _unavailable(error: RedisUnavailableError) -> HistoryUnavailableError:
    return HistoryUnavailableError(str(error), retry_after_s=error.retry_after_s)
