"""`rdrec evaluate`: a checkpoint or bundle and its dataset in, a table and a JSON record out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rdrec_core.errors import InputError

TASKS = ("sequential", "topn", "explanation")
_INTERRUPTED = 130


def evaluate(
    system: Annotated[Path, typer.Argument(help="Checkpoint folder or bundle folder.")],
    dataset: Annotated[Path, typer.Argument(help="Dataset folder that it was trained on.")],
    task: Annotated[str, typer.Option(help="sequential, topn or explanation.")] = "sequential",
    split: Annotated[str, typer.Option(help="test or val.")] = "test",
    out: Annotated[Path | None, typer.Option(help="JSON record to write; ranks go beside it as Parquet.")] = None,
    baselines: Annotated[bool, typer.Option(help="Measure the baselines in the same table.")] = False,
    sasrec: Annotated[bool, typer.Option(help="Train SASRec among the baselines.")] = True,
    fusion: Annotated[str, typer.Option(help="on: as fitted by `rdrec fuse`; off: the model alone.")] = "on",
    refit: Annotated[bool, typer.Option(help="Refit graph and baselines on training and validation.")] = False,
    mode: Annotated[str | None, typer.Option(help="Score mode: full, trie or trie-int8.")] = None,
    strategy: Annotated[str | None, typer.Option(help="beam or exact.")] = None,
    beam_width: Annotated[int, typer.Option(min=1, help="Beams of the sequential search.")] = 20,
    limit_users: Annotated[int | None, typer.Option(min=1, help="Measure this many users, drawn by seed.")] = None,
    trials: Annotated[int, typer.Option(min=1, help="Draws of the top-N candidates.")] = 1,
    cold_items: Annotated[
        float | None,
        typer.Option(
            help="Hide this share of the items from everything but the catalogue, train the checkpoint's recipe anew"
            " without them (once; kept beside it), and measure that."
        ),
    ] = None,
    text_encoder: Annotated[
        str | None,
        typer.Option(help="Explanations: measure by a sentence encoder too, a transformers folder or hub id."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of candidates, samples and hidden items.")] = 0,
) -> None:
    """Measure a checkpoint or a bundle under the leave-one-out protocol."""
    from rich.console import Console

    from rdrec_core.types import ScoreMode, Strategy
    from training.bundling.statements import statements_of
    from training.data.dataset import Dataset
    from training.evaluation.explanations import evaluate_explanations
    from training.evaluation.ranking_run import RankingOptions, evaluate_ranking
    from training.evaluation.results import rank_table, write_results
    from training.evaluation.systems import load_system, open_encoder
    from training.evaluation.tables import (
        differences_table,
        explanations_table,
        groups_table,
        ranking_table,
        trials_table,
    )  # fmt: skip

    for name, value, allowed in (
        ("task", task, TASKS),
        ("split", split, ("test", "val")),
        ("fusion", fusion, ("on", "off")),
    ):
        if value not in allowed:
            raise InputError(f"--{name} {value!r} should be one of {', '.join(allowed)}", field=name)
    try:
        score_mode = ScoreMode(mode) if mode else None
        search = Strategy(strategy) if strategy else None
    except ValueError as error:
        raise InputError(f"{error}; modes: full, trie, trie-int8; strategies: beam, exact", field="mode") from error

    console = Console()
    data = Dataset(dataset)
    if cold_items is not None:
        from training.evaluation.cold_run import without_items

        found = without_items(system, data, share=cold_items, seed=seed, console=console)
        if found is None:
            console.print("saved; the same command goes on")
            raise typer.Exit(_INTERRUPTED)
        system, data = found
    loaded = load_system(system, data, mode=score_mode, strategy=search, upto="val" if refit else "train")
    wanted = "test" if split == "test" else "val"
    if task == "explanation":
        statements = statements_of(system, data, note=lambda text: console.print(text, style="yellow"))
        record, texts = evaluate_explanations(
            loaded, data, statements, split=wanted, limit=limit_users, seed=seed, console=console,
            encoder=open_encoder(text_encoder, data),
        )  # fmt: skip
        console.print(explanations_table(record))
        if out is not None:
            write_results(out, record, texts)
        return
    if text_encoder is not None:
        raise InputError(
            "--text-encoder belongs to --task explanation; rankings take it from `rdrec fuse`", field="text_encoder"
        )
    options = RankingOptions(
        task=task, split=wanted, fusion=fusion == "on", refit=refit, with_baselines=baselines, with_sasrec=sasrec,
        limit_users=limit_users, seed=seed, trials=trials, beam_width=beam_width,
    )  # fmt: skip
    measured, record = evaluate_ranking(loaded, data, options, console)
    console.print(ranking_table(record))
    console.print(groups_table(record))
    if record["differences"]:
        console.print(differences_table(record))
    if "trials" in record:
        console.print(trials_table(record))
    if options.fusion and loaded.fusion is None:
        console.print("note: no fusion weights yet, the model ranks alone; fit them with `rdrec fuse`", style="yellow")
    if refit and loaded.facts["learned_upto"] == "train":
        console.print(
            "note: graph and counts know the validation purchases, the model does not; `rdrec train --all --keep-test"
            " --like` makes one that does", style="yellow",
        )  # fmt: skip
    if record["warning"]:
        console.print(f"warning: {record['warning']}", style="yellow")
    if out is not None:
        write_results(out, record, rank_table(measured))
