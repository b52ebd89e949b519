"""`rdrec prepare` without its command line: source files in, a finished dataset folder out.

The order of the work: read -> encode -> repeats, k-core, order, splits -> labels -> tables -> `dataset.json` -> rename.
Nothing has the dataset's name before it is complete.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from rdrec_core.errors import DatasetError, InputError
from rdrec_core.replacing import replacing_folder
from training.data import histories as h
from training.data import metadata, reviews
from training.data.catalogue import CatalogueCounts, write_items
from training.data.dataset import INTERACTIONS, SPLITS, USERS, DatasetInfo, Protocol
from training.data.ingest import Ingested, bad_lines, ingest
from training.data.labels import (
    IntArray,
    LabelScheme,
    fixed_width_labels,
    item_order,
    published_style_labels,
)
from training.data.opening import checked_encoding
from training.data.p5 import read_p5
from training.data.p5_tables import write_p5_tables
from training.data.review_table import ReviewCounts, write_reviews
from training.data.reviews import Order
from training.data.source_jobs import Format, SourceFile
from training.data.sources import Source, from_p5, from_parts
from training.data.tables import Quoting
from training.data.temporal import DEFAULT_CUT, cut_moments, split_by_time

DEFAULT_LABELS: dict[Protocol, LabelScheme] = {
    "clean": "collaborative",
    "paper": "original",
    "temporal": "collaborative",
}


class PrepareConfig(BaseModel):
    """What to read, by which rules, and where to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    out: Path
    reviews: tuple[Path, ...] = ()
    metadata: tuple[Path, ...] = ()
    p5: Path | None = None
    name: str | None = None
    """By default the folder's name."""
    format: Format | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    """Role (user, item, text, rating, timestamp, title, event) -> column, or place from 1 in files without header."""
    metadata_format: Format | None = None
    metadata_columns: dict[str, str] = Field(default_factory=dict)
    """Role (item, title, brand, categories, description, features) -> column; `columns` by name hold here too."""
    encoding: str | None = None
    """By default found out by its mark, else UTF-8."""
    separator: str | None = None
    quoting: Quoting = "minimal"
    order: Order = "time"
    """"file": lines are in order of time; then no time is needed."""
    time_format: str | None = None
    """For `datetime.strptime`."""
    min_rating: float | None = None
    """Rows rated lower are dropped; rows without a rating stay."""
    event_column: str | None = None
    events: dict[str, float] | None = None
    """Kind of event -> weight; kinds that are not named are dropped."""
    repeats: h.Repeats = "first"
    core: int = Field(default=1, ge=1)
    """k of the k-core; not applied to P5 folders, which are taken as published."""
    max_bad_lines: int = Field(default=100, ge=0)
    protocol: Protocol = "clean"
    cut: str = DEFAULT_CUT
    """Under `temporal`: where validation and test begin, as shares or dates."""
    labels: LabelScheme | None = None
    """By default `collaborative`; `original` under `paper`."""
    seed: int = 0
    force: bool = False
    workers: int = Field(default=2, ge=1)


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
    scheme = _checked_scheme(config)
    with replacing_folder(config.out, force=config.force) as folder:
        on_stage("reading")
        source = _read(config, folder / "parts", on_bytes)
        on_stage("histories")
        neutral = config.protocol != "paper"
        made = h.build(
            source.log,
            core=1 if source.p5 else config.core,
            numbering="neutral" if neutral else "appearance",
            repeats=config.repeats,
            in_order=config.order == "file",
        )
        cut = cut_moments(config.cut, made.timestamp) if config.protocol == "temporal" else None
        if cut is not None:
            made = replace(made, split=split_by_time(made.timestamp, cut))
        on_stage("labels")
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
            n_rows=len(source.log.user_code),
            protocol=config.protocol,
            seed=config.seed,
            workers=config.workers,
        )
        shutil.rmtree(folder / "parts", ignore_errors=True)
        info = DatasetInfo(
            name=config.name or config.out.name,
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
        )
        (folder / "dataset.json").write_text(info.model_dump_json(indent=2) + "\n", encoding="utf-8")
    by_split = np.bincount(made.split, minlength=len(SPLITS))
    known = made.timestamp[made.timestamp >= 0]
    return Prepared(
        info=info,
        source=source,
        n_rows=len(source.log.user_code),
        n_repeats=made.n_repeats,
        n_outside_core=made.n_outside_core,
        times=(int(known.min()), int(known.max())) if len(known) else None,
        split_counts=dict(zip(SPLITS, map(int, by_split), strict=True)),
        catalogue=catalogue,
        n_negatives=n_negatives,
        reviews=counts,
        labels=labels,
    )


