"""A block of lines or rows in, records as columns and the lines that were no use out. Runs in worker processes.

Knows JSON lines and rows, not where blocks come from (`ingest.py`). A line that cannot be used is never guessed at: it
is counted with its number and the reason. Every line ends as a record, bad, dropped or blank.
"""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from training.data.metadata import METADATA, MetadataNames, metadata_row
from training.data.plain_columns import plain_records
from training.data.reviews import RECORDS, Dropped, ReviewNames, review_row
from training.data.values import Missing, Notes

# what a damaged literal makes the compiler say is told as a bad line
warnings.filterwarnings("ignore", category=SyntaxWarning, module="<unknown>")

SHOWN_BAD_LINES = 10
Names = ReviewNames | MetadataNames
Row = Sequence[Any] | str
"""The values of a row, or why it is none."""


@dataclass
class Block:
    """The outcome of reading one block: columns in the order of the schema, and what became of the other lines."""

    columns: tuple[list[Any], ...]
    n_bad: int = 0
    n_blank: int = 0
    bad: list[tuple[int, str]] = field(default_factory=list)
    """(line number from 1, reason) of the first SHOWN_BAD_LINES."""
    dropped: Notes = field(default_factory=Notes)
    """Rows without an id, and sound ones that the options leave out."""
    notes: Notes = field(default_factory=Notes)
    plain: pa.Table | None = None
    """The records, where they were taken as whole columns; `columns` is then empty."""

    def reject(self, line: int, reason: str) -> None:
        """Count a bad line."""
        self.n_bad += 1
        if len(self.bad) < SHOWN_BAD_LINES:
            self.bad.append((line, reason))

    def read(self, line: int, row: Mapping[str, Any], names: Names) -> None:
        """Append the record of a row, or count why there is none."""
        try:
            if isinstance(names, ReviewNames):
                values = review_row(row, names, self.notes)
            else:
                values = metadata_row(row, names, self.notes)
        except (Dropped, Missing) as reason:
            self.dropped.add(str(reason), f"line {line}")
        except (ValueError, RecursionError) as reason:
            self.reject(line, str(reason))
        else:
            for column, value in zip(self.columns, values, strict=True):
                column.append(value)

    def table(self, schema: pa.Schema) -> pa.Table:
        """The records as Arrow."""
        if self.plain is not None:
            return self.plain
        return pa.table([pa.array(c, type=f.type) for c, f in zip(self.columns, schema, strict=True)], schema=schema)


def empty_block(names: Names) -> Block:
    """A block with an empty list for each column."""
    return Block(columns=tuple([] for _ in (RECORDS if isinstance(names, ReviewNames) else METADATA)))


def read_json_lines(data: bytes, first_line: int, names: Names) -> Block:
    """Read whole lines of JSON or Python literals, the first of them number `first_line`."""
    block = empty_block(names)
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()  # what follows the last line's end is no line
    for number, line in enumerate(lines, start=first_line):
        if not line or line.isspace():
            block.n_blank += 1
            continue
        try:
            row = parse_object(line)
        except ValueError as reason:
            block.reject(number, str(reason))
        else:
            block.read(number, row, names)
    return block


def read_rows(rows: Iterable[tuple[int, Row]], columns: Sequence[str], names: Names, of_text: bool = True) -> Block:
    """Read (line number, values) pairs of a table with these columns; of_text: all values are text, as in a CSV."""
    block = empty_block(names)
    for number, row in rows:
        if isinstance(row, str):
            block.reject(number, row)
            continue
        if of_text and not (joined := "".join(row)).isascii() and not _sound(joined):
            block.reject(number, "not UTF-8 (--encoding names another, such as latin-1 or cp1252)")
        else:
            block.read(number, dict(zip(columns, row, strict=True)), names)
    return block


def read_batch(batch: pa.RecordBatch, first: int, names: Names) -> Block:
    """Read a batch of a Parquet file, its first row number `first`; as whole columns where no row needs judging."""
    if isinstance(names, ReviewNames) and (plain := plain_records(batch, names)) is not None:
        return Block(columns=(), plain=plain)
    values = [_plain_values(column) for column in batch.columns]
    numbered = enumerate(zip(*values, strict=True), start=first)
    return read_rows(numbered, batch.schema.names, names, of_text=False)


def _plain_values(column: pa.Array) -> list[Any]:
    """Python values; times of every unit as unix seconds, dates as midnight."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if pa.types.is_date(kind):
        return column.to_pylist()
    if pa.types.is_timestamp(kind):
        per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit]
        return pc.divide(column.cast(pa.int64()), per_second).to_pylist()
    if pa.types.is_time(kind) or pa.types.is_duration(kind) or pa.types.is_interval(kind):
        return column.cast(pa.string()).to_pylist()
    return column.to_pylist()


def read_objects(objects: Iterable[tuple[int, Any]], names: Names) -> Block:
    """Read (number, object) pairs of a JSON document; a text in an object's place says why there is none."""
    block = empty_block(names)
    for number, value in objects:
        if isinstance(value, dict):
            block.read(number, value, names)
        else:
            block.reject(number, value if isinstance(value, str) else "not an object")
    return block


def _sound(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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
    """What orjson refuses and real files hold: NaN, lone surrogates, Python literals."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 (--encoding names another, such as latin-1 or cp1252)") from None
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            continue
    raise ValueError("neither JSON nor a Python literal")
