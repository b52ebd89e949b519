"""A dataset that goes on from an earlier one: numbers and labels stay, what is new is appended, the holdout moves on.

The earlier dataset is read as if it were the first of the source files, so that repeats, splits, reviews and catalogue
are made by the code that makes every dataset; only its numbers are put back afterwards. A user who was forgotten keeps
a number without a name and nothing else. Knows tables and numbers, not the order of the work (`prepare.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from rdrec_core.errors import InputError
from rdrec_core.file_hash import file_sha256
from training.data.dataset import ATTRIBUTE, RATIONALES, Dataset
from training.data.event_log import EVENTS, PURCHASE, batch_of, log_files, read_log, settled
from training.data.explanations import fingerprint
from training.data.histories import Histories
from training.data.ingest import Ingested
from training.data.labels import IntArray
from training.data.source_jobs import SourceFile
from training.data.tables import Tally
from training.data.values import Notes

_ROWS_A_PART = 100_000
_RECORD = {
    "user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "rating": pl.Float32, "text": pl.String,
    "title": pl.String, "weight": pl.Float32, "fingerprint": pl.UInt64,
}  # fmt: skip
_DESCRIBED = {
    "item_id": pl.String, "title": pl.String, "brand": pl.String, "categories": pl.List(pl.String),
    "description": pl.String, "features": pl.List(pl.String),
    "attributes": pl.List(pl.Struct({"name": pl.String, "values": pl.List(pl.String)})),
}  # fmt: skip


@dataclass(frozen=True)
class Continued:
    """What went on, for the summary."""

    previous: Path
    n_users: int
    n_items: int
    """Of the earlier dataset."""
    n_events: int
    """Records of the event log."""
    n_repeated: int
    """Records of the log that repeat an earlier one's event_id."""
    forgotten: tuple[str, ...]
    """Users of whom the log says that they were forgotten."""


def require_continuable(previous: Dataset) -> None:
    """Raise InputError where numbers of this dataset cannot be kept."""
    info = previous.info
    if info.protocol == "paper" or info.negatives:
        raise InputError(
            f"--previous {previous.path} was published with its own numbers; only a dataset of `rdrec prepare"
            " --reviews` goes on", field="previous",
        )  # fmt: skip
    if info.cold_items:
        raise InputError(
            f"--previous {previous.path} hides items for a measurement; name the whole one", field="previous"
        )


@dataclass(frozen=True)
class ReadEvents:
    """An event log in the form of parts, and what was in it."""

    parts: tuple[Ingested, ...] = ()
    n_events: int = 0
    n_repeated: int = 0
    forgotten: tuple[str, ...] = ()
    last_batch: str | None = None


def read_events(
    paths: Collection[Path], folder: Path, weights: dict[str, float] | None, *, after: str | None
) -> ReadEvents:
    """The event log as parts in the form of reviews; kinds without weight are dropped, and counted.

    weights None: purchases alone. after: the last batch that was read already; it and those before it are left out.
    """
    wanted = {PURCHASE: 1.0} if weights is None else weights
    files = [file for path in paths for file in log_files(path) if after is None or (batch_of(file) or "~") > after]
    if not files:
        return ReadEvents(last_batch=after)
    bad, dropped = Notes(), Notes()
    frames = [read_log(file, bad) for file in files]
    everything = pl.concat(frames) if frames else pl.DataFrame(schema=EVENTS)
    events, n_repeated, forgotten = settled(everything)
    for kind, n in events.group_by("event").len().sort("event").iter_rows():
        if wanted.get(kind, 0.0) <= 0:
            dropped.add(f"kind of event not chosen by --events: {kind}", f"{n:,} times", n)
    kept = events.with_columns(
        weight=pl.col("event").replace_strict(wanted, default=0.0, return_dtype=pl.Float32)
    ).filter(pl.col("weight") > 0)
    rows = kept.select(
        "user_id", "item_id", pl.col("timestamp").cast(pl.Int64), pl.lit(None, pl.Float32).alias("rating"),
        pl.lit("").alias("text"), pl.lit(None, pl.String).alias("title"), "weight",
        pl.lit(0, pl.UInt64).alias("fingerprint"),
    )  # fmt: skip
    digest = hashlib.sha256(b"".join(file_sha256(file).encode() for file in files)).hexdigest()
    part = _part(rows, folder / "events.parquet", files[0].parent, digest, dropped)
    return ReadEvents(
        (replace(part, notes=bad),), everything.height, n_repeated, tuple(forgotten),
        max(filter(None, [after, *map(batch_of, files)]), default=None),
    )  # fmt: skip


def previous_parts(
    previous: Dataset, folder: Path, *, forgotten: Collection[str], weight: float
) -> tuple[list[Ingested], list[Ingested]]:
    """Interactions with their reviews, and the catalogue, in the form of parts; without the forgotten users.

    weight: what an earlier interaction weighs beside the new events.
    """
    rows = previous.interactions
    frame = pl.DataFrame({"user_index": rows.user_index, "item_index": rows.item_index, "timestamp": rows.timestamp})
    items = previous.items.select("item_index", "item_id", "title")
    frame = (
        frame.join(previous.users, on="user_index", how="left", maintain_order="left")
        .join(items, on="item_index", how="left", maintain_order="left")
        .with_columns(pl.col("timestamp").replace(-1, None))
    )
    if previous.has_reviews:
        texts = previous.reviews().select("user_index", "item_index", "rating", "text").collect()
        texts = texts.unique(["user_index", "item_index"], keep="first")
        frame = frame.join(texts, on=["user_index", "item_index"], how="left", maintain_order="left")
    else:
        frame = frame.with_columns(rating=pl.lit(None, pl.Float32), text=pl.lit(""))
    frame = frame.filter(~pl.col("user_id").is_in(list(forgotten))).with_columns(
        pl.col("text").fill_null(""), weight=pl.lit(weight, pl.Float32)
    )
    frame = frame.with_columns(fingerprint=fingerprint(pl.col("text"))).select(*_RECORD)
    digest = file_sha256(previous.path / "dataset.json")  # which holds the hashes of what it was made from
    return (
        [_part(frame, folder / "previous.parquet", previous.path, digest)],
        [_part(_described(previous), folder / "previous-items.parquet", previous.path, digest)],
    )


