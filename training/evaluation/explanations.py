"""One explanation evaluation put together: four ways of explaining each held-out purchase, in one table.

As served (statements, and the model's text where they bear it out), the model alone, the commonest statement of the
item, and everybody's commonest sentence. Knows the dataset, an engine and statements; how texts are held against
reviews is `told.py`'s.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console

from rdrec_core.errors import DatasetError
from rdrec_core.explaining import Explained, Explainer
from rdrec_core.frames import Frames
from rdrec_core.statements import Statements
from rdrec_core.types import Task, TextRequest
from training.data.dataset import Dataset, Split
from training.evaluation.protocol import PAPER_WARNING
from training.evaluation.systems import System, fused_graph
from training.evaluation.tables import progress_bar
from training.evaluation.told import Asked, Judge, Told
from training.signals.remembered import TextEncoder

SERVED, MODEL, COMMONEST, EVERYBODY = (
    "as served", "the model alone", "the item's commonest statement", "everybody's commonest sentence",
)  # fmt: skip
_TEXTS_AT_ONCE = 64
_EVIDENCE = 5


def evaluate_explanations(
    system: System,
    dataset: Dataset,
    statements: Statements,
    *,
    split: Split,
    limit: int | None,
    seed: int,
    console: Console,
    encoder: TextEncoder | None = None,
) -> tuple[dict[str, Any], pl.DataFrame]:
    """The record, whose top level is the row as served, and a row a purchase and way of explaining (`Judge.columns`).

    encoder: None measures by stems alone. Raises DatasetError where the split has no sentences to compare with.
    """
    asked = _asked(dataset, split, limit, seed)
    titles = dataset.items["title"].to_list()
    explainer = Explainer(statements, Frames(), lambda item: titles[item])
    judge = Judge(dataset, asked, explainer, encoder)
    written = _written(system, Task.EXPLANATION, asked, console)
    served, seconds = _served(system, dataset, explainer, asked, written, split)
    rows = {SERVED: [_told(answer) for answer in served]}
    if written is not None:
        preferences = _written(system, Task.USER_PREFERENCE, asked, console) or [None] * len(asked)
        rows[MODEL] = [Told(text, (text,), preference=own) for text, own in zip(written, preferences, strict=True)]
    rows[COMMONEST] = [_commonest(explainer, item) for item in asked.rows["item_index"]]
    everybody = _everybodys(dataset)
    rows[EVERYBODY] = [Told(everybody, (everybody,)) for _ in range(len(asked))]
    measured = {name: judge.columns(told) for name, told in rows.items()}
    metrics = {name: {k: _plain(v) for k, v in columns.items()} for name, (columns, _) in measured.items()}
    info = dataset.info
    record = {
        "task": "explanation", "split": split, "dataset": info.name, "protocol": info.protocol,
        "warning": PAPER_WARNING if info.protocol == "paper" else None, "seed": seed, "limit_users": limit,
        "n_users": asked.rows["user_index"].n_unique(), "n_texts": len(asked), **judge.facts(),
        "ms_a_text": 1000 * seconds / len(asked), "basis": dict(Counter(answer.basis for answer in served)),
        "refused": dict(Counter(answer.refused for answer in served if answer.refused is not None)),
        "main": SERVED, "rows": metrics, "metrics": metrics[SERVED], **metrics[SERVED],
        "source_sha256": info.source_sha256, "path": str(system.path), **system.facts,
    }  # fmt: skip
    table = pl.concat(frame.with_columns(pl.lit(name).alias("system")) for name, (_, frame) in measured.items())
    return record, table


def _asked(dataset: Dataset, split: Split, limit: int | None, seed: int) -> Asked:
    if not dataset.has_reviews:
        raise DatasetError(f"{dataset.path} has no reviews with text, so no explanation can be held against any")
    reviews = dataset.reviews().filter((pl.col("split") == split) & (pl.col("explanation").str.len_bytes() > 0))
    columns = ["user_index", "item_index", "text", "explanation"]
    rows = reviews.select(columns).sort("user_index", "item_index").collect()
    if rows.is_empty():
        raise DatasetError(f"{dataset.path} has no {split} reviews with an explanation to compare with")
    if limit is not None and limit < len(rows):
        rows = rows[np.sort(np.random.default_rng(seed).permutation(len(rows))[:limit])]
    return Asked(rows, dataset.sequences("train" if split == "val" else "val"))


def _written(system: System, task: Task, asked: Asked, console: Console) -> list[str] | None:
    """What the model writes for each purchase; None where it was not trained to."""
    if task not in system.text_tasks:
        return None
    item = task is Task.EXPLANATION
    wanted = [
        TextRequest(task, user, at if item else None)
        for user, at in asked.rows.select("user_index", "item_index").iter_rows()
    ]
    distinct = list(dict.fromkeys(wanted))
    texts: dict[TextRequest, str] = {}
    with progress_bar(console) as bar:
        row = bar.add_task(task.name.lower(), total=len(distinct))
        for at in range(0, len(distinct), _TEXTS_AT_ONCE):
            part = distinct[at : at + _TEXTS_AT_ONCE]
            texts.update(zip(part, system.engine.generate_text(part), strict=True))
            bar.update(row, completed=len(texts))
    return [texts[request] for request in wanted]


def _served(
    system: System,
    dataset: Dataset,
    explainer: Explainer,
    asked: Asked,
    written: Sequence[str] | None,
    split: Split,
) -> tuple[list[Explained], float]:
    """As `/explain` answers, with the items of the history that the graph names, and how long that took in seconds."""
    upto: Split = "train" if split == "val" else "val"
    graph = fused_graph(dataset, upto, system.fusion, system.encoder)
    ranker = system.ranker(graph, system.fusion)
    started = time.perf_counter()
    answers = []
    for place, (user, item) in enumerate(asked.rows.select("user_index", "item_index").iter_rows()):
        history = asked.history(user)
        support = [each.item_index for each in ranker.evidence(history, item, _EVIDENCE)]
        text = written[place] if written is not None and explainer.about(item) else None
        answers.append(explainer.explain(item, user, history, support, text))
    return answers, time.perf_counter() - started


def _told(answer: Explained) -> Told:
    of_item = tuple(used.statement.text for used in answer.used if used.about == "item")
    of_user = tuple(used.statement.text for used in answer.used if used.about == "user")
    said = {"statements": of_item, "model": (answer.text,), "catalogue": ()}[answer.basis]
    return Told(answer.text, said, of_user, answer.user_preference, answer.basis)


def _commonest(explainer: Explainer, item: int) -> Told:
    praise = [s for s in explainer.about(item) if s.polarity > 0]
    if not praise:
        return Told(explainer.explain(item, None, ()).text, (), basis="catalogue")
    first = max(praise, key=lambda statement: statement.count)
    return Told(explainer.praise(item, first), (first.text,), basis="statements")


def _everybodys(dataset: Dataset) -> str:
    reviews = dataset.reviews().filter((pl.col("split") == "train") & pl.col("explanation").is_not_null())
    counted = reviews.group_by("explanation").len().sort("len", "explanation", descending=[True, False]).head(1)
    return str(counted.collect(engine="streaming")["explanation"].first() or "")


def _plain(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value
