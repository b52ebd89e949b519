"""What was logged since the last time, and the catalogue as it is now, as a batch: exactly once.

    batch-000001/events.parquet    rows of `event_log.py`, in the order of the log
    batch-000001/items.jsonl       every item of the live catalogue, where it changed since the last batch
    batch-000001/cursor.json       where the log was read up to

A batch is a folder that appears by one rename, so events and cursor are there together or not at all, and a run that is
killed at any moment leaves nothing out and takes nothing twice. Knows sources by their protocol (`log_sources.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import orjson
import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from rdrec_core.errors import DatasetError
from rdrec_core.replacing import replacing_file, replacing_folder
from training.data.event_log import BATCH, BATCH_EVENTS, FORGET, read_lines
from training.data.values import Notes

CURSOR_FILE = "cursor.json"
ITEMS_FILE = "items.jsonl"
MAX_LINES = 1_000_000
"""Records of a batch; what is more goes into the next one."""
_NOT_KEPT = ("available",)
"""Of a live item: what is true of today only."""


class Cursor(BaseModel):
    """How far a log was read: bytes of each file, or the entry of a stream and how many were added up to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: dict[str, int] | None = None
    stream: str | None = None
    added: int = 0


@dataclass(frozen=True)
class Fetched:
    """Lines of a log in their order, and where to go on. missed: entries that were dropped before anybody read them."""

    lines: Sequence[bytes]
    cursor: Cursor
    missed: int = 0


class LogSource(Protocol):
    """Where the service logs to."""

    def fetch(self, after: Cursor | None, limit: int) -> Fetched:
        """At most `limit` lines after the cursor. Raises DatasetError where the log cannot be read."""
        ...


@dataclass(frozen=True)
class Collected:
    """What was found, over all batches of a run."""

    batches: tuple[Path, ...] = ()
    n_events: int = 0
    n_repeated: int = 0
    """Records that repeat an `event_id`, of this run or of an earlier batch; left out."""
    n_forgotten: int = 0
    n_items: int = 0
    n_missed: int = 0
    bad: Notes = field(default_factory=Notes)


def batches(folder: Path) -> list[Path]:
    """The batches of a folder, oldest first."""
    return sorted(path for path in folder.glob(BATCH) if (path / CURSOR_FILE).is_file())


def newest_items(folder: Path) -> Path | None:
    """The catalogue as the newest batch that has one knows it."""
    return next((p / ITEMS_FILE for p in reversed(batches(folder)) if (p / ITEMS_FILE).is_file()), None)


def collect(
    source: LogSource, out: Path, *, items: Iterable[dict[str, Any]] | None = None, limit: int = MAX_LINES
) -> Collected:
    """Write what is new as batches under `out`; none where there is nothing new. items: the live catalogue."""
    bad, total = Notes(), Collected()
    catalogue = None if items is None else catalogue_lines(items)
    while True:
        done = batches(out)
        after = None if not done else read_cursor(done[-1])
        fetched = source.fetch(after, limit)
        found = read_lines(fetched.lines, bad, "the log")
        known = newest_items(out)
        changed = catalogue if catalogue and (known is None or known.read_bytes() != catalogue) else None
        if not fetched.lines and changed is None:
            return Collected(
                total.batches, total.n_events, total.n_repeated, total.n_forgotten,
                0 if catalogue is None else catalogue.count(b"\n"), total.n_missed, bad,
            )  # fmt: skip
        fresh, n_repeated = without_repetitions(found, done)
        forgotten = fresh.filter(pl.col("event") == FORGET)["user_id"].unique().to_list()
        if forgotten:
            _erase(forgotten, done)
            fresh = _without_what_was_before(fresh)
        path = out / f"batch-{len(done) + 1:06d}"
        with replacing_folder(path) as folder:
            fresh.write_parquet(folder / BATCH_EVENTS)
            if changed is not None:
                (folder / ITEMS_FILE).write_bytes(changed)
            (folder / CURSOR_FILE).write_text(fetched.cursor.model_dump_json() + "\n", encoding="utf-8")
        total = Collected(
            (*total.batches, path), total.n_events + int((fresh["event"] != FORGET).sum()),
            total.n_repeated + n_repeated, total.n_forgotten + len(forgotten), 0, total.n_missed + fetched.missed,
        )  # fmt: skip


def read_cursor(batch: Path) -> Cursor:
    """Where the batch ends. Raises DatasetError where that cannot be read."""
    try:
        return Cursor.model_validate_json((batch / CURSOR_FILE).read_bytes())
    except (OSError, ValidationError) as error:
        raise DatasetError(f"{batch / CURSOR_FILE} does not say where the batch ends: {error}") from error


def without_repetitions(found: pl.DataFrame, done: Sequence[Path]) -> tuple[pl.DataFrame, int]:
    """The rows whose `event_id` no earlier row has, here or in the batches, and how many others there are."""
    once = found.unique("event_id", keep="first", maintain_order=True)
    if done and once.height:
        seen = pl.scan_parquet([path / BATCH_EVENTS for path in done]).select("event_id")
        once = once.lazy().join(seen, on="event_id", how="anti", maintain_order="left").collect()
    return once, found.height - once.height


def catalogue_lines(items: Iterable[dict[str, Any]]) -> bytes:
    """Live items as metadata, a line each in the order of their ids; of several records of an item the last counts."""
    last = {item["item_id"]: item for item in items}
    kept = ({name: value for name, value in last[key].items() if name not in _NOT_KEPT} for key in sorted(last))
    return b"".join(orjson.dumps(item, option=orjson.OPT_SORT_KEYS) + b"\n" for item in kept)


def read_items(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Live items of JSON-lines files. Raises DatasetError naming a line that is none."""
    found = []
    for path in paths:
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            try:
                item = json.loads(line)
                item["item_id"] = str(item["item_id"])
            except (ValueError, TypeError, KeyError) as error:
                raise DatasetError(f'{path}:{number} is no item, such as {{"item_id": "B1", "title": ...}}') from error
            found.append(item)
    return found


def _erase(users: list[str], done: Sequence[Path]) -> None:
    """Take users out of the batches that are there: they were forgotten, and may do with the files what is left."""
    for path in done:
        rows = pl.read_parquet(path / BATCH_EVENTS)
        kept = rows.filter(~pl.col("user_id").is_in(users) | (pl.col("event") == FORGET))
        if kept.height < rows.height:
            with replacing_file(path / BATCH_EVENTS) as temporary:
                kept.write_parquet(temporary)


def _without_what_was_before(rows: pl.DataFrame) -> pl.DataFrame:
    numbered = rows.with_row_index("place")
    until = numbered.filter(pl.col("event") == FORGET).group_by("user_id").agg(until=pl.col("place").max())
    kept = numbered.join(until, on="user_id", how="left", maintain_order="left")
    return kept.filter(pl.col("until").is_null() | (pl.col("place") >= pl.col("until"))).select(rows.columns)
