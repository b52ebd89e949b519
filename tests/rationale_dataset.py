"""A dataset folder with the tables that distillation reads, from plain review texts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import polars as pl

from training.data.dataset import ITEMS, REVIEWS, DatasetInfo

ROWS_PER_GROUP = 20_000
"""As many as `rdrec prepare` puts into a row group at most."""


def write_dataset(folder: Path, reviews: Iterable[tuple[str, str]], titles: tuple[str | None, ...] = (None,)) -> Path:
    """One user a review, in order; the reviews take turns over the items. (text, split) -> the folder."""
    folder.mkdir(parents=True)
    rows = [(n, n % len(titles), text, 5.0, None, split) for n, (text, split) in enumerate(reviews)]
    pl.DataFrame(rows, schema=REVIEWS, orient="row").write_parquet(
        folder / "reviews.parquet", row_group_size=ROWS_PER_GROUP
    )
    items = [(n, f"B{n:09d}", str(n + 1), title) for n, title in enumerate(titles)]
    pl.DataFrame(items, schema=ITEMS, orient="row").write_parquet(folder / "items.parquet")
    info = DatasetInfo(
        name="test",
        protocol="clean",
        label_scheme="shuffled",
        seed=0,
        n_users=len(rows),
        n_items=len(titles),
        n_interactions=len(rows),
        n_reviews=len(rows),
        min_interactions=1,
        source_sha256={},
    )
    (folder / "dataset.json").write_text(info.model_dump_json(), encoding="utf-8")
    return folder


def write_many(folder: Path, n: int, sentence: str) -> Path:
    """A dataset of n training reviews, each its number and the sentence, ten to an item of one title; no tuples."""
    write_dataset(folder, [], titles=tuple(f"Puzzle {item}" for item in range(-(-n // 10))))
    info = DatasetInfo.model_validate_json((folder / "dataset.json").read_text(encoding="utf-8"))
    info = info.model_copy(update={"n_users": n, "n_interactions": n, "n_reviews": n})
    (folder / "dataset.json").write_text(info.model_dump_json(), encoding="utf-8")
    numbers = pl.int_range(n, dtype=pl.Int32, eager=True)
    text = pl.format("{} {}", pl.col("user_index"), pl.lit(sentence))
    frame = pl.LazyFrame({"user_index": numbers, "item_index": numbers // 10}).select(
        "user_index", "item_index", text=text, rating=pl.lit(5.0), explanation=text, split=pl.lit("train")
    )
    frame.cast(REVIEWS).sink_parquet(folder / "reviews.parquet", row_group_size=ROWS_PER_GROUP)
    return folder
