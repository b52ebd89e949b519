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
from training.data.dataset import RATIONALES, Dataset

READ_ROWS = 1024
ROW_GROUP = 2048


@dataclass(frozen=True)
class Review:
    """One training review and the title of its item (None where unknown)."""

    user_index: int
    item_index: int
    text: str
    title: str | None


def count_training_reviews(dataset: Dataset) -> int:
    """How many reviews `training_reviews` yields."""
    return int(dataset.reviews().filter(pl.col("split") == "train").select(pl.len()).collect().item())


def training_reviews(dataset: Dataset) -> Iterator[Review]:
    """Reviews of the training split in the file's order; those of validation and test are never looked at."""
    titles: list[str | None] = dataset.items["title"].to_list()
    columns = ["user_index", "item_index", "text", "split"]
    with pq.ParquetFile(dataset.path / "reviews.parquet", pre_buffer=False, buffer_size=1 << 16) as file:
        for batch in file.iter_batches(READ_ROWS, columns=columns, use_threads=False):
            for user, item, text, split in zip(*(c.to_pylist() for c in batch.columns), strict=True):
                if split == "train":
                    yield Review(user, item, text, titles[item])


def write_rationales(path: Path, rows: Iterable[Mapping[str, object]]) -> int:
    """RATIONALES rows to a temporary file that takes the place of `path` when it is whole; returns their number."""
    count = 0
    with (
        replacing_file(path) as temporary,
        pq.ParquetWriter(temporary, _arrow([]).schema, compression="zstd") as writer,
    ):
        stream = iter(rows)
        while group := list(islice(stream, ROW_GROUP)):
            writer.write_table(_arrow(group))
            count += len(group)
    return count


def _arrow(rows: list[Mapping[str, object]]) -> pa.Table:
    return pl.DataFrame(rows, schema=RATIONALES, orient="row").to_arrow(compat_level=pl.CompatLevel.oldest())
