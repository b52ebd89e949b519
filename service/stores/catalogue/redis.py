"""The live catalogue in Redis or Valkey: shared by replicas, outlives the process.

Keys, all in one Cluster slot by their hash tag:

    <prefix>:{%catalogue}:item:<id>   HASH `body` (JSON of the item, empty once it is deleted) and `version`
    <prefix>:{%catalogue}:ids         ZSET of all item ids, every score 0, so that they lie in the order of their bytes
    <prefix>:{%catalogue}:changes     STREAM, capped; entry `<version>-0` has `item_id` and `body`, as in the hash
    <prefix>:{%catalogue}:head        HASH `version`, of the newest change, and `epoch`, drawn with the first

Items must not expire or be evicted. A reader who finds another epoch, or a version missing, reads all items again.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from service.stores.catalogue.base import (
    CatalogueUnavailableError,
    CatalogueWrite,
    Changes,
    Cursor,
    LiveItem,
    Stored,
    StoreName,
)
from service.stores.redis_gateway import LuaScript, RedisGateway, RedisUnavailableError

_PUT, _GET, _CHANGES = LuaScript("catalogue_put"), LuaScript("catalogue_get"), LuaScript("catalogue_changes")
_AT_ONCE = 50
"""Items a script; Redis does nothing else meanwhile, and its answer must come within one time-out."""


class RedisCatalogueStore:
    """See CatalogueStore. A write whose answer is lost raises and may have been done."""

    name: StoreName = "redis"

    def __init__(self, gateway: RedisGateway, *, prefix: str = "rdrec", changes_kept: int = 10_000) -> None:
        """changes_kept: entries of the stream; a reader who is further behind reads all items."""
        self._gateway = gateway
        self._tag = f"{prefix}:{{%catalogue}}"  # no user's tag begins so, see `user_tag`
        self._changes_kept = changes_kept

    @property
    def is_available(self) -> bool:
        """See CatalogueStore."""
        return self._gateway.breaker.state == "closed"

    async def get(self, item_ids: Sequence[str]) -> list[Stored | None]:
        """See CatalogueStore."""
        found: list[Stored | None] = []
        for start in range(0, len(item_ids), _AT_ONCE):
            some = item_ids[start : start + _AT_ONCE]
            pairs = await self._run(_GET, [self._item(item_id) for item_id in some], (), is_read=True)
            for item_id, (body, version) in zip(some, pairs, strict=True):
                found.append(_stored(item_id, int(version), body) if version else None)
        return found

    async def put(self, writes: Sequence[CatalogueWrite]) -> list[int | None]:
        """See CatalogueStore."""
        versions: list[int | None] = []
        for start in range(0, len(writes), _AT_ONCE):
            some = writes[start : start + _AT_ONCE]
            keys = [self._key("head"), self._key("changes"), self._key("ids"), *(self._item(w.item_id) for w in some)]
            words: list[str | int | float] = [uuid.uuid4().hex, self._changes_kept]
            for write in some:
                words += [write.item_id, write.expected, "" if write.item is None else write.item.to_json()]
            versions += [int(version) or None for version in await self._run(_PUT, keys, words)]
        return versions

    async def page(self, after: str, n: int) -> list[Stored]:
        """See CatalogueStore."""
        first = f"({after}" if after else "-"
        try:
            ids = await self._gateway.command("ZRANGEBYLEX", self._key("ids"), first, "+", "LIMIT", 0, n, is_read=True)
        except RedisUnavailableError as error:
            raise _unavailable(error) from error
        return [stored for stored in await self.get(ids) if stored is not None]

    async def head(self) -> Cursor:
        """See CatalogueStore."""
        keys = [self._key("head"), self._key("changes")]
        epoch, version, _ = await self._run(_CHANGES, keys, (0, 0), is_read=True)
        return Cursor(epoch, int(version))

    async def changes(self, since: Cursor, n: int) -> Changes | None:
        """See CatalogueStore."""
        keys = [self._key("head"), self._key("changes")]
        epoch, newest, entries = await self._run(_CHANGES, keys, (since.version, n), is_read=True)
        items = []
        for name, fields in entries:
            values = dict(zip(fields[::2], fields[1::2], strict=True))
            items.append(_stored(values["item_id"], int(name.partition("-")[0]), values["body"]))
        expected = range(since.version + 1, since.version + 1 + len(items))
        is_whole = [stored.version for stored in items] == list(expected)
        if epoch != since.epoch or not is_whole or (not items and int(newest) != since.version):
            return None
        return Changes(items, Cursor(epoch, items[-1].version if items else since.version))

    async def close(self) -> None:
        """See CatalogueStore."""
        await self._gateway.close()

    def _key(self, name: str) -> str:
        return f"{self._tag}:{name}"

    def _item(self, item_id: str) -> str:
        return f"{self._tag}:item:{item_id}"

    async def _run(
        self, script: LuaScript, keys: Sequence[str], words: Sequence[str | int | float], *, is_read: bool = False
    ) -> Any:
        try:
            return await self._gateway.script(script, keys, words, is_read=is_read)
        except RedisUnavailableError as error:
            raise _unavailable(error) from error


def _stored(item_id: str, version: int, body: str) -> Stored:
    return Stored(item_id, version, LiveItem.from_json(body) if body else None)


def _unavailable(error: RedisUnavailableError) -> CatalogueUnavailableError:
    return CatalogueUnavailableError(f"the catalogue store is unavailable: {error}", retry_after_s=error.retry_after_s)
