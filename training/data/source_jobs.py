"""One source file as jobs for the workers: what it is by its content, its names, and blocks of it in input order.

The suffix of a file decides nothing: a CSV under the name of a JSON file is read as CSV. Knows which reader a file
needs; what a reader makes of a block is in `records.py`.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

import pyarrow.parquet as pq

from rdrec_core.errors import DatasetError, InputError
from training.data import json_documents, records, tables
from training.data.metadata import MetadataNames
from training.data.opening import is_parquet, open_text
from training.data.records import Block, Names
from training.data.reviews import HEADLINE, ReviewNames, Wanted, match_names, plain_name
from training.data.tables import Layout, Quoting, Tally
from training.data.times import unix_seconds
from training.data.values import Notes

BLOCK_BYTES = 8 << 20
MAX_LINE = 64 << 20
"""Bytes of a line; longer ones are a whole table in one line."""
ROWS_PER_BLOCK = 20_000
TEXTLESS_ROWS_PER_BLOCK = 200_000
_SAMPLED_LINES = 1000
"""Lines of JSON whose fields are looked at before a name is missed."""

Format = Literal["amazon2014", "amazon2018", "amazon2023", "json", "csv", "parquet"]
OLDEST = 100_000_000
"""Unix seconds of 1973; smaller numbers in a file without header are ratings or counts."""
Kind = Literal["reviews", "metadata"]
Job = Callable[[], Block]
HEADLINES = (
    f"columns called `{HEADLINE}`, taken for reviews' headlines and not for items' names (--columns title={HEADLINE})"
)


@dataclass(frozen=True)
class SourceFile:
    """A file to read; `format`, `encoding` and `separator` None mean: find out. `columns`: role -> name or place."""

    path: Path
    kind: Kind
    format: Format | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    wanted: Wanted = field(default_factory=Wanted)
    encoding: str | None = None
    separator: str | None = None
    quoting: Quoting = "minimal"
    shared_columns: bool = False
    """Whether `columns` were chosen for other files too, so that this one need not have them all."""

    @property
    def by_place(self) -> bool:
        """Whether columns are named by their places, so that the file has no header."""
        return bool(self.columns) and all(column.isdigit() for column in self.columns.values())

    def names(self, fields: Iterable[str]) -> Names:
        """Which field has which role. InputError where a necessary one is missing."""
        there = list(fields)
        if self.kind == "reviews":
            return match_names(there, self.columns, self.wanted, str(self.path))
        names = MetadataNames.of(self.columns)
        strange = [column for role, column in self.columns.items() if column not in there]
        if strange and not self.shared_columns:
            raise InputError(
                f"--metadata-columns {strange[0]}: {self.path} has no such column; it has {', '.join(there[:30])}",
                field="metadata_columns",
            )
        if not any(names.role(name)[0] == "item" for name in there):
            raise InputError(
                f"{self.path} has no column for the item; name it by --metadata-columns item=... "
                f"(it has {', '.join(map(str, there[:30]))})",
                field="columns",
            )
        return names


def jobs(source: SourceFile, tap: io.RawIOBase, tally: Tally, notes: Notes) -> Iterator[Job]:
    """Blocks of the file in input order; counts its lines in `tally` and takes notes of what is guessed."""
    with source.path.open("rb") as file:
        head = file.read(4)
    if is_parquet(head):
        return _parquet_jobs(source, tally, notes)
    if source.format == "parquet":
        raise DatasetError(f"{source.path} is no Parquet file; leave --format out and it is found out")
    stream = open_text(tap, str(source.path), source.encoding)
    start = stream.read(BLOCK_BYTES)
    if source.format == "csv" or (source.format is None and not _looks_like_json(start)):
        return _table_jobs(source, start, stream, tally, notes)
    if _has_object_lines(start):
        return _line_jobs(source, start, stream, tally, notes)
    return _document_jobs(source, start, stream, tally, notes)


def _looks_like_json(start: bytes) -> bool:
    """Whether one of the first lines begins as an object or a list does."""
    lines = (line.strip() for line in start[: 1 << 20].split(b"\n", 21)[:21])
    first = next((line for line in lines if line), b"")
    return first[:1] in (b"{", b"[") or any(line[:1] == b"{" for line in lines)


def _has_object_lines(start: bytes) -> bool:
    """Whether one of the first lines is an object by itself."""
    if start.lstrip()[:1] == b"[":
        return False
    return any(_object(line) is not None for line in start.split(b"\n", 51)[:50]) or start.count(b"\n") < 1 < len(start)


def _object(line: bytes) -> Mapping[str, Any] | None:
    try:
        return records.parse_object(line)
    except ValueError:
        return None


def _line_jobs(source: SourceFile, start: bytes, stream: BinaryIO, tally: Tally, notes: Notes) -> Iterator[Job]:
    names: Names | None = None
    line, rest, chunk = 1, b"", start
    while True:
        cut = chunk.rfind(b"\n") + 1
        data = rest + (chunk[:cut] if chunk else b"")
        if chunk and not cut:
            rest += chunk
            if len(rest) > MAX_LINE:
                raise DatasetError(
                    f"{source.path}: line {line} has more than {MAX_LINE >> 20} MiB; one object a line is needed"
                )
        else:
            rest = chunk[cut:]
            if data:
                if names is None:
                    names = _names_of_objects(
                        source, map(_object, data.split(b"\n", _SAMPLED_LINES)[:_SAMPLED_LINES]), notes
                    )
                yield partial(records.read_json_lines, data, line, names)
                n_lines = data.count(b"\n") + (not data.endswith(b"\n"))
                line += n_lines
                tally.n_lines += n_lines
            if not chunk:
                return
        chunk = stream.read(BLOCK_BYTES)


def _document_jobs(source: SourceFile, start: bytes, stream: BinaryIO, tally: Tally, notes: Notes) -> Iterator[Job]:
    found = json_documents.objects(start, stream, str(source.path))
    names: Names | None = None
    for batch in _batched(found, ROWS_PER_BLOCK):
        if names is None:
            names = _names_of_objects(source, batch[:_SAMPLED_LINES], notes)
        numbered = list(enumerate(batch, start=tally.n_lines + 1))
        tally.n_lines += len(batch)
        yield partial(records.read_objects, numbered, names)


def _names_of_objects(source: SourceFile, sample: Iterable[Any], notes: Notes) -> Names:
    objects = [value for value in sample if isinstance(value, Mapping)]
    if not objects:
        raise DatasetError(f'{source.path}: none of its first lines is a JSON object, such as {{"user_id": "u1", ...}}')
    fields = list(dict.fromkeys(name for value in objects for name in value))
    for value in objects:
        json_documents.refuse_tables(dict(value), str(source.path))
    try:
        names = source.names(fields)
    except InputError as cause:
        nested = next(filter(None, map(json_documents.nested_field, objects)), None)
        if nested is not None:
            raise DatasetError(
                f"{source.path} holds nested records in {nested!r}; write one object a review, with user and item"
            ) from cause
        raise
    _note_headline(source, names, fields, notes)
    return names


def _note_headline(source: SourceFile, names: Names, fields: Iterable[str], notes: Notes) -> None:
    if isinstance(names, ReviewNames) and names.title is None and HEADLINE in map(plain_name, fields):
        notes.add(HEADLINES, source.path.name)


def _table_jobs(source: SourceFile, start: bytes, stream: BinaryIO, tally: Tally, notes: Notes) -> Iterator[Job]:
    lines = _text_lines(start, stream)
    first = next((line for line in lines if _counted(line, tally)), None)
    if first is None:
        return
    separator = source.separator or tables.find_separator(first)
    if separator is None:
        raise DatasetError(
            f"{source.path} is neither JSON, nor Parquet, nor a table: its first line holds no separator "
            f"(--separator names it): {first.strip()[:60]}"
        )
    layout = Layout(separator, source.quoting)
    numbered = tables.rows(itertools.chain([first], lines), layout, tally, notes)
    tally.n_lines -= 1  # `rows` counts the first line itself
    _, header = next(numbered)
    if isinstance(header, str):
        raise DatasetError(f"{source.path}: the first line {header}")
    if source.by_place:
        columns = [str(place) for place in range(1, len(header) + 1)]
        numbered = itertools.chain([(tally.n_lines, header)], numbered)
    else:
        columns = [name.strip() for name in header]
        tally.n_header = 1
    names = _names_of_table(source, columns, header)
    _note_headline(source, names, columns, notes)
    wanted = names.columns if isinstance(names, ReviewNames) else columns
    places = [columns.index(name) for name in wanted]

    def cut(row: list[str] | str) -> records.Row:
        if isinstance(row, str):
            return row
        if len(row) != len(columns):
            return f"wrong number of fields ({len(row)}, not {len(columns)})"
        return [row[place] for place in places]

    for batch in _batched(((number, cut(row)) for number, row in numbered), ROWS_PER_BLOCK):
        yield partial(records.read_rows, batch, wanted, names)


def _counted(line: str, tally: Tally) -> bool:
    """Count a line before the table's first; whether it is that first."""
    tally.n_lines += 1
    blank = line.isspace()
    tally.n_blank += blank
    return not blank


