"""One refresh: the steps that every command does, in order, each of them made once however often the run is killed.

    begin -> collect -> prepare -> train -> fuse -> gate -> final -> export -> health -> publish -> done

Knows the order, what goes on from what, and why a model is kept instead. A refused run leaves everything as it was: its
events are read again by the next one, together with what came since.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from rich.console import Console

from rdrec_core.bundle import Bundle
from rdrec_core.cpus import available_cpus
from rdrec_core.errors import RDRecError
from training.bundling.export import export_bundle
from training.bundling.health import checks
from training.data.collecting import batches, collect, newest_items, read_items
from training.data.dataset import Dataset
from training.data.event_log import BATCH_EVENTS, read_log
from training.data.log_sources import FileLog, RedisLog
from training.data.prepare import PrepareConfig, prepare
from training.data.values import Notes
from training.evaluation.final_fit import final_fit
from training.evaluation.fusion_run import fit_system, store_fusion
from training.evaluation.gate import LEARNED_UNTIL, compare
from training.evaluation.systems import load_system, open_encoder, read_text_encoder
from training.learning.checkpoint import STATE_FILE, load_checkpoint
from training.learning.config import TrainConfig, continued_config
from training.learning.run import train
from training.learning.trainer import StopReason
from training.refreshing.publishing import RefusedError, publish
from training.refreshing.report import write_report
from training.refreshing.runs import (
    NOTHING_NEW,
    REFUSED,
    RUN_FOLDERS,
    SERVED,
    Facts,
    Run,
    Served,
    remove_old,
    run_to_go_on_with,
)
from training.refreshing.settings import RefreshSettings

RUNS, CURRENT = "runs", "current.json"
BUNDLES = "bundle-[0-9]*-[0-9]*"
"""Folders that the loop made; a bundle of another name is left alone."""
REFRESHED_AT = "refreshed_at"
"""In a bundle's metrics: when the loop made it, in unix seconds; the service shows its age."""


class InterruptedRunError(RDRecError):
    """A signal ended the training; the next start goes on with it."""


def refresh(settings: RefreshSettings, console: Console) -> Run:
    """Go on with the run that was cut off, if there is one, and then make one; the last of them, at its end."""
    while True:
        run = run_to_go_on_with(settings.work / RUNS)
        resumed = run.state.attempts > 0
        run.attempt()
        outcome = _Refresh(settings, run, console).to_the_end()
        run.state.outcome = outcome
        write_report(run, settings.work)
        run.end(outcome)
        if not resumed:
            return run


