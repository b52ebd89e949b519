"""`rdrec graph`: the channels of purchases, built apart by processes or a Ray cluster, for `rdrec export --graph`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def graph(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder.")],
    out: Annotated[Path, typer.Option(help="Folder to write; with --ray where all nodes see it.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoint whose graph settings, chosen by `rdrec fuse`, are used.")
    ] = None,
    interactions: Annotated[str, typer.Option(help="all, val or train, as `rdrec export` will have it.")] = "all",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one a CPU core.")] = None,
    ray: Annotated[bool, typer.Option("--ray", help="Compute on the Ray cluster of RAY_ADDRESS instead.")] = False,
    force: Annotated[bool, typer.Option(help="Replace the folder in --out.")] = False,
) -> None:
    """Build the item graph of a large catalogue once; the arrays are the same whoever computes them."""
    import shutil

    from rich.console import Console

    from rdrec_core.cpus import available_cpus
    from rdrec_core.replacing import replacing_folder
    from training.data.dataset import Dataset, split_upto
    from training.evaluation.systems import read_fusion
    from training.signals.graph import GraphConfig, Sequences, graph_of
    from training.signals.kept_graph import keep_graph
    from training.workers import Blocks, processes_or_ray

    upto, data = split_upto(interactions), Dataset(dataset)
    config = GraphConfig.from_fusion((read_fusion(checkpoint) if checkpoint else None) or {})
    n = workers or available_cpus()
    console = Console()
    with replacing_folder(out, force=force) as folder, console.status("building the graph"):
        sequences = Sequences.of(data, upto)
        if n == 1 and not ray:
            built = graph_of(sequences, config)
        else:
            scratch = folder / "scratch"
            scratch.mkdir()
            with processes_or_ray(n, ray=ray) as (executor, at_once):
                built = graph_of(sequences, config, Blocks(executor, at_once, scratch))
            shutil.rmtree(scratch)
        keep_graph(folder, built, data, upto, config)
    entries = ", ".join(f"{name} {len(channel.items):,}" for name, channel in built.channels.items())
    console.print(f"{data.info.n_items:,} items; entries: {entries}; {out}", highlight=False)
