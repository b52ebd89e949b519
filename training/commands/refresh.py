"""`rdrec refresh`: from yesterday's model to today's, if today's is no worse."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

KEPT = 4
_INTERRUPTED = 130


def refresh(
    config: Annotated[Path, typer.Option(help="YAML file of the settings; docs/shop.md shows one.")],
) -> None:
    """Collect, prepare, train, fuse, measure, export and serve; a run that was cut off goes on where it was.

    Exit status: 0 served, or there was nothing new; 4 the served model stays, and the report says why; 130 interrupted.
    """
    from rich.console import Console

    from training.refreshing.lock import only_one
    from training.refreshing.loop import InterruptedRunError
    from training.refreshing.loop import refresh as run
    from training.refreshing.report import PAGE, reasons_of
    from training.refreshing.runs import REFUSED
    from training.refreshing.settings import read_settings

    settings, console = read_settings(config), Console()
    with only_one(settings.work, settings.lock, prefix=settings.redis_prefix):
        try:
            done = run(settings, console)
        except InterruptedRunError as error:
            console.print(str(error))
            raise typer.Exit(_INTERRUPTED) from None
    console.print(f"run {done.state.number}: {done.state.outcome}; {settings.work / PAGE}", highlight=False)
    for reason in reasons_of(done):
        console.print(f"because {reason}", highlight=False)
    if done.state.outcome == REFUSED:
        raise typer.Exit(KEPT)
