"""The dataset folder: what `rdrec prepare` writes and everything after it reads.

Knows the tables and their columns, not how they came about. Interactions are held as flat NumPy arrays sorted by
(user_index, position); review text stays on disk and is scanned when it is needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict

from rdrec_core.errors import DatasetError, InputError

Split = Literal["train", "val", "test"]
Protocol = Literal["clean", "paper", "temporal"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
_UPTO: dict[str, Split] = {"all": "test", "val": "val", "train": "train"}
SCHEMA_VERSION = 1

_SPLIT = pl.Enum(SPLITS)
INTERACTIONS = {
    "user_index": pl.Int32,
    "item_index": pl.Int32,
    "position": pl.Int32,  # 0-based place in the user's history
    "timestamp": pl.Int64,  # unix seconds; null where the source has none
    "split": _SPLIT,
}
REVIEWS = {
    "user_index": pl.Int32,
    "item_index": pl.Int32,
    "text": pl.String,
    "rating": pl.Float32,  # null where the source has none
    "explanation": pl.String,  # the sentence that the explanation task learns to write; null if the text is empty
    "split": _SPLIT,  # of the review's interaction under `clean`; random over all reviews under `paper`
}
ITEMS = {
    "item_index": pl.Int32,
    "item_id": pl.String,
    "label": pl.String,  # decimal number without sign or leading zeros, unique
    "title": pl.String,  # null where unknown
}
CATALOGUE = {
    "brand": pl.String(),
    "categories": pl.List(pl.String),  # general to special, each once
    "description": pl.String(),
    "features": pl.List(pl.String),
}
"""The catalogue's words beside the title, in the items table too; null where the metadata says nothing."""
ATTRIBUTE = "attribute."
"""Before the name of every further column of the metadata: Float64, String, Boolean or List[String]."""
USERS = {"user_index": pl.Int32, "user_id": pl.String}
RATIONALES = {
    "user_index": pl.Int32,
    "item_index": pl.Int32,
    "user_preference": pl.String,
    "item_attributes": pl.String,
    "verdict": pl.String,  # ok | unparsed | ungrounded (review too short, or rationale not borne out) | other_language
    "use": pl.Boolean,  # whether the row trains: verdict ok, or ungrounded and kept by --keep-ungrounded
    "grounding": pl.Float32,  # 0..1; null where there is no rationale
    "teacher": pl.String,
    "prompt_version": pl.String,
    "prompt_tokens": pl.Int32,
    "completion_tokens": pl.Int32,
    "cost": pl.Float64,
}


def split_upto(interactions: str) -> Split:
    """The last split of what a command's `--interactions` names: all, val or train. Raises InputError for others."""
    if interactions not in _UPTO:
        raise InputError(f"--interactions {interactions!r} should be all, val or train", field="interactions")
    return _UPTO[interactions]


class DatasetInfo(BaseModel):
    """`dataset.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    name: str
    protocol: Protocol
    label_scheme: str
    seed: int
    n_users: int
    n_items: int
    n_interactions: int
    n_reviews: int
    min_interactions: int
    """k of the k-core; 1: none was taken."""
    repeats: Literal["keep", "first", "last"] = "first"
    """Which of a user's interactions with an item are there; with "keep" a user may be recommended what they have."""
    source_sha256: dict[str, str]
    """File name -> hash of every source file."""
    negatives: bool = False
    """Whether `negatives.parquet` (user_index, item_indices) came with the source."""
    cold_items: float = 0.0
    """Share of the items that are hidden from everything but the catalogue and the test (`cold_items.py`)."""
    cut: tuple[int, int] | None = None
    """Under `temporal`: when validation and test begin, in unix seconds."""
    events_until: str | None = None
    """The last batch of `rdrec collect` that is in it; a dataset that goes on from this one takes those after it."""


@dataclass(frozen=True)
class Interactions:
    """Columns of equal length M, sorted by (user_index, position); split is an index into SPLITS."""

    user_index: npt.NDArray[np.int32]
    item_index: npt.NDArray[np.int32]
    position: npt.NDArray[np.int32]
    timestamp: npt.NDArray[np.int64]
    """-1 where unknown."""
    split: npt.NDArray[np.uint8]


