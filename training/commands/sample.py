"""`rdrec sample`: writes the made-up shop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def sample(
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same shop, byte for byte.")] = 0,
    days: Annotated[
        int, typer.Option(min=0, help="Let the shop grow for so many days after that, with a log of each day's events.")
    ] = 0,
    new_items: Annotated[int, typer.Option(min=0, help="Items that arrive a day.")] = 3,
    new_users: Annotated[int, typer.Option(min=0, help="Users who arrive a day.")] = 5,
    force: Annotated[bool, typer.Option("--force", help="Replace a sample shop that is there.")] = False,
) -> None:
    """Write the made-up shop of 240 board games and toys and 600 users: reviews, metadata and a README.

    Users have hidden tastes and items hidden traits; both show in what is bought and in the reviews. The files are in
    the Amazon 2018 format that `rdrec prepare` reads. With --days the shop goes on: a folder `days` holds the events of
    each day as the service logs them, and the items that arrive as `PUT /items` takes them. Fashions and tastes drift.
    """
    from rdrec_core.errors import InputError
    from rdrec_core.replacing import replacing_folder
    from training.data.growing_shop import Growth, write_days
    from training.data.sample import METADATA_FILE, REVIEWS_FILE, write_sample

    if out.is_dir() and not any(out.iterdir()):
        out.rmdir()
    elif out.exists() and not (force and (out / REVIEWS_FILE).is_file()):
        raise InputError(f"--out {out} exists; choose another folder, or --force to replace a sample shop", field="out")
    with replacing_folder(out, force=force) as folder:
        counts, shop = write_sample(folder, seed)
        if days:
            counts |= write_days(folder, shop, Growth(days, new_items, new_users), seed)
    print(f"{out}: " + ", ".join(f"{n:,} {what}" for what, n in counts.items()))
    print(f"next: rdrec prepare --reviews {out / REVIEWS_FILE} --metadata {out / METADATA_FILE} --out DATASET")
