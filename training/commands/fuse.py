"""`rdrec fuse`: fit the weights of the fused ranking on validation users and keep them with the model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def fuse(
    system: Annotated[Path, typer.Argument(help="Checkpoint folder or bundle folder.")],
    dataset: Annotated[Path, typer.Argument(help="Dataset folder that it was trained on.")],
    limit_users: Annotated[int, typer.Option(min=1, help="Validation users to fit on, drawn by seed.")] = 5000,
    tune_graph: Annotated[bool, typer.Option(help="Choose decay and damping of the graph as well.")] = True,
    seed: Annotated[int, typer.Option(help="Seed of users and candidates.")] = 0,
) -> None:
    """Fit fusion weights; a checkpoint gets fusion.json, a bundle a new manifest, both whole or not at all."""
    from rich.console import Console

    from training.data.dataset import Dataset
    from training.evaluation.fusion_run import fit_system, store_fusion
    from training.evaluation.systems import load_system
    from training.evaluation.tables import fusion_table

    console = Console()
    data = Dataset(dataset)
    loaded = load_system(system, data)
    fitted = fit_system(loaded, data, limit_users=limit_users, tune_graph=tune_graph, seed=seed, console=console)
    console.print(fusion_table(fitted.quality, fitted.flat))
    where = store_fusion(system, fitted.flat)
    console.print(f"weights fitted on {fitted.n_users:,} validation users are in {where}", highlight=False)
