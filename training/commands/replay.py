"""`rdrec replay`: a log of events, and the items that arrive, played against a service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MANY_VALUES = ("--items",)


def replay(
    events: Annotated[
        Path, typer.Argument(help="Folder of events-*.jsonl, such as `days` of a sample shop, or a file.")
    ],
    url: Annotated[str, typer.Option(help="The service, such as http://127.0.0.1:8000.")],
    speed: Annotated[
        float, typer.Option(min=0.0, help="How many seconds of the log pass in one; 0 waits for nothing.")
    ] = 0.0,
    items: Annotated[
        list[Path] | None,
        typer.Option(help="JSON lines of items to put at their arrival; by default items-*.jsonl of the folder."),
    ] = None,
    key_file: Annotated[Path | None, typer.Option(help="Holds a key of the scopes `write` and `catalog`.")] = None,
    kinds: Annotated[str | None, typer.Option(help="Kinds of events to send, such as purchase,view; else all.")] = None,
    now: Annotated[
        bool, typer.Option("--now", help="Send the times of the log moved, so that its last event is of now.")
    ] = False,
) -> None:
    """Put items and send events in the order of their times; events of a moment go in one request.

    Repeated, it changes nothing: the service knows an event by user, item, kind and time.
    """
    from training.data.collecting import read_items
    from training.refreshing.replaying import log_of, play

    files = items if items is not None else sorted(events.glob("items-*.jsonl")) if events.is_dir() else []
    found = log_of(events, read_items(files), kinds=None if kinds is None else set(kinds.split(",")), to_now=now)
    sent = play(found, url, speed=speed, key=None if key_file is None else key_file.read_text().strip())
    print(f"{sent.n_items:,} items put, {sent.n_events:,} events sent, {sent.n_known:,} of them known already")
    for problem, n in sent.problems.items():
        print(f"{n:,} events refused: {problem}")
    if sent.problems:
        raise typer.Exit(1)
