"""`rdrec train --show-batch`: one example of each task as the model reads it. Knows tokens and words, not training."""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from training.learning.batching import Batcher
from training.learning.epochs import Epochs
from training.learning.examples import TrainingExample

_LONGEST = 400


def one_of_each(epochs: Epochs) -> list[TrainingExample]:
    """The first example of each task in the first epoch, in prompt order."""
    plan = epochs.plan(0)
    found = {}
    for number, rows in enumerate(plan.batches):
        task = int(plan.task[rows[0]])
        if task not in found:
            found[task] = epochs.examples(plan, number)[0]
    return [found[task] for task in sorted(found)]


def print_batch(console: Console, tokenizer: Tokenizer, batcher: Batcher, examples: list[TrainingExample]) -> None:
    """Print prompt ids, source text, whole-word ids and target of every row."""
    batch = batcher.batch(examples)
    table = Table("task", "prompt id", "source text", "whole-word ids", "target", show_lines=True)
    for row, example in enumerate(examples):
        mask = batch.source.mask[row]
        words = " ".join(map(str, batch.source.whole_word_ids[row][mask]))
        source = tokenizer.decode(batch.source.token_ids[row][mask].tolist())
        targets = [tokenizer.decode(ids[ids != 0].tolist()) for ids in batch.targets[row] if np.any(ids)]
        table.add_row(
            example.task.name.lower(), str(batch.source.tasks[row]), _short(source), _short(words), "\n".join(targets)
        )
    console.print(table)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"
