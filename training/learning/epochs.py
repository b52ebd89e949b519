"""What an epoch is: which examples, cut how, in which batches and order, as a function of (seed, epoch).

An epoch gives every task `passes x ratio` times as many examples as the largest pool has rows; pools are walked in
shuffled passes without replacement that run on from one epoch to the next. Batches hold one task and sources, or
texts, of like length; or, as published, whatever comes. Knows pools and lengths, not tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rdrec_core.prompts import MAX_HISTORY, Template, bare_template, training_templates
from rdrec_core.types import Task
from training.learning.config import TrainConfig
from training.learning.examples import TextPool, TrainingExample, TrainingHistories, candidates

Ints = npt.NDArray[np.int64]
_BUCKET_BATCHES = 50
"""Sources are sorted by length within so many batches: enough that padding is rare, few enough to stay random."""


@dataclass(frozen=True)
class EpochPlan:
    """Examples of an epoch by column, and batches as lists of their rows.

    ref: user index (ranking) or pool row (text). start, stop: the history is items[start:stop] of the user's training
    items, and something follows it (sequential); stop is the target's place (top-N).
    """

    epoch: int
    task: npt.NDArray[np.int8]
    ref: Ints
    start: Ints
    stop: Ints
    template: npt.NDArray[np.int8]
    batches: list[Ints]


class Epochs:
    """Draws plans, and the examples of each batch."""

    def __init__(self, config: TrainConfig, histories: TrainingHistories, texts: Mapping[Task, TextPool]) -> None:
        self._config, self._histories, self._texts = config, histories, texts
        lengths = np.diff(histories.indptr)
        self._rows: dict[Task, Ints] = {}
        for task in config.task_set:
            if task is Task.SEQUENTIAL:
                rows = np.flatnonzero(lengths >= 2)
            elif task is Task.TOPN:
                rows = np.flatnonzero(lengths >= 1)
            else:
                rows = np.arange(len(texts[task])) if task in texts else np.empty(0, dtype=np.int64)
            if len(rows):
                self._rows[task] = rows
        self._templates: dict[Task, tuple[Template, ...]] = {
            task: training_templates(task) if config.discrete_templates else (bare_template(task),) for task in Task
        }
        part = config.passes * max(map(len, self._rows.values()), default=0)
        self._counts = {task: round(part * config.ratio.weight(task)) for task in self._rows}

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Tasks that have anything to learn from."""
        return tuple(self._rows)

    def plan(self, epoch: int) -> EpochPlan:
        """The epoch's examples and batches; epoch counts from 0."""
        rng = np.random.default_rng([self._config.seed, 1, epoch])
        parts = {task: self._draw(task, epoch, rng) for task in self._rows}
        task, ref, start, stop, template = (np.concatenate(columns) for columns in zip(*parts.values(), strict=True))
        batches: list[Ints] = []
        if self._config.mixed_batches:
            rows = rng.permutation(len(task))
            batches = np.split(rows, range(self._config.batch_size, len(rows), self._config.batch_size))
            return EpochPlan(epoch, task, ref, start, stop, template, batches)
        for code in self._rows:
            rows = rng.permutation(np.flatnonzero(task == code))
            batches += _bucketed(rows, self._widths(code, ref[rows], stop[rows] - start[rows]), self._config.batch_size)
        return EpochPlan(epoch, task, ref, start, stop, template, [batches[i] for i in rng.permutation(len(batches))])

    def _draw(self, task: Task, epoch: int, rng: np.random.Generator) -> tuple[npt.NDArray[np.int64], ...]:
        count = self._counts[task]
        ref = self._walk(task, epoch * count, count)
        start, stop = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
        if task in (Task.SEQUENTIAL, Task.TOPN):
            length = self._histories.indptr[ref + 1] - self._histories.indptr[ref]
            if task is Task.TOPN:
                stop = rng.integers(0, length)
            else:
                start, stop = self._cut(length, rng)
        template = rng.integers(0, len(self._templates[task]), size=count)
        return np.full(count, task, dtype=np.int64), ref, start, stop, template

    def _widths(self, task: Task, ref: Ints, history: Ints) -> Ints:
        """What makes one example of a task longer than another: its history, or its text."""
        if task in self._texts:
            return np.diff(self._texts[task].texts.indptr)[ref]
        return history if task is Task.SEQUENTIAL else np.zeros(len(ref), dtype=np.int64)

    def _cut(self, length: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """Where histories of users with `length` items start and stop."""
        anywhere = self._config.subsequence == "random"
        if self._config.causal_encoder:  # one pass learns what follows every prefix: as long a window as there is
            start = rng.integers(0, length - 1 if anywhere else np.maximum(length - MAX_HISTORY, 1))
            return start, np.minimum(start + MAX_HISTORY, length - 1)
        stop = rng.integers(1, length)
        start = rng.integers(0, stop) if anywhere else np.zeros_like(stop)
        return np.maximum(start, stop - MAX_HISTORY), stop

    def _walk(self, task: Task, begin: int, count: int) -> Ints:
        """Rows begin..begin+count of the endless sequence of shuffled passes over the task's pool."""
        rows = self._rows[task]
        passes = range(begin // len(rows), (begin + count - 1) // len(rows) + 1)
        walked = np.concatenate(
            [np.random.default_rng([self._config.seed, 2, task, n]).permutation(rows) for n in passes]
        )
        offset = begin - passes.start * len(rows)
        return walked[offset : offset + count]

    def examples(self, plan: EpochPlan, batch: int) -> list[TrainingExample]:
        """The examples of one batch; negatives and unknown users are drawn here, anew for every batch."""
        rng = np.random.default_rng([self._config.seed, 3, plan.epoch, batch])
        return [self._example(plan, int(row), rng) for row in plan.batches[batch]]

    def _example(self, plan: EpochPlan, row: int, rng: np.random.Generator) -> TrainingExample:
        task, ref, stop = Task(int(plan.task[row])), int(plan.ref[row]), int(plan.stop[row])
        template = self._templates[task][plan.template[row]]
        if task in self._texts:
            return self._texts[task].example(task, ref, template)
        items = self._histories.of_user(ref)
        user = None if rng.random() < self._config.unknown_user_rate else ref
        if task is Task.TOPN:
            target = int(items[stop])
            shown = candidates(rng, self._histories, ref, target, self._config.negatives)
            return TrainingExample(task, user, shown, template, (target,), (len(shown),))
        start = int(plan.start[row])
        first = start + 1 if self._config.causal_encoder else stop
        shown, targets = tuple(items[start:stop].tolist()), tuple(items[first : stop + 1].tolist())
        return TrainingExample(task, user, shown, template, targets, tuple(range(first - start, stop - start + 1)))


def _bucketed(rows: Ints, width: Ints, batch_size: int) -> list[Ints]:
    """Batches of rows of like width; rows come shuffled and stay so where widths are equal."""
    batches: list[Ints] = []
    pool = batch_size * _BUCKET_BATCHES
    for begin in range(0, len(rows), pool):
        some, theirs = rows[begin : begin + pool], width[begin : begin + pool]
        ordered = some[np.argsort(theirs, kind="stable")]
        batches += np.split(ordered, range(batch_size, len(ordered), batch_size))
    return batches