class Dataset:
    """A prepared dataset, read lazily. Raises DatasetError where the folder is incomplete or too new."""

    learned_upto: Split = "train"
    """The last split that training learns from."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        info = self.path / "dataset.json"
        if not info.is_file():
            raise DatasetError(
                f"{self.path} is not a dataset folder: dataset.json is missing (make one with `rdrec prepare`)"
            )
        raw = json.loads(info.read_text(encoding="utf-8"))
        if raw.get("schema_version", 0) > SCHEMA_VERSION:
            raise DatasetError(
                f"{info}: schema_version {raw['schema_version']} is newer than {SCHEMA_VERSION}, upgrade rdrec"
            )
        self.info = DatasetInfo.model_validate(raw)

    def _table(self, name: str) -> Path:
        path = self.path / f"{name}.parquet"
        if not path.is_file():
            raise DatasetError(f"{path} is missing; prepare the dataset again")
        return path

    @cached_property
    def interactions(self) -> Interactions:
        """All interactions, train, val and test."""
        frame = pl.read_parquet(self._table("interactions")).sort("user_index", "position")
        return Interactions(
            user_index=frame["user_index"].to_numpy(),
            item_index=frame["item_index"].to_numpy(),
            position=frame["position"].to_numpy(),
            timestamp=frame["timestamp"].fill_null(-1).to_numpy(),
            split=frame["split"].to_physical().cast(pl.UInt8).to_numpy(),
        )

    @cached_property
    def items(self) -> pl.DataFrame:
        """ITEMS, sorted by item_index. The catalogue's further words are in `catalogue`."""
        return pl.read_parquet(self._table("items"), columns=list(ITEMS)).sort("item_index")

    def catalogue(self) -> pl.LazyFrame:
        """ITEMS, CATALOGUE and `attribute.*`, by item_index; take a slice at a time where the catalogue is large.

        Datasets from before these columns have them, all null.
        """
        table = pl.scan_parquet(self._table("items"))
        there = table.collect_schema().names()
        return table.with_columns(pl.lit(None, dtype).alias(n) for n, dtype in CATALOGUE.items() if n not in there)

    @property
    def attributes(self) -> dict[str, pl.DataType]:
        """Name of each further column of the metadata (without `attribute.`) -> its type."""
        schema = self.catalogue().collect_schema()
        return {name.removeprefix(ATTRIBUTE): t for name, t in schema.items() if name.startswith(ATTRIBUTE)}

    @cached_property
    def users(self) -> pl.DataFrame:
        """USERS, sorted by user_index."""
        return pl.read_parquet(self._table("users")).sort("user_index")

    @property
    def has_reviews(self) -> bool:
        """Whether any review with text is there; without, only the two ranking tasks can be trained."""
        return self.info.n_reviews > 0

    def reviews(self) -> pl.LazyFrame:
        """REVIEWS, one row a review with text."""
        return pl.scan_parquet(self._table("reviews"))

    @property
    def rationales_path(self) -> Path:
        """Where `rdrec distill` puts RATIONALES."""
        return self.path / "rationales.parquet"

    def sequences(self, upto: Split) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
        """Histories as CSR: (indptr (n_users + 1,), items (nnz,)), oldest first.

        upto="train" holds training interactions only, "val" training and validation, "test" everything.
        """
        rows = self.interactions
        keep = rows.split <= SPLITS.index(upto)
        counts = np.bincount(rows.user_index[keep], minlength=self.info.n_users)
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), rows.item_index[keep]

    def targets(self, split: Split) -> npt.NDArray[np.int32]:
        """The item to predict for each user, (n_users,): the first in this split, -1 where a user has none."""
        rows = self.interactions
        keep = rows.split == SPLITS.index(split)
        out = np.full(self.info.n_users, -1, dtype=np.int32)
        out[rows.user_index[keep][::-1]] = rows.item_index[keep][::-1]  # of several writes the last one stays
        return out


class WholeDataset(Dataset):
    """The same folder with nothing held out, or the test alone: what a model learns from last."""

    def __init__(self, path: Path | str, *, keep_test: bool = False) -> None:
        super().__init__(path)
        self.learned_upto = "val" if keep_test else "test"

    @cached_property
    def interactions(self) -> Interactions:
        """All interactions, those to learn from all of them training."""
        rows = Dataset(self.path).interactions
        return replace(rows, split=np.where(rows.split <= SPLITS.index(self.learned_upto), np.uint8(0), rows.split))

    def reviews(self) -> pl.LazyFrame:
        """REVIEWS, likewise."""
        learned = pl.col("split").is_in(SPLITS[: SPLITS.index(self.learned_upto) + 1])
        train = pl.lit("train", dtype=_SPLIT)
        return super().reviews().with_columns(split=pl.when(learned).then(train).otherwise("split"))


def learned_upto(stored: Mapping[str, Any]) -> Split:
    """The last split that a stored model learned from, as its record says; older ones say whether any was held out."""
    of_older: Split = "train" if stored.get("held_out", True) else "test"
    found: Split = stored.get("learned_upto", of_older)
    return found
