"""Histories in Redis or Valkey: shared by replicas, outlive the process. docs/operations.md says what Redis may lose.

Keys of a user, in one Cluster slot by their hash tag:

    <prefix>:{<user>}:history     LIST, capped, oldest first, expires `ttl_s` after the last write. An entry is
                                  `<digest of the write>:<item id>`, so that finding the entry again is knowing that the
                                  write is a repetition; items of the base history have an empty digest.
    <prefix>:{<user>}:forgotten   Unix time of a `forget`. Never expires: as long as it is there, a base history that
                                  some bundle still holds does not come back. Delete it once no bundle knows the user.

Every operation is one script and so one atomic step and one round trip.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

from rdrec_core.errors import InputError
from service.stores.history.base import HistoryUnavailableError, StoreName, write_token
from service.stores.redis_gateway import LuaScript, RedisGateway, RedisUnavailableError

_APPEND = LuaScript("history_append")
_RECENT = LuaScript("history_recent")
_FORGET = LuaScript("history_forget")


class RedisHistoryStore:
    """See HistoryStore. A write whose answer is lost raises and may have been done; repeating it adds nothing twice."""

    name: StoreName = "redis"

    def __init__(
        self, gateway: RedisGateway, *, prefix: str = "rdrec", cap: int = 200, ttl_s: int = 180 * 86_400
    ) -> None:
        """cap: items kept a user, and writes remembered against repetition. Raises InputError for a bad prefix."""
        if not prefix or set(prefix) & set("{}"):
            raise InputError("the key prefix must be non-empty and hold no braces", field="redis_prefix")
        self._gateway = gateway
        self._prefix = prefix
        self._cap = cap
        self._ttl_s = ttl_s

    @property
    def is_available(self) -> bool:
        """See HistoryStore."""
        return self._gateway.breaker.state != "open"

    async def recent(self, user_id: str, limit: int) -> Sequence[str] | None:
        """See HistoryStore."""
        entries = await self._run(_RECENT, user_id, (max(limit, 1),), is_read=True)
        if entries is None:
            return None
        return [entry.partition(":")[2] for entry in entries] if limit > 0 else []

    async def append(
        self,
        user_id: str,
        item_id: str,
        timestamp: float,
        *,
        base: Sequence[str] = (),
        idempotency_key: str | None = None,
    ) -> bool:
        """See HistoryStore."""
        entry = f"{_digest(write_token(item_id, timestamp, idempotency_key))}:{item_id}"
        seed = [f":{item}" for item in base[-self._cap :]]
        return bool(await self._run(_APPEND, user_id, (entry, self._cap, self._ttl_s, *seed)))

    async def forget(self, user_id: str) -> None:
        """See HistoryStore."""
        await self._run(_FORGET, user_id, ())

    async def close(self) -> None:
        """See HistoryStore."""
        await self._gateway.close()

    async def _run(
        self, script: LuaScript, user_id: str, arguments: Sequence[str | int], *, is_read: bool = False
    ) -> Any:
        tag = f"{self._prefix}:{{{_tag(user_id)}}}"
        try:
            return await self._gateway.script(
                script, (f"{tag}:history", f"{tag}:forgotten"), arguments, is_read=is_read
            )
        except RedisUnavailableError as error:
            raise HistoryUnavailableError(
                f"the history store is unavailable: {error}", retry_after_s=error.retry_after_s
            ) from error


def _tag(user_id: str) -> str:
    """The user inside a hash tag, which ends at the first brace and must not be empty."""
    return user_id.replace("%", "%25").replace("{", "%7B").replace("}", "%7D") or "%"


def _digest(token: str) -> str:
    """96 bits in 16 characters, none of them a colon: two of a user's last writes meet by chance once in 10^24."""
    raw = hashlib.blake2b(token.encode("utf-8", "surrogatepass"), digest_size=12).digest()
    return base64.urlsafe_b64encode(raw).decode()
