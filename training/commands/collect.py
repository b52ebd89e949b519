"""`rdrec collect`: the service's event log and live catalogue in, a batch out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from training.data.collecting import Collected

MANY_VALUES = ("--catalogue",)


def collect(
    events: Annotated[str, typer.Option(help="Where the service logs: a redis:// URL, or a folder of events-*.jsonl.")],
    out: Annotated[Path, typer.Option(help="Folder of the batches; what was collected before is in it.")],
    catalogue: Annotated[
        list[Path] | None,
        typer.Option(help="JSON lines of live items, in place of those in Redis. Several may follow."),
    ] = None,
    prefix: Annotated[str, typer.Option(help="RDREC_REDIS_PREFIX of the service.")] = "rdrec",
) -> None:
    """Take what was logged since the last time, and the catalogue as it is, into a new batch: exactly once.

    A batch and the place up to which the log was read appear together, so a run may be killed and repeated at any time.
    Records of forgotten users are taken out of earlier batches too.
    """
    from training.data.collecting import collect as run
    from training.data.collecting import read_items
    from training.data.log_sources import FileLog, RedisLog

    if "://" in events:
        log = RedisLog(events, prefix=prefix)
        items = read_items(catalogue) if catalogue else list(log.items())
        found = run(log, out, items=items)
    else:
        found = run(FileLog(Path(events)), out, items=read_items(catalogue) if catalogue else None)
    for line in told(found):
        print(line)


def told(found: Collected) -> list[str]:
    """What was collected, and what was not, a line each."""
    lines = [
        f"{found.n_events:,} events, {found.n_items:,} items of the catalogue, {found.n_forgotten:,} users forgotten: "
        + (", ".join(str(path) for path in found.batches) or "nothing new")
    ]
    if found.n_repeated:
        lines.append(f"{found.n_repeated:,} records were there already (the same event_id) and are left out")
    if found.n_missed:
        lines.append(
            f"{found.n_missed:,} events were dropped from the stream before they were collected: raise its length cap"
            " or collect more often"
        )
    return [*lines, *found.bad.lines()]
