"""Histories in Redis or Valkey: shared by replicas, outlive the process. docs/operations.md says what Redis may lose.

Keys of a user, in one Cluster slot by their hash tag:

    <prefix>:{<user>}:purchases   LIST, capped, in the order of the timestamps, expires `ttl_s` after the last write. An
                                  entry is `<digest of the write>:<timestamp>:<item id>`; an entry with the digest says
                                  that the write is a repetition.
    <prefix>:{<user>}:forgotten   Unix time of a `forget`. Never expires: as long as it is there, what some bundle still
                                  holds of the user is not used. Delete it once no bundle knows the user.
    <prefix>:{<user>}:texts       HASH of texts written for the user (redis_text_cache.py), dropped by a `forget`.
    <prefix>:{<user>}:others      LIST of digests of the last events that are no purchases, expires after a day.

and two keys of all: <prefix>:forgotten, a ZSET of the marks of forgotten users by the time of it, from which replicas
learn whom to leave out while Redis is away, and which users not to list; and <prefix>:{%events}:log, the log, a STREAM
of about `log_length` entries with one field, `record`, a JSON object (answers/events.py).

Every operation on a user is one script and so one atomic step and one round trip, the log's line included. In a Cluster
the log is in another slot and is written first: what is acknowledged is in it, and a repetition may be in it twice.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence, Set
from typing import Any

from rdrec_core.errors import InputError
from service.stores.history.base import HistoryUnavailableError, Kept, StoreName, Write, mark_of, marked
from service.stores.redis_gateway import LuaScript, RedisGateway, RedisUnavailableError, user_tag

_APPEND = LuaScript("history_append")
_RECENT = LuaScript("history_recent")
_FORGET = LuaScript("history_forget")
_LOG = LuaScript("log_append")
OVERLAP_S = 300.0
"""By how much a sync goes back behind the last one: the clocks of replicas differ, and a write takes its time."""


class RedisHistoryStore:
    """See HistoryStore. A write whose answer is lost raises and may have been done; repeating it adds nothing twice."""

    name: StoreName = "redis"

    def __init__(
        self,
        gateway: RedisGateway,
        *,
        prefix: str = "rdrec",
        cap: int = 200,
        ttl_s: int = 180 * 86_400,
        log_length: int = 0,
    ) -> None:
        """cap: purchases kept a user, and writes remembered against repetition; log_length 0: no log is kept here.

        Raises InputError for a bad prefix.
        """
        if not prefix or set(prefix) & set("{}"):
            raise InputError("the key prefix must be non-empty and hold no braces", field="redis_prefix")
        self._gateway = gateway
        self._prefix = prefix
        self._cap = cap
        self._ttl_s = ttl_s
        self._log_length = log_length
        self._marks: set[str] = set()
        self._synced_at: float | None = None

    @property
    def is_available(self) -> bool:
        """See HistoryStore. A breaker that is half-open has yet to see an answer."""
        return self._gateway.breaker.state == "closed"

    async def recent(self, user_id: str, limit: int) -> Kept:
        """See HistoryStore."""
        entries, is_forgotten = await self._run(_RECENT, user_id, (max(limit, 1),), is_read=True)
        parts = [entry.split(":", 2) for entry in entries] if limit > 0 else []
        return Kept([(item_id, float(timestamp)) for _, timestamp, item_id in parts], bool(int(is_forgotten)))

    async def append(self, user_id: str, writes: Sequence[Write], log: Sequence[str] = ()) -> list[bool]:
        """See HistoryStore."""
        lines = log or [""] * len(writes)
        arguments = [
            word
            for write, line in zip(writes, lines, strict=True)
            for word in (
                base64.urlsafe_b64encode(write.token).decode(), repr(float(write.timestamp)), write.item_id,
                int(write.in_history), line,
            )
        ]  # fmt: skip
        streams = await self._log_or_its_stream(log)
        recorded = await self._run(_APPEND, user_id, (self._cap, self._ttl_s, self._log_length, *arguments), streams)
        return [bool(int(one)) for one in recorded]

    async def forget(self, user_id: str, *, in_bundle: bool, log: str | None = None) -> None:
        """See HistoryStore."""
        streams = await self._log_or_its_stream([] if log is None else [log])
        if not int(await self._run(_FORGET, user_id, (int(in_bundle), self._log_length, log or ""), streams)):
            return
        mark = mark_of(user_id)
        await self._command("ZADD", self._all_marks, time.time(), mark)
        self._marks.add(mark)

    async def forgotten(self, user_ids: Sequence[str]) -> set[str]:
        """See HistoryStore."""
        if not user_ids:
            return set()
        marks = [mark_of(user_id) for user_id in user_ids]
        times = await self._command("ZMSCORE", self._all_marks, *marks, is_read=True)
        return marked(user_ids, {mark for mark, at in zip(marks, times, strict=True) if at is not None})

    async def sync(self) -> None:
        """See HistoryStore."""
        now = time.time()
        since = "-inf" if self._synced_at is None else self._synced_at - OVERLAP_S
        self._marks.update(await self._command("ZRANGE", self._all_marks, since, "+inf", "BYSCORE", is_read=True))
        self._synced_at = now

    def may_use_bundle(self, user_id: str) -> bool:
        """See HistoryStore."""
        return self._synced_at is not None and mark_of(user_id) not in self._marks

    def marks(self) -> Set[str] | None:
        """See HistoryStore."""
        return None if self._synced_at is None else self._marks

    async def close(self) -> None:
        """See HistoryStore."""
        await self._gateway.close()

    async def _log_or_its_stream(self, lines: Sequence[str]) -> list[str]:
        """The stream's key for a script that writes the lines too; where no script can, they are written now."""
        if not self._log_length or not lines:
            return []
        stream = f"{self._prefix}:{{%events}}:log"
        if not self._gateway.is_cluster:
            return [stream]
        try:
            await self._gateway.script(_LOG, (stream,), (self._log_length, *lines))
        except RedisUnavailableError as error:
            raise _unavailable(error) from error
        return []

    @property
    def _all_marks(self) -> str:
        return f"{self._prefix}:forgotten"

    async def _command(self, *words: str | int | float, is_read: bool = False) -> Any:
        try:
            return await self._gateway.command(*words, is_read=is_read)
        except RedisUnavailableError as error:
            raise _unavailable(error) from error

    async def _run(
        self, script: LuaScript, user_id: str, arguments: Sequence[str | int | float], more_keys: Sequence[str] = (),
        *, is_read: bool = False,
    ) -> Any:  # fmt: skip
        tag = user_tag(self._prefix, user_id)
        keys = (f"{tag}:purchases", f"{tag}:forgotten", f"{tag}:texts", f"{tag}:others", *more_keys)
        try:
            return await self._gateway.script(script, keys, arguments, is_read=is_read)
        except RedisUnavailableError as error:
            raise _unavailable(error) from error


def _unavailable(error: RedisUnavailableError) -> HistoryUnavailableError:
    return HistoryUnavailableError(f"the history store is unavailable: {error}", retry_after_s=error.retry_after_s)
