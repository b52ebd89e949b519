"""The live catalogue in this process: the default store. Is not shared and does not outlive the process."""

from __future__ import annotations

import uuid
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Sequence

from service.stores.catalogue.base import CatalogueWrite, Changes, Cursor, Stored, StoreName


class MemoryCatalogueStore:
    """See CatalogueStore. Never unavailable."""

    name: StoreName = "memory"
    is_available = True

    def __init__(self, *, changes_kept: int = 10_000) -> None:
        self._epoch = uuid.uuid4().hex
        self._version = 0
        self._items: dict[str, Stored] = {}
        self._order: list[bytes] = []
        self._changes: deque[Stored] = deque(maxlen=changes_kept)

    async def get(self, item_ids: Sequence[str]) -> list[Stored | None]:
        """See CatalogueStore."""
        return [self._items.get(item_id) for item_id in item_ids]

    async def put(self, writes: Sequence[CatalogueWrite]) -> list[int | None]:
        """See CatalogueStore."""
        versions: list[int | None] = []
        for write in writes:
            known = self._items.get(write.item_id)
            if (0 if known is None else known.version) != write.expected:
                versions.append(None)
                continue
            self._version += 1
            if known is None:
                insort(self._order, write.item_id.encode())
            self._items[write.item_id] = stored = Stored(write.item_id, self._version, write.item)
            self._changes.append(stored)
            versions.append(self._version)
        return versions

    async def page(self, after: str, n: int) -> list[Stored]:
        """See CatalogueStore."""
        first = bisect_right(self._order, after.encode())
        return [self._items[item_id.decode()] for item_id in self._order[first : first + n]]

    async def head(self) -> Cursor:
        """See CatalogueStore."""
        return Cursor(self._epoch, self._version)

    async def changes(self, since: Cursor, n: int) -> Changes | None:
        """See CatalogueStore."""
        missing = self._version - since.version
        if since.epoch != self._epoch or missing < 0 or missing > len(self._changes):
            return None
        first = len(self._changes) - missing
        found = [self._changes[place] for place in range(first, min(first + n, len(self._changes)))]
        return Changes(found, Cursor(self._epoch, found[-1].version if found else since.version))

    async def close(self) -> None:
        """See CatalogueStore."""
