"""`rdrec prepare`: options in, a progress bar and a summary out; the work is in `training/data/prepare.py`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rdrec_core.errors import InputError

if TYPE_CHECKING:
    from training.data.catalogue import CatalogueCounts
    from training.data.prepare import PrepareConfig, Prepared

SHOWN_ATTRIBUTES = 12
MANY_VALUES = ("--reviews", "--metadata")


def prepare(
    out: Annotated[Path, typer.Option(help="Dataset folder to write.")],
    reviews: Annotated[
        list[Path] | None,
        typer.Option(help="Review file: JSON lines, CSV or Parquet, gzipped or not. Several may follow."),
    ] = None,
    metadata: Annotated[
        list[Path] | None, typer.Option(help="File on the items: titles, brands, categories, ... Several may follow.")
    ] = None,
    p5: Annotated[Path | None, typer.Option(help="Folder as published by P5, POD or RDRec, taken as it is.")] = None,
    name: Annotated[str | None, typer.Option(help="The dataset's name; by default the folder's.")] = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", help="amazon2014, amazon2018, amazon2023, csv or parquet; by default found out."),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Columns of CSV or Parquet: user=..,item=..,text=..,rating=..,timestamp=..,title=..; of metadata in "
            "any format: item=..,title=..,brand=..,categories=..,description=..,features=.."
        ),
    ] = None,
    min_interactions: Annotated[int, typer.Option(min=1, help="k of the k-core (not applied to --p5).")] = 5,
    max_bad_lines: Annotated[int, typer.Option(min=0, help="More bad lines than this stop the run.")] = 100,
    protocol: Annotated[
        str,
        typer.Option(
            help="clean: leave one out, made from training interactions only; temporal: one cut in time; "
            "paper: as published, leaks."
        ),
    ] = "clean",
    cut: Annotated[
        str,
        typer.Option(
            help="Under temporal: where validation and test begin, as shares of the interactions or as dates "
            "(2014-01-01,2014-04-01)."
        ),
    ] = "0.8,0.9",
    labels: Annotated[
        str | None,
        typer.Option(help="collaborative (default), sequential, random, or original (default of --protocol paper)."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing dataset.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one a CPU core.")] = None,
) -> None:
    """Turn reviews into a dataset folder: duplicates out, k-core, leave-one-out splits, labels, explanations.

    Duplicate (user, item) pairs keep the earliest, ties in time are broken by input order, users with fewer than 3
    interactions are all training. The explanation of a review is its sentence with the most feature words (the nouns
    that the catalogue's training reviews name most), else its first sentence.
    """
    from pydantic import ValidationError

    from training.data.p5 import source_files
    from training.data.prepare import PrepareConfig
    from training.data.prepare import prepare as run

    try:
        config = PrepareConfig(
            out=out,
            reviews=tuple(reviews or ()),
            metadata=tuple(metadata or ()),
            p5=p5,
            name=name,
            format=format_,
            columns=parse_columns(columns),
            min_interactions=min_interactions,
            max_bad_lines=max_bad_lines,
            protocol=protocol,
            cut=cut,
            labels=labels,
            seed=seed,
            force=force,
            workers=workers or os.cpu_count() or 1,
        )
    except ValidationError as cause:
        first = cause.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise InputError(f"{option} {first['input']}: {first['msg']}", field=str(first["loc"][0])) from cause
    inputs = [*(source_files(p5) if p5 else ()), *config.reviews, *config.metadata]
    with _Progress(inputs) as progress:
        made = run(config, on_bytes=progress.on_bytes, on_stage=progress.on_stage)
    _print_summary(config, made)


def parse_columns(text: str | None) -> dict[str, str]:
    """`user=a,item=b` as a mapping. InputError where a part has no name on either side."""
    columns: dict[str, str] = {}
    for part in (text or "").split(","):
        role, equals, column = (word.strip() for word in part.partition("="))
        if not part.strip():
            continue
        if not (equals and role and column):
            raise InputError(
                f"--columns {part.strip()}: expected role=column, such as user=customer_id", field="columns"
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


def catalogue_rows(counts: CatalogueCounts) -> list[tuple[str, str]]:
    """The summary's lines on what is known of the items; numbers are items that have it."""
    rows = [
        ("  with title", f"{counts.n_titles:,}"),
        ("  with brand", f"{counts.n_brands:,}"),
        ("  with categories", f"{counts.n_categories:,}"),
        ("  with description", f"{counts.n_descriptions:,}"),
        ("  with features", f"{counts.n_features:,}"),
    ]
    for attribute in counts.attributes[:SHOWN_ATTRIBUTES]:
        unreadable = f", {attribute.n_unreadable:,} not a {attribute.type}" if attribute.n_unreadable else ""
        rows.append((f"  with {attribute.name}", f"{attribute.n_items:,} ({attribute.type}{unreadable})"))
    more = counts.attributes[SHOWN_ATTRIBUTES:]
    if more:
        rows.append((f"  and {len(more)} more attributes", ", ".join(a.name for a in more[:3]) + ", ..."))
    if counts.n_rare_attributes:
        rows.append(("  rare attributes left out", f"{counts.n_rare_attributes:,}"))
    return rows


def _print_summary(config: PrepareConfig, made: Prepared) -> None:
    from rich.console import Console
    from rich.table import Table

    from training.data.labels import digit_trie
    from training.data.temporal import describe_cut

    info = made.info
    table = Table(title=f"{info.name}: {config.out}", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    sparsity = 1 - info.n_interactions / (info.n_users * info.n_items)
    rows: list[tuple[str, str]] = [
        ("users", f"{info.n_users:,}"),
        ("items", f"{info.n_items:,}"),
        *catalogue_rows(made.catalogue),
        ("interactions", f"{info.n_interactions:,}"),
        ("reviews with text", f"{info.n_reviews:,}"),
        ("sparsity", f"{sparsity:.4%}"),
        *((f"  {split}", f"{count:,}") for split, count in made.split_counts.items()),
        ("records read", f"{made.n_rows:,}"),
        ("bad lines", f"{made.n_bad:,}"),
        ("duplicates dropped", f"{made.n_duplicates:,}"),
        ("reviews set aside (a held-out review has the same text)", f"{made.reviews.n_set_aside:,}"),
        ("users with negatives", f"{made.n_negatives:,}"),
        ("protocol", info.protocol if info.cut is None else f"{info.protocol}: {describe_cut(info.cut)}"),
        ("labels", f"{info.label_scheme}, {made.labels.min()} to {made.labels.max()}"),
        ("label digits: prefixes of each length", digit_trie(made.labels)),
    ]
    if made.reviews.features:
        rows.append(("feature words", f"{len(made.reviews.features)}: {', '.join(made.reviews.features[:8])}, ..."))
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    if made.bad:
        console.print("bad lines, the first ten:", *made.bad, sep="\n", markup=False, highlight=False, soft_wrap=True)
    if info.protocol == "paper":
        console.print(
            "Protocol paper: labels, user numbers and review splits leak; figures compare with the paper's only.",
            style="yellow",
        )
