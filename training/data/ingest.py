"""From source files to Parquet parts: several files at once, each cut into blocks that worker processes parse.

Memory holds a few blocks, whatever the files' size. Parts keep the order of the input (file by file, block by block),
so that a row's place in them is its place in the input. Knows bytes, blocks and workers; formats are in `reviews.py`.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import itertools
import multiprocessing
import signal
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from rdrec_core.errors import DatasetError, InputError
from training.data import reviews
from training.data.explanations import fingerprint
from training.data.metadata import METADATA, MetadataNames
from training.data.reviews import Block, Format, Kind

BLOCK_BYTES = 8 << 20
ROWS_PER_BLOCK = 20_000
SMALL_INPUT_BYTES = 24 << 20
"""Below this, starting worker processes costs more than they save."""

Job = Callable[[], Block]


@dataclass(frozen=True)
class SourceFile:
    """A file to read; `format` None means: find out. `columns` (role -> name) is for CSV and Parquet."""

    path: Path
    kind: Kind
    format: Format | None = None
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ingested:
    """What came of one file: parts in input order, rows in each, bad lines, the hash of the bytes read."""

    source: SourceFile
    parts: tuple[Path, ...]
    n_rows: tuple[int, ...]
    n_bad: int
    bad: tuple[tuple[int, str], ...]
    sha256: str


class _BadLineBudget:
    """Bad lines over all files; past the limit every reader stops."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._count = 0
        self._lock = threading.Lock()
        self.spent = threading.Event()

    def take(self, n: int) -> None:
        with self._lock:
            self._count += n
            if self._count > self.limit:
                self.spent.set()

    @property
    def count(self) -> int:
        return self._count


def ingest(
    sources: list[SourceFile],
    folder: Path,
    *,
    max_bad_lines: int,
    workers: int,
    on_bytes: Callable[[int], None] = lambda n: None,
) -> list[Ingested]:
    """Read all files into Parquet parts under `folder`; one result a file, in order.

    Raises DatasetError where a file cannot be read or where more than `max_bad_lines` lines in all are bad (the text
    lists the first ten). `on_bytes` is called from several threads with the number of (compressed) bytes just read.
    """
    for source in sources:
        if not source.path.is_file():
            raise DatasetError(f"{source.path}: no such file")
    budget = _BadLineBudget(max_bad_lines)
    total = sum(source.path.stat().st_size for source in sources)
    with ExitStack() as stack:
        parsers: Executor
        if total < SMALL_INPUT_BYTES or workers == 1:
            parsers = stack.enter_context(ThreadPoolExecutor(1))
        else:
            # spawn: a forked child would inherit the locks of Arrow's and Polars' threads
            parsers = stack.enter_context(
                ProcessPoolExecutor(
                    workers,
                    mp_context=multiprocessing.get_context("spawn"),
                    # Ctrl-C goes to the whole group; the parent alone decides what becomes of it
                    initializer=signal.signal,
                    initargs=(signal.SIGINT, signal.SIG_IGN),
                )
            )
        readers = stack.enter_context(ThreadPoolExecutor(min(len(sources), workers)))
        read = partial(
            _ingest_file, folder=folder, parsers=parsers, budget=budget, window=workers + 1, on_bytes=on_bytes
        )
        futures = [readers.submit(read, number, source) for number, source in enumerate(sources)]
        try:
            results = [future.result() for future in futures]
        except BaseException:
            budget.spent.set()
            raise
    if budget.spent.is_set():
        raise DatasetError(
            f"more than {max_bad_lines} bad lines (--max-bad-lines); nothing was written\n"
            + "\n".join(bad_lines(results))
        )
    return results


def bad_lines(results: list[Ingested]) -> list[str]:
    """The first ten bad lines, `file:line: reason`."""
    shown = (f"  {r.source.path}:{line}: {reason}" for r in results for line, reason in r.bad)
    return list(itertools.islice(shown, reviews.SHOWN_BAD_LINES))


def _ingest_file(
    number: int,
    source: SourceFile,
    *,
    folder: Path,
    parsers: Executor,
    budget: _BadLineBudget,
    window: int,
    on_bytes: Callable[[int], None],
) -> Ingested:
    parts: list[Path] = []
    n_rows: list[int] = []
    bad: list[tuple[int, str]] = []
    n_bad = 0
    pending: deque[tuple[Path, Future[tuple[int, int, list[tuple[int, str]]]]]] = deque()

    def collect() -> None:
        nonlocal n_bad
        path, future = pending.popleft()
        rows, block_bad, shown = future.result()
        n_bad += block_bad
        budget.take(block_bad)
        bad.extend(shown[: reviews.SHOWN_BAD_LINES - len(bad)])
        if rows:
            parts.append(path)
            n_rows.append(rows)

    with source.path.open("rb", buffering=0) as raw:
        tap = _Tap(raw, on_bytes)
        try:
            for place, job in enumerate(_jobs(source, tap)):
                if budget.spent.is_set():
                    break
                path = folder / f"{source.kind}-{number:04d}-{place:06d}.parquet"
                pending.append((path, parsers.submit(_write_part, job, source.kind, path)))
                if len(pending) >= window:
                    collect()
            while pending:
                collect()
        except (OSError, EOFError, zlib.error, pa.ArrowInvalid, UnicodeError, csv.Error) as cause:
            raise DatasetError(f"{source.path}: cannot be read: {cause}") from cause
        tap.drain()
    return Ingested(source, tuple(parts), tuple(n_rows), n_bad, tuple(bad), tap.sha256)