class _Refresh:
    def __init__(self, settings: RefreshSettings, run: Run, console: Console) -> None:
        self._settings, self._run, self._console = settings, run, console
        begin = run.step("begin", self._begin)
        self._before = Served.model_validate(begin["before"])
        self._bundle = settings.bundles / begin["bundle"]
        self._dataset, self._checkpoint, self._final = (run.folder / n for n in ("dataset", "checkpoint", "final"))

    def to_the_end(self) -> str:
        """The outcome."""
        self._step("collect", self._collect)
        new = self._new_batches()
        if not self._has_new_interactions(new):
            return NOTHING_NEW
        self._step("prepare", lambda: self._prepare(new))
        self._step("train", self._train)
        self._step("fuse", self._fuse)
        if not self._step("gate", self._gate)["passed"]:
            return REFUSED
        self._step("final", self._final_fit)
        self._step("export", self._export)
        if not self._step("health", self._health)["passed"]:
            return REFUSED
        if not self._step("publish", self._publish)["passed"]:
            return REFUSED
        self._step("done", self._done)
        work, settings = self._settings.work, self._settings
        in_use = {self._dataset, self._bundle, settings.bundles / settings.link}
        remove_old(work / RUNS, RUN_FOLDERS, keep=settings.keep, in_use=in_use)
        remove_old(settings.bundles, BUNDLES, keep=settings.keep, in_use=in_use | {settings.start.bundle})
        return SERVED

    def _step(self, name: str, work: Callable[[], Facts]) -> Facts:
        if self._run.facts(name) is None:
            self._console.rule(name)
        return self._run.step(name, work)

    def _begin(self) -> Facts:
        settings = self._settings
        start = settings.start
        before = Served.read(settings.work / CURRENT) or Served(
            dataset=start.dataset, checkpoint=start.checkpoint, bundle=start.bundle
        )
        name = f"bundle-{datetime.now(UTC):%Y%m%d}-{self._run.state.number:06d}"
        while (settings.bundles / name).exists():
            name += "-1"
        return {"before": before.model_dump(mode="json"), "bundle": name}

    def _collect(self) -> Facts:
        settings = self._settings
        if "://" in settings.events:
            log = RedisLog(settings.events, prefix=settings.redis_prefix)
            items = read_items(settings.catalogue) if settings.catalogue else list(log.items())
            found = collect(log, settings.collected, items=items)
        else:
            items_of_files = read_items(settings.catalogue) if settings.catalogue else None
            found = collect(FileLog(Path(settings.events)), settings.collected, items=items_of_files)
        return {
            "events": found.n_events, "items": found.n_items, "repeated": found.n_repeated, "missed": found.n_missed,
            "forgotten": found.n_forgotten, "bad": found.bad.total,
        }  # fmt: skip

    def _new_batches(self) -> list[Path]:
        until = Dataset(self._before.dataset).info.events_until or ""
        return [
            path for path in batches(self._settings.collected)
            if path.name > until and path.name not in self._settings.leave_out
        ]  # fmt: skip

    def _learned_until(self) -> int:
        """When the newest interaction was that the served bundle knows."""
        said = Bundle.open(self._before.bundle, verify=False).manifest.metrics.get(LEARNED_UNTIL)
        return int(Dataset(self._before.dataset).interactions.timestamp.max() if said is None else said)

    def _has_new_interactions(self, new: list[Path]) -> bool:
        """Whether anything can be asked that the served bundle has not seen."""
        until = self._learned_until()
        chosen = [kind for kind, weight in self._settings.kinds.items() if weight > 0]
        return any(
            bool(((rows["timestamp"] >= until + 1) & rows["event"].is_in(chosen)).any())
            for rows in (read_log(path / BATCH_EVENTS, Notes()) for path in new)
        )

    def _cut(self, test: int) -> str:
        """Where validation and test begin, for `prepare`. Half of what is older is left to learn from in any case."""
        settings = self._settings
        times = np.sort(Dataset(self._before.dataset).interactions.timestamp)
        enough = int(times[-min(settings.min_validation, max(1, len(times) // 2))])
        begin = min(test - int(settings.validation_days * 86_400), enough)
        return ",".join(datetime.fromtimestamp(moment, UTC).isoformat() for moment in (begin, test))

    def _prepare(self, new: list[Path]) -> Facts:
        settings, before = self._settings, Dataset(self._before.dataset).info
        items = newest_items(settings.collected)
        cut = self._cut(self._learned_until() + 1)
        made = prepare(
            PrepareConfig(
                out=self._dataset, previous=self._before.dataset, event_log=tuple(new), events=settings.kinds,
                metadata=() if items is None else (items,), protocol="temporal", cut=cut,
                repeats=before.repeats, seed=before.seed, force=True, workers=available_cpus(),
            )
        )  # fmt: skip
        info = made.info
        return {
            "batches": [path.name for path in new], "users": info.n_users, "items": info.n_items,
            "interactions": info.n_interactions, "new_users": info.n_users - before.n_users,
            "new_items": info.n_items - before.n_items, "splits": made.split_counts,
        }  # fmt: skip

    def _train(self) -> Facts:
        options = self._settings.train
        given = options.set | {"epochs": options.epochs}
        if options.learning_rate is not None:
            given["learning_rate"] = options.learning_rate
        began = load_checkpoint(self._before.checkpoint).info.config
        config: TrainConfig = continued_config(began, overrides=given)
        stopped = train(
            config, Dataset(self._dataset), self._checkpoint, init=self._before.checkpoint,
            resume=(self._checkpoint / STATE_FILE).is_file(), console=self._console,
        )  # fmt: skip
        return self._trained(stopped, self._checkpoint)

    def _trained(self, stopped: StopReason, checkpoint: Path) -> Facts:
        if stopped is StopReason.INTERRUPTED:
            raise InterruptedRunError("interrupted; the same command goes on with it")
        info = load_checkpoint(checkpoint).info
        return {"epoch": info.epoch, "validation_loss": info.validation_loss, "stopped": stopped.value}

    def _fuse(self) -> Facts:
        options, data = self._settings.fuse, Dataset(self._dataset)
        encoder = read_text_encoder(self._before.checkpoint)
        system = load_system(self._checkpoint, data, with_fusion=False)
        system = replace(system, encoder=open_encoder(encoder, data))
        fitted = fit_system(
            system, data, limit_users=options.limit_users, tune_graph=options.tune_graph, seed=0, console=self._console
        )
        store_fusion(self._checkpoint, fitted.flat, encoder)
        return {"users": fitted.n_users, "quality": fitted.quality}

    def _gate(self) -> Facts:
        verdict = compare(self._checkpoint, self._before.bundle, Dataset(self._dataset), self._settings.gate.rule)
        for reason in verdict.reasons:
            self._console.print(f"the served model stays: {reason}", style="yellow", highlight=False)
        return verdict.record()

    def _final_fit(self) -> Facts:
        resume = (self._final / STATE_FILE).is_file()
        stopped = final_fit(
            self._checkpoint, Dataset(self._dataset), self._final, resume=resume, force=False, console=self._console
        )
        return self._trained(stopped, self._final)

    def _export(self) -> Facts:
        now = datetime.now(UTC)
        manifest = export_bundle(
            load_checkpoint(self._final), Dataset(self._dataset), self._bundle, created_at=now, force=True,
            metrics={REFRESHED_AT: now.timestamp()},
        )  # fmt: skip
        return {"bundle": str(self._bundle), "model_version": manifest.model_version}

    def _health(self) -> Facts:
        found = checks(self._bundle)
        for check in found:
            if not check.passed:
                self._console.print(f"the served model stays: {check.name}: {check.detail}", style="yellow")
        listed = [{"name": check.name, "passed": check.passed, "detail": check.detail} for check in found]
        return {"passed": all(check.passed for check in found), "checks": listed}

    def _publish(self) -> Facts:
        exported = self._run.facts("export") or {}
        settings = self._settings
        try:
            replicas = publish(
                self._bundle, exported["model_version"], self._before.bundle, settings.bundles / settings.link,
                settings.replicas,
            )  # fmt: skip
        except RefusedError as error:
            self._console.print(f"the served model stays: {error}", style="yellow", highlight=False)
            return {"passed": False, "reason": str(error)}
        return {"passed": True, "replicas": replicas, "link": str(settings.bundles / settings.link)}

    def _done(self) -> Facts:
        served = Served(dataset=self._dataset, checkpoint=self._checkpoint, bundle=self._bundle)
        served.write(self._settings.work / CURRENT)
        return {}
