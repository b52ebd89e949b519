"""`rdrec prepare`: options in, a progress bar and a summary out; the work is in `training/data/prepare.py`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rdrec_core.cpus import available_cpus
from rdrec_core.errors import InputError

if TYPE_CHECKING:
    from training.data.prepare import PrepareConfig, Prepared

MANY_VALUES = ("--reviews", "--metadata", "--events")


def prepare(
    out: Annotated[Path, typer.Option(help="Dataset folder to write.")],
    reviews: Annotated[
        list[Path] | None,
        typer.Option(help="Review or event file: JSON, CSV or Parquet, compressed or not. Several may follow."),
    ] = None,
    metadata: Annotated[
        list[Path] | None, typer.Option(help="File on the items: titles, brands, categories, ... Several may follow.")
    ] = None,
    p5: Annotated[
        Path | None, typer.Option(help="Folder as published by P5, OpenP5, POD or RDRec, taken as it is.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The dataset's name; by default the folder's.")] = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", help="json, csv, parquet (amazon2014, ... are json); by default found out."),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Fields in any format: user=..,item=..,text=..,rating=..,timestamp=..,title=..,event=..; numbers "
            "from 1 where the file has no header."
        ),
    ] = None,
    metadata_format: Annotated[str | None, typer.Option(help="As --format, for --metadata.")] = None,
    metadata_columns: Annotated[
        str | None,
        typer.Option(help="item=..,title=..,brand=..,categories=..,description=..,features=..; by default --columns."),
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Of text files, such as latin-1; by default UTF-8 or 16.")
    ] = None,
    separator: Annotated[str | None, typer.Option(help="Of columns, such as '::'; by default found out.")] = None,
    quoting: Annotated[str, typer.Option(help="minimal, or none: a quotation mark is a plain character.")] = "minimal",
    order: Annotated[str, typer.Option(help="time, or file: lines are in order, a time is not needed.")] = "time",
    time_format: Annotated[
        str | None, typer.Option(help="How times are written, such as %d/%m/%Y; by default found out.")
    ] = None,
    min_rating: Annotated[float | None, typer.Option(help="Drop what is rated lower.")] = None,
    event_column: Annotated[str | None, typer.Option(help="Column of the kind of event.")] = None,
    events: Annotated[
        list[str] | None,
        typer.Option(
            help="Kinds to keep: transaction,addtocart; or with weights, view=1,transaction=5: of a user's "
            "events with an item the heaviest stays (unless --repeats keep). "
            "With --previous also folders of `rdrec collect` and log files "
            "(purchases alone, unless kinds are named too)."
        ),
    ] = None,
    previous: Annotated[
        Path | None,
        typer.Option(help="Dataset to go on from: its numbers and labels stay, what is new is appended."),
    ] = None,
    repeats: Annotated[
        str | None,
        typer.Option(
            help="Of a user's interactions with one item: first, last, or keep all. By default first, or that of"
            " --previous."
        ),
    ] = None,
    core: Annotated[
        int, typer.Option("--core", "--min-interactions", min=1, help="Keep the k-core only (not applied to --p5).")
    ] = 1,
    max_bad_lines: Annotated[int, typer.Option(min=0, help="More bad lines than this stop the run.")] = 100,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="clean: leave one out, made from training interactions only; temporal: one cut in time; "
            "paper: as published, leaks. By default clean, or that of --previous."
        ),
    ] = None,
    cut: Annotated[
        str,
        typer.Option(
            help="Under temporal: where validation and test begin, as shares of the interactions, as dates "
            "(2014-01-01,2014-04-01) or as times before the last interaction (8d,1d)."
        ),
    ] = "0.8,0.9",
    labels: Annotated[
        str | None,
        typer.Option(help="collaborative (default), sequential, random, or original (default of --protocol paper)."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing dataset.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one a CPU core.")] = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Parse on the Ray cluster of RAY_ADDRESS; --out is where all nodes see it.")
    ] = False,
) -> None:
    """Turn reviews or events into a dataset folder: repeats settled, leave-one-out splits, labels, explanations.

    Of a user's interactions with one item the earliest stays, ties in time are broken by input order, users with fewer
    than 3 interactions are all training. The explanation of a review is its sentence with the most feature words (the
    nouns that the catalogue's training reviews name most), else its first sentence. Nothing is filtered unless asked
    for; every line of the source is in the summary. docs/data.md shows every accepted form.
    """
    from pydantic import ValidationError

    from training.data.dataset import Dataset
    from training.data.p5 import source_files
    from training.data.prepare import PrepareConfig
    from training.data.prepare import prepare as run

    kinds, logs = split_events(events or [], previous)
    before = None if previous is None else Dataset(previous).info
    try:
        config = PrepareConfig(
            out=out,
            previous=previous,
            event_log=logs,
            reviews=tuple(reviews or ()),
            metadata=tuple(metadata or ()),
            p5=p5,
            name=name,
            format=format_,
            columns=parse_columns(columns),
            metadata_format=metadata_format,
            metadata_columns=parse_columns(metadata_columns, "--metadata-columns"),
            encoding=encoding,
            separator={"tab": "\t", "\\t": "\t", "space": " ", "blank": " "}.get(separator or "", separator),
            quoting=quoting,
            order=order,
            time_format=time_format,
            min_rating=min_rating,
            event_column=event_column,
            events=parse_events(kinds),
            repeats=repeats or (before.repeats if before else "first"),
            core=core,
            max_bad_lines=max_bad_lines,
            protocol=protocol or (before.protocol if before else "clean"),
            cut=cut,
            labels=labels,
            seed=seed,
            force=force,
            workers=workers or available_cpus(),
            ray=ray,
        )
    except ValidationError as cause:
        first = cause.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise InputError(f"{option} {first['input']}: {first['msg']}", field=str(first["loc"][0])) from cause
    inputs = [*(source_files(p5) if p5 else ()), *config.reviews, *config.metadata]
    with _Progress(inputs) as progress:
        made = run(config, on_bytes=progress.on_bytes, on_stage=progress.on_stage)
    _print_summary(config, made)


def split_events(given: list[str], previous: Path | None) -> tuple[str | None, tuple[Path, ...]]:
    """The values of `--events`: kinds of events, and paths of logs, which go with `--previous` only.

    Raises InputError for a path where nothing is.
    """
    paths = [v for v in given if "=" not in v and ("/" in v or (previous is not None and Path(v).exists()))]
    for value in paths:
        if not Path(value).exists():
            raise InputError(f"--events {value}: there is no such file or folder", field="events")
    kinds = [value for value in given if value not in paths]
    if paths and previous is None:
        raise InputError(
            f"--events {paths[0]} is a path, which needs --previous: the dataset that it is added to; to begin with"
            " events, give them as --reviews", field="events",
        )  # fmt: skip
    return ",".join(kinds) or None, tuple(map(Path, paths))


def parse_events(text: str | None) -> dict[str, float] | None:
    """`view=1,transaction=5`, or `transaction,addtocart` as weights of 1. InputError for a weight that is no number."""
    if text is None:
        return None
    events: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        kind, equals, weight = (word.strip() for word in part.partition("="))
        try:
            events[kind] = float(weight) if equals else 1.0
        except ValueError:
            raise InputError(f"--events {part}: {weight} is not a number, such as in view=1", field="events") from None
    return events


def parse_columns(text: str | None, option: str = "--columns") -> dict[str, str]:
    """`user=a,item=b` as a mapping. InputError where a part has no name on either side."""
    columns: dict[str, str] = {}
    for part in (text or "").split(","):
        role, equals, column = (word.strip() for word in part.partition("="))
        if not part.strip():
            continue
        if not (equals and role and column):
            raise InputError(
                f"{option} {part.strip()}: expected role=column, such as user=customer_id", field="columns"
            )
        columns[role] = column
    return columns


class _Progress:
    """Bytes read of the source files, then the name of the stage."""

    def __init__(self, files: Iterable[Path]) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TransferSpeedColumn,
        )

        self._bar = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        total = sum(path.stat().st_size for path in files if path.is_file())
        self._task = self._bar.add_task("reading", total=total)

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.stop()

    def on_bytes(self, n: int) -> None:
        self._bar.advance(self._task, n)

    def on_stage(self, name: str) -> None:
        self._bar.update(self._task, description=name)


def _print_summary(config: PrepareConfig, made: Prepared) -> None:
    from rich.console import Console
    from rich.table import Table

    from training.data.summary import summary_rows, warnings

    info = made.info
    table = Table(title=f"{info.name}: {config.out}", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    for row in summary_rows(made):
        table.add_row(*row)
    console = Console()
    console.print(table)
    if made.bad:
        console.print("bad lines, the first ten:", *made.bad, sep="\n", markup=False, highlight=False, soft_wrap=True)
    for warning in warnings(made, datetime.now(UTC)):
        console.print(f"note: {warning}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if info.protocol == "paper":
        console.print(
            "Protocol paper: labels, user numbers and review splits leak; figures compare with the paper's only.",
            style="yellow",
        )
