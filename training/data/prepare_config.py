"""The options of `rdrec prepare`, and which of them go together. Reads nothing but whether a path is there."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from rdrec_core.errors import InputError
from training.data import histories as h
from training.data import metadata, reviews
from training.data.dataset import Protocol
from training.data.labels import LabelScheme
from training.data.opening import checked_encoding
from training.data.reviews import Order
from training.data.source_jobs import Format
from training.data.tables import Quoting
from training.data.temporal import DEFAULT_CUT

DEFAULT_LABELS: dict[Protocol, LabelScheme] = {
    "clean": "collaborative",
    "paper": "original",
    "temporal": "collaborative",
}


class PrepareConfig(BaseModel):
    """What to read, by which rules, and where to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    out: Path
    reviews: tuple[Path, ...] = ()
    metadata: tuple[Path, ...] = ()
    p5: Path | None = None
    previous: Path | None = None
    """A dataset whose numbers and labels stay, and to which the sources are added."""
    event_log: tuple[Path, ...] = ()
    """With `previous`: folders of `rdrec collect`, or log files of the service."""
    name: str | None = None
    """By default the folder's name."""
    format: Format | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    """Role (user, item, text, rating, timestamp, title, event) -> column, or place from 1 in files without header."""
    metadata_format: Format | None = None
    metadata_columns: dict[str, str] = Field(default_factory=dict)
    """Role (item, title, brand, categories, description, features) -> column; `columns` by name hold here too."""
    encoding: str | None = None
    """By default found out by its mark, else UTF-8."""
    separator: str | None = None
    quoting: Quoting = "minimal"
    order: Order = "time"
    """"file": lines are in order of time; then no time is needed."""
    time_format: str | None = None
    """For `datetime.strptime`."""
    min_rating: float | None = None
    """Rows rated lower are dropped; rows without a rating stay."""
    event_column: str | None = None
    events: dict[str, float] | None = None
    """Kind of event -> weight; kinds that are not named are dropped."""
    repeats: h.Repeats = "first"
    core: int = Field(default=1, ge=1)
    """k of the k-core; not applied to P5 folders, which are taken as published."""
    max_bad_lines: int = Field(default=100, ge=0)
    protocol: Protocol = "clean"
    cut: str = DEFAULT_CUT
    """Under `temporal`: where validation and test begin, as shares or dates."""
    labels: LabelScheme | None = None
    """By default `collaborative`; `original` under `paper`."""
    seed: int = 0
    force: bool = False
    workers: int = Field(default=2, ge=1)
    ray: bool = False
    """Whether blocks are parsed on a Ray cluster, instead of by workers of this machine."""


def checked_scheme(config: PrepareConfig) -> LabelScheme:
    """How items are labelled. Raises InputError, naming the option, where options contradict each other."""
    if config.previous is not None:
        _check_continued(config)
    elif config.event_log:
        raise InputError(
            "--events with files needs --previous: the dataset that they are added to; a file of events to begin with"
            " is given as --reviews", field="events",
        )  # fmt: skip
    elif (config.p5 is None) == (not config.reviews):
        raise InputError("name either review files (--reviews) or a P5 folder (--p5)", field="reviews")
    if config.p5 is not None and (config.columns or config.format) and not config.metadata:
        raise InputError("--columns and --format belong to --reviews and --metadata, not to --p5", field="p5")
    roles = list(dict.fromkeys([*reviews.ROLES, *metadata.ROLES]))
    for option, columns in (("--columns", config.columns), ("--metadata-columns", config.metadata_columns)):
        unknown = sorted(set(columns) - set(roles))
        if unknown:
            raise InputError(f"{option} knows no {', '.join(unknown)}; it takes {', '.join(roles)}", field="columns")
        by_place = {column.isdigit() for column in columns.values()}
        if len(by_place) > 1:
            raise InputError(f"{option} takes either names or places, not both", field="columns")
    if config.encoding is not None:
        checked_encoding(config.encoding)
    if config.p5 is not None and config.protocol == "temporal":
        raise InputError("--protocol temporal needs times, which a P5 folder does not hold", field="protocol")
    if config.order == "file" and config.protocol == "temporal":
        raise InputError("--protocol temporal orders by time; it takes no --order file", field="order")
    if config.labels == "original" and config.protocol != "paper":
        raise InputError(
            "--labels original leaks: its numbers were given over test items too; it needs --protocol paper",
            field="labels",
        )
    if config.out.exists():
        if not config.out.is_dir():
            raise InputError(f"--out {config.out} is a file; name a folder", field="out")
        if not any(config.out.iterdir()):
            config.out.rmdir()
        elif not (config.out / "dataset.json").is_file():
            raise InputError(
                f"--out {config.out} holds something that is not a dataset; choose another folder", field="out"
            )
        elif not config.force:
            raise InputError(f"--out {config.out} exists; choose another folder or pass --force", field="out")
    return config.labels or DEFAULT_LABELS[config.protocol]


def _check_continued(config: PrepareConfig) -> None:
    for name, clashes in (
        ("p5", config.p5 is not None),
        ("core", config.core > 1),
        ("labels", config.labels is not None),
        ("order", config.order == "file"),
        ("protocol", config.protocol == "paper"),
    ):
        if clashes:
            raise InputError(
                f"--{name} does not go with --previous, whose users, items and labels stay as they are", field=name
            )
