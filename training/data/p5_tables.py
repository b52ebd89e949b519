"""What a P5 folder brings beyond histories and texts, as tables: rationales and negatives.

Knows numbers as published and what `histories.py` made of them; not files of the source.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from training.data import histories as h
from training.data.dataset import RATIONALES, Protocol
from training.data.p5 import P5Folder

P5_TEACHER = "p5"


def write_p5_tables(folder: Path, made: h.Histories, p5: P5Folder, protocol: Protocol) -> int:
    """`rationales` and `negatives` where the folder brings them; returns the number of users with negatives."""
    numbers = pl.DataFrame(
        {
            "user": p5.log.user_code[made.source_row].astype(np.int64) + 1,
            "item": p5.log.item_code[made.source_row].astype(np.int64) + 1,
            "user_index": made.user_index,
            "item_index": made.item_index,
            "in_train": made.split == h.TRAIN,
        }
    ).unique(["user", "item"], keep="first", maintain_order=True)
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
