"""What a person sees of a run: a live table with rich, a line an epoch, and the curves as a picture.

Knows the numbers that the trainer reports, nothing of how they come about.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from torch import Tensor

from rdrec_core.types import Task
from training.learning.trainer import Position

_REFRESH_S = 0.5
_SMOOTHING = 0.9


class LiveProgress:
    """Epoch, samples/s, loss of each task, validation loss of each task, time left. A context manager."""

    def __init__(self, console: Console, *, n_epochs: int, tasks: Sequence[Task]) -> None:
        self._console, self._n_epochs, self._tasks = console, n_epochs, tasks
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:,.0f} samples/s"), TextColumn("left {task.fields[left]}"),
            console=console,
        )  # fmt: skip
        self._row = self._bar.add_task("", epoch="-", rate=0.0, left="?")
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._losses: dict[Task, float] = {}
        self._pending: dict[Task, Tensor] = {}
        self._validation: Mapping[str, float] = {}
        self._samples, self._shown_at, self._started_at, self._done_at_start = 0, 0.0, time.monotonic(), -1.0
        self._epoch_samples, self._epoch_started_at = 0, 0.0

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def begin_epoch(self, position: Position, n_batches: int) -> None:
        """Reset the bar."""
        self._bar.update(
            self._row, total=n_batches, completed=position.batch, epoch=f"{position.epoch + 1}/{self._n_epochs}"
        )
        self._epoch_samples, self._epoch_started_at = 0, time.monotonic()

    def step(self, losses: Mapping[Task, Tensor], n_samples: int, done: float) -> None:
        """Count, and redraw twice a second; losses are read from the device only then."""
        now = time.monotonic()
        self._samples += n_samples
        self._epoch_samples += n_samples
        self._pending |= losses
        self._bar.advance(self._row)
        if self._done_at_start < 0:
            self._done_at_start, self._started_at = done, now
        if now - self._shown_at < _REFRESH_S:
            return
        for seen, value in self._pending.items():
            old = self._losses.get(seen, value.item())
            self._losses[seen] = _SMOOTHING * old + (1 - _SMOOTHING) * value.item()
        self._pending.clear()
        self._bar.update(
            self._row,
            rate=self._samples / max(now - (self._shown_at or self._started_at), 1e-9),
            left=self._left(now, done),
        )
        self._samples, self._shown_at = 0, now
        self._live.update(Group(self._bar, self._table()), refresh=True)

    def _left(self, now: float, done: float) -> str:
        gained = done - self._done_at_start
        if gained <= 0:
            return "?"
        seconds = round((now - self._started_at) / gained * (1 - done))
        return f"{seconds // 3600}:{seconds % 3600 // 60:02d}:{seconds % 60:02d}"

    def _table(self) -> Table:
        table = Table("task", "loss", "validation loss")
        for task in self._tasks:
            name = task.name.lower()
            loss, validation = self._losses.get(task), self._validation.get(name)
            table.add_row(
                name, "" if loss is None else f"{loss:.4f}", "" if validation is None else f"{validation:.4f}"
            )
        return table

    def end_epoch(self, line: Mapping[str, Any], *, is_best: bool) -> None:
        """Print a line that stays."""
        self._validation = line["validation_loss"]
        rate = self._epoch_samples / max(time.monotonic() - self._epoch_started_at, 1e-9)
        losses = "  ".join(
            f"{name} {loss:.3f}" + (f" / {self._validation[name]:.3f}" if name in self._validation else "")
            for name, loss in line["train_loss"].items()
        )
        ndcg = f"  NDCG@10 {line['validation_ndcg']:.4f}" if "validation_ndcg" in line else ""
        self._console.print(
            f"epoch {line['epoch']} ({line['elapsed_s'] / 60:.1f} min, {rate:,.0f} samples/s with validation)"
            f"  train / val: {losses}{ndcg}{'  kept' if is_best else ''}",
            highlight=False,
        )


class Silent:
    """A monitor for processes that do not talk."""

    def begin_epoch(self, position: Position, n_batches: int) -> None:
        """Ignore."""

    def step(self, losses: Mapping[Task, Tensor], n_samples: int, done: float) -> None:
        """Ignore."""

    def end_epoch(self, line: Mapping[str, Any], *, is_best: bool) -> None:
        """Ignore."""


def draw_curves(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Training and validation loss of each task by epoch, one panel a task, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = sorted({name for line in history for name in line["train_loss"]})
    figure, axes = plt.subplots(1, max(1, len(names)), figsize=(4 * max(1, len(names)), 3.2), squeeze=False)
    for axis, name in zip(axes[0], names, strict=False):
        for key, style in (("train_loss", "o-"), ("validation_loss", "s--")):
            points = [(line["epoch"], line[key][name]) for line in history if name in line[key]]
            if points:
                axis.plot(*zip(*points, strict=True), style, markersize=3, label=key.replace("_loss", ""))
        axis.set(title=name.replace("_", " "), xlabel="epoch", ylabel="loss")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)
    temporary.replace(path)