def _names_of_table(source: SourceFile, columns: list[str], first: list[str]) -> Names:
    try:
        return source.names(columns)
    except InputError as cause:
        if not source.by_place and any(_is_number(value) or _is_time(value) for value in first):
            shown = " ".join(f"{place}={value.strip()[:24]}" for place, value in enumerate(first[:8], start=1))
            option = _option_by_place(first) if source.kind == "reviews" else "--metadata-columns item=1,title=2"
            raise InputError(
                f"{source.path} seems to have no header; name its columns by their places, such as {option} "
                f"(its first line is {shown})",
                field="columns",
            ) from cause
        raise


def _option_by_place(first: list[str]) -> str:
    """A `--columns` that fits a first line of user, item and more.

    The time is a value that is written as a date, else the last number behind the item that could be one.
    """
    times = [place for place, value in enumerate(first, start=1) if place > 1 and _is_time(value)]
    dates = [place for place in times if not _is_number(first[place - 1])]
    numbers = [place for place in times if place > 2 and place not in dates]
    if not (dates or numbers):
        return "--columns user=1,item=2 --order file"
    time = (dates or numbers)[-1]
    if time == 2:
        return "--columns user=1,item=3,timestamp=2"
    return f"--columns user=1,item=2{',rating=3' if time > 3 else ''},timestamp={time}"


