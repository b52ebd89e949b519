"""`rdrec batch`: recommendations for all users as one Parquet file; the work is in `training/batch_scoring`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rdrec_core.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, Task

INTERRUPTED = 130


def batch(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder made by `rdrec export`.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    users: Annotated[
        Path | None,
        typer.Option(
            help="Text with a user id a line, or CSV, TSV or Parquet with a column user_id and, if wanted, history; "
            "all users of the bundle by default."
        ),
    ] = None,
    n_items: Annotated[int, typer.Option(min=1, help="Items a user.")] = 10,
    exclude_seen: Annotated[bool, typer.Option(help="Leave out the items of the history.")] = True,
    fusion: Annotated[str, typer.Option(help="on: as fitted by `rdrec fuse`; off: the model alone.")] = "on",
    mode: Annotated[str | None, typer.Option(help="Score mode: full, trie or trie-int8.")] = None,
    strategy: Annotated[str | None, typer.Option(help="beam or exact.")] = None,
    beam_width: Annotated[int, typer.Option(min=1, help="Beams of the search.")] = 20,
    shard: Annotated[str, typer.Option(help="i/n: the i-th of n parts of the users, in their order.")] = "1/1",
    block_users: Annotated[
        int, typer.Option(min=1, help="Users computed and kept together; shards are cut at whole blocks.")
    ] = 512,
    threads: Annotated[int, typer.Option(min=0, help="Threads of one engine; 0 leaves their number to it.")] = 0,
    ray: Annotated[bool, typer.Option("--ray", help="Compute on Ray (RAY_ADDRESS, else on this machine).")] = False,
    workers: Annotated[int, typer.Option(min=0, help="Ray actors; 0 takes as many as there are cores for.")] = 0,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs of one Ray actor.")] = 0.0,
    force: Annotated[bool, typer.Option("--force", help="Replace --out, and parts of another run beside it.")] = False,
) -> None:
    """Recommend for all users offline, with the engine and the ranking of the service.

    Rows: user_id, rank, item_id, score, model, graph, text, model_version; users in their order, ranks ascending. A run
    that was cut off goes on when the same command is given again. The shards' files one after another are the whole
    result.
    """
    import time
    from functools import partial

    from pydantic import ValidationError
    from rich.console import Console

    from rdrec_core.bundle import Bundle
    from training.batch_scoring.parts import Job, Parts, Shard
    from training.batch_scoring.ray_workers import scored_by_ray
    from training.batch_scoring.scoring import ScoringOptions, Totals, scored_here
    from training.batch_scoring.users import BundleUsers, UserList, read_users

    if fusion not in ("on", "off"):
        raise InputError(f"--fusion {fusion!r} should be one of on, off", field="fusion")
    try:
        options = ScoringOptions.model_validate(
            {
                "n_items": n_items, "beam_width": beam_width, "exclude_seen": exclude_seen, "fusion": fusion == "on",
                "score_mode": mode, "strategy": strategy,
            }
        )  # fmt: skip
    except ValidationError as error:
        first = error.errors()[0]
        option = "mode" if first["loc"][0] == "score_mode" else str(first["loc"][0])
        raise InputError(f"--{option} {first['input']!r}: {first['msg']}", field=option) from error
    if not ray and (workers or gpus):
        raise InputError("--workers and --gpus belong to --ray", field="workers")
    opened = Bundle.open(bundle)
    asked: UserList = BundleUsers(opened.users) if users is None else read_users(users)
    job = Job(
        model_version=opened.manifest.model_version, users=asked.identity, n_users=len(asked), block_users=block_users,
        shard=Shard.parse(shard), options=options,
    )  # fmt: skip
    console = Console(stderr=True)
    say = partial(console.print, highlight=False, soft_wrap=True)
    totals = Totals()
    began = time.monotonic()
    with Parts.open(out, job, force=force) as parts:
        missing = parts.missing()
        total, to_do = job.count_users(job.blocks), job.count_users(missing)
        if to_do < total:
            say(f"{total - to_do:,} users were done by an earlier run")
        work = ((block, asked.rows(*job.users_of(block))) for block in missing)
        if ray:
            scored = scored_by_ray(bundle, options, work, workers=workers, threads=threads, gpus=gpus)
        else:
            scored = scored_here(bundle, options, work, threads=threads)
        try:
            with _progress(console) as bar:
                task = bar.add_task("users", total=to_do)
                for block, found in scored:
                    parts.write(block, found.rows)
                    totals.add(found)
                    bar.advance(task, found.n_users)
        except KeyboardInterrupt:
            say("interrupted; run the same command again to go on")
            raise typer.Exit(INTERRUPTED) from None
        n_rows = parts.finish()
    seconds = time.monotonic() - began
    say(f"{total:,} users, {n_rows:,} rows: {out}")
    say(f"{totals.users:,} users in {seconds:.1f} s, {totals.users / seconds:,.1f} users/s with start and writing")
    if totals.unknown_users:
        say(f"{totals.unknown_users:,} users without any history got the popular items")
    if totals.unknown_items:
        say(f"{totals.unknown_items:,} items of the given histories are not in the catalogue and were left out")


def _progress(console: Console) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        """Users a second, lately."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.0f} users/s")

    return Progress(BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn(), console=console)
