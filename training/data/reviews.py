"""Readers of review and metadata files: a block of bytes or rows in, validated records and the bad lines out.

Knows the published formats (Amazon 2014, 2018, 2023; CSV; Parquet), not where blocks come from (`ingest.py`) nor what
is done with the records. A line that cannot be used is never guessed at: it is counted with its number and the reason.

| format | user | item | text | rating | time |
|---|---|---|---|---|---|
| amazon2014, amazon2018 | reviewerID | asin | reviewText | overall | unixReviewTime, seconds |
| amazon2023 | user_id | parent_asin | text | rating | timestamp, milliseconds |

Lines are JSON or, as in part of the 2014 files, Python literals. A record without text is an interaction only.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import orjson
import pyarrow as pa

from rdrec_core.errors import DatasetError, InputError
from training.data.metadata import METADATA, MetadataNames, metadata_row
from training.data.words import clean, clean_name, encodable

Format = Literal["amazon2014", "amazon2018", "amazon2023", "csv", "parquet"]
Kind = Literal["reviews", "metadata"]

RECORDS = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("timestamp", pa.int64()),  # unix seconds
        ("rating", pa.float32()),
        ("text", pa.string()),  # whitespace collapsed, entities resolved; "" where there is none
        ("title", pa.string()),
    ]
)
"""What every reader of reviews makes; nulls where the source has no such column."""

SHOWN_BAD_LINES = 10


@dataclass(frozen=True)
class Fields:
    """Names of a format's fields; an alternative is tried when the one before it is missing."""

    item: tuple[str, ...]
    user: str = ""
    text: str = ""
    rating: str = ""
    timestamp: str = ""
    title: str = ""
    ticks_per_second: int = 1


_AMAZON = Fields(user="reviewerID", item=("asin",), text="reviewText", rating="overall", timestamp="unixReviewTime")
REVIEW_FIELDS: Mapping[str, Fields] = {
    "amazon2014": _AMAZON,
    "amazon2018": _AMAZON,
    "amazon2023": Fields(
        user="user_id",
        item=("parent_asin", "asin"),
        text="text",
        rating="rating",
        timestamp="timestamp",
        ticks_per_second=1000,
    ),
}

COLUMN_GUESSES: Mapping[str, tuple[str, ...]] = {
    "user": ("user", "user_id", "userid", "reviewerid", "reviewer_id"),
    "item": ("item", "item_id", "itemid", "parent_asin", "asin", "product_id"),
    "text": ("text", "review", "reviewtext", "review_text"),
    "rating": ("rating", "overall", "stars"),
    "timestamp": ("timestamp", "time", "unixreviewtime"),
    "title": ("title", "item_title"),
}
"""Column names (lower case) that are understood without `--columns`."""


@dataclass
class Block:
    """The outcome of reading one block: columns in the order of the schema, and the lines that were no use."""

    columns: tuple[list[Any], ...]
    n_bad: int = 0
    bad: list[tuple[int, str]] = field(default_factory=list)
    """(line number from 1, reason) of the first SHOWN_BAD_LINES."""

    def reject(self, line: int, reason: str) -> None:
        """Count a bad line."""
        self.n_bad += 1
        if len(self.bad) < SHOWN_BAD_LINES:
            self.bad.append((line, reason))

    def keep(self, row: tuple[Any, ...]) -> None:
        """Append a record."""
        for column, value in zip(self.columns, row, strict=True):
            column.append(value)

    def table(self, schema: pa.Schema) -> pa.Table:
        """The records as Arrow."""
        return pa.table([pa.array(c, type=f.type) for c, f in zip(self.columns, schema, strict=True)], schema=schema)


def empty_block(names: Fields | MetadataNames) -> Block:
    """A block with an empty list for each column."""
    return Block(columns=tuple([] for _ in (METADATA if isinstance(names, MetadataNames) else RECORDS)))


def read_json_lines(data: bytes, first_line: int, names: Fields | MetadataNames) -> Block:
    """Read whole lines of JSON or Python literals, the first of them number `first_line`; blank ones are skipped."""
    block = empty_block(names)
    for number, line in enumerate(data.split(b"\n"), start=first_line):
        if not line or line.isspace():
            continue
        try:
            block.keep(_record(parse_object(line), names))
        except ValueError as reason:
            block.reject(number, str(reason))
    return block


TABLE_FIELDS = Fields(user="user", item=("item",), text="text", rating="rating", timestamp="timestamp", title="title")
"""Of a table of reviews, whose columns `match_columns` has given these names."""


