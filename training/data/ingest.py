"""From source files to Parquet parts: several files at once, each cut into blocks that worker processes parse.

Memory holds a few blocks, whatever the files' size. Parts keep the order of the input (file by file, block by block),
so that a row's place in them is its place in the input. Knows bytes, blocks and workers; what the bytes mean is in
`source_jobs.py`. Every line of a file is accounted for: header, blank, joined, bad, dropped, or a record.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import threading
import zlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from lzma import LZMAError
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from rdrec_core.errors import DatasetError
from training.data.explanations import fingerprint
from training.data.metadata import METADATA
from training.data.records import SHOWN_BAD_LINES, Block
from training.data.reviews import RECORDS
from training.data.source_jobs import Job, SourceFile, jobs
from training.data.tables import Tally
from training.data.values import Notes
from training.workers import processes_or_ray

SMALL_INPUT_BYTES = 24 << 20
"""Below this, starting worker processes costs more than they save."""


@dataclass(frozen=True)
class Ingested:
    """What came of one file: parts in input order, rows in each, and what became of every other line."""

    source: SourceFile
    parts: tuple[Path, ...]
    n_rows: tuple[int, ...]
    tally: Tally
    n_bad: int
    bad: tuple[tuple[int, str], ...]
    dropped: Notes
    notes: Notes
    sha256: str

    @property
    def n_records(self) -> int:
        """Rows in all parts."""
        return sum(self.n_rows)

    @property
    def unaccounted(self) -> int:
        """Lines that are neither header, blank, joined, bad, dropped nor a record: 0 unless a reader is wrong."""
        seen = self.tally.n_header + self.tally.n_blank + self.tally.n_joined
        return self.tally.n_lines - seen - self.n_bad - self.dropped.total - self.n_records


@dataclass
class _Outcome:
    """What a worker tells of a block that it has written."""

    n_rows: int
    n_bad: int
    n_blank: int
    bad: list[tuple[int, str]] = field(default_factory=list)
    dropped: Notes = field(default_factory=Notes)
    notes: Notes = field(default_factory=Notes)


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
    ray: bool = False,
    on_bytes: Callable[[int], None] = lambda n: None,
) -> list[Ingested]:
    """Read all files into Parquet parts under `folder`; one result a file, in order.

    Blocks are parsed by `workers` processes, or by the cores of a Ray cluster, all of which must see `folder`.

    Raises DatasetError where a file cannot be read or where more than `max_bad_lines` lines in all are bad (the text
    lists the first ten). `on_bytes` is called from several threads with the number of (compressed) bytes just read.
    """
    for source in sources:
        if not source.path.is_file():
            raise DatasetError(f"{source.path}: no such file")
    budget, folder = _BadLineBudget(max_bad_lines), folder.resolve()
    total = sum(source.path.stat().st_size for source in sources)
    with ExitStack() as stack:
        parsers: Executor
        if not ray and (total < SMALL_INPUT_BYTES or workers == 1):
            parsers = stack.enter_context(ThreadPoolExecutor(1))
        else:
            parsers, workers = stack.enter_context(processes_or_ray(workers, ray=ray))
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
    return list(itertools.islice(shown, SHOWN_BAD_LINES))


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
    tally, total = Tally(), _Outcome(0, 0, 0)
    pending: deque[tuple[Path, Future[_Outcome]]] = deque()

    def collect() -> None:
        path, future = pending.popleft()
        outcome = future.result()
        total.n_bad += outcome.n_bad
        tally.n_blank += outcome.n_blank
        budget.take(outcome.n_bad)
        total.bad.extend(outcome.bad[: SHOWN_BAD_LINES - len(total.bad)])
        total.dropped.merge(outcome.dropped)
        total.notes.merge(outcome.notes)
        if outcome.n_rows:
            parts.append(path)
            n_rows.append(outcome.n_rows)

    with source.path.open("rb", buffering=0) as raw:
        tap = _Tap(raw, on_bytes)
        try:
            for place, job in enumerate(jobs(source, tap, tally, total.notes)):
                if budget.spent.is_set():
                    break
                path = folder / f"{source.kind}-{number:04d}-{place:06d}.parquet"
                pending.append((path, parsers.submit(_write_part, job, source.kind, path)))
                if len(pending) >= window:
                    collect()
            while pending:
                collect()
        except (OSError, EOFError, zlib.error, LZMAError, pa.ArrowException, UnicodeError) as cause:
            raise DatasetError(f"{source.path}: cannot be read: {cause}") from cause
        tap.drain()
    made = Ingested(
        source,
        tuple(parts),
        tuple(n_rows),
        tally,
        total.n_bad,
        tuple(total.bad),
        total.dropped,
        total.notes,
        tap.sha256,
    )
    assert made.unaccounted == 0 or budget.spent.is_set(), (
        f"{source.path}: {made.unaccounted} lines are unaccounted for"
    )
    return made


def _write_part(job: Job, kind: str, path: Path) -> _Outcome:
    """Runs in a worker: parse a block and write its records."""
    block: Block = job()
    table = block.table(RECORDS if kind == "reviews" else METADATA)
    if table.num_rows:
        if kind == "reviews":
            texts = pl.DataFrame({"text": pl.Series(table["text"])})
            prints = texts.select(fingerprint(pl.col("text"))).to_series()
            table = table.append_column("fingerprint", prints.to_arrow())
        pq.write_table(table, path, compression="zstd", compression_level=1)
    return _Outcome(table.num_rows, block.n_bad, block.n_blank, block.bad, block.dropped, block.notes)


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
