"""`rdrec build`: from files to a bundle in one command, by the other commands in their order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rdrec_core.errors import InputError

if TYPE_CHECKING:
    from training.refreshing.runs import Run

MANY_VALUES = ("--reviews", "--metadata")
UNHEALTHY = 4
_TRAINING = 0.4
"""Of the minutes: for the training that is measured; the final fit takes as long again at most."""


def build(
    reviews: Annotated[list[Path], typer.Option(help="Review or event file, as `rdrec prepare`. Several may follow.")],
    out: Annotated[Path, typer.Option(help="Bundle folder to write.")],
    metadata: Annotated[list[Path] | None, typer.Option(help="File on the items. Several may follow.")] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="About how long it may take, on the machine at hand.")] = 20.0,
    columns: Annotated[str | None, typer.Option(help="Fields of the files: see `rdrec prepare`.")] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder of what comes before the bundle; OUT-work by default.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of training fields: see `rdrec train`.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Begin anew, and replace the bundle in --out.")] = False,
) -> None:
    """Prepare, distill, train, fuse, measure, fit on everything and export; killed, the same command goes on.

    Dataset and checkpoint stay in the work folder, from which `rdrec refresh` goes on. Exit status: 0 the bundle is
    there; 4 it is there and fails a check; 130 interrupted.
    """
    import shutil

    from rich.console import Console

    from training.bundling.health import checks
    from training.refreshing.runs import Run

    folder = work or out.with_name(f"{out.name}-work")
    if force:
        shutil.rmtree(folder, ignore_errors=True)
    elif out.exists() and Run.open(folder).state.outcome is not None:
        raise InputError(f"--out {out} exists; choose another folder, or --force to build it anew", field="out")
    run = Run.open(folder)
    asked = {"reviews": [str(path) for path in reviews], "metadata": [str(path) for path in metadata or ()]}
    if run.step("begin", lambda: asked) != asked:
        raise InputError(f"{folder} holds what was begun with other files; pass --force to begin anew", field="work")
    run.attempt()
    console = Console()
    _steps(run, reviews, out, metadata, minutes, columns, config, console)
    failed = [check for check in checks(out) if not check.passed]
    for check in failed:
        console.print(f"{check.name}: {check.detail}", style="red", highlight=False)
    run.end("unhealthy" if failed else "built")
    console.print(f"next: rdrec-serve --bundle {out}", highlight=False)
    if failed:
        raise typer.Exit(UNHEALTHY)


def _steps(
    run: Run, reviews: list[Path], out: Path, metadata: list[Path] | None, minutes: float, columns: str | None,
    config: Path | None, console: Any,
) -> None:  # fmt: skip
    """Each command with the options that a reader of its help would choose; what is done is not done again."""
    from training.commands.distill import distill
    from training.commands.evaluate import evaluate
    from training.commands.export import export
    from training.commands.fuse import fuse
    from training.commands.prepare import prepare
    from training.commands.train import train
    from training.data.dataset import Dataset
    from training.learning.checkpoint import STATE_FILE

    dataset, checkpoint, final = (run.folder / name for name in ("dataset", "checkpoint", "final"))

    def step(title: str, command: Any, /, **options: Any) -> None:
        if run.facts(title) is None:
            console.rule(title)
        run.step(title, lambda: command(**options) or {})

    step(
        "prepare", prepare, out=dataset, reviews=reviews, metadata=metadata, columns=columns, name=out.name, force=True
    )
    if Dataset(dataset).has_reviews:
        step("distill", distill, dataset=dataset, teacher="extractive")
    step(
        "train", train, dataset=dataset, out=checkpoint, config=config, time_budget=_TRAINING * minutes,
        resume=(checkpoint / STATE_FILE).is_file(),
    )  # fmt: skip
    step("fuse", fuse, system=checkpoint, dataset=dataset)
    step("evaluate", evaluate, system=checkpoint, dataset=dataset, out=run.folder / "sequential.json")
    step(
        "final", train, dataset=dataset, out=final, everything=True, like=checkpoint,
        resume=(final / STATE_FILE).is_file(),
    )  # fmt: skip
    step("export", export, checkpoint=final, out=out, force=True)
