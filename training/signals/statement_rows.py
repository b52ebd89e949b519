"""Phrases on disk into rows of statements on disk: alike ones merged, counted and bounded, a range of owners at a time.

A review says a thing once, however often. Phrases that are about the same stems with the same polarity are one
statement, in its most common wording. Knows the columns of `phrase_spill.py`, no language.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from training.signals.phrase_spill import MAX_WORDS, code_of

PART_ROWS = 2_000_000
_TONE_MIN = 5
_TONE_GAP = 0.5
"""Stars that a phrase's reviews lie from the mean before its words are taken to praise or blame."""
_PRAISES, _BLAMES = 4, 2
_QUOTED = 3
"""So many statements of an item keep a reviewer's sentence."""
ROWS = {
    "owner": pl.Int32, "text": pl.String, "kind": pl.Int8, "polarity": pl.Int8, "count": pl.UInt32,
    "heard": pl.Float32, "rating": pl.Float32, "item": pl.Int32, "quote": pl.String, "by": pl.List(pl.Int32),
}  # fmt: skip
"""heard: the owner's reviews that speak of it, whatever they say: those that hold a stem, the mean over its stems.
by: the users who say it of an item, empty for a user's own. By owner, the most telling first."""


def tone_of(spilled: pl.LazyFrame) -> dict[str, int]:
    """Keys that go with more, or fewer, stars than usual: 1, or -1."""
    rated = spilled.filter(pl.col("rating").is_not_null() & (pl.col("said") == 0))
    mean = rated.select(pl.col("rating").mean()).collect(engine="streaming").item()
    if mean is None:
        return {}
    # shrunk towards the mean, so that a few reviews do not decide
    by_key = (
        rated.group_by("key")
        .agg(pl.len().alias("n"), (pl.col("rating") - mean).sum().alias("gap"))
        .filter(pl.col("n") >= _TONE_MIN)
        .with_columns((pl.col("gap") / (pl.col("n") + _TONE_MIN)).alias("gap"))
        .filter(pl.col("gap").abs() >= _TONE_GAP)
        .collect(engine="streaming")
    )
    return {key: 1 if gap > 0 else -1 for key, gap in by_key.select("key", "gap").iter_rows()}


def frequencies(spilled: pl.LazyFrame) -> dict[str, int]:
    """How often the commonest keys are said, whatever of."""
    often = spilled.group_by("key").len().filter(pl.col("len") > 1).sort("len", "key", descending=[True, False])
    return dict(often.head(MAX_WORDS).collect(engine="streaming").iter_rows())


def write_rows(
    spilled: pl.LazyFrame,
    heard: pl.LazyFrame,
    tone: dict[str, int],
    frequency: dict[str, int],
    owner: str,
    n_owners: int,
    limit: int,
    folder: Path,
) -> list[Path]:
    """ROWS of every owner («item» or «user»), `limit` each at most, in files that stand in the owners' order."""
    n_rows = int(spilled.select(pl.len()).collect(engine="streaming").item())
    n_parts = max(1, min(n_owners, -(-n_rows // PART_ROWS)))
    files = []
    for part in range(n_parts):
        low, high = part * n_owners // n_parts, (part + 1) * n_owners // n_parts
        mine = pl.col(owner).is_between(low, high - 1)
        frame = spilled.filter(mine).collect(engine="streaming")
        frame = frame.with_columns(_polarity(tone).alias("polarity")).filter(pl.col("polarity") != 0)
        if owner == "item":
            frame = frame.filter(~pl.col("wish"))
        file = folder / f"{owner}-{part:06d}.parquet"
        rows = _merged(frame, owner, limit, frequency)
        own = heard.filter(mine).select(pl.col(owner).alias("owner"), "stem")
        rows.join(_heard(rows, own), on=["owner", "key"], how="left", maintain_order="left").select(*ROWS).cast(
            ROWS
        ).write_parquet(file)  # type: ignore[arg-type]
        files.append(file)
    return files


def _polarity(tone: dict[str, int]) -> pl.Expr:
    """Of the words; where they are silent, of what goes with such words; else of the stars. 0 is neither."""
    rating, said = pl.col("rating"), pl.col("said")
    usual = pl.col("key").replace_strict(tone, default=0, return_dtype=pl.Int8) if tone else pl.lit(0, pl.Int8)
    stars = (
        pl.when(rating.is_null() | (rating >= _PRAISES))
        .then(1)
        .when(rating <= _BLAMES)
        .then(pl.when(usual > 0).then(0).otherwise(-1))
        .otherwise(pl.when(usual != 0).then(usual).otherwise(0))
    )
    return pl.when(said != 0).then(said).when(usual < 0).then(usual).otherwise(stars).cast(pl.Int8)


def _merged(frame: pl.DataFrame, owner: str, limit: int, frequency: dict[str, int]) -> pl.DataFrame:
    """Alike phrases as one row in their most common wording, the first `limit` of each owner."""
    other = "user" if owner == "item" else "item"
    group = [owner, "key", "polarity"]
    wording = (
        frame.group_by(*group, "text", "kind")
        .agg(pl.len().alias("n"), pl.col("quote").drop_nulls().first())
        .sort(*group, "n", "kind", "text", descending=[False, False, False, True, False, False])
        .group_by(group, maintain_order=True)
        .agg(pl.col("text", "kind", "quote").first())
    )
    counted = (
        frame.sort("place")
        .unique([*group, other], keep="last", maintain_order=True)
        .group_by(group, maintain_order=True)
        .agg(
            pl.len().alias("count"),
            pl.col("rating").mean(),
            pl.col("item").last().alias("on"),
            pl.col("user").alias("by"),
        )
    )
    # of statements made as often, the one that is made of many owners is the likelier to be made again
    everywhere = pl.col("key").replace_strict(frequency, default=0, return_dtype=pl.Int64) if frequency else pl.lit(0)
    rows = counted.join(wording, on=group).with_columns(everywhere.alias("everywhere"))
    rows = rows.sort(owner, "count", "everywhere", "text", descending=[False, True, True, False])
    rows = rows.with_columns(pl.int_range(pl.len()).over(owner).alias("place")).filter(pl.col("place") < limit)
    of_item = owner == "item"
    return rows.select(
        pl.col(owner).alias("owner"), "key", "text", "kind", "polarity", "count", "rating",
        (pl.lit(-1) if of_item else pl.col("on")).alias("item"),
        (pl.when(pl.col("place") < _QUOTED).then("quote") if of_item else pl.lit(None)).alias("quote"),
        (pl.col("by") if of_item else pl.lit([], pl.List(pl.Int32))).alias("by"),
    )  # fmt: skip


def _heard(rows: pl.DataFrame, heard: pl.LazyFrame) -> pl.DataFrame:
    """owner, key, heard: how many of the owner's reviews hold a stem of the key, the mean over its stems."""
    keys = rows["key"].unique()
    codes = pl.DataFrame(
        {"key": keys, "stem": [[code_of(stem) for stem in key.split(" ")] for key in keys]},
        schema={"key": pl.String, "stem": pl.List(pl.UInt32)},
    )
    wanted = rows.select("owner", "key").unique().join(codes, on="key").explode("stem").lazy()
    counts = heard.join(wanted, on=["owner", "stem"], how="semi").group_by("owner", "stem").len()
    return (
        wanted.join(counts, on=["owner", "stem"], how="left")
        .group_by("owner", "key")
        .agg(pl.col("len").fill_null(0).mean().alias("heard"))
        .collect(engine="streaming")
    )
