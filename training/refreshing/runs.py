"""A run of several steps that may be killed at any moment: what is done stays done, and the next start goes on there.

    runs/000012/run.json    the steps that are done, with their facts and times; the outcome once there is one

Each step writes its output whole or not at all, so that a step that was cut off is simply made again. Knows no step.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from rdrec_core.errors import DatasetError
from rdrec_core.replacing import replacing_file

RUN_FILE = "run.json"
RUN_FOLDERS = "[0-9][0-9][0-9][0-9][0-9][0-9]"
SERVED, REFUSED, NOTHING_NEW = "served", "refused", "nothing new"
"""How a refresh ends."""
Facts = dict[str, Any]


class Step(BaseModel):
    """A step that is done."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    seconds: float
    """Of the attempt that ended it."""
    facts: Facts


class RunState(BaseModel):
    """`run.json`."""

    model_config = ConfigDict(extra="forbid")

    number: int
    begun: str
    attempts: int = 0
    steps: list[Step] = []
    outcome: str | None = None
    """None while the run is not at its end."""


class Run:
    """One run. Not shared between processes: see `lock.py`."""

    def __init__(self, folder: Path, state: RunState) -> None:
        self.folder, self.state = folder, state

    @classmethod
    def open(cls, folder: Path, number: int = 1) -> Run:
        """The run of a folder, begun where it is not there. Raises DatasetError where its state cannot be read."""
        file = folder / RUN_FILE
        if not file.is_file():
            return cls(folder, RunState(number=number, begun=datetime.now(UTC).isoformat(timespec="seconds")))
        try:
            return cls(folder, RunState.model_validate_json(file.read_bytes()))
        except ValueError as error:
            raise DatasetError(f"{file} is not the state of a run: {error}; remove the folder") from error

    def attempt(self) -> None:
        """Another process goes on with it."""
        self.state.attempts += 1
        self._save()

    def step(self, name: str, work: Callable[[], Facts]) -> Facts:
        """The facts of a step, which is made unless it is done."""
        for done in self.state.steps:
            if done.name == name:
                return done.facts
        started = time.monotonic()
        facts = work()
        self.state.steps.append(Step(name=name, seconds=round(time.monotonic() - started, 3), facts=facts))
        self._save()
        return facts

    def end(self, outcome: str) -> None:
        """There is nothing left to do."""
        self.state.outcome = outcome
        self._save()

    def facts(self, name: str) -> Facts | None:
        """Of a step that is done."""
        return next((step.facts for step in self.state.steps if step.name == name), None)

    def _save(self) -> None:
        with replacing_file(self.folder / RUN_FILE) as temporary:
            temporary.write_text(self.state.model_dump_json(indent=2) + "\n", encoding="utf-8")


def newest_run(folder: Path) -> Run | None:
    """The run with the greatest number under a folder."""
    found = _numbered(folder, RUN_FOLDERS)
    return Run.open(found[-1]) if found else None


def run_to_go_on_with(folder: Path) -> Run:
    """The newest run where it did not reach its end, else a new one."""
    newest = newest_run(folder)
    if newest is not None and newest.state.outcome is None:
        return newest
    number = 1 if newest is None else newest.state.number + 1
    return Run.open(folder / f"{number:06d}", number)


def remove_old(folder: Path, pattern: str, *, keep: int, in_use: set[Path]) -> None:
    """Remove the oldest folders of these names, but the `keep` newest and those in use."""
    used = {path.resolve() for path in in_use}
    for path in _numbered(folder, pattern)[:-keep]:
        if not any(one.is_relative_to(path.resolve()) for one in used):
            shutil.rmtree(path)


def _numbered(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if path.is_dir())


class Served(BaseModel):
    """`current.json`: what the next run goes on from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: Path
    checkpoint: Path
    """The one that was measured, which never saw the newest days."""
    bundle: Path

    @classmethod
    def read(cls, path: Path) -> Served | None:
        """None where nothing was refreshed yet."""
        return cls.model_validate(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    def write(self, path: Path) -> None:
        """In one step."""
        with replacing_file(path) as temporary:
            temporary.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
