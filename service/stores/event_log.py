"""The log of everything that was accepted, as files of JSON lines that are only ever appended to.

    events-<UTC hour>-<writer>-<number>.jsonl

One writer a process; a new file each hour, past `max_bytes`, and after a failure, so that a line that was torn stands
last in its file. What a line holds is `answers/events.py`'s. The other log is a stream in Redis (history/redis.py).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from service.stores.history.base import HistoryUnavailableError

Fsync = Literal["always", "interval", "never"]
INTERVAL_S = 1.0
"""How long what was written may wait for the disk under `interval`."""
REMEMBERED = 100_000
"""So many of the last events are known again, so that a repeated request does not log them twice."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One event: what tells it from its own repetition, and its JSON, without an end of line."""

    event_id: str
    text: str


class EventLog(Protocol):
    """What is written before an event is acknowledged."""

    async def append(self, lines: Sequence[LogLine]) -> None:
        """Keep the lines, but those that are kept already. Raises HistoryUnavailableError if that is not certain."""
        ...

    async def close(self) -> None:
        """Let go of everything. Idempotent."""
        ...


class FileEventLog:
    """See the module. `append` returns once its lines are in the file, under `always` once they are on the disk."""

    def __init__(
        self, folder: Path, *, max_bytes: int = 64 << 20, fsync: Fsync = "interval",
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.folder = folder
        self._max_bytes = max_bytes
        self._fsync = fsync
        self._clock = clock
        self._writer = secrets.token_hex(4)
        self._number = 0
        self._hour = ""
        self._file: int | None = None
        self._size = 0
        self._is_synced = True
        self._waiting: list[tuple[Sequence[LogLine], asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._known: OrderedDict[str, None] = OrderedDict()

    async def append(self, lines: Sequence[LogLine]) -> None:
        """See EventLog."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((lines, written))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())
        await written

    async def close(self) -> None:
        """Everything to the disk. Idempotent."""
        if self._writing is not None:
            await self._writing
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.to_thread(self._leave_file)

    async def _write_all(self) -> None:
        """Write what waits, all of it at once, for as long as something does."""
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            new = {line.event_id: line for lines, _ in waiting for line in lines if line.event_id not in self._known}
            try:
                if new:
                    content = "".join(f"{line.text}\n" for line in new.values()).encode()
                    await asyncio.to_thread(self._write, content)
            except OSError as error:
                failure = HistoryUnavailableError(
                    f"the event log in {self.folder} cannot be written ({error.strerror}): set RDREC_EVENT_LOG_DIR to "
                    "a folder that can be, or RDREC_EVENT_LOG=off"
                )
                _settle(waiting, failure)
                continue
            self._remember(new)
            _settle(waiting, None)
            if self._fsync == "interval" and self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(INTERVAL_S, self._sync_soon)
        self._writing = None

    def _remember(self, event_ids: dict[str, LogLine]) -> None:
        self._known.update(dict.fromkeys(event_ids))
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def _sync_soon(self) -> None:
        self._timer = None
        self._syncing = asyncio.create_task(asyncio.to_thread(self._sync))

    def _write(self, content: bytes) -> None:
        hour = time.strftime("%Y%m%dT%H", time.gmtime(self._clock()))
        if self._file is None or hour != self._hour or self._size >= self._max_bytes:
            self._leave_file()
            self._begin_file(hour)
        assert self._file is not None
        self._size += len(content)
        self._is_synced = False
        try:
            left = memoryview(content)
            while left:
                left = left[os.write(self._file, left) :]
            if self._fsync == "always":
                self._sync()
        except OSError:
            self._size = self._max_bytes  # whatever stands at the end now, nothing follows it
            raise

    def _begin_file(self, hour: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._number += 1
        name = f"events-{hour}-{self._writer}-{self._number:04d}.jsonl"
        self._file = os.open(self.folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        self._hour, self._size = hour, 0
        if self._fsync == "always":
            folder = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _sync(self) -> None:
        if self._file is not None and not self._is_synced:
            self._is_synced = True
            os.fsync(self._file)

    def _leave_file(self) -> None:
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            if self._fsync != "never" and not self._is_synced:
                os.fsync(file)
        finally:
            os.close(file)


def _settle(waiting: Sequence[tuple[object, asyncio.Future[None]]], error: Exception | None) -> None:
    for _, written in waiting:
        if written.done():  # the caller has gone
            continue
        if error is None:
            written.set_result(None)
        else:
            written.set_exception(error)
