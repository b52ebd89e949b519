"""Histories in this process: the default store. Needs no server, is not shared and does not outlive the process.

Who was forgotten does outlive it: that is written to a file before it is acknowledged.
"""

from __future__ import annotations

import asyncio
import os
from bisect import insort_right
from collections import OrderedDict
from collections.abc import Sequence, Set
from pathlib import Path

from service.stores.history.base import HistoryUnavailableError, Kept, StoreName, Write, mark_of, marked

_Entry = tuple[float, str, bytes]
"""Timestamp, item id, token."""
USER_BYTES, ENTRY_BYTES, OTHER_BYTES = 760, 330, 150
"""What Python takes for a user without entries, for an entry, beside the characters of their ids, and for a token."""


class _UserHistory:
    """One user's purchases, capped; an entry is remembered against repetition as long as it is kept."""

    def __init__(self, user_id: str) -> None:
        self.entries: list[_Entry] = []
        self.size_bytes = USER_BYTES + len(user_id)
        self._tokens: set[bytes] = set()
        self._others: dict[bytes, None] = {}
        """The last events that are no part of the history."""

    def add(self, write: Write, cap: int) -> bool:
        token = write.token
        if token in self._tokens or token in self._others:
            return False
        if not write.in_history:
            self._others[token] = None
            self.size_bytes += OTHER_BYTES
            if len(self._others) > cap:
                del self._others[next(iter(self._others))]
                self.size_bytes -= OTHER_BYTES
            return True
        insort_right(self.entries, (write.timestamp, write.item_id, token), key=lambda entry: entry[0])
        self._tokens.add(token)
        self.size_bytes += ENTRY_BYTES + len(write.item_id)
        if len(self.entries) > cap:
            _, item_id, oldest = self.entries.pop(0)
            self._tokens.discard(oldest)
            self.size_bytes -= ENTRY_BYTES + len(item_id)
        return True


class MemoryHistoryStore:
    """See HistoryStore. Keeps `cap` purchases a user; past `max_bytes` the user written to longest ago is dropped."""

    name: StoreName = "memory"
    is_available = True

    def __init__(self, *, cap: int = 200, max_bytes: int = 1 << 29, marks: Path | None = None) -> None:
        """marks: the file that remembers who was forgotten; without one this process alone does."""
        self._cap = cap
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._users: OrderedDict[str, _UserHistory] = OrderedDict()
        self._file = marks
        self._marks: set[str] = set(marks.read_text().split()) if marks is not None and marks.is_file() else set()

    @property
    def size_bytes(self) -> int:
        """Estimate of what the histories take."""
        return self._size_bytes

    async def recent(self, user_id: str, limit: int) -> Kept:
        """See HistoryStore."""
        history = self._users.get(user_id)
        entries = [] if history is None else history.entries[max(0, len(history.entries) - limit) :]
        return Kept([(item_id, timestamp) for timestamp, item_id, _ in entries], mark_of(user_id) in self._marks)

    async def append(self, user_id: str, writes: Sequence[Write], log: Sequence[str] = ()) -> list[bool]:
        """See HistoryStore. It keeps no log: that is in files, which are written before (event_log.py)."""
        history = self._users.get(user_id)
        if history is None:
            history = self._users[user_id] = _UserHistory(user_id)
        else:
            self._size_bytes -= history.size_bytes
        self._users.move_to_end(user_id)
        recorded = [history.add(write, self._cap) for write in writes]
        self._size_bytes += history.size_bytes
        while self._size_bytes > self._max_bytes and len(self._users) > 1:
            self._size_bytes -= self._users.popitem(last=False)[1].size_bytes
        return recorded

    async def forget(self, user_id: str, *, in_bundle: bool, log: str | None = None) -> None:
        """See HistoryStore."""
        mark = mark_of(user_id)
        if (in_bundle or user_id in self._users) and mark not in self._marks:
            if self._file is not None:
                await asyncio.to_thread(_append_line, self._file, mark)
            self._marks.add(mark)
        history = self._users.pop(user_id, None)
        if history is not None:
            self._size_bytes -= history.size_bytes

    async def forgotten(self, user_ids: Sequence[str]) -> set[str]:
        """See HistoryStore."""
        return marked(user_ids, self._marks)

    async def sync(self) -> None:
        """Nothing to learn: nobody else forgets."""

    def may_use_bundle(self, user_id: str) -> bool:
        """See HistoryStore."""
        return mark_of(user_id) not in self._marks

    def marks(self) -> Set[str]:
        """See HistoryStore."""
        return self._marks

    async def close(self) -> None:
        """Nothing to release."""


def _append_line(file: Path, line: str) -> None:
    """Written and on the disk, or HistoryUnavailableError."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="ascii") as out:
            out.write(line + "\n")
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise HistoryUnavailableError(
            f"{file} cannot be written ({error.strerror}), so that a restart would forget the forgetting: "
            "set RDREC_STATE_DIR to a folder that lasts, or RDREC_REDIS_URL"
        ) from error
