"""`rdrec prepare` without its command line: source files in, a finished dataset folder out.

The order of the work: read -> encode -> repeats, k-core, order, splits -> labels -> tables -> `dataset.json` -> rename.
Nothing has the dataset's name before it is complete.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from polars.io.plugins import register_io_source

from rdrec_core.replacing import replacing_folder
from training.data import histories as h
from training.data.catalogue import CatalogueCounts, write_items
from training.data.continuing import (
    Continued,
    appended_labels,
    keep_rationales,
    require_continuable,
    with_kept_numbers,
)
from training.data.dataset import INTERACTIONS, SPLITS, USERS, Dataset, DatasetInfo
from training.data.labels import (
    IntArray,
    LabelScheme,
    fixed_width_labels,
    item_order,
    published_style_labels,
)
from training.data.p5_tables import write_p5_tables
from training.data.prepare_config import PrepareConfig, checked_scheme
from training.data.reading import read_sources
from training.data.review_table import ReviewCounts, write_reviews
from training.data.sources import Source
from training.data.temporal import cut_moments, split_by_time


@dataclass(frozen=True)
class Prepared:
    """What was written, for the summary."""

    info: DatasetInfo
    source: Source
    n_rows: int
    """Interactions of the source: records that are neither bad nor dropped."""
    n_repeats: int
    n_outside_core: tuple[int, int, int]
    """Users, items, interactions."""
    times: tuple[int, int] | None
    """First and last unix second of the kept interactions; None where none has a time."""
    split_counts: dict[str, int]
    catalogue: CatalogueCounts
    n_negatives: int
    reviews: ReviewCounts
    labels: IntArray
    continued: Continued | None = None
    """What went on, where the dataset stands on an earlier one."""
    events_differ: bool = False
    """Whether some kind of event weighs more than another."""

    @property
    def n_bad(self) -> int:
        """Bad lines of all files."""
        return sum(file.n_bad for file in (*self.source.reviews, *self.source.metadata_files))

    @property
    def bad(self) -> tuple[str, ...]:
        """The first ten of them, `file:line: reason`."""
        return self.source.bad


def prepare(
    config: PrepareConfig,
    *,
    on_bytes: Callable[[int], None] = lambda n: None,
    on_stage: Callable[[str], None] = lambda name: None,
) -> Prepared:
    """Write the dataset folder. `on_bytes` hears of source bytes read (from several threads), `on_stage` of each stage.

    Raises InputError for options that contradict each other, DatasetError for sources that cannot be used; then nothing
    is written.
    """
    scheme = checked_scheme(config)
    previous = None
    if config.previous is not None:
        previous = Dataset(config.previous)
        require_continuable(previous)
        scheme = previous.info.label_scheme  # type: ignore[assignment]
    with replacing_folder(config.out, force=config.force) as folder:
        on_stage("reading")
        source, log, events = read_sources(config, previous, folder / "parts", on_bytes)
        on_stage("histories")
        neutral = config.protocol != "paper"
        made = h.build(
            log,
            core=1 if source.p5 else config.core,
            numbering="neutral" if neutral else "appearance",
            repeats=config.repeats,
            in_order=config.order == "file",
        )
        del log
        cut = cut_moments(config.cut, made.timestamp) if config.protocol == "temporal" else None
        if cut is not None:
            made = replace(made, split=split_by_time(made.timestamp, cut))
        on_stage("labels")
        if previous is not None:
            described = pl.scan_parquet(source.metadata).select("item_id").unique().collect()["item_id"]
            made = with_kept_numbers(made, previous, catalogue=described, forgotten=events.forgotten)
            labels = appended_labels(previous, made.n_items)
            keep_rationales(previous, folder, forgotten=events.forgotten)
        else:
            labels = _labels(scheme, made, source, config)
        on_stage("tables")
        catalogue = _write_catalogue(folder, made, source, labels)
        _write_interactions(folder, made)
        n_negatives = write_p5_tables(folder, made, source.p5, config.protocol) if source.p5 else 0
        on_stage("reviews")
        counts = write_reviews(
            folder / "reviews.parquet",
            made,
            source.texts,
            n_rows=source.n_rows,
            protocol=config.protocol,
            seed=config.seed,
            workers=config.workers,
        )
        shutil.rmtree(folder / "parts", ignore_errors=True)
        info = DatasetInfo(
            name=config.name or (previous.info.name if previous is not None else config.out.name),
            protocol=config.protocol,
            label_scheme=scheme,
            seed=config.seed,
            n_users=made.n_users,
            n_items=made.n_items,
            n_interactions=len(made.user_index),
            n_reviews=counts.n_reviews,
            min_interactions=1 if source.p5 else config.core,
            repeats=config.repeats,
            source_sha256=source.sha256,
            negatives=n_negatives > 0,
            cut=cut,
            events_until=events.last_batch,
        )
        (folder / "dataset.json").write_text(info.model_dump_json(indent=2) + "\n", encoding="utf-8")
    continued = None
    if previous is not None:
        continued = Continued(
            previous.path, previous.info.n_users, previous.info.n_items, events.n_events, events.n_repeated,
            events.forgotten,
        )  # fmt: skip
    by_split = np.bincount(made.split, minlength=len(SPLITS))
    return Prepared(
        info=info,
        source=source,
        n_rows=source.n_rows,
        n_repeats=made.n_repeats,
        n_outside_core=made.n_outside_core,
        times=_first_and_last(made.timestamp),
        split_counts=dict(zip(SPLITS, map(int, by_split), strict=True)),
        catalogue=catalogue,
        n_negatives=n_negatives,
        reviews=counts,
        labels=labels,
        continued=continued,
        events_differ=len(set((config.events or {}).values())) > 1,
    )


def _first_and_last(timestamp: npt.NDArray[np.int64]) -> tuple[int, int] | None:
    known = timestamp >= 0
    if not known.any():
        return None
    return int(timestamp.min(where=known, initial=np.iinfo(np.int64).max)), int(timestamp.max())


def _labels(scheme: LabelScheme, made: h.Histories, source: Source, config: PrepareConfig) -> IntArray:
    if scheme == "original" and source.p5:
        return made.item_codes.astype(np.int64) + 1
    if scheme == "original":
        everything = item_order("sequential", made.user_index, made.item_index, made.n_items, config.seed)
        return published_style_labels(everything)
    train = made.split == h.TRAIN
    order = item_order(scheme, made.user_index[train], made.item_index[train], made.n_items, config.seed)
    return fixed_width_labels(order) if config.protocol != "paper" else published_style_labels(order)


def _write_catalogue(folder: Path, made: h.Histories, source: Source, labels: IntArray) -> CatalogueCounts:
    """`items` and `users`."""
    items = pl.DataFrame(
        {
            "item_index": np.arange(made.n_items, dtype=np.int32),
            "item_id": made.item_ids,
            "label": pl.Series(labels).cast(pl.String),
        }
    )
    users = pl.DataFrame(
        {"user_index": np.arange(made.n_users, dtype=np.int32), "user_id": made.user_ids}, schema=USERS
    )
    users.write_parquet(folder / "users.parquet")
    return write_items(folder / "items.parquet", items, source.metadata, source.titles)


def _write_interactions(folder: Path, made: h.Histories) -> None:
    names = pl.Series(SPLITS, dtype=INTERACTIONS["split"])

    def rows(*_: Any) -> Iterator[pl.DataFrame]:
        for start in range(0, len(made.split), h.ROWS_AT_ONCE):  # not whole: it would be a copy of all arrays
            some = slice(start, start + h.ROWS_AT_ONCE)
            frame = pl.DataFrame(
                {
                    "user_index": made.user_index[some],
                    "item_index": made.item_index[some],
                    "position": made.position[some],
                    "timestamp": made.timestamp[some],
                    "split": names.gather(made.split[some]),
                }
            ).with_columns(pl.col("timestamp").replace(-1, None))
            yield frame.select(pl.col(name).cast(dtype) for name, dtype in INTERACTIONS.items())

    register_io_source(rows, schema=INTERACTIONS).sink_parquet(folder / "interactions.parquet")
