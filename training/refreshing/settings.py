"""The settings of the daily loop: one YAML file, checked whole before anything is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rdrec_core.errors import InputError
from training.evaluation.gate import Rule


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Start(_Section):
    """What the first refresh goes on from; `rdrec build` leaves the three beside its bundle."""

    dataset: Path
    checkpoint: Path
    bundle: Path


class Train(_Section):
    """Of the training that goes on from yesterday's; `set` takes any other field of the configuration."""

    epochs: int = Field(3, ge=1)
    learning_rate: float | None = Field(None, gt=0)
    """None: half of what the checkpoint was trained at."""
    set: dict[str, Any] = Field(default_factory=dict)


class Fuse(_Section):
    """Of `rdrec fuse`."""

    limit_users: int = Field(5000, ge=1)
    tune_graph: bool = True


class Gate(_Section):
    """When the new model may be served; see docs/shop.md."""

    bound: float = Field(0.01, ge=0, le=1)
    """How much NDCG@10 may be lost: more, at 95 %, and the served model stays."""
    doubt: float = Field(0.1, gt=0, le=1)
    """A loss greater than this must be excluded at 95 %."""
    max_fall: float = Field(0.5, gt=0, le=1)
    """Of a day's NDCG@10 below that of the days before, as a part of it: such a day's events are not to be trusted."""
    min_questions: int = Field(20, ge=1)

    @property
    def rule(self) -> Rule:
        """For `gate.judged`."""
        return Rule(self.bound, self.doubt, self.max_fall, self.min_questions)


class Replicas(_Section):
    """Who serves the bundle: a list of base URLs, or a name that DNS knows every replica by."""

    urls: tuple[str, ...] = ()
    dns: str | None = None
    """Such as `http://rdrec-headless:8000`: each address of the name is a replica."""
    key_file: Path | None = None
    """Holds a key of the scopes `admin` and `recommend`."""
    timeout_s: float = Field(180.0, gt=0)
    """For one replica to open the bundle and warm up."""


class Lock(_Section):
    """Of a run; on one host a file is enough, and Redis keeps other hosts out too."""

    redis_url: str | None = None
    expiry_s: float = Field(120.0, ge=1)
    """After so long without a sign of life the run of another host counts as dead."""


class RefreshSettings(_Section):
    """`refresh.yaml`. Relative paths are relative to the folder of the file."""

    work: Path
    """Everything that the loop keeps: batches, runs, what was served last."""
    start: Start
    events: str
    """Where the service logs: a redis:// URL, or a folder of events-*.jsonl."""
    catalogue: tuple[Path, ...] = ()
    """JSON lines of live items, in place of those in Redis."""
    redis_prefix: str = "rdrec"
    kinds: dict[str, float] = {"purchase": 1.0}
    """Kinds of events that are learned from, with their weights."""
    leave_out: tuple[str, ...] = ()
    """Names of batches that are not learned from, such as batch-000012."""
    validation_days: float = Field(7.0, gt=0)
    """Of the time before what the served bundle has learned from until; what is newer is the test."""
    min_validation: int = Field(500, ge=1)
    """Interactions of the validation, which goes further back where fewer are in its days."""
    train: Train = Train()
    fuse: Fuse = Fuse()
    gate: Gate = Gate()
    bundles: Path
    """Folder of the bundles, the bundle root of the replicas."""
    link: str = "current"
    """In it: the link that a replica opens when it starts."""
    replicas: Replicas = Replicas()
    lock: Lock = Lock()
    keep: int = Field(7, ge=1)
    """Runs and bundles that are kept, beside those in use."""

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        if self.replicas.urls and self.replicas.dns:
            raise ValueError("replicas: name either urls or dns")
        return self

    @property
    def collected(self) -> Path:
        """Folder of the batches."""
        return self.work / "collected"


def read_settings(path: Path) -> RefreshSettings:
    """Raises InputError naming the field, or the file where it cannot be read."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise InputError(f"--config {path} cannot be read: {error.strerror}", field="config") from error
    except yaml.YAMLError as error:
        raise InputError(f"--config {path} is not YAML: {error}", field="config") from error
    if not isinstance(content, dict):
        raise InputError(f"--config {path} should hold `field: value` lines", field="config")
    try:
        found = RefreshSettings.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "settings"
        known = f"; it may be one of {', '.join(RefreshSettings.model_fields)}" if len(first["loc"]) == 1 else ""
        problem = f"is no field{known}" if first["type"] == "extra_forbidden" else first["msg"]
        raise InputError(f"{path}: {field}: {problem}", field=field) from error
    return _from_folder(found, path.resolve().parent)


def _from_folder(settings: RefreshSettings, folder: Path) -> RefreshSettings:
    """The same with every path made absolute."""
    start = settings.start.model_copy(
        update={name: folder / getattr(settings.start, name) for name in ("dataset", "checkpoint", "bundle")}
    )
    replicas = settings.replicas
    if replicas.key_file is not None:
        replicas = replicas.model_copy(update={"key_file": folder / replicas.key_file})
    events = settings.events if "://" in settings.events else str(folder / settings.events)
    return settings.model_copy(
        update={
            "work": folder / settings.work, "bundles": folder / settings.bundles, "start": start, "replicas": replicas,
            "events": events, "catalogue": tuple(folder / path for path in settings.catalogue),
        }
    )  # fmt: skip
