"""Interactions of a Parquet file taken as whole columns, where no row of a batch needs a second look.

Row by row a hundred million interactions take hours, and a log without texts seldom holds anything to judge. A batch
with a single doubtful value is left to `records.py`, so that what a value means is decided in one place. Knows columns
only.
"""

from __future__ import annotations

import polars as pl
import pyarrow as pa

from training.data.reviews import RECORDS, ReviewNames
from training.data.times import PLAIN_SECONDS
from training.data.values import MAX_ID
from training.data.words import NOTHING

_PLAIN_ID = rf"^[!-*,-~]{{1,{MAX_ID}}}$"
"""Visible ASCII without the plus sign, which a number that a spreadsheet has shortened would have."""
_TICKS = {"ms": 10**3, "us": 10**6, "ns": 10**9}


def plain_records(batch: pa.RecordBatch, names: ReviewNames) -> pa.Table | None:
    """The batch as RECORDS, or None where `review_row` would refuse, drop, note or change something of any row."""
    wanted = names.wanted
    if names.text is not None or names.title is not None or names.event is not None:
        return None
    frame = pl.DataFrame(pl.from_arrow(batch))
    user, item = _ids(frame[names.user]), _ids(frame[names.item[0]])
    if user is None or item is None:
        return None
    seconds = pl.Series([None], dtype=pl.Int64).new_from_index(0, frame.height)
    if names.timestamp is not None:
        found = _seconds(frame[names.timestamp])
        if found is None:
            return None
        seconds = found
    stars = pl.Series([None], dtype=pl.Float32).new_from_index(0, frame.height)
    if names.rating is not None:
        given = frame[names.rating]
        if not given.dtype.is_integer() and not given.dtype.is_float():
            return None
        given = given.cast(pl.Float64)
        given = given.to_frame("r").select(pl.when(pl.col("r").is_finite()).then("r"))["r"]
        if wanted.min_rating is not None and (given < wanted.min_rating).any():
            return None
        stars = given.cast(pl.Float32)
        if stars.is_infinite().any():  # more than a float32 holds
            return None
    rows = pl.DataFrame(
        {"user_id": user, "item_id": item, "timestamp": seconds, "rating": stars}
    ).with_columns(text=pl.lit(""), title=pl.lit(None, pl.String), weight=pl.lit(1.0, pl.Float32))  # fmt: skip
    return rows.select(RECORDS.names).to_arrow().cast(RECORDS)


def _ids(column: pl.Series) -> pl.Series | None:
    """Every value as the id that it is, None where one is no plain text or whole number."""
    if column.null_count():
        return None
    if column.dtype.is_integer():
        return column.cast(pl.String)
    if column.dtype in (pl.Categorical, pl.Enum):
        column = column.cast(pl.String)
    if column.dtype != pl.String:
        return None
    nothing = column.str.len_bytes() <= max(map(len, NOTHING))
    plain = column.str.contains(_PLAIN_ID).all() and not column.str.ends_with(".0").any()
    return column if plain and not column.filter(nothing).str.to_lowercase().is_in(list(NOTHING)).any() else None


def _seconds(column: pl.Series) -> pl.Series | None:
    """Unix seconds, None where a value is missing or no plain number of them."""
    if isinstance(column.dtype, pl.Datetime):
        column = column.to_physical() // _TICKS[column.dtype.time_unit]
    low, high = PLAIN_SECONDS
    if not column.dtype.is_integer() or column.null_count() or not column.is_between(low, high - 1).all():
        return None
    return column.cast(pl.Int64)
