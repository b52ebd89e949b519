"""The two ends of a distillation on disk: training reviews in, the rationales table out, both as streams.

Memory does not grow with the number of reviews. Knows nothing of teachers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from rdrec_core.replacing import replacing_file
from training.data.dataset import RATIONALES, Dataset, Split

READ_ROWS = 256
"""Reviews that are Python strings at once; with a thousand the heap grows holes of 3 MB."""
WRITE_ROWS = 256
"""Rows that are Python objects at once, at a kilobyte each; as Arrow columns they take a quarter."""
ROW_GROUP = 4096
"""Rows of a row group, held as Arrow columns until it is written. The writer remembers each group until the file is
closed (measured: 23 KB for these twelve columns), so smaller groups make memory grow with the number of reviews."""
_REPEATED = ["verdict", "teacher", "prompt_version"]
"""The columns worth a Parquet dictionary. Rationales are hardly ever alike: a dictionary of them enlarges the file."""


@dataclass(frozen=True)
class Review:
    """One training review and the title of its item (None where unknown)."""

    user_index: int
    item_index: int
    text: str
    title: str | None


def distilled_splits(dataset: Dataset) -> tuple[Split, ...]:
    """Whose reviews a teacher reads: those of training; under `paper` also of validation, whose rationales measure the
    loss of an epoch and train nothing.
    """
    return ("train", "val") if dataset.info.protocol == "paper" else ("train",)


def count_reviews(dataset: Dataset) -> int:
    """How many reviews `reviews_of` yields."""
    chosen = pl.col("split").cast(pl.String).is_in(distilled_splits(dataset))
    return int(dataset.reviews().filter(chosen).select(pl.len()).collect().item())


def reviews_of(dataset: Dataset) -> Iterator[Review]:
    """Reviews of the `distilled_splits` in the file's order; others are never looked at."""
    splits = distilled_splits(dataset)
    titles: list[str | None] = dataset.items["title"].to_list()
    columns = ["user_index", "item_index", "text", "split"]
    with pq.ParquetFile(dataset.path / "reviews.parquet", pre_buffer=False, buffer_size=1 << 16) as file:
        for batch in file.iter_batches(READ_ROWS, columns=columns, use_threads=False):
            for user, item, text, split in zip(*(c.to_pylist() for c in batch.columns), strict=True):
                if split in splits:
                    yield Review(user, item, text, titles[item])


def write_rationales(path: Path, rows: Iterable[Mapping[str, object]]) -> int:
    """RATIONALES rows to a temporary file that takes the place of `path` when it is whole; returns their number."""
    schema = pl.DataFrame(schema=RATIONALES).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    count = 0
    with (
        replacing_file(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd", use_dictionary=_REPEATED) as writer,
    ):
        batches = _batches(iter(rows), schema)
        while group := list(islice(batches, ROW_GROUP // WRITE_ROWS)):
            writer.write_table(pa.Table.from_batches(group))
            count += sum(batch.num_rows for batch in group)
            group.clear()  # before the next one is gathered
    return count


def _batches(rows: Iterator[Mapping[str, object]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    while (batch := pa.RecordBatch.from_pylist(list(islice(rows, WRITE_ROWS)), schema=schema)).num_rows:
        yield batch
