"""What a person sees while a distillation runs, and how Ctrl-C ends it. Knows counts only."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.rationale.asking import AskingTally
from training.rationale.budget import Budget


class DistillProgress:
    """A live line: reviews done, rate, tokens, cost, failures, time left. Use as a context manager."""

    def __init__(self, console: Console, total: int) -> None:
        self._bar = Progress(
            TextColumn("distilling"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[spent]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._total = total

    def __enter__(self) -> DistillProgress:
        self._bar.start()
        self._task = self._bar.add_task("", total=self._total, rate="", spent="")
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, tally: AskingTally, budget: Budget) -> None:
        """Show these counts."""
        elapsed = self._bar.tasks[0].elapsed or 0.0
        rate = f"{tally.asked / elapsed:.0f} answers/s" if elapsed > 0.5 else ""
        spent = f"{budget.tokens:,} tokens"
        if budget.cost:
            spent += f", cost {budget.cost:.2f}"
        if tally.failed:
            spent += f", {tally.failed} failed"
        self._bar.update(self._task, completed=tally.reviews, rate=rate, spent=spent)


@contextmanager
def stop_on_interrupt(stop: asyncio.Event, console: Console) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) lets the calls under way finish, for they are paid; the second cancels them."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()

    def interrupt() -> None:
        if stop.is_set() and task is not None:
            task.cancel()
            return
        stop.set()
        console.print("stopping after the answers under way; once more to stop at once (the journal keeps the rest)")

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
