"""The two kinds of source, review files and a P5 folder, brought to one form: a purchase log, texts, titles.

Knows how parts and P5 folders are laid out; what is done with the log is in `histories.py` and `review_table.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from training.data.explanations import fingerprint
from training.data.histories import PurchaseLog
from training.data.ingest import Ingested, bad_lines
from training.data.p5 import P5Folder
from training.data.review_table import ReviewTexts
from training.data.values import Notes


@dataclass(frozen=True)
class Source:
    """Everything that `prepare` needs of its input beside the log, which is let go as soon as histories are made."""

    n_rows: int
    """Of the log."""
    texts: ReviewTexts
    titles: pl.DataFrame
    """item_id, title as review tables name them; unique item_id. May hold more or fewer items than the log."""
    metadata: tuple[Path, ...]
    """Parts of METADATA, in input order."""
    sha256: dict[str, str]
    reviews: tuple[Ingested, ...] = ()
    """What became of each review file's lines."""
    metadata_files: tuple[Ingested, ...] = ()
    p5: P5Folder | None = None
    n_texts_unplaced: int = 0
    """Records of a P5 folder's explanation file that belong to no interaction, repeat one or have no text."""

    @property
    def bad(self) -> tuple[str, ...]:
        """The first bad lines."""
        return tuple(bad_lines([*self.reviews, *self.metadata_files]))

    @property
    def notes(self) -> Notes:
        """What was guessed in any of the files."""
        notes = Notes()
        for file in (*self.reviews, *self.metadata_files):
            notes.merge(file.notes)
        return notes


class PartTexts:
    """Texts of Parquet parts; a batch is a part."""

    def __init__(self, parts: list[Path], n_rows: list[int]) -> None:
        self._parts = parts
        self._starts = np.concatenate([[0], np.cumsum(n_rows)]).astype(np.int64)

    @property
    def n_batches(self) -> int:
        return len(self._parts)

    def batch(self, number: int) -> pl.DataFrame:
        frame = pl.read_parquet(self._parts[number], columns=["text", "rating"])
        return frame.with_columns(row=int(self._starts[number]) + pl.int_range(pl.len(), dtype=pl.Int64))

    def fingerprints(self) -> npt.NDArray[np.uint64]:
        prints = np.empty(self._starts[-1], dtype=np.uint64)
        for part, start, stop in zip(self._parts, self._starts, self._starts[1:], strict=False):
            prints[start:stop] = pl.read_parquet(part, columns=["fingerprint"])["fingerprint"].to_numpy()
        return prints


class FrameTexts:
    """Texts that are in memory, at most one a row of the log (P5 folders)."""

    def __init__(self, frame: pl.DataFrame, n_rows: int) -> None:
        self._frame = frame
        self._n_rows = n_rows

    @property
    def n_batches(self) -> int:
        return int(self._frame.height > 0)

    def batch(self, number: int) -> pl.DataFrame:
        return self._frame

    def fingerprints(self) -> npt.NDArray[np.uint64]:
        prints = np.zeros(self._n_rows, dtype=np.uint64)
        prints[self._frame["row"].to_numpy()] = self._frame.select(fingerprint(pl.col("text"))).to_series().to_numpy()
        return prints


def from_parts(
    reviews: list[Ingested], metadata: list[Ingested], *, weighted: bool
) -> tuple[Source, PurchaseLog]:  # fmt: skip
    """The source and the log over all parts in input order; weighted: its events have weights."""
    parts = [part for file in reviews for part in file.parts]
    n_rows = [n for file in reviews for n in file.n_rows]
    user_code, user_ids = _encode(parts, "user_id", sum(n_rows))
    item_code, item_ids = _encode(parts, "item_id", sum(n_rows))
    log = PurchaseLog(
        user_code=user_code,
        item_code=item_code,
        timestamp=_column(parts, "timestamp", sum(n_rows)),
        user_ids=user_ids,
        item_ids=item_ids,
        weight=_weights(parts) if weighted else None,
    )
    source = Source(
        n_rows=sum(n_rows),
        texts=PartTexts(parts, n_rows),
        titles=_first_titles(parts, item_ids),
        metadata=tuple(part for file in metadata for part in file.parts),
        sha256=_by_name((file.source.path, file.sha256) for file in (*reviews, *metadata)),
        reviews=tuple(reviews),
        metadata_files=tuple(metadata),
    )
    return source, log


