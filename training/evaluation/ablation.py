"""Do the rationales help? The same training with and without them, on the same users, with the sample's uncertainty.

Trains each variant once a trial (seed), measures the model alone, and compares per-user values averaged over trials.
Every finished variant leaves its ranks, so a killed run goes on where it stopped. Knows training and evaluation as
functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console

from rdrec_core.errors import DatasetError
from rdrec_core.replacing import replacing_file
from training.data.dataset import Dataset
from training.evaluation.metrics import per_user
from training.evaluation.ranking_run import RankingOptions, evaluate_ranking
from training.evaluation.results import rank_table
from training.evaluation.significance import interval, paired_difference
from training.evaluation.systems import load_system
from training.learning.checkpoint import STATE_FILE
from training.learning.config import TrainConfig
from training.learning.run import train
from training.learning.trainer import StopReason

WITHOUT = "without rationales"
VARIANTS: dict[str, tuple[str, ...]] = {
    WITHOUT: (),
    "user preference only": ("user_preference",),
    "item attributes only": ("item_attributes",),
    "both": ("user_preference", "item_attributes"),
}
TASKS = ("sequential", "topn")
METRICS = ("HR@10", "NDCG@10")
Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Cell:
    """Per-user metrics (trials, users) of one variant and task, by metric."""

    values: Mapping[str, Floats]


def run_ablation(
    dataset: Dataset, config: TrainConfig, out: Path, *, trials: int, console: Console
) -> dict[str, Any] | None:
    """Train and measure what is missing in the folder `out`; the record, or None where the training was interrupted.

    Raises DatasetError where the dataset has no rationales.
    """
    if not dataset.rationales_path.is_file():
        raise DatasetError(f"{dataset.rationales_path} is missing; make it with `rdrec distill`")
    cells: dict[tuple[str, str], Cell] = {}
    base = [task for task in config.tasks if task not in ("user_preference", "item_attributes")]
    for variant, added in VARIANTS.items():
        ranks: dict[str, list[Floats]] = {task: [] for task in TASKS}
        for seed in range(trials):
            own = config.model_validate(config.model_dump() | {"tasks": (*base, *added), "seed": seed})
            found = _measure(dataset, own, out / f"{variant.replace(' ', '-')}-{seed}", console)
            if found is None:
                return None
            for task in TASKS:
                ranks[task].append(found[task])
        for task in TASKS:
            trial_values = [per_user(each) for each in ranks[task]]
            cells[variant, task] = Cell({m: np.stack([values[m] for values in trial_values]) for m in METRICS})
    return _record(dataset, config, cells, trials)


def _measure(dataset: Dataset, config: TrainConfig, folder: Path, console: Console) -> dict[str, Floats] | None:
    file = folder / "ranks.parquet"
    if not file.is_file():
        console.print(f"{folder.name}: training {', '.join(config.tasks)}", highlight=False)
        outcome = train(config, dataset, folder, resume=(folder / STATE_FILE).is_file(), force=True, console=console)
        if outcome is StopReason.INTERRUPTED:
            return None
        system = load_system(folder, dataset)
        frames = []
        for task in TASKS:
            measured, _ = evaluate_ranking(system, dataset, RankingOptions(task, fusion=False), console)
            frames.append(rank_table(measured).with_columns(pl.lit(task).alias("task")))
        with replacing_file(file) as temporary:
            pl.concat(frames).write_parquet(temporary)
    table = pl.read_parquet(file).with_columns(pl.col("rank").cast(pl.Float64).fill_null(float("inf")))
    return {task: table.filter(pl.col("task") == task).sort("user_index")["rank"].to_numpy() for task in TASKS}


def _record(
    dataset: Dataset, config: TrainConfig, cells: Mapping[tuple[str, str], Cell], trials: int
) -> dict[str, Any]:
    rows = [ablation_row(cells, variant, task) for task in TASKS for variant in VARIANTS]
    n_users = next(iter(cells.values())).values["HR@10"].shape[1]
    note = (
        f"{n_users:,} test users, {trials} training {'runs' if trials > 1 else 'run'} a variant, the model alone."
        " Intervals are 95 % paired bootstrap intervals over users; ± is the standard deviation over runs."
    )
    info = dataset.info
    return {
        "task": "ablation", "dataset": info.name, "protocol": info.protocol, "split": "test", "n_users": n_users,
        "trials": trials, "note": note, "table": rows, "recipe": config.model_dump(mode="json"),
        "source_sha256": info.source_sha256,
    }  # fmt: skip


def ablation_row(cells: Mapping[tuple[str, str], Cell], variant: str, task: str) -> dict[str, Any]:
    """Means, deviations over trials, intervals over users, and the lead over the variant without rationales."""
    row: dict[str, Any] = {"variant": variant, "task": task, "difference": None}
    mine = cells[variant, task].values
    for metric in METRICS:
        low, high = interval(mine[metric].mean(axis=0), np.random.default_rng(0))
        by_trial = mine[metric].mean(axis=1)
        row[metric] = {
            "mean": float(by_trial.mean()), "low": low, "high": high,
            "deviation": float(by_trial.std(ddof=1)) if len(by_trial) > 1 else None,
        }  # fmt: skip
    if variant != WITHOUT:
        plain = cells[WITHOUT, task].values["NDCG@10"]
        gap = paired_difference(mine["NDCG@10"].mean(axis=0), plain.mean(axis=0), np.random.default_rng(0))
        row["difference"] = gap.record()
    return row


def ablation_lines(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """The table's cells as text: variant, task, HR@10, NDCG@10, lead."""
    lines = []
    for row in rows:
        cells = []
        for metric in METRICS:
            value = row[metric]
            spread = "" if value["deviation"] is None else f" ± {value['deviation']:.4f}"
            cells.append(f"{value['mean']:.4f}{spread} [{value['low']:.4f}, {value['high']:.4f}]")
        gap = row["difference"]
        lead = "" if gap is None else f"{gap['mean']:+.4f} [{gap['low']:+.4f}, {gap['high']:+.4f}]"
        lines.append((row["variant"], row["task"], *cells, lead))
    return lines
