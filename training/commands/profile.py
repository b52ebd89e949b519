"""`rdrec profile`: what reviews say of items and users, read into a checkpoint or bundle."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from rdrec_core.errors import InputError


def profile(
    path: Annotated[Path, typer.Argument(help="Checkpoint of `rdrec train` or bundle of `rdrec export`.")],
    dataset: Annotated[
        Path | None,
        typer.Option(help="Dataset folder: of a bundle always, of a checkpoint if it moved since training."),
    ] = None,
    quotes: Annotated[
        bool, typer.Option("--quotes", help="Keep a reviewer's own sentence with an item's first statements.")
    ] = False,
    language: Annotated[
        str | None, typer.Option(help="Of the reviews: en, de, fr, es, it, pt, ja; found out by default.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the statements of a bundle that has some.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one a CPU core.")] = None,
    ray: Annotated[
        bool,
        typer.Option(
            "--ray", help="Read on the Ray cluster of RAY_ADDRESS; all nodes see the dataset and the folder of PATH."
        ),
    ] = False,
) -> None:
    """Read training reviews and rationales into statements, which explanations speak from.

    In a checkpoint they wait for `rdrec export` (which reads them itself where this was not run); a bundle is replaced
    by one with the statements and a new model version. Held-out reviews are never read. The statements are the
    same whoever finds the phrases.
    """
    from rich.console import Console

    from rdrec_core.bundle import MANIFEST_FILE, Bundle
    from rdrec_core.cpus import available_cpus
    from training.bundling import statements as keeping
    from training.data.dataset import Dataset
    from training.learning.checkpoint import load_checkpoint
    from training.signals.languages import BY_CODE
    from training.signals.statements import StatementOptions, build_statements
    from training.workers import blocks_by

    if language is not None and language not in BY_CODE:
        raise InputError(f"--language {language!r} should be one of {', '.join(BY_CODE)}", field="language")
    options = StatementOptions(quotes=quotes, language=BY_CODE.get(language or ""))
    console = Console(stderr=True)
    bundle = Bundle.open(path) if (path / MANIFEST_FILE).is_file() else None
    if bundle is not None:
        keeping.require_new(bundle, force=force)
        if dataset is None:
            raise InputError("--dataset is missing: a bundle does not say where its reviews are", field="dataset")
        data = Dataset(dataset)
        keeping.require_same_ids(bundle, data)
    else:
        data = load_checkpoint(path).dataset(dataset)
    left_out: list[str] = []
    scratch = path.parent if ray else Path(tempfile.gettempdir())
    with (
        console.status("reading reviews") as status,
        blocks_by(workers or available_cpus(), scratch, ray=ray) as blocks,
    ):
        made = build_statements(data, options, status.update, left_out.append, blocks)
    if bundle is not None:
        if keeping.is_signed(path):
            console.print("the signature no longer fits and is left out; sign the bundle again", highlight=False)
        said = keeping.store_in_bundle(bundle, made).model_version
    else:
        said = str(keeping.store_in_checkpoint(path, made, data))
    for line in left_out:
        console.print(line, highlight=False)
    silent = [int((rows.indptr[1:] == rows.indptr[:-1]).sum()) for rows in (made.items, made.users)]
    console.print(
        f"{len(made.items.text):,} statements of {len(made.items):,} items ({silent[0]:,} without any),"
        f" {len(made.users.text):,} of {len(made.users):,} users ({silent[1]:,} without any); language {made.language};"
        f" {said}",
        highlight=False,
    )
