"""Marks in Redis, so that a repetition is known at every replica; see marks.py."""

from __future__ import annotations

import os
from collections.abc import Sequence

from service.stores.history.base import HistoryUnavailableError
from service.stores.redis_gateway import LuaScript, RedisGateway, RedisUnavailableError

_PUT = LuaScript("marks_put")


class RedisMarks:
    """See Marks; `<prefix>:marks:<thing>`, a SET each, and `<prefix>:marks-secret`."""

    def __init__(self, gateway: RedisGateway, *, prefix: str = "rdrec", ttl_s: int) -> None:
        self._gateway = gateway
        self._prefix = prefix
        self._ttl_s = ttl_s

    async def put(self, thing: str, marks: Sequence[str]) -> list[bool]:
        """See Marks."""
        try:
            new = await self._gateway.script(_PUT, (f"{self._prefix}:marks:{thing}",), (self._ttl_s, *marks))
        except RedisUnavailableError as error:
            raise _unavailable(error) from error
        return [bool(int(one)) for one in new]

    async def secret(self) -> bytes:
        """See Marks."""
        key = f"{self._prefix}:marks-secret"
        try:
            await self._gateway.command("SET", key, os.urandom(32).hex(), "NX")
            return bytes.fromhex(await self._gateway.command("GET", key))
        except RedisUnavailableError as error:
            raise _unavailable(error) from error


def _unavailable(error: RedisUnavailableError) -> HistoryUnavailableError:
    return HistoryUnavailableError(str(error), retry_after_s=error.retry_after_s)
