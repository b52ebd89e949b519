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
    text: Annotated[bool, typer.Option(help="Let item texts rank too; without, to tell what they are worth.")] = True,
    text_encoder: Annotated[
        str | None, typer.Option(help="Sentence encoder for dense channels of text: a folder, or an id of the hub.")
    ] = None,
    new_items_cost: Annotated[
        float,
        typer.Option(min=0, max=1, help="What showing items that nobody has bought may cost the others, of NDCG@10."),
    ] = 0.02,
    seed: Annotated[int, typer.Option(help="Seed of users and candidates.")] = 0,
) -> None:
    """Fit fusion weights; a checkpoint gets fusion.json, a bundle a new manifest, both whole or not at all."""
    from dataclasses import replace

    from rich.console import Console

    from rdrec_core.errors import InputError
    from training.data.dataset import Dataset
    from training.evaluation.fusion import DENSE
    from training.evaluation.fusion_run import fit_system, store_fusion
    from training.evaluation.systems import load_system, open_encoder
    from training.evaluation.tables import fusion_table
    from training.signals.profiles import FIELDS

    console = Console()
    data = Dataset(dataset)
    loaded = load_system(system, data, with_fusion=not tune_graph)  # what is fitted anew may be stale
    for name, given in (("text_encoder", text_encoder is not None), ("no_text", not text)):
        if given and loaded.channels is not None:
            option = f"--{name.replace('_', '-')}"
            raise InputError(
                f"a bundle holds its channels already; give {option} with the checkpoint, then export it", field=name
            )
    if text_encoder is not None and not text:
        raise InputError("--no-text leaves out what --text-encoder makes; give one of them", field="no_text")
    if text_encoder is not None and Path(text_encoder).is_dir():
        text_encoder = str(Path(text_encoder).resolve())  # it is read again by `evaluate` and `export`, from anywhere
    if loaded.channels is None:
        loaded = replace(loaded, encoder=open_encoder(text_encoder, data))
    fitted = fit_system(
        loaded, data, limit_users=limit_users, tune_graph=tune_graph, new_items_cost=new_items_cost, seed=seed,
        console=console, without_fields=() if text else FIELDS,
    )  # fmt: skip
    console.print(fusion_table(fitted.quality, fitted.flat))
    kept = text_encoder if any(value for name, value in fitted.flat.items() if name.endswith(DENSE)) else None
    where = store_fusion(system, fitted.flat, kept)
    console.print(f"weights fitted on {fitted.n_users:,} validation users are in {where}", highlight=False)