def _described(previous: Dataset) -> pl.DataFrame:
    """The catalogue with its attributes in the form in which metadata is read."""
    items = previous.catalogue().collect()
    values = []
    for name, kind in previous.attributes.items():
        column = pl.col(f"{ATTRIBUTE}{name}")
        listed = column if isinstance(kind, pl.List) else pl.concat_list(_as_text(column, kind))
        values.append(pl.struct(pl.lit(name).alias("name"), pl.when(column.is_not_null()).then(listed).alias("values")))
    attributes = pl.concat_list(values) if values else pl.lit(None, _DESCRIBED["attributes"])
    present = attributes.list.filter(pl.element().struct.field("values").is_not_null()) if values else attributes
    return items.with_columns(attributes=present).select(
        pl.col(name).cast(dtype) for name, dtype in _DESCRIBED.items()
    )  # fmt: skip


def _as_text(column: pl.Expr, kind: pl.DataType) -> pl.Expr:
    return column.cast(pl.String).str.strip_suffix(".0") if kind == pl.Float64 else column.cast(pl.String)


def _part(
    frame: pl.DataFrame, path: Path, source: Path, sha256: str, dropped: Notes | None = None
) -> Ingested:  # fmt: skip
    parts, counts = [], []
    for number, start in enumerate(range(0, frame.height, _ROWS_A_PART)):
        parts.append(path.with_name(f"{path.stem}-{number:06d}.parquet"))
        rows = frame.slice(start, _ROWS_A_PART)
        rows.write_parquet(parts[-1])
        counts.append(rows.height)
    left_out = dropped or Notes()
    tally = Tally(n_lines=frame.height + left_out.total)
    kind = "reviews" if "fingerprint" in frame.columns else "metadata"
    return Ingested(
        SourceFile(source, kind), tuple(parts), tuple(counts), tally, 0, (), left_out, Notes(), sha256
    )  # fmt: skip


def with_kept_numbers(
    made: Histories, previous: Dataset, *, catalogue: pl.Series, forgotten: Collection[str]
) -> Histories:
    """The same histories under the numbers of the earlier dataset, new users and items behind them by their ids.

    catalogue: ids that metadata describes; an item that nobody has bought yet is one too. Users and items without
    interactions stay, and so does the number of a forgotten user, under a name that says so.
    """
    names = previous.users.select(
        pl.when(pl.col("user_id").is_in(list(forgotten)))
        .then(pl.format("(forgotten {})", "user_index"))
        .otherwise("user_id")
        .alias("user_id")
    )["user_id"]
    users = _appended(names, made.user_ids)
    items = _appended(previous.items["item_id"], pl.concat([made.item_ids, catalogue]).unique().sort())
    user_number, item_number = _places(made.user_ids, users), _places(made.item_ids, items)
    user_index = user_number[made.user_index]
    order = np.lexsort((made.position, user_index))
    return replace(
        made,
        user_index=user_index[order],
        item_index=item_number[made.item_index][order],
        position=made.position[order],
        timestamp=made.timestamp[order],
        split=made.split[order],
        source_row=made.source_row[order],
        user_ids=users,
        item_ids=items,
        item_codes=np.empty(0, dtype=np.uint32),
    )


def _appended(known: pl.Series, found: pl.Series) -> pl.Series:
    new = found.filter(~found.is_in(known.implode()))
    return pl.concat([known.rename("id"), new.rename("id")])


def _places(ids: pl.Series, table: pl.Series) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    places = pl.DataFrame({"id": table, "place": np.arange(len(table), dtype=np.int32)})
    found = ids.alias("id").to_frame().join(places, on="id", how="left", maintain_order="left")["place"]
    return found.to_numpy().astype(np.int32)


def appended_labels(previous: Dataset, n_items: int) -> IntArray:
    """Labels (n_items,): the earlier ones, and the numbers after the greatest for what is new."""
    known = previous.items["label"].cast(pl.Int64).to_numpy()
    n_new = n_items - len(known)
    return np.concatenate([known, known.max() + 1 + np.arange(n_new)]).astype(np.int64)


def keep_rationales(previous: Dataset, folder: Path, *, forgotten: Collection[str]) -> None:
    """Copy what was distilled so far; nothing of forgotten users."""
    if not previous.rationales_path.is_file():
        return
    gone = previous.users.lazy().filter(pl.col("user_id").is_in(list(forgotten))).select("user_index")
    kept = pl.scan_parquet(previous.rationales_path).join(gone, on="user_index", how="anti", maintain_order="left")
    kept.select(*RATIONALES).sink_parquet(folder / "rationales.parquet")