def read_rows(rows: Iterable[tuple[int, Mapping[str, Any] | None]], names: Fields | MetadataNames) -> Block:
    """Read (line number, row) pairs of a table; a row of None stands for a line with a wrong number of fields.

    Columns of reviews already have the names user, item, text, ...; those of metadata have their own.
    """
    block = empty_block(names)
    for number, row in rows:
        try:
            if row is None:
                raise ValueError("wrong number of fields")
            block.keep(_record(row, names))
        except ValueError as reason:
            block.reject(number, str(reason))
    return block


def parse_object(line: bytes) -> Mapping[str, Any]:
    """One line as a mapping; ValueError with a short reason where it is none."""
    try:
        value = orjson.loads(line)
    except ValueError:
        value = _parse_leniently(line)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _parse_leniently(line: bytes) -> Any:
    """What orjson refuses and the published files hold: lone surrogates, Python literals."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            continue
    raise ValueError("neither JSON nor a Python literal")


def _record(row: Mapping[str, Any], names: Fields | MetadataNames) -> tuple[Any, ...]:
    if isinstance(names, MetadataNames):
        return metadata_row(row, names, _identifier)
    return _review(row, names, needs_time=names.user != "user" or "timestamp" in row)


def _review(row: Mapping[str, Any], fields: Fields, needs_time: bool = True) -> tuple[Any, ...]:
    return (
        _identifier(row.get(fields.user), fields.user),
        _item(row, fields),
        _seconds(row.get(fields.timestamp), fields) if needs_time else None,
        _rating(row.get(fields.rating), fields.rating),
        clean(row.get(fields.text)),
        clean_name(row.get(fields.title)) or None if fields.title else None,
    )


def _item(row: Mapping[str, Any], fields: Fields) -> str:
    for name in fields.item:
        value = row.get(name)
        if value is not None and value != "":
            return _identifier(value, name)
    raise ValueError(f"no {fields.item[0]}")


def _identifier(value: Any, name: str) -> str:
    if isinstance(value, str):
        identifier = encodable(value.strip())
        if identifier:
            return identifier
    elif isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"no {name}" if value is None or value == "" else f"{name} is neither text nor a whole number")


def _rating(value: Any, name: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        rating = float(value)
    except (TypeError, ValueError):
        rating = math.nan
    if not math.isfinite(rating):
        raise ValueError(f"{name} is not a number")
    return rating


def _seconds(value: Any, fields: Fields) -> int:
    if value is None or value == "":
        raise ValueError(f"no {fields.timestamp}")
    try:
        if isinstance(value, datetime):
            return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
        if isinstance(value, str) and "-" in value[1:]:
            return _seconds(datetime.fromisoformat(value), fields)
        seconds = int(value if isinstance(value, int) else float(value)) // fields.ticks_per_second
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{fields.timestamp} is neither a number nor an ISO date") from None
    if not 0 <= seconds < 1 << 40:
        raise ValueError(f"{fields.timestamp} is out of range")
    return seconds


def detect_json_format(lines: Iterable[bytes], name: str) -> Format:
    """The format of a file of review lines, from the first line that can be read. DatasetError where none is known."""
    seen: set[str] = set()
    for line in lines:
        try:
            keys = set(parse_object(line))
        except ValueError:
            continue
        if {"reviewerID", "asin"} <= keys:
            return "amazon2018"
        if "user_id" in keys and keys & {"parent_asin", "asin"}:
            return "amazon2023"
        seen |= keys
    raise DatasetError(
        f"{name}: no known review format (fields seen: {', '.join(sorted(seen)[:12]) or 'none'}); "
        "expected reviewerID and asin (Amazon 2014, 2018), or user_id and parent_asin (Amazon 2023)"
    )


def match_columns(header: Iterable[str], chosen: Mapping[str, str], name: str) -> dict[str, str]:
    """Which column of a table of reviews holds what: role -> column name.

    `chosen` (`--columns`) wins over COLUMN_GUESSES. Raises InputError where a chosen or a necessary column is missing.
    """
    columns = list(header)
    by_lower = {column.lower(): column for column in columns}
    matched: dict[str, str] = {}
    for role, guesses in COLUMN_GUESSES.items():
        if role in chosen:
            if chosen[role] not in columns:
                raise InputError(
                    f"--columns {role}={chosen[role]}: {name} has no such column; it has {', '.join(columns)}",
                    field="columns",
                )
            matched[role] = chosen[role]
            continue
        guess = next((by_lower[g] for g in guesses if g in by_lower), None)
        if guess is not None:
            matched[role] = guess
    for role in ("user", "item"):
        if role not in matched:
            raise InputError(
                f"{name} has no column for the {role}; name it by --columns {role}=... (it has {', '.join(columns)})",
                field="columns",
            )
    return matched
