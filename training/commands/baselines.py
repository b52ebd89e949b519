"""`rdrec baselines`: what a shop would run otherwise, and the item graph without a model, in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from rdrec_core.errors import InputError


def baselines(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder made by `rdrec prepare`.")],
    task: Annotated[str, typer.Option(help="sequential or topn.")] = "sequential",
    split: Annotated[str, typer.Option(help="test or val.")] = "test",
    out: Annotated[Path | None, typer.Option(help="JSON record to write; ranks go beside it as Parquet.")] = None,
    sasrec: Annotated[bool, typer.Option(help="Train SASRec, or take it from the cache.")] = True,
    refit: Annotated[bool, typer.Option(help="Refit on training and validation interactions.")] = False,
    tune_graph: Annotated[bool, typer.Option(help="Choose decay and damping of the graph on validation users.")] = True,
    text_encoder: Annotated[
        str | None, typer.Option(help="Sentence encoder for dense channels of text: a folder, or an id of the hub.")
    ] = None,
    text: Annotated[bool, typer.Option(help="Let the graph have channels of text.")] = True,
    limit_users: Annotated[int | None, typer.Option(min=1, help="Measure this many users, drawn by seed.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of candidates and samples.")] = 0,
) -> None:
    """Measure everything that needs no T5; graph settings and weights are chosen on validation users."""
    from rich.console import Console

    from training.data.dataset import Dataset
    from training.evaluation.fusion_run import TUNING_USERS, fit_graph_alone, tuned_graph
    from training.evaluation.protocol import questions
    from training.evaluation.ranking_run import RankingOptions, evaluate_baselines
    from training.evaluation.results import rank_table, write_results
    from training.evaluation.systems import open_encoder
    from training.evaluation.tables import differences_table, groups_table, ranking_table
    from training.signals.graph import CHANNELS, GraphConfig, Sequences
    from training.signals.text import build_graph, text_channels, text_fields

    for name, value, allowed in (("task", task, ("sequential", "topn")), ("split", split, ("test", "val"))):
        if value not in allowed:
            raise InputError(f"--{name} {value!r} should be one of {', '.join(allowed)}", field=name)
    console = Console()
    data = Dataset(dataset)
    options = RankingOptions(
        task=task, split=cast(Literal["test", "val"], split), refit=refit, with_baselines=True, with_sasrec=sasrec,
        limit_users=limit_users, seed=seed,
    )  # fmt: skip
    options.check()
    config, encoder = GraphConfig(), open_encoder(text_encoder, data)
    only = None if text else CHANNELS
    if tune_graph:
        channels = text_channels(text_fields(data, "train", encoder, only=only), GraphConfig(), only=only)
        tuning = questions(data, "val", limit=TUNING_USERS, seed=seed)
        config = tuned_graph(Sequences.of(data, "train"), tuning, console, channels)
    mix = fit_graph_alone(data, config, task, limit_users=5000, seed=seed, encoder=encoder, only=only)
    graph = build_graph(data, "val" if refit else "train", config, encoder, only=only)
    measured, record = evaluate_baselines(data, options, graph, mix, console)
    record |= {"graph": config.model_dump(), "mix": {"popularity": mix.popularity, **mix.channels}}
    console.print(ranking_table(record))
    console.print(groups_table(record))
    console.print(differences_table(record))
    if out is not None:
        write_results(out, record, rank_table(measured))
