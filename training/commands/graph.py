"""`rdrec graph`: the channels of purchases and of text, built apart by processes or Ray, for `rdrec export --graph`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def graph(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder.")],
    out: Annotated[Path, typer.Option(help="Folder to write; with --ray where all nodes see it.")],
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Checkpoint whose graph settings, channels of text and sentence encoder, chosen by `rdrec fuse`,"
            " are used; by default all of TF-IDF."
        ),
    ] = None,
    interactions: Annotated[str, typer.Option(help="all, val or train, as `rdrec export` will have it.")] = "all",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one a CPU core.")] = None,
    ray: Annotated[bool, typer.Option("--ray", help="Compute on the Ray cluster of RAY_ADDRESS instead.")] = False,
    force: Annotated[bool, typer.Option(help="Replace the folder in --out.")] = False,
) -> None:
    """Build the item graph of a large catalogue once; the arrays are the same whoever computes them."""
    from rich.console import Console

    from rdrec_core.cpus import available_cpus
    from rdrec_core.replacing import replacing_folder
    from training.bundling.signals import Chosen
    from training.data.dataset import Dataset, split_upto
    from training.signals.kept_graph import keep_graph
    from training.workers import blocks_by

    upto, data = split_upto(interactions), Dataset(dataset)
    chosen = Chosen.of(checkpoint, data) if checkpoint else Chosen()
    console = Console()
    with (
        replacing_folder(out, force=force) as folder,
        console.status("building the graph"),
        blocks_by(workers or available_cpus(), folder, ray=ray) as blocks,
    ):
        entries = keep_graph(folder, data, upto, chosen.config, chosen.texts, chosen.encoder, blocks)
    listed = ", ".join(f"{name} {n:,}" for name, n in entries.items())
    console.print(f"{data.info.n_items:,} items; entries: {listed}; {out}", highlight=False)
