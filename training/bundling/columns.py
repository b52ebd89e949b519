"""What the service's filters ask of items: brand, categories, attributes and arrival, from the dataset's tables.

Knows which columns a catalogue has, not how they are kept (`rdrec_core/filters.py`).
"""

from __future__ import annotations

import numpy as np
import polars as pl

from rdrec_core.columns import ColumnType
from rdrec_core.filters import ItemColumns
from training.data.dataset import ATTRIBUTE, SPLITS, Dataset, Split

_TYPES: dict[pl.DataType, ColumnType] = {
    pl.Float64(): "number", pl.Boolean(): "boolean", pl.String(): "text", pl.List(pl.String()): "list",
}  # fmt: skip


def columns_of(dataset: Dataset, upto: Split) -> ItemColumns:
    """The catalogue's columns; an item arrived when it was first bought, as far as that is known up to the split."""
    types = {name: _TYPES[type_] for name, type_ in dataset.attributes.items()}
    wanted = ["brand", "categories", *(f"{ATTRIBUTE}{name}" for name in types)]
    frame = dataset.catalogue().sort("item_index").select(wanted).collect()
    return ItemColumns.of(
        dataset.info.n_items,
        brands=frame["brand"].to_list(),
        categories=frame["categories"].to_list(),
        arrived=_first_bought(dataset, upto),
        attributes={name: (type_, frame[f"{ATTRIBUTE}{name}"].to_list()) for name, type_ in types.items()},
    )


def _first_bought(dataset: Dataset, upto: Split) -> list[float | None]:
    rows = dataset.interactions
    keep = (rows.split <= SPLITS.index(upto)) & (rows.timestamp >= 0)
    first = np.full(dataset.info.n_items, np.inf)
    np.minimum.at(first, rows.item_index[keep], rows.timestamp[keep])
    return [at if at < np.inf else None for at in first.tolist()]
