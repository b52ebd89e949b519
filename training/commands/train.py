"""`rdrec train`: a dataset folder in, a checkpoint folder out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rdrec_core.errors import InputError

_INTERRUPTED = 130


def _settings(pairs: list[str]) -> dict[str, Any]:
    import yaml

    out = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"--set {pair!r} should be FIELD=VALUE", field="set")
        out[name.strip()] = yaml.safe_load(value)
    return out


def train(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder made by `rdrec prepare`.")],
    out: Annotated[Path | None, typer.Option(help="Checkpoint folder to write.")] = None,
    backbone: Annotated[
        str | None, typer.Option(help="scratch:tiny, wide, mini or small, or a Hugging Face T5 id or folder.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="paper or scratch; scratch is the default without a pretrained backbone.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of fields that replace the recipe's.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs at most.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples a step, over all processes.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, draws and dropout.")] = None,
    ratio: Annotated[str | None, typer.Option(help="Task ratio EG:RG:SR:TR, such as 1:1:1:3.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Comma-separated tasks to train; all by default.")] = None,
    time_budget: Annotated[float | None, typer.Option(help="Minutes of training; plans the schedule.")] = None,
    min_explained_rating: Annotated[
        float | None,
        typer.Option(help="Reviews with fewer stars (of 5) give no sentence to learn; 4, or 0 with --recipe paper."),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            help="Checkpoint to go on from, with its configuration; the dataset goes on from its dataset (prepare"
            " --previous). 3 epochs at half its learning rate, unless told."
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Folder with tokenizer.json, instead of a new vocabulary.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="FIELD=VALUE for any other field of the configuration; repeatable."),
    ] = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Final fit, to deploy: learn from validation and test interactions too, as --like was trained.",
        ),
    ] = False,
    keep_test: Annotated[
        bool, typer.Option(help="With --all: not from the test, to be measured by `rdrec evaluate --refit`.")
    ] = False,
    like: Annotated[
        Path | None,
        typer.Option(help="With --all: the checkpoint whose recipe, epochs (by validation) and fusion are taken."),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in --out.")] = False,
    force: Annotated[bool, typer.Option(help="Overwrite the checkpoint in --out.")] = False,
    show_batch: Annotated[bool, typer.Option(help="Print one example of each task and stop.")] = False,
) -> None:
    """Train RDRec on a dataset folder; a killed run goes on with --resume."""
    from rich.console import Console

    from training.data.dataset import Dataset
    from training.learning.checkpoint import load_checkpoint
    from training.learning.config import Ratio, TrainConfig, continued_config, load_config
    from training.learning.run import materials, train
    from training.learning.trainer import StopReason

    overrides = _settings(settings or []) | {
        name: value
        for name, value in {
            "backbone": backbone, "epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate,
            "seed": seed, "ratio": ratio, "tasks": tasks, "time_budget_min": time_budget,
            "min_explained_rating": min_explained_rating,
        }.items()
        if value is not None
    }  # fmt: skip
    pretrained = backbone is not None and not backbone.startswith("scratch:")
    if init is not None:
        if recipe or tokenizer:
            raise InputError("--init brings recipe and tokenizer of its checkpoint; leave out --recipe and --tokenizer",
                field="init")  # fmt: skip
        run = continued_config(load_checkpoint(init).info.config, config, overrides)
    else:
        run = load_config(recipe or ("paper" if pretrained else "scratch"), config, overrides)
    data = Dataset(dataset)
    console = Console()
    if show_batch:
        from training.learning.backbone import build
        from training.learning.show_batch import one_of_each, print_batch

        # every task that the dataset can feed, mixed in one batch, which only the full loss takes
        every = tuple(TrainConfig.model_fields["tasks"].default)
        shown = run.model_copy(update={"loss": "full", "causal_encoder": False, "ratio": Ratio(), "tasks": every})
        _, words = build(shown, data, tokenizer)
        parts = materials(shown, data, words)
        print_batch(console, words, parts.batcher, one_of_each(parts.epochs))
        return
    if out is None:
        raise InputError("--out is missing: name the checkpoint folder to write", field="out")
    if everything or keep_test or like is not None:
        from training.evaluation.final_fit import final_fit

        if like is None or not everything or overrides or recipe or config or init:
            raise InputError(
                "--all goes with --like CHECKPOINT, which decides everything else: train that one first", field="all"
            )
        outcome = final_fit(like, data, out, resume=resume, force=force, console=console, keep_test=keep_test)
    else:
        outcome = train(
            run, data, out, tokenizer_folder=tokenizer, init=init, resume=resume, force=force, console=console
        )
    if outcome is StopReason.INTERRUPTED:
        console.print("saved; go on with --resume")
        raise typer.Exit(_INTERRUPTED)
