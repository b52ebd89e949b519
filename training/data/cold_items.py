"""A dataset from which some items are hidden: they stay in the catalogue, and nobody has bought them before the test.

Leave-one-out hardly ever asks for an item that nobody has bought, which is what a shop asks of its new ones. Made from
a prepared dataset, so that everything which follows (labels, training, graph, fusion, evaluation) needs to know nothing
of it. Knows tables, not models.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl

from rdrec_core.errors import DatasetError, InputError
from rdrec_core.replacing import replacing_folder
from training.data.dataset import SPLITS, Dataset
from training.data.histories import TEST, TRAIN
from training.data.labels import LabelScheme, fixed_width_labels, item_order

_PAIR = ["user_index", "item_index"]


def hidden_items(n_items: int, share: float, seed: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Which items are hidden, ascending: a share of all, drawn by seed."""
    count = max(1, round(share * n_items))
    return np.sort(np.random.default_rng([seed, 13]).permutation(n_items)[:count])


def hide_items(dataset: Dataset, out: Path, *, share: float, seed: int) -> Dataset:
    """Write a copy of the dataset in which no user bought a hidden item, save as the test item.

    Training and validation interactions with hidden items are gone from all tables, reviews and rationales with them;
    a user whose validation item is hidden has none. Labels are made anew by the dataset's scheme: theirs were placed by
    purchases that are gone. Raises InputError for a share that hides nothing or everything, DatasetError under `paper`.
    """
    info = dataset.info
    if not 0 < share < 1:
        raise InputError(f"--cold-items {share:g} should be a share between 0 and 1, such as 0.1", field="cold_items")
    if info.protocol == "paper":
        raise DatasetError("protocol `paper` labels items by their purchases, so none can be hidden; use `clean`")
    if info.cold_items:
        raise DatasetError(f"{dataset.path} hides {info.cold_items:g} of its items already")
    rows = dataset.interactions
    gone = np.isin(rows.item_index, hidden_items(info.n_items, share, seed)) & (rows.split != TEST)
    train = (rows.split == TRAIN) & ~gone
    if not train.any():
        raise DatasetError(f"--cold-items {share:g} of {info.n_items:,} items leaves no training interaction")
    scheme: LabelScheme = info.label_scheme  # type: ignore[assignment]
    order = item_order(scheme, rows.user_index[train], rows.item_index[train], info.n_items, info.seed)
    lost = pl.LazyFrame({"user_index": rows.user_index[gone], "item_index": rows.item_index[gone]})
    with replacing_folder(out, force=False) as folder:
        interactions = pl.read_parquet(dataset.path / "interactions.parquet").sort("user_index", "position")
        interactions = interactions.filter(pl.Series(~gone)).with_columns(
            position=pl.int_range(pl.len(), dtype=pl.Int32).over("user_index")
        )
        interactions.write_parquet(folder / "interactions.parquet")
        labels = pl.Series("label", fixed_width_labels(order)).cast(pl.String)
        dataset.catalogue().with_columns(labels).collect().write_parquet(folder / "items.parquet")
        for name in ("users", "negatives"):
            if (dataset.path / f"{name}.parquet").is_file():
                shutil.copy(dataset.path / f"{name}.parquet", folder / f"{name}.parquet")
        for path in (dataset.path / "reviews.parquet", dataset.rationales_path):
            if path.is_file():
                kept = pl.scan_parquet(path).join(lost, on=_PAIR, how="anti", maintain_order="left")
                kept.sink_parquet(folder / path.name)
        n_reviews = info.n_reviews
        if (folder / "reviews.parquet").is_file():
            n_reviews = pl.scan_parquet(folder / "reviews.parquet").select(pl.len()).collect().item()
        changed = {"n_interactions": len(interactions), "n_reviews": n_reviews, "cold_items": share}
        text = info.model_copy(update=changed).model_dump_json(indent=2)
        (folder / "dataset.json").write_text(text + "\n", encoding="utf-8")
    return Dataset(out)


def purchases_by_item(dataset: Dataset) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """(N,) training interactions of each item."""
    rows = dataset.interactions
    return np.bincount(rows.item_index[rows.split == SPLITS.index("train")], minlength=dataset.info.n_items)
