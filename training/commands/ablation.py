"""`rdrec ablation`: train with and without each kind of rationale, sweep the sample ratios, and fill the table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_INTERRUPTED = 130


def ablation(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder with rationales (`rdrec distill`).")],
    out: Annotated[Path, typer.Option(help="Folder for the rows' checkpoints and ablation.json.")],
    backbone: Annotated[str, typer.Option(help="As for `rdrec train`.")] = "scratch:tiny",
    recipe: Annotated[str, typer.Option(help="paper or scratch.")] = "scratch",
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs at most.")] = None,
    time_budget: Annotated[float | None, typer.Option(help="Minutes of training a row.")] = None,
    trials: Annotated[int, typer.Option(min=1, help="Training runs a row, seeds 0, 1, ...")] = 1,
    ratios: Annotated[
        str,
        typer.Option(
            help="Sample ratios EG:RG:SR:TR, such as 1:1:1:1,1:1:2:1: the four rows at the first, both rationales at "
            "the others. By default the recipe's."
        ),
    ] = "",
    limit_users: Annotated[int | None, typer.Option(min=1, help="Measure so many test users, drawn at random.")] = None,
) -> None:
    """Rationales off, user preference only, item attributes only, both; a killed run goes on when called again.

    A rationale that takes part is both a task of the training and a signal of the fused ranking.
    """
    from rich.console import Console
    from rich.table import Table

    from training.data.dataset import Dataset
    from training.evaluation.ablation import ablation_lines, run_ablation
    from training.evaluation.results import write_results
    from training.learning.config import load_config

    console = Console()
    wanted = {"backbone": backbone, "epochs": epochs, "time_budget_min": time_budget}
    config = load_config(recipe, None, {name: value for name, value in wanted.items() if value is not None})
    sweep = [part.strip() for part in ratios.split(",") if part.strip()]
    record = run_ablation(
        Dataset(dataset), config, out, trials=trials, ratios=sweep, limit_users=limit_users, console=console
    )
    if record is None:
        console.print("saved; call again to go on")
        raise typer.Exit(_INTERRUPTED)
    write_results(out / "ablation.json", record, None)
    table = Table(title=f"{record['dataset']}: which rationales pay", caption=record["note"])
    for name in ("row", "task", "system", "HR@10", "NDCG@10", "NDCG@10 minus without"):
        table.add_column(name)
    for line in ablation_lines(record["table"]):
        table.add_row(*line)
    console.print(table)
