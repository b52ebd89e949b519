"""The source files that the options name, read and brought to one log: what `prepare` begins with.

Knows options and who reads what; nothing of datasets but that one may stand before the files.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rdrec_core.errors import DatasetError
from training.data import reviews
from training.data.continuing import ReadEvents, previous_parts, read_events
from training.data.dataset import Dataset
from training.data.histories import PurchaseLog
from training.data.ingest import Ingested, bad_lines, ingest
from training.data.p5 import read_p5
from training.data.prepare_config import PrepareConfig
from training.data.source_jobs import SourceFile
from training.data.sources import Source, from_p5, from_parts


def read_sources(
    config: PrepareConfig, previous: Dataset | None, parts: Path, on_bytes: Callable[[int], None]
) -> tuple[Source, PurchaseLog, ReadEvents]:
    """Everything that the options name, the earlier dataset first, as one log; and what of it came of the event log.

    Parts are written into the folder `parts`. Raises DatasetError where there is nothing to read.
    """
    parts.mkdir()
    wanted = reviews.Wanted(
        config.order,
        config.min_rating,
        config.event_column,
        _lower(config.events),
        config.time_format,
        titles_elsewhere=bool(config.metadata),
    )
    by_place = all(column.isdigit() for column in config.columns.values())
    shared = {} if by_place else config.columns  # places are those of the review files
    text = {"encoding": config.encoding, "separator": config.separator, "quoting": config.quoting}
    files = [SourceFile(path, "reviews", config.format, config.columns, wanted, **text) for path in config.reviews]
    files += [
        SourceFile(
            path,
            "metadata",
            config.metadata_format,
            config.metadata_columns or shared,
            shared_columns=not config.metadata_columns,
            **text,
        )
        for path in config.metadata
    ]
    results = (
        ingest(
            files, parts, max_bad_lines=config.max_bad_lines, workers=config.workers, ray=config.ray, on_bytes=on_bytes
        )
        if files
        else []
    )
    read, described = results[: len(config.reviews)], results[len(config.reviews) :]
    if config.p5 is not None:
        own = config.protocol == "paper"
        return *from_p5(read_p5(config.p5, on_bytes), described, own_splits=own), ReadEvents()
    events, weighted = ReadEvents(), config.events is not None
    if previous is not None:
        kinds = _lower(config.events)
        events = read_events(config.event_log, parts, kinds, after=previous.info.events_until)
        heaviest = max(kinds.values()) if kinds else 1.0  # nothing new outweighs what was learned from already
        before, catalogue = previous_parts(previous, parts, forgotten=events.forgotten, weight=heaviest)
        read, described, weighted = [*before, *read, *events.parts], [*described, *catalogue], True
    if not any(file.parts for file in read):
        raise DatasetError(nothing_read(read))
    return *from_parts(read, described, weighted=weighted), events


def nothing_read(files: list[Ingested]) -> str:
    """Why no review could be read: how many lines there were and what became of them."""
    names = ", ".join(str(file.source.path) for file in files)
    n_lines = sum(file.tally.n_lines for file in files)
    what = [f"{n:,} dropped ({reason}: {first})" for file in files for reason, (n, first) in file.dropped.seen.items()]
    shown = "".join("\n" + line for line in bad_lines(files))
    return f"no review could be read from {names}: {n_lines:,} lines" + "".join(", " + w for w in what) + shown


def _lower(events: dict[str, float] | None) -> dict[str, float] | None:
    return None if events is None else {kind.strip().lower(): weight for kind, weight in events.items()}
