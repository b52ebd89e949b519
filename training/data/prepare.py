"""`rdrec prepare` without its command line: source files in, a finished dataset folder out.

The order of the work: read -> encode -> duplicates, k-core, order, splits -> labels -> tables -> `dataset.json` ->
rename.
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
from training.data.catalogue import CatalogueCounts, write_items
from training.data.dataset import INTERACTIONS, RATIONALES, SPLITS, USERS, DatasetInfo, Protocol
from training.data.ingest import SourceFile, bad_lines, ingest
from training.data.labels import (
    IntArray,
    LabelScheme,
    fixed_width_labels,
    item_order,
    published_style_labels,
)
from training.data.metadata import ROLES
from training.data.p5 import P5Folder, read_p5
from training.data.review_table import ReviewCounts, write_reviews
from training.data.reviews import COLUMN_GUESSES, Format
from training.data.sources import Source, from_p5, from_parts
from training.data.temporal import DEFAULT_CUT, cut_moments, split_by_time

DEFAULT_LABELS: dict[Protocol, LabelScheme] = {
    "clean": "collaborative",
    "paper": "original",
    "temporal": "collaborative",
}
P5_TEACHER = "p5"


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
    """Role (user, item, text, rating, timestamp, title, brand, categories, description, features) -> column."""
    min_interactions: int = Field(default=5, ge=1)
    """Not applied to P5 folders, which are taken as published."""
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
    n_rows: int
    """Records read."""
    n_bad: int
    bad: tuple[str, ...]
    n_duplicates: int
    split_counts: dict[str, int]
    catalogue: CatalogueCounts
    n_negatives: int
    reviews: ReviewCounts
    labels: IntArray


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
            min_interactions=1 if source.p5 else config.min_interactions,
            numbering="neutral" if neutral else "appearance",
        )
        cut = cut_moments(config.cut, made.timestamp) if config.protocol == "temporal" else None
        if cut is not None:
            made = replace(made, split=split_by_time(made.timestamp, cut))
        on_stage("labels")
        labels = _labels(scheme, made, source, config)
        on_stage("tables")
        catalogue = _write_catalogue(folder, made, source, labels)
        _write_interactions(folder, made)
        n_negatives = _write_p5_extras(folder, made, source.p5, config.protocol) if source.p5 else 0
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
            min_interactions=1 if source.p5 else config.min_interactions,
            source_sha256=source.sha256,
            negatives=n_negatives > 0,
            cut=cut,
        )
        (folder / "dataset.json").write_text(info.model_dump_json(indent=2) + "\n", encoding="utf-8")
    by_split = np.bincount(made.split, minlength=len(SPLITS))
    return Prepared(
        info=info,
        n_rows=len(source.log.user_code),
        n_bad=source.n_bad,
        bad=source.bad,
        n_duplicates=made.n_duplicates,
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
    roles = list(dict.fromkeys([*COLUMN_GUESSES, *ROLES]))
    unknown = sorted(set(config.columns) - set(roles))
    if unknown:
        raise InputError(f"--columns knows no {', '.join(unknown)}; it takes {', '.join(roles)}", field="columns")
    if config.p5 is not None and config.protocol == "temporal":
        raise InputError("--protocol temporal needs times, which a P5 folder does not hold", field="protocol")
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
    files = [SourceFile(path, "reviews", config.format, config.columns) for path in config.reviews]
    files += [SourceFile(path, "metadata", None, config.columns) for path in config.metadata]
    results = (
        ingest(files, parts, max_bad_lines=config.max_bad_lines, workers=config.workers, on_bytes=on_bytes)
        if files
        else []
    )
    reviews, metadata = results[: len(config.reviews)], results[len(config.reviews) :]
    if config.p5 is not None:
        folder = read_p5(config.p5, on_bytes)
        return from_p5(folder, metadata, bad_lines(results), own_splits=config.protocol == "paper")
    if not any(file.parts for file in reviews):
        raise DatasetError(f"no review could be read from {', '.join(map(str, config.reviews))}")
    return from_parts(reviews, metadata, bad_lines(results))


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


def _write_p5_extras(folder: Path, made: h.Histories, p5: P5Folder, protocol: Protocol) -> int:
    """`rationales` and `negatives` where the folder brings them; returns the number of users with negatives."""
    numbers = pl.DataFrame(
        {
            "user": p5.log.user_code[made.source_row].astype(np.int64) + 1,
            "item": p5.log.item_code[made.source_row].astype(np.int64) + 1,
            "user_index": made.user_index,
            "item_index": made.item_index,
            "in_train": made.split == h.TRAIN,
        }
    )
    if p5.has_rationales:
        rationales = (
            p5.texts.drop_nulls(["user_preference", "item_attributes"])
            .unique(["user", "item"], keep="first", maintain_order=True)
            .join(numbers, on=["user", "item"], how="inner", maintain_order="left")
            # a rationale tells what its review says: under `clean` those of held-out reviews must not be trained on
            .filter(pl.col("in_train") if protocol == "clean" else pl.col("split") == "train")
            .with_columns(verdict=pl.lit("ok"), use=True, teacher=pl.lit(P5_TEACHER), prompt_version=pl.lit(P5_TEACHER))
        )
        unknown = [
            pl.lit(None, dtype).alias(name) for name, dtype in RATIONALES.items() if name not in rationales.columns
        ]
        rationales = rationales.with_columns(unknown)
        rationales.select(pl.col(name).cast(dtype) for name, dtype in RATIONALES.items()).write_parquet(
            folder / "rationales.parquet"
        )
    if not p5.negatives:
        return 0
    users = dict(numbers.select("user", "user_index").unique().iter_rows())
    items = dict(numbers.select("item", "item_index").unique().iter_rows())
    rows = [
        (users[user], [items[i] for i in negatives if i in items])
        for user, negatives in p5.negatives.items()
        if user in users
    ]
    pl.DataFrame(rows, schema={"user_index": pl.Int32, "item_indices": pl.List(pl.Int32)}, orient="row").sort(
        "user_index"
    ).write_parquet(folder / "negatives.parquet")
    return len(rows)
