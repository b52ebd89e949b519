"""What the service logs of its users' doings, as rows: the format of a record, and what a forgotten user leaves behind.

A record is a JSON object, `{"event_id", "user_id", "item_id", "event", "timestamp", ...}`; `{"event": "forget",
"user_id"}` takes back everything that was logged of a user before it. Batches that `rdrec collect` wrote hold the same
rows as Parquet. Knows records, neither where they lie (`collecting.py`) nor what a dataset makes of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from rdrec_core.errors import DatasetError, InputError
from training.data.values import Notes, identifier

FORGET = "forget"
PURCHASE = "purchase"
"""The kind of an event that names none."""
EVENTS = {
    "event_id": pl.String,
    "user_id": pl.String,
    "item_id": pl.String,  # null where the event is FORGET
    "event": pl.String,  # lower case
    "timestamp": pl.Float64,  # unix seconds
    "received": pl.Float64,  # when the service took it; null where the log does not say
    "quantity": pl.Int32,
    "context": pl.String,  # JSON, null where there is none
}
"""Rows of a log, in its order."""
LOG_FILES = "events-*.jsonl"
BATCH = "batch-*"
BATCH_EVENTS = "events.parquet"


def event_row(record: Any) -> tuple[Any, ...]:
    """A record in the order of EVENTS. ValueError saying what is wrong with it."""
    if not isinstance(record, Mapping):
        raise ValueError("is no JSON object")
    kind = str(record.get("event") or PURCHASE).strip().lower()
    user = identifier(record.get("user_id"), "user_id", Notes())
    item = None if kind == FORGET else identifier(record.get("item_id"), "item_id", Notes())
    received = _seconds(record.get("received"), "received")
    time = _seconds(record.get("timestamp"), "timestamp")
    time = received if time is None else time
    if time is None and kind != FORGET:
        raise ValueError("has no timestamp")
    event_id = record.get("event_id")
    if not isinstance(event_id, str) or not event_id:
        if kind != FORGET:
            raise ValueError("has no event_id, which tells it from its own repetition")
        event_id = f"{FORGET}:{user}:{received or time or 0}"
    quantity = record.get("quantity", 1)
    if not isinstance(quantity, int) or isinstance(quantity, bool) or quantity < 1:
        raise ValueError(f"quantity {quantity!r} should be a whole number from 1")
    context = record.get("context")
    return event_id, user, item, kind, time, received, quantity, orjson.dumps(context).decode() if context else None


def _seconds(value: Any, name: str) -> float | None:
    if value is None:
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} {str(value)[:40]} should be seconds since 1970") from None
    if not 0 < seconds < 1e11:
        raise ValueError(f"{name} {value} should be seconds since 1970")
    return seconds


def frame_of(rows: Sequence[tuple[Any, ...]]) -> pl.DataFrame:
    """EVENTS."""
    return pl.DataFrame(rows, schema=EVENTS, orient="row")


def read_lines(lines: Iterable[bytes], bad: Notes, source: str) -> pl.DataFrame:
    """EVENTS of JSON lines; one that is none is counted in `bad` with the reason."""
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(event_row(orjson.loads(line)))
        except ValueError as reason:  # orjson's error is one
            bad.add(f"records of the event log that are none: {reason}", f"{source}:{number}")
    return frame_of(rows)


def log_files(path: Path) -> list[Path]:
    """The batches, or log files, that a path names, oldest first. Raises InputError where there are none."""
    if path.is_file():
        return [path]
    if (path / BATCH_EVENTS).is_file():
        return [path / BATCH_EVENTS]
    found = sorted(each / BATCH_EVENTS for each in path.glob(BATCH) if (each / BATCH_EVENTS).is_file())
    found = found or sorted(path.rglob(LOG_FILES))
    if not found and not any(path.glob(BATCH)):
        raise InputError(
            f"--events {path} holds neither batches of `rdrec collect` nor files {LOG_FILES}", field="events"
        )
    return found


def batch_of(file: Path) -> str | None:
    """The name of the batch that a file of `log_files` is of, None for a log file."""
    return file.parent.name if file.name == BATCH_EVENTS else None


def read_log(path: Path, bad: Notes) -> pl.DataFrame:
    """EVENTS of one file of `log_files`. Raises DatasetError where it cannot be read."""
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path, columns=list(EVENTS))
        with path.open("rb") as file:
            return read_lines(file, bad, path.name)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DatasetError(f"{path} cannot be read as an event log: {error}") from error


def settled(events: pl.DataFrame) -> tuple[pl.DataFrame, int, list[str]]:
    """What is left of a log once repeated records and forgotten users are taken out.

    Returns the events in their order (without FORGET), how many records repeated an earlier one's `event_id`, and the
    users who were forgotten, of whom what came later stays.
    """
    once = events.unique("event_id", keep="first", maintain_order=True).with_row_index("place")
    forgotten = once.filter(pl.col("event") == FORGET).group_by("user_id").agg(until=pl.col("place").max())
    kept = once.join(forgotten, on="user_id", how="left", maintain_order="left").filter(
        (pl.col("event") != FORGET) & (pl.col("until").is_null() | (pl.col("place") > pl.col("until")))
    )
    return kept.select(*EVENTS), events.height - once.height, sorted(forgotten["user_id"].to_list())