def from_p5(
    folder: P5Folder, metadata: list[Ingested], *, own_splits: bool
) -> tuple[Source, PurchaseLog]:  # fmt: skip
    """The source and the folder's log. Its own explanations are the texts; with own_splits they keep their split."""
    log = folder.log
    rows = pl.DataFrame(
        {"user": log.user_code.astype(np.int64) + 1, "item": log.item_code.astype(np.int64) + 1}
    ).with_row_index("row")
    placed = (
        folder.texts.unique(["user", "item"], keep="first", maintain_order=True)
        .join(rows.unique(["user", "item"], keep="first"), on=["user", "item"], how="inner", maintain_order="left")
        .filter(pl.col("explanation").is_not_null())
        .select(
            pl.col("row").cast(pl.Int64),
            pl.col("explanation").alias("text"),
            pl.lit(None, pl.Float32).alias("rating"),
            "explanation",
            *(["split"] if own_splits else []),
        )
    )
    source = Source(
        n_rows=len(log.user_code),
        texts=FrameTexts(placed, len(log.user_code)),
        titles=_first_titles([], log.item_ids),
        metadata=tuple(part for file in metadata for part in file.parts),
        sha256=folder.sha256 | _by_name((file.source.path, file.sha256) for file in metadata),
        metadata_files=tuple(metadata),
        p5=folder,
        n_texts_unplaced=folder.texts.height - placed.height,
    )
    return source, log


def _encode(parts: list[Path], column: str, n_rows: int) -> tuple[npt.NDArray[np.uint32], pl.Series]:
    """(codes by row, in order of first appearance; the distinct strings by code). Holds the distinct strings only."""
    categories = pl.Categories.random(physical=pl.UInt32)
    dtype = pl.Categorical(categories)
    # Polars forgets the codes of a Categories object that no series refers to any more
    anchor = pl.Series([""]).cast(dtype)
    codes = np.empty(n_rows, dtype=np.uint32)
    start = 0
    for part in parts:
        ids = pl.read_parquet(part, columns=[column])[column].cast(dtype)
        codes[start : start + len(ids)] = ids.to_physical().to_numpy()
        start += len(ids)
    distinct = categories.to_series()
    assert start == n_rows
    del anchor
    return codes, distinct


def _column(parts: list[Path], column: str, n_rows: int) -> npt.NDArray[np.int64]:
    values = np.empty(n_rows, dtype=np.int64)
    start = 0
    for part in parts:
        batch = pl.read_parquet(part, columns=[column])[column].fill_null(-1).to_numpy()
        values[start : start + len(batch)] = batch
        start += len(batch)
    return values


def _weights(parts: list[Path]) -> npt.NDArray[np.float32]:
    columns = [pl.read_parquet(part, columns=["weight"])["weight"].to_numpy() for part in parts]
    return np.concatenate([np.empty(0, dtype=np.float32), *columns])


def _first_titles(parts: list[Path], item_ids: pl.Series) -> pl.DataFrame:
    """The first title of each item of `item_ids` over the parts; titles of other items are not kept in memory."""
    known = item_ids.alias("item_id").to_frame()
    found = [pl.DataFrame(schema={"item_id": pl.String, "title": pl.String})]
    for part in parts:
        titles = pl.read_parquet(part, columns=["item_id", "title"]).drop_nulls("title")
        if titles.height:
            first = titles.unique("item_id", keep="first", maintain_order=True)
            found.append(first.join(known, on="item_id", how="semi", maintain_order="left"))
    return pl.concat(found).unique("item_id", keep="first", maintain_order=True)


def _by_name(files: Iterable[tuple[Path, str]]) -> dict[str, str]:
    """File name -> hash; the whole path where two files share a name."""
    listed = list(files)
    names = [path.name for path, _ in listed]
    return {(path.name if names.count(path.name) == 1 else str(path)): sha for path, sha in listed}
