"""A prepared dataset of a few users, written as `rdrec prepare` would, for tests of what comes after it."""

from pathlib import Path

import numpy as np
import polars as pl

from training.data.dataset import INTERACTIONS, ITEMS, RATIONALES, REVIEWS, USERS, Dataset, DatasetInfo

FEATURES = ("dice", "cards", "board", "puzzle")


def write_small_dataset(out: Path, *, n_users: int = 30, n_items: int = 40, reviews: bool = True) -> Dataset:
    """Users buy 5 to 9 distinct items; reviews and rationales speak of the item's feature. Deterministic."""
    rng = np.random.default_rng(7)
    out.mkdir(parents=True)
    rows = []
    for user in range(n_users):
        items = rng.permutation(n_items)[: rng.integers(5, 10)]
        for position, item in enumerate(items.tolist()):
            left = len(items) - position
            rows.append((user, item, position, 1000 + position, {1: "test", 2: "val"}.get(left, "train")))
    interactions = pl.DataFrame(rows, schema=INTERACTIONS, orient="row")
    interactions.write_parquet(out / "interactions.parquet")
    labels = [str(1000 + n) for n in range(n_items)]  # two pieces each
    items = [(i, f"B{i:03d}", labels[i], f"Game {i} with {FEATURES[i % 4]}") for i in range(n_items)]
    pl.DataFrame(items, schema=ITEMS, orient="row").write_parquet(out / "items.parquet")
    pl.DataFrame([(u, f"u{u}") for u in range(n_users)], schema=USERS, orient="row").write_parquet(
        out / "users.parquet"
    )
    if reviews:
        texts = [
            (
                u,
                i,
                f"I love it. Great {FEATURES[i % 4]} for my family.",
                5.0,
                f"great {FEATURES[i % 4]} for my family",
                s,
            )
            for u, i, _, _, s in rows
        ]
        pl.DataFrame(texts, schema=REVIEWS, orient="row").write_parquet(out / "reviews.parquet")
        rationales = [
            (u, i, "The user likes games.", f"The item has {FEATURES[i % 4]}.", "ok", True, 1.0, "t", "1", 0, 0, 0.0)
            for u, i, _, _, s in rows
            if s != "test"
        ]
        pl.DataFrame(rationales, schema=RATIONALES, orient="row").write_parquet(out / "rationales.parquet")
    info = DatasetInfo(
        name="small", protocol="clean", label_scheme="random", seed=0, n_users=n_users, n_items=n_items,
        n_interactions=len(rows), n_reviews=len(rows) if reviews else 0, min_interactions=5,
        source_sha256={"made": "up"},
    )  # fmt: skip
    (out / "dataset.json").write_text(info.model_dump_json(), encoding="utf-8")
    return Dataset(out)
