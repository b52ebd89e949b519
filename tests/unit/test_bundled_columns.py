"""What filters ask of a bundle is what stands in the dataset's items, with the time of an item's first purchase."""

from pathlib import Path

import numpy as np
import polars as pl

from rdrec_core.bundle import BundleWriter
from rdrec_core.filters import ItemColumns, Where
from tests.small_dataset import write_small_dataset
from training.bundling.columns import columns_of
from training.data.dataset import Dataset


def test_columns_are_the_catalogues_and_come_through_a_bundles_arrays(tmp_path: Path) -> None:
    dataset = write_small_dataset(tmp_path / "small", reviews=False)
    n = dataset.info.n_items
    items = pl.read_parquet(dataset.path / "items.parquet").with_columns(
        brand=pl.Series([None, *(f"brand {i % 3}" for i in range(1, n))]),
        categories=pl.Series([["Toys", f"shelf {i % 4}"] if i % 5 else None for i in range(n)]),
        **{
            "attribute.price": pl.Series([float(i) if i % 2 else None for i in range(n)]),
            "attribute.a/b": pl.Series([f"word {i % 2}" for i in range(n)]),
            "attribute.new": pl.Series([i < 3 for i in range(n)]),
            "attribute.tags": pl.Series([["x", "y"] if i == 4 else None for i in range(n)], dtype=pl.List(pl.String)),
        },
    )
    items.sample(fraction=1.0, shuffle=True, seed=1).write_parquet(dataset.path / "items.parquet")
    BundleWriter(tmp_path).add_arrays("columns", columns_of(Dataset(dataset.path), "test").arrays())
    files = (tmp_path / "arrays" / "columns").glob("*.npy")
    columns = ItemColumns.from_arrays({file.stem: np.load(file, mmap_mode="r") for file in files}, n)
    assert columns.fields == {
        "a/b": "text", "arrived": "number", "brand": "text", "category": "list", "new": "boolean", "price": "number",
        "tags": "list",
    }  # fmt: skip
    where = Where.parse({"category": "shelf 1", "brand": "brand 0", "price": {"gt": 3}, "a/b": "word 1"})
    expected = [i for i in range(n) if i % 5 and i % 4 == 1 and i and i % 3 == 0 and i % 2 and i > 3]
    assert np.flatnonzero(columns.mask(where).items).tolist() == expected != []
    rows = dataset.interactions
    first = {int(i): int(rows.timestamp[rows.item_index == i].min()) for i in set(rows.item_index.tolist())}
    for at in sorted(set(first.values())):
        mask = columns.mask(Where.parse({"arrived": at})).items
        assert set(np.flatnonzero(mask).tolist()) == {i for i, when in first.items() if when == at}