def _write_part(job: Job, kind: Kind, path: Path) -> tuple[int, int, list[tuple[int, str]]]:
    """Runs in a worker: parse a block and write its records; (rows, bad lines, the first of them)."""
    block = job()
    table = block.table(reviews.RECORDS if kind == "reviews" else METADATA)
    if table.num_rows:
        if kind == "reviews":
            texts = pl.DataFrame({"text": pl.Series(table["text"])})
            prints = texts.select(fingerprint(pl.col("text"))).to_series()
            table = table.append_column("fingerprint", prints.to_arrow())
        pq.write_table(table, path, compression="zstd", compression_level=1)
    return table.num_rows, block.n_bad, block.bad


class _Tap(io.RawIOBase):
    """A raw file that hashes and counts what passes."""

    def __init__(self, raw: io.FileIO, on_bytes: Callable[[int], None]) -> None:
        self._raw = raw
        self._hash = hashlib.sha256()
        self._on_bytes = on_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        n = self._raw.readinto(buffer)
        self._hash.update(memoryview(buffer)[:n])
        self._on_bytes(n)
        return n

    def drain(self) -> None:
        """Read what is left, so that the hash is the file's."""
        while self.readinto(bytearray(1 << 20)):
            pass

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


def _jobs(source: SourceFile, tap: _Tap) -> Iterator[Job]:
    suffixes = [suffix.lower() for suffix in source.path.suffixes]
    if source.format == "parquet" or (source.format is None and suffixes[-1:] == [".parquet"]):
        return _parquet_jobs(source)
    stream = _decompressed(tap)
    if source.format == "csv" or (source.format is None and any(s in (".csv", ".tsv") for s in suffixes)):
        return _csv_jobs(source, stream)
    return _json_jobs(source, stream)


def _decompressed(tap: _Tap) -> BinaryIO:
    buffered = io.BufferedReader(tap, 1 << 20)
    if buffered.peek(2)[:2] == b"\x1f\x8b":
        return io.BufferedReader(gzip.GzipFile(fileobj=buffered), 1 << 20)  # type: ignore[arg-type, return-value]
    return buffered  # type: ignore[return-value]


def _json_jobs(source: SourceFile, stream: BinaryIO) -> Iterator[Job]:
    line = 1
    rest = b""
    names: reviews.Fields | MetadataNames | None = None
    while True:
        chunk = stream.read(BLOCK_BYTES)
        cut = chunk.rfind(b"\n") + 1
        data = rest + (chunk[:cut] if chunk else b"")
        if chunk and not cut:
            rest += chunk
            continue
        rest = chunk[cut:]
        if data:
            if names is None:
                names = _names(source, data)
            yield partial(reviews.read_json_lines, data, line, names)
            line += data.count(b"\n")
        if not chunk:
            return


def _names(source: SourceFile, data: bytes) -> reviews.Fields | MetadataNames:
    if source.kind == "metadata":
        return MetadataNames.of(source.columns)
    format_ = source.format or reviews.detect_json_format(
        itertools.islice(data.split(b"\n", 1000), 1000), str(source.path)
    )
    return reviews.REVIEW_FIELDS[format_]


def _csv_jobs(source: SourceFile, stream: BinaryIO) -> Iterator[Job]:
    csv.field_size_limit(1 << 27)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
    first = text.readline()
    delimiter = max(",;\t|", key=first.count)
    header = next(csv.reader([first], delimiter=delimiter), [])
    names, columns = _table_columns(source, header)
    places = {name: header.index(column) for name, column in columns.items()}
    rows = csv.reader(text, delimiter=delimiter)

    def numbered() -> Iterator[tuple[int, dict[str, str] | None]]:
        for row in rows:
            if row:
                # the header is line 1 and was not read by `rows`
                whole = len(row) == len(header)
                yield rows.line_num + 1, {name: row[i] for name, i in places.items()} if whole else None

    for batch in _batched(numbered(), ROWS_PER_BLOCK):
        yield partial(reviews.read_rows, batch, names)


def _table_columns(source: SourceFile, header: list[str]) -> tuple[reviews.Fields | MetadataNames, dict[str, str]]:
    """How rows are read, and under which name each column comes to them."""
    if source.kind == "reviews":
        return reviews.TABLE_FIELDS, reviews.match_columns(header, source.columns, str(source.path))
    names = MetadataNames.of(source.columns)
    if not any(names.by_name.get(column.lower(), ("", 0))[0] == "item" for column in header):
        raise InputError(
            f"{source.path} has no column for the item; name it by --columns item=... (it has {', '.join(header)})",
            field="columns",
        )
    return names, {column: column for column in header}


def _parquet_jobs(source: SourceFile) -> Iterator[Job]:
    with pq.ParquetFile(source.path) as file:
        names, columns = _table_columns(source, file.schema_arrow.names)
        row = 1
        for batch in file.iter_batches(ROWS_PER_BLOCK, columns=list(dict.fromkeys(columns.values()))):
            values = [batch.column(column).to_pylist() for column in columns.values()]
            rows = [
                (row + i, dict(zip(columns, line, strict=True))) for i, line in enumerate(zip(*values, strict=True))
            ]
            yield partial(reviews.read_rows, rows, names)
            row += batch.num_rows


def _batched(rows: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while batch := list(itertools.islice(rows, size)):
        yield batch