def _checked_scheme(config: PrepareConfig) -> LabelScheme:
    if (config.p5 is None) == (not config.reviews):
        raise InputError("name either review files (--reviews) or a P5 folder (--p5)", field="reviews")
    if config.p5 is not None and (config.columns or config.format) and not config.metadata:
        raise InputError("--columns and --format belong to --reviews and --metadata, not to --p5", field="p5")
    roles = list(dict.fromkeys([*reviews.ROLES, *metadata.ROLES]))
    for option, columns in (("--columns", config.columns), ("--metadata-columns", config.metadata_columns)):
        unknown = sorted(set(columns) - set(roles))
        if unknown:
            raise InputError(f"{option} knows no {', '.join(unknown)}; it takes {', '.join(roles)}", field="columns")
        by_place = {column.isdigit() for column in columns.values()}
        if len(by_place) > 1:
            raise InputError(f"{option} takes either names or places, not both", field="columns")
    if config.encoding is not None:
        checked_encoding(config.encoding)
    if config.p5 is not None and config.protocol == "temporal":
        raise InputError("--protocol temporal needs times, which a P5 folder does not hold", field="protocol")
    if config.order == "file" and config.protocol == "temporal":
        raise InputError("--protocol temporal orders by time; it takes no --order file", field="order")
    if config.labels == "original" and config.protocol != "paper":
        raise InputError(
            "--labels original leaks: its numbers were given over test items too; it needs --protocol paper",
            field="labels",
        )
    if config.out.exists():
        if not config.out.is_dir():
            raise InputError(f"--out {config.out} is a file; name a folder", field="out")
        if not any(config.out.iterdir()):
            config.out.rmdir()
        elif not (config.out / "dataset.json").is_file():
            raise InputError(
                f"--out {config.out} holds something that is not a dataset; choose another folder", field="out"
            )
        elif not config.force:
            raise InputError(f"--out {config.out} exists; choose another folder or pass --force", field="out")
    return config.labels or DEFAULT_LABELS[config.protocol]


def _read(config: PrepareConfig, parts: Path, on_bytes: Callable[[int], None]) -> Source:
    parts.mkdir()
    wanted = reviews.Wanted(
        config.order,
        config.min_rating,
        config.event_column,
        _lower(config.events),
        config.time_format,
        titles_elsewhere=bool(config.metadata),
    )
    by_place = all(column.isdigit() for column in config.columns.values())
    shared = {} if by_place else config.columns  # places are those of the review files
    text = {"encoding": config.encoding, "separator": config.separator, "quoting": config.quoting}
    files = [SourceFile(path, "reviews", config.format, config.columns, wanted, **text) for path in config.reviews]
    files += [
        SourceFile(
            path,
            "metadata",
            config.metadata_format,
            config.metadata_columns or shared,
            shared_columns=not config.metadata_columns,
            **text,
        )
        for path in config.metadata
    ]
    results = (
        ingest(files, parts, max_bad_lines=config.max_bad_lines, workers=config.workers, on_bytes=on_bytes)
        if files
        else []
    )
    read, described = results[: len(config.reviews)], results[len(config.reviews) :]
    if config.p5 is not None:
        return from_p5(read_p5(config.p5, on_bytes), described, own_splits=config.protocol == "paper")
    if not any(file.parts for file in read):
        raise DatasetError(nothing_read(read))
    return from_parts(read, described, weighted=config.events is not None)


def nothing_read(files: list[Ingested]) -> str:
    """Why no review could be read: how many lines there were and what became of them."""
    names = ", ".join(str(file.source.path) for file in files)
    n_lines = sum(file.tally.n_lines for file in files)
    what = [f"{n:,} dropped ({reason}: {first})" for file in files for reason, (n, first) in file.dropped.seen.items()]
    shown = "".join("\n" + line for line in bad_lines(files))
    return f"no review could be read from {names}: {n_lines:,} lines" + "".join(", " + w for w in what) + shown


def _lower(events: dict[str, float] | None) -> dict[str, float] | None:
    return None if events is None else {kind.strip().lower(): weight for kind, weight in events.items()}


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
    frame = pl.DataFrame(
        {
            "user_index": made.user_index,
            "item_index": made.item_index,
            "position": made.position,
            "timestamp": made.timestamp,
            "split": pl.Series(SPLITS, dtype=INTERACTIONS["split"]).gather(made.split),
        }
    ).with_columns(pl.col("timestamp").replace(-1, None))
    frame.select(pl.col(name).cast(dtype) for name, dtype in INTERACTIONS.items()).write_parquet(
        folder / "interactions.parquet"
    )
