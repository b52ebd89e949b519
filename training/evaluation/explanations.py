"""One explanation evaluation put together: a sentence written for each held-out review, compared with the user's own.

Knows the dataset's reviews and an engine; how texts are compared is `text_metrics`.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console

from rdrec_core.errors import DatasetError
from rdrec_core.types import Task, TextRequest
from training.data.dataset import Dataset, Split
from training.evaluation.protocol import PAPER_WARNING
from training.evaluation.systems import System
from training.evaluation.tables import progress_bar

_TEXTS_AT_ONCE = 64


def evaluate_explanations(
    system: System, dataset: Dataset, *, split: Split, limit: int | None, seed: int, console: Console
) -> tuple[dict[str, Any], pl.DataFrame]:
    """The record, and a row a review: user_index, item_index, explanation (the user's), written (the model's).

    Raises DatasetError where the model writes no explanations or the split has none to compare with.
    """
    from training.evaluation.text_metrics import score_texts

    if Task.EXPLANATION not in system.text_tasks:
        raise DatasetError(f"{system.path} was not trained on explanations; the dataset needs reviews")
    rows = (
        dataset.reviews()
        .filter((pl.col("split") == split) & (pl.col("explanation").str.len_bytes() > 0))
        .select("user_index", "item_index", "explanation")
        .sort("user_index", "item_index")
        .collect()
    )
    if rows.is_empty():
        raise DatasetError(f"{dataset.path} has no {split} reviews with an explanation to compare with")
    if limit is not None and limit < len(rows):
        rows = rows[np.sort(np.random.default_rng(seed).permutation(len(rows))[:limit])]
    requests = [
        TextRequest(Task.EXPLANATION, user, item) for user, item in rows.select("user_index", "item_index").iter_rows()
    ]
    written: list[str] = []
    started = time.perf_counter()
    with progress_bar(console) as bar:
        row = bar.add_task("explanations", total=len(requests))
        for at in range(0, len(requests), _TEXTS_AT_ONCE):
            written += system.engine.generate_text(requests[at : at + _TEXTS_AT_ONCE])
            bar.update(row, completed=len(written))
    seconds = time.perf_counter() - started
    metrics = score_texts(written, rows["explanation"].to_list())
    info = dataset.info
    record = {
        "task": "explanation", "split": split, "dataset": info.name, "protocol": info.protocol,
        "warning": PAPER_WARNING if info.protocol == "paper" else None, "seed": seed, "limit_users": limit,
        "n_users": rows["user_index"].n_unique(), "n_texts": len(rows), "texts_per_s": len(rows) / seconds,
        "metrics": metrics, **metrics, "source_sha256": info.source_sha256, "path": str(system.path), **system.facts,
    }  # fmt: skip
    return record, rows.with_columns(pl.Series("written", written))
