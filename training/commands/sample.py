"""`rdrec sample`: writes the made-up shop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def sample(
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same shop, byte for byte.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace a sample shop that is there.")] = False,
) -> None:
    """Write the made-up shop of 240 board games and toys and 600 users: reviews, metadata and a README.

    Users have hidden tastes and items hidden traits; both show in what is bought and in the reviews. The files are in
    the Amazon 2018 format that `rdrec prepare` reads.
    """
    from rdrec_core.errors import InputError
    from rdrec_core.replacing import replacing_folder
    from training.data.sample import METADATA_FILE, REVIEWS_FILE, write_sample

    if out.is_dir() and not any(out.iterdir()):
        out.rmdir()
    elif out.exists() and not (force and (out / REVIEWS_FILE).is_file()):
        raise InputError(f"--out {out} exists; choose another folder, or --force to replace a sample shop", field="out")
    with replacing_folder(out, force=force) as folder:
        counts = write_sample(folder, seed)
    print(f"{out}: " + ", ".join(f"{n:,} {what}" for what, n in counts.items()))
    print(f"next: rdrec prepare --reviews {out / REVIEWS_FILE} --metadata {out / METADATA_FILE} --out DATASET")