def _is_time(value: str) -> bool:
    try:
        return unix_seconds(value, "") > OLDEST
    except ValueError:
        return False


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _text_lines(start: bytes, stream: BinaryIO) -> Iterator[str]:
    """Lines as they stand, their ends included; bytes that are no UTF-8 come as lone surrogates."""
    text = io.TextIOWrapper(
        io.BufferedReader(_Again(start, stream)), encoding="utf-8-sig", errors="surrogateescape", newline=""
    )
    return iter(text)


class _Again(io.RawIOBase):
    """A stream from its beginning, the part that was read already first."""

    def __init__(self, start: bytes, stream: BinaryIO) -> None:
        self._start = memoryview(start)  # its slices copy nothing
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._start:
            return self._stream.readinto(buffer)  # type: ignore[attr-defined, no-any-return]
        n = min(len(buffer), len(self._start))
        buffer[:n] = self._start[:n]
        self._start = self._start[n:]
        return n


def _parquet_jobs(source: SourceFile, tally: Tally, notes: Notes) -> Iterator[Job]:
    with pq.ParquetFile(source.path) as file:
        columns = file.schema_arrow.names
        names = source.names(columns)
        _note_headline(source, names, columns, notes)
        wanted = names.columns if isinstance(names, ReviewNames) else columns
        small = isinstance(names, ReviewNames) and names.text is None
        for batch in file.iter_batches(TEXTLESS_ROWS_PER_BLOCK if small else ROWS_PER_BLOCK, columns=wanted):
            yield partial(records.read_batch, batch, tally.n_lines + 1, names)
            tally.n_lines += batch.num_rows


def _batched(rows: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while batch := list(itertools.islice(rows, size)):
        yield batch
