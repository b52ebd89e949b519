"""What the model learns from: one record an example, and the pools from which each epoch draws its own.

Every draw is a function of (seed, epoch, batch) alone, so a resumed run, or another process of a data-parallel one,
draws the same. Texts are token ids from the start. Knows the dataset and the prompts, not padding or the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from rdrec_core.encoding import RaggedTokens
from rdrec_core.prompts import MAX_HISTORY, Template, bare_template
from rdrec_core.types import Task
from training.data.dataset import Dataset, Split
from training.learning.targets import TargetRule, Tokenise

TEXT_TASKS = frozenset({Task.EXPLANATION, Task.USER_PREFERENCE, Task.ITEM_ATTRIBUTES})
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """One source with what should be written for it.

    `items` stand in the prompt, in order. Ranking tasks have target items, each of which sees the source up to so many
    of its items (`prefixes`; all of them unless the encoder is causal). Text tasks have `text` (token ids without EOS).
    """

    task: Task
    user_index: int | None
    items: tuple[int, ...]
    template: Template
    targets: tuple[int, ...] = ()
    prefixes: tuple[int, ...] = ()
    text: npt.NDArray[np.int32] | None = None


@dataclass(frozen=True)
class TextPool:
    """Rows of one text task: user (n,) or item (n,) is -1 where the prompt does not name it; texts are cut already."""

    user: npt.NDArray[np.int32]
    item: npt.NDArray[np.int32]
    texts: RaggedTokens

    def __len__(self) -> int:
        return len(self.user)

    def example(self, task: Task, row: int, template: Template) -> TrainingExample:
        """One row as an example."""
        user, item = int(self.user[row]), int(self.item[row])
        return TrainingExample(
            task, None if user < 0 else user, () if item < 0 else (item,), template, text=self.texts[row]
        )


def text_pools(
    dataset: Dataset, split: Split, tasks: Iterable[Task], tokenise: Tokenise, rule: TargetRule
) -> dict[Task, TextPool]:
    """The text tasks' rows of one split, tokenised once and cut by the rule; tasks without rows are left out."""
    if not dataset.has_reviews:
        return {}
    reviews = dataset.reviews().filter(pl.col("split") == split)
    frames = {
        Task.EXPLANATION: reviews.filter(rule.explained()).select(
            "user_index", "item_index", pl.col("explanation").alias("text")
        )
    }
    if dataset.rationales_path.is_file():
        kept = pl.scan_parquet(dataset.rationales_path).filter(pl.col("use"))
        own = kept.join(reviews, on=["user_index", "item_index"], how="semi")
        for task in (Task.USER_PREFERENCE, Task.ITEM_ATTRIBUTES):
            frames[task] = own.select("user_index", "item_index", pl.col(task.name.lower()).alias("text"))
    pools = {}
    for task in tasks:
        if task not in frames:
            continue
        rows = frames[task].filter(pl.col("text").str.len_bytes() > 0).sort("user_index", "item_index").collect()
        if rows.is_empty():
            continue
        kept, texts = rule.targets(rows["text"], tokenise)
        if not len(kept):
            continue
        user, item = rows["user_index"].to_numpy()[kept], rows["item_index"].to_numpy()[kept]
        none = np.full(len(kept), -1, dtype=np.int32)
        pools[task] = TextPool(
            user if task is not Task.ITEM_ATTRIBUTES else none,
            item if task is not Task.USER_PREFERENCE else none,
            texts,
        )
    return pools


def pool_arrays(pools: Mapping[Task, TextPool]) -> dict[str, npt.NDArray[Any]]:
    """Pools as arrays by name, for processes that share them; `pools_of` reads them."""
    return {
        f"{task.name}.{name}": array
        for task, pool in pools.items()
        for name, array in (
            ("user", pool.user), ("item", pool.item), ("indptr", pool.texts.indptr), ("tokens", pool.texts.tokens)
        )
    }  # fmt: skip


def pools_of(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[Task, TextPool]:
    """What `pool_arrays` wrote."""
    tasks = [task for task in Task if f"{task.name}.user" in arrays]
    return {
        task: TextPool(
            arrays[f"{task.name}.user"], arrays[f"{task.name}.item"],
            RaggedTokens(arrays[f"{task.name}.indptr"], arrays[f"{task.name}.tokens"]),
        )
        for task in tasks
    }  # fmt: skip


@dataclass(frozen=True)
class TrainingHistories:
    """Training interactions as CSR, oldest first, and the item to predict for validation (-1 where there is none)."""

    indptr: Ints
    items: npt.NDArray[np.int32]
    validation: npt.NDArray[np.int32]
    n_items: int
    repeats: bool = False
    """Whether people buy the same again, so that what they have may be the answer."""

    @classmethod
    def of(cls, dataset: Dataset) -> TrainingHistories:
        """Of a prepared dataset."""
        indptr, items = dataset.sequences("train")
        return cls(indptr, items, dataset.targets("val"), dataset.info.n_items, dataset.info.repeats == "keep")

    def of_user(self, user: int) -> npt.NDArray[np.int32]:
        """Training items of a user."""
        return self.items[self.indptr[user] : self.indptr[user + 1]]


def draw_negatives(rng: np.random.Generator, n_items: int, taken: npt.NDArray[np.integer], count: int) -> Ints:
    """Up to `count` distinct items outside `taken`, uniformly, in random order (or as many as there are).

    Training and evaluation both draw by it; published figures rest on the order of its draws.
    """
    forbidden = np.unique(taken)
    if n_items - len(forbidden) <= 4 * count:
        return rng.permutation(np.setdiff1d(np.arange(n_items), forbidden, assume_unique=True))[:count]
    chosen = dict.fromkeys(forbidden.tolist())
    wanted = len(chosen) + count
    while len(chosen) < wanted:  # a draw costs the items asked for, however large the catalogue is
        chosen |= dict.fromkeys(rng.integers(0, n_items, wanted - len(chosen)).tolist())
    return np.fromiter(chosen, dtype=np.int64)[len(forbidden) :]


def candidates(
    rng: np.random.Generator, histories: TrainingHistories, user: int, target: int, count: int
) -> tuple[int, ...]:
    """The target among `count` items that the user has no training interaction with, shuffled."""
    others = draw_negatives(rng, histories.n_items, np.append(histories.of_user(user), target), count)
    return tuple(rng.permutation(np.append(others, target)).tolist())


def validation_examples(
    task: Task, histories: TrainingHistories, pool: TextPool | None, *, negatives: int, limit: int | None, seed: int
) -> list[TrainingExample]:
    """Validation examples of one task: bare templates, whole histories, negatives drawn once."""
    rng = np.random.default_rng([seed, 1_000_003, task])
    template = bare_template(task)
    if pool is not None:
        rows = np.arange(len(pool))
    else:
        rows = np.flatnonzero((histories.validation >= 0) & (np.diff(histories.indptr) > 0))
    if limit is not None and len(rows) > limit:
        rows = np.sort(rng.choice(rows, size=limit, replace=False))
    if pool is not None:
        return [pool.example(task, int(row), template) for row in rows]
    out = []
    for user in rows.tolist():
        target = int(histories.validation[user])
        if task is Task.SEQUENTIAL:
            items = tuple(histories.of_user(user)[-MAX_HISTORY:].tolist())
        else:
            items = candidates(rng, histories, user, target, negatives)
        out.append(TrainingExample(task, user, items, template, (target,), (len(items),)))
    return out
