"""`rdrec profile`: users' preferences and items' attributes, written offline; the work is in `bundling/profiles.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

INTERRUPTED = 130


def profile(
    path: Annotated[Path, typer.Argument(help="Checkpoint of `rdrec train` or bundle of `rdrec export`.")],
    dataset: Annotated[
        Path | None, typer.Option(help="Dataset folder of a checkpoint, if it moved since training.")
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Greedy search instead of 21 beams in 3 groups.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts computed and kept together.")] = 64,
    threads: Annotated[int, typer.Option(min=0, help="Threads of a bundle's engine; 0 for one a core.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace the profiles of a bundle that has some.")] = False,
) -> None:
    """Write the preference of every user and the attributes of every item with the model's own decoder, and keep them.

    In a checkpoint they wait for `rdrec export`; a bundle is replaced by one with the profiles and a new model version.
    A run that was cut off goes on when the same command is given again.
    """
    from rich.console import Console

    from rdrec_core.bundle import MANIFEST_FILE, Bundle
    from training.bundling import profiles
    from training.bundling.profile_sources import of_bundle, of_checkpoint
    from training.evaluation.tables import progress_bar

    console = Console(stderr=True)
    is_bundle = (path / MANIFEST_FILE).is_file()
    if is_bundle:
        bundle = Bundle.open(path)
        profiles.require_new(bundle, force=force)
        job, write = of_bundle(bundle, fast=fast, threads=threads)
    else:
        job, write = of_checkpoint(path, dataset, fast=fast)
    with profiles.ProfileJournal(profiles.journal_of(path), job) as journal:
        if journal.n_done:
            console.print(f"{journal.n_done:,} texts were written by an earlier run", highlight=False)
        try:
            with progress_bar(console) as bar:
                row = bar.add_task("profiles", total=job.requests, completed=journal.n_done)
                texts = profiles.write_profiles(
                    write, job, journal, batch_size=batch_size, done=lambda n: bar.update(row, completed=n)
                )
        except KeyboardInterrupt:
            console.print("interrupted; run the same command again to go on")
            raise typer.Exit(INTERRUPTED) from None
    users, items = job.counts
    if is_bundle:
        if profiles.is_signed(path):
            console.print("the signature no longer fits and is left out; sign the bundle again", highlight=False)
        said = profiles.store_in_bundle(bundle, texts).model_version
    else:
        said = str(profiles.store_in_checkpoint(path, texts))
    journal.path.unlink()
    console.print(f"{users:,} users' preferences, {items:,} items' attributes: {said}", highlight=False)
