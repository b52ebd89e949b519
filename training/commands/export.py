"""`rdrec export`: a checkpoint folder in, a servable bundle out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rdrec_core.errors import InputError

_LEARNED_FROM = {
    "train": "training interactions",
    "val": "training and validation interactions (rdrec train --all --keep-test)",
    "test": "all interactions (rdrec train --all)",
}


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint folder made by `rdrec train`.")],
    out: Annotated[Path, typer.Option(help="Bundle folder to write.")],
    dataset: Annotated[Path | None, typer.Option(help="Dataset folder, if it moved since training.")] = None,
    score_modes: Annotated[
        str | None, typer.Option(help="Comma-separated: full, trie, trie-int8; the first is served by default.")
    ] = None,
    strategy: Annotated[str | None, typer.Option(help="beam or exact; measured and chosen by default.")] = None,
    interactions: Annotated[
        str, typer.Option(help="all for base histories and graph to deploy; train or val to measure the bundle.")
    ] = "all",
    float16: Annotated[
        bool, typer.Option("--float16", help="Ranking graphs in half precision besides, which a GPU then takes.")
    ] = False,
    graph: Annotated[Path | None, typer.Option(help="Folder of `rdrec graph`, instead of building it here.")] = None,
    force: Annotated[bool, typer.Option(help="Replace the bundle in --out.")] = False,
) -> None:
    """Write a bundle: whole, with every graph checked against torch, or not at all."""
    from datetime import UTC, datetime

    from rich.console import Console

    from rdrec_core.types import ScoreMode, Strategy
    from training.bundling.export import export_bundle
    from training.data.dataset import split_upto
    from training.learning.checkpoint import load_checkpoint

    upto = split_upto(interactions)
    try:
        modes = [ScoreMode(name.strip()) for name in score_modes.split(",")] if score_modes else None
    except ValueError as error:
        message = f"--score-modes {score_modes!r} should name full, trie, trie-int8"
        raise InputError(message, field="score_modes") from error
    try:
        way = Strategy(strategy) if strategy else None
    except ValueError as error:
        raise InputError(f"--strategy {strategy!r} should be beam or exact", field="strategy") from error
    console = Console()
    trained = load_checkpoint(checkpoint)
    with console.status("reading the dataset") as status:
        manifest = export_bundle(
            trained, trained.dataset(dataset), out,
            upto=upto, score_modes=modes, strategy=way, float16=float16,
            created_at=datetime.now(UTC), graph=graph, force=force,
            say=lambda text: status.update(f"writing {text}"),
        )  # fmt: skip
    size = sum(entry.size_bytes for entry in manifest.files.values())
    console.print(
        f"{manifest.model_version}: {len(manifest.files)} files, {size / 2**20:.1f} MiB, score modes"
        f" {', '.join(manifest.score_modes)}, strategy {manifest.strategy}; {out}\nthe model learned from"
        + f" {_LEARNED_FROM[trained.info.learned_upto]}, histories and graph hold {interactions}",
        highlight=False,
    )
