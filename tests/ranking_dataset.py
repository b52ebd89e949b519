"""Datasets of interactions alone, made up in the layout that `rdrec prepare` writes, for tests of evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from training.data.dataset import INTERACTIONS, ITEMS, REVIEWS, USERS, Dataset, DatasetInfo


def write_dataset(
    path: Path, histories: list[list[int]], n_items: int, *, timestamps: list[list[int]] | None = None
) -> Dataset:
    """Histories oldest first; the last item of each is test, the one before validation, the rest training."""
    path.mkdir(parents=True)
    rows = [
        (u, item, place, timestamps[u][place] if timestamps else None, split)
        for u, history in enumerate(histories)
        for place, item in enumerate(history)
        for split in ["test" if place == len(history) - 1 else "val" if place == len(history) - 2 else "train"]
    ]
    pl.DataFrame(rows, schema=INTERACTIONS, orient="row").write_parquet(path / "interactions.parquet")
    pl.DataFrame(schema=REVIEWS).write_parquet(path / "reviews.parquet")
    labels = np.random.default_rng(0).permutation(n_items) + 100
    items = [(i, f"item-{i}", str(labels[i]), f"Thing {i}") for i in range(n_items)]
    pl.DataFrame(items, schema=ITEMS, orient="row").write_parquet(path / "items.parquet")
    users = [(u, f"user-{u}") for u in range(len(histories))]
    pl.DataFrame(users, schema=USERS, orient="row").write_parquet(path / "users.parquet")
    info = DatasetInfo(
        name="made-up", protocol="clean", label_scheme="random", seed=0, n_users=len(histories), n_items=n_items,
        n_interactions=len(rows), n_reviews=0, min_interactions=3, source_sha256={},
    )  # fmt: skip
    (path / "dataset.json").write_text(info.model_dump_json())
    return Dataset(path)


def chained_histories(rng: np.random.Generator, n_users: int, n_items: int) -> list[list[int]]:
    """Users who mostly go from item i to item i + 1: something for a graph to find."""
    histories = []
    for _ in range(n_users):
        item = int(rng.integers(n_items))
        history: list[int] = []
        for _ in range(int(rng.integers(4, 9))):
            while item in history:
                item = int(rng.integers(n_items))
            history.append(item)
            item = (item + 1) % n_items if rng.random() < 0.8 else int(rng.integers(n_items))
        histories.append(history)
    return histories
