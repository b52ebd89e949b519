"""The two places where the service logs events to and keeps its catalogue: files, and Redis.

Knows file names, keys and entries; what the lines mean is in `event_log.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from rdrec_core.errors import DatasetError, InputError
from training.data.collecting import Cursor, Fetched
from training.data.event_log import LOG_FILES

if TYPE_CHECKING:
    from redis import Redis

_AT_ONCE = 5_000


class FileLog:
    """Files `events-*.jsonl` under a folder, of one replica or of several, each of them only ever appended to."""

    def __init__(self, folder: Path) -> None:
        """Raises InputError where there is no such folder."""
        if not folder.is_dir():
            raise InputError(f"--events {folder} is neither a folder nor a redis:// URL", field="events")
        self._folder = folder

    def fetch(self, after: Cursor | None, limit: int) -> Fetched:
        """See LogSource. A last line without its end is still being written, and left for the next time."""
        if after is not None and after.files is None:
            raise DatasetError(f"the batches so far were collected from Redis, not from {self._folder}")
        read = {} if after is None else dict(after.files or {})
        paths = {path.relative_to(self._folder).as_posix(): path for path in sorted(self._folder.rglob(LOG_FILES))}
        offsets = {name: read.get(name, 0) for name in paths}
        found: list[tuple[float, bytes]] = []
        for name, path in paths.items():
            for line, end in _whole_lines(path, offsets[name]):
                if len(found) >= limit:
                    break
                found.append((_received(line), line))
                offsets[name] = end
        # replicas write side by side; equal times stay in the order of the files
        return Fetched([line for _, line in sorted(found, key=lambda one: one[0])], Cursor(files=offsets))


def _whole_lines(path: Path, offset: int) -> Iterator[tuple[bytes, int]]:
    """Lines from a byte on, each with the byte after it."""
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield line, offset


def _received(line: bytes) -> float:
    try:
        record = orjson.loads(line)
        return float(record.get("received") or record.get("timestamp") or 0.0)
    except (ValueError, TypeError, AttributeError):
        return 0.0


class RedisLog:
    """The service's stream of events, and its live catalogue."""

    def __init__(self, url: str, *, prefix: str = "rdrec") -> None:
        """Raises InputError for a URL of another form."""
        from redis import Redis

        if not url.startswith(("redis://", "rediss://", "unix://")):
            raise InputError(
                f"{url.split('@')[-1]} should be a redis://, rediss:// or unix:// URL; of Sentinel or Cluster name the"
                " node that holds the stream", field="events",
            )  # fmt: skip
        self._redis: Redis = Redis.from_url(url)
        self._prefix = prefix

    @property
    def stream(self) -> str:
        """Key of the log."""
        return f"{self._prefix}:{{%events}}:log"

    def fetch(self, after: Cursor | None, limit: int) -> Fetched:
        """See LogSource."""
        from redis.exceptions import RedisError, ResponseError

        if after is not None and after.stream is None:
            raise DatasetError("the batches so far were collected from files, not from Redis")
        last, added = (after.stream or "0-0", after.added) if after is not None else ("0-0", 0)
        try:
            try:
                info: dict[str, Any] = self._redis.xinfo_stream(self.stream)
            except ResponseError:  # there is no such key: nothing was logged yet
                return Fetched([], Cursor(stream=last, added=added))
            newest = info["last-generated-id"].decode()
            lines: list[bytes] = []
            while len(lines) < limit:
                entries: list[Any] = self._redis.xrange(
                    self.stream, f"({last}", newest, count=min(_AT_ONCE, limit - len(lines))
                )  # fmt: skip
                if not entries:
                    break
                lines += [_json_of(fields) for _, fields in entries]
                last = entries[-1][0].decode()
            is_whole = len(lines) < limit
            now = int(info.get("entries-added", 0)) if is_whole else added + len(lines)
            # a stream that lost its data counts from nought again
            missed = max(0, now - added - len(lines)) if is_whole and after is not None else 0
            return Fetched(lines, Cursor(stream=newest if is_whole else last, added=now), missed)
        except RedisError as error:
            raise DatasetError(f"the event log cannot be read from Redis: {error}") from error

    def items(self) -> Iterator[dict[str, Any]]:
        """Every item of the live catalogue, in the order of their ids. DatasetError where they cannot be read."""
        from redis.exceptions import RedisError

        tag = f"{self._prefix}:{{%catalogue}}"
        after = "-"
        try:
            while True:
                ids: list[Any] = self._redis.zrangebylex(f"{tag}:ids", after, "+", start=0, num=_AT_ONCE)
                pipeline = self._redis.pipeline(transaction=False)
                for item_id in ids:
                    pipeline.hget(f"{tag}:item:{item_id.decode()}", "body")
                yield from (orjson.loads(body) for body in pipeline.execute() if body)  # empty: deleted
                if len(ids) < _AT_ONCE:
                    return
                after = f"({ids[-1].decode()}"
        except RedisError as error:
            raise DatasetError(f"the catalogue cannot be read from Redis: {error}") from error


def _json_of(fields: dict[bytes, bytes]) -> bytes:
    """The record of an entry."""
    return next((value for value in fields.values() if value[:1] == b"{"), b"{}")
