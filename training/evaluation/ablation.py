"""Do the rationales pay? The same training with and without them, on the same users, with the sample's uncertainty.

The four rows of the paper's ablation, each rationale both as a task of the training and as a signal of the ranking
(the channels of text made of it), and the paper's sweep over sample ratios. Trains each row once a trial (seed),
measures the model alone and fused with weights fitted on validation, and compares per-user values averaged over
trials. Every finished training leaves its ranks, so a killed run goes on where it stopped. Knows training, fusion and
evaluation as functions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console

from rdrec_core.errors import DatasetError, InputError
from rdrec_core.file_hash import file_sha256
from rdrec_core.replacing import replacing_file
from training.data.dataset import Dataset
from training.evaluation.fusion_run import fit_system
from training.evaluation.metrics import per_user
from training.evaluation.ranking_run import RankingOptions, evaluate_ranking
from training.evaluation.results import rank_table
from training.evaluation.significance import interval, paired_difference
from training.evaluation.systems import load_system
from training.learning.checkpoint import STATE_FILE
from training.learning.config import Ratio, TrainConfig
from training.learning.run import train
from training.learning.trainer import StopReason

WITHOUT = "without rationales"
BOTH = "both"
VARIANTS: dict[str, tuple[str, ...]] = {
    WITHOUT: (),
    "user preference only": ("user_preference",),
    "item attributes only": ("item_attributes",),
    BOTH: ("user_preference", "item_attributes"),
}
FIELD_OF = {"user_preference": "preferences", "item_attributes": "attributes"}
"""The task that learns a rationale, and the field of item texts that is made of it."""
TASKS = ("sequential", "topn")
SYSTEMS = ("model alone", "fused")
METRICS = ("HR@10", "NDCG@10")
FIT_USERS = 5000
MEASURED_FILE = "measured.json"
Floats = np.ndarray[Any, np.dtype[np.float64]]
Place = tuple[str, str, str]
"""Row, task, system."""


@dataclass(frozen=True)
class Row:
    """One row of the table: which rationales take part, and the parts of an epoch that each group of tasks gets."""

    name: str
    rationales: tuple[str, ...]
    ratio: Ratio

    @property
    def fields_left_out(self) -> tuple[str, ...]:
        """Fields of item texts that belong to a rationale which does not take part."""
        return tuple(field for task, field in FIELD_OF.items() if task not in self.rationales)

    def config(self, base: TrainConfig, seed: int) -> TrainConfig:
        """The training of this row."""
        plain = [task for task in base.tasks if task not in FIELD_OF]
        ratio = self.ratio.model_dump()
        return base.model_validate(
            base.model_dump() | {"tasks": (*plain, *self.rationales), "ratio": ratio, "seed": seed}
        )


@dataclass(frozen=True)
class Cell:
    """Per-user metrics (trials, users) of one row, task and system, by metric."""

    values: Mapping[str, Floats]


def rows_of(config: TrainConfig, ratios: Sequence[str]) -> list[Row]:
    """The four rows at the first ratio (the configuration's where none is given), then both rationales at the others.

    Raises InputError where a ratio is none, or given twice.
    """
    parsed = {text: Ratio.parse(text) for text in ratios}
    if len(parsed) < len(ratios):
        raise InputError("--ratios names a ratio twice", field="ratios")
    first, *others = parsed.values() or [config.ratio]
    rows = [Row(name, added, first) for name, added in VARIANTS.items()]
    names = list(parsed)[1:]
    return rows + [Row(f"{BOTH}, {name}", VARIANTS[BOTH], ratio) for name, ratio in zip(names, others, strict=True)]


def run_ablation(
    dataset: Dataset,
    config: TrainConfig,
    out: Path,
    *,
    trials: int,
    ratios: Sequence[str] = (),
    limit_users: int | None = None,
    console: Console,
) -> dict[str, Any] | None:
    """Train and measure what is missing in the folder `out`; the record, or None where the training was interrupted.

    Raises DatasetError where the dataset has no rationales, InputError where `out` holds trainings of another
    configuration or of other rationales.
    """
    if not dataset.rationales_path.is_file():
        raise DatasetError(f"{dataset.rationales_path} is missing; make it with `rdrec distill`")
    rows = rows_of(config, ratios)
    taught = file_sha256(dataset.rationales_path)
    ranks: dict[Place, list[Floats]] = {}
    jobs = [(row, seed) for seed in range(trials) for row in rows]  # every row once before any row twice
    for number, (row, seed) in enumerate(jobs, start=1):
        folder = out / f"{_slug(row.name)}-{seed}"
        facts = {"config": row.config(config, seed).model_dump(mode="json"), "rationales_sha256": taught}
        console.print(f"{number} of {len(jobs)}: {row.name}, seed {seed}", highlight=False)
        found = _measure(dataset, row, row.config(config, seed), folder, facts, limit_users, console)
        if found is None:
            return None
        for (task, system), values in found.items():
            ranks.setdefault((row.name, task, system), []).append(values)
    cells = {}
    for place, by_trial in ranks.items():
        trial_values = [per_user(each) for each in by_trial]
        cells[place] = Cell({m: np.stack([values[m] for values in trial_values]) for m in METRICS})
    return _record(dataset, config, rows, cells, trials)


def _measure(
    dataset: Dataset,
    row: Row,
    config: TrainConfig,
    folder: Path,
    facts: dict[str, Any],
    limit_users: int | None,
    console: Console,
) -> dict[tuple[str, str], Floats] | None:
    file, note = folder / "ranks.parquet", folder / MEASURED_FILE
    if file.is_file():
        if not note.is_file() or json.loads(note.read_text(encoding="utf-8")) != facts:
            raise InputError(
                f"{folder} holds a training of another configuration, ratio or of other rationales; name another --out",
                field="out",
            )
    else:
        outcome = train(config, dataset, folder, resume=(folder / STATE_FILE).is_file(), force=True, console=console)
        if outcome is StopReason.INTERRUPTED:
            return None
        plain = replace(load_system(folder, dataset), fusion=None)
        fitted = fit_system(
            plain, dataset, limit_users=FIT_USERS, tune_graph=False, seed=0, console=console,
            without_fields=row.fields_left_out,
        )  # fmt: skip
        frames = []
        for name, system in (("model alone", plain), ("fused", replace(plain, fusion=fitted.flat))):
            for task in TASKS:
                options = RankingOptions(task, limit_users=limit_users)
                measured, _ = evaluate_ranking(system, dataset, options, console)
                table = rank_table(measured).select("user_index", "rank")
                frames.append(table.with_columns(pl.lit(task).alias("task"), pl.lit(name).alias("system")))
        note.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        with replacing_file(file) as temporary:  # last: its presence says that all is there
            pl.concat(frames).write_parquet(temporary)
    table = pl.read_parquet(file).with_columns(pl.col("rank").cast(pl.Float64).fill_null(float("inf")))
    return {
        (task, system): table.filter((pl.col("task") == task) & (pl.col("system") == system))
        .sort("user_index")["rank"]
        .to_numpy()
        for task in TASKS
        for system in SYSTEMS
    }


def _record(
    dataset: Dataset, config: TrainConfig, rows: Sequence[Row], cells: Mapping[Place, Cell], trials: int
) -> dict[str, Any]:
    lines = [
        ablation_row(cells, row.name, task, system) | {"ratio": _ratio_text(row.ratio)}
        for system in SYSTEMS
        for task in TASKS
        for row in rows
    ]
    n_users = next(iter(cells.values())).values["HR@10"].shape[1]
    teachers, used = _teachers(dataset)
    note = (
        f"{n_users:,} test users, {trials} training {'runs' if trials > 1 else 'run'} a row; {used:,} rationales of"
        f" {', '.join(teachers)}. Intervals are 95 % paired bootstrap intervals over users of the means over runs; ± is"
        f" the standard deviation over runs. {len(lines) - len(SYSTEMS) * len(TASKS)} differences are tested, so about"
        " one in twenty leaves out zero by chance."
    )
    info = dataset.info
    return {
        "task": "ablation", "dataset": info.name, "protocol": info.protocol, "split": "test", "n_users": n_users,
        "trials": trials, "note": note, "table": lines, "recipe": config.model_dump(mode="json"), "teachers": teachers,
        "n_rationales": used, "source_sha256": info.source_sha256,
    }  # fmt: skip


def ablation_row(cells: Mapping[Place, Cell], variant: str, task: str, system: str) -> dict[str, Any]:
    """Means, deviations over trials, intervals over users, and the lead over the row without rationales."""
    row: dict[str, Any] = {"variant": variant, "task": task, "system": system, "difference": None}
    mine = cells[variant, task, system].values
    for metric in METRICS:
        low, high = interval(mine[metric].mean(axis=0), np.random.default_rng(0))
        by_trial = mine[metric].mean(axis=1)
        row[metric] = {
            "mean": float(by_trial.mean()), "low": low, "high": high,
            "deviation": float(by_trial.std(ddof=1)) if len(by_trial) > 1 else None,
        }  # fmt: skip
    if variant != WITHOUT:
        plain = cells[WITHOUT, task, system].values["NDCG@10"]
        gap = paired_difference(mine["NDCG@10"].mean(axis=0), plain.mean(axis=0), np.random.default_rng(0))
        row["difference"] = gap.record()
    return row


def ablation_lines(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """The table's cells as text: row, task, system, HR@10, NDCG@10, lead."""
    lines = []
    for row in rows:
        cells = []
        for metric in METRICS:
            value = row[metric]
            spread = "" if value["deviation"] is None else f" ± {value['deviation']:.4f}"
            cells.append(f"{value['mean']:.4f}{spread} [{value['low']:.4f}, {value['high']:.4f}]")
        gap = row["difference"]
        lead = "" if gap is None else f"{gap['mean']:+.4f} [{gap['low']:+.4f}, {gap['high']:+.4f}]"
        lines.append((row["variant"], row["task"], row["system"], *cells, lead))
    return lines


def _teachers(dataset: Dataset) -> tuple[list[str], int]:
    """Who taught, and how many rationales train."""
    table = pl.read_parquet(dataset.rationales_path, columns=["teacher", "use"])
    return sorted(table["teacher"].unique().to_list()), int(table["use"].sum())


def _ratio_text(ratio: Ratio) -> str:
    return ":".join(f"{part:g}" for part in ratio.model_dump().values())


def _slug(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "-").replace(":", "-")
