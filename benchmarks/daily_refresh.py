"""What a daily refresh is worth: the growing sample shop replayed for 14 days under three ways to keep a model.

    python benchmarks/daily_refresh.py              14 days; a picture and a JSON line under benchmarks/results/
    python benchmarks/daily_refresh.py --quick      2 days, whether it works

Every day asks for the purchases of the day with what was in service in the morning: the first day's bundle (never), one
that went on from yesterday's (refreshed), one trained from nothing on all days before (anew). Fusion weights are fitted
once, on the days before the first, and the same for all; graph and text of each bundle know what its model knows.
Seconds are of the processor, so that a busy machine does not change them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import records
from rdrec_core.bundle import Bundle
from rdrec_core.types import ScoreMode, Strategy
from training.bundling.export import export_bundle
from training.data.dataset import Dataset, WholeDataset
from training.data.growing_shop import EVENTS_FILE, FOLDER, ITEMS_FILE, Growth, write_days
from training.data.prepare import PrepareConfig, prepare
from training.data.sample import METADATA_FILE, REVIEWS_FILE, write_sample
from training.evaluation.fusion_run import fit_system, store_fusion
from training.evaluation.gate import by_novelty, rank_served
from training.evaluation.metrics import summary
from training.evaluation.protocol import questions
from training.evaluation.systems import load_system
from training.learning.checkpoint import load_checkpoint
from training.learning.config import TrainConfig, continued_config, load_config
from training.learning.run import train

mpl.use("agg")
NEVER, REFRESHED, ANEW = "never refreshed", "refreshed daily", "trained anew daily"
GROUPS = ("all", "new items", "new users")
METRIC = "NDCG@10"
_VALIDATION = 600
"""Purchases before a day, by which the fusion is fitted."""
_QUIET = Console(quiet=True)


class Days:
    """The datasets of the shop, the first of which knows the time before day 1."""

    def __init__(self, folder: Path, n_days: int, seed: int) -> None:
        shop = folder / "shop"
        shop.mkdir()
        _, grown = write_sample(shop, seed)
        write_days(shop, grown, Growth(n_days), seed)
        self.folder, self._log = folder, shop / FOLDER
        self.days = sorted(path.stem.removeprefix("events-") for path in self._log.glob("events-*"))
        out = self._path(0)
        prepare(
            PrepareConfig(
                out=out, reviews=(shop / REVIEWS_FILE,), metadata=(shop / METADATA_FILE,), protocol="temporal",
                cut="0.9,0.95", name="shop", workers=1,
            )
        )  # fmt: skip

    def _path(self, number: int) -> Path:
        return self.folder / f"dataset-{number:02d}"

    def dataset(self, number: int) -> Dataset:
        """After so many days; the last of them is its test."""
        out = self._path(number)
        if not out.exists():
            day = self.days[number - 1]
            begin = datetime.fromisoformat(day).replace(tzinfo=UTC)
            times = np.sort(Dataset(self._path(number - 1)).interactions.timestamp)
            validation = datetime.fromtimestamp(int(times[-min(_VALIDATION, len(times) // 2)]), UTC)
            prepare(
                PrepareConfig(
                    out=out, previous=self._path(number - 1), event_log=(self._log / EVENTS_FILE.format(day=day),),
                    metadata=(self._log / ITEMS_FILE.format(day=day),), protocol="temporal", workers=1,
                    cut=f"{validation.isoformat()},{begin.isoformat()}",
                )
            )  # fmt: skip
        return Dataset(out)


def made(
    dataset: Dataset, config: TrainConfig, fusion: dict[str, float], out: Path, init: Path | None
) -> tuple[Path, float]:
    """A bundle that knows everything of the dataset, and the seconds of its training."""
    started = time.process_time()
    train(config, WholeDataset(dataset.path), out / "checkpoint", init=init, console=_QUIET)
    seconds = time.process_time() - started
    store_fusion(out / "checkpoint", fusion)
    export_bundle(
        load_checkpoint(out / "checkpoint"), dataset, out / "bundle", created_at=datetime.now(UTC),
        score_modes=(ScoreMode.TRIE,), strategy=Strategy.EXACT,
    )  # fmt: skip
    return out / "bundle", seconds


def fitted(checkpoint: Path, dataset: Dataset, seed: int) -> dict[str, float]:
    """Fusion weights by the purchases of the validation."""
    system = load_system(checkpoint, dataset)
    return fit_system(system, dataset, limit_users=1000, tune_graph=False, seed=seed, console=_QUIET).flat


def replayed(n_days: int, epochs: int, refreshed_epochs: int, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Every figure: by day, way, system (fused, model) and group of questions."""
    only = {
        "backbone": "scratch:tiny",
        "tasks": "sequential",
        "ratio": "0:0:1:0",
        "passes": 1,
        "batch_size": 32,
        "seed": seed,
    }
    config = load_config("scratch", overrides={**only, "epochs": epochs, "patience": epochs})
    going_on = continued_config(config, overrides={"epochs": refreshed_epochs})
    with tempfile.TemporaryDirectory() as name:
        shop = Days(Path(name), n_days, seed)
        first = shop.dataset(0)
        measured = shop.folder / "measured-00"
        train(config, first, measured, console=_QUIET)
        fusion = fitted(measured, first, seed)
        bundle, seconds = made(first, config, fusion, shop.folder / "first", None)
        say(f"the first model took {seconds:.0f} s")
        bundles = dict.fromkeys((NEVER, REFRESHED, ANEW), bundle)
        known = (first.info.n_users, first.info.n_items)
        lines = []
        for number in range(1, n_days + 1):
            dataset = shop.dataset(number)
            asked = questions(dataset, "test")
            masks = {name: mask for name, mask in by_novelty(asked, *known).items() if name in GROUPS}
            line: dict[str, Any] = {"day": shop.days[number - 1], "n": {k: int(m.sum()) for k, m in masks.items()}}
            for way, path in bundles.items():
                opened = Bundle.open(path, verify=False)
                for system_name, fused in (("fused", True), ("model", False)):
                    ranks = rank_served(opened, asked, fusion=fused).ranks
                    line[f"{way}, {system_name}"] = {k: summary(ranks[m])[METRIC] for k, m in masks.items()}
            train(going_on, dataset, shop.folder / f"measured-{number:02d}", init=measured, console=_QUIET)
            measured = shop.folder / f"measured-{number:02d}"
            fusion = fitted(measured, dataset, seed)
            yesterday = bundles[REFRESHED].with_name("checkpoint")
            folders = {way: shop.folder / f"{way.split()[0]}-{number:02d}" for way in (REFRESHED, ANEW)}
            bundles[REFRESHED], went_on = made(dataset, going_on, fusion, folders[REFRESHED], yesterday)
            bundles[ANEW], from_nothing = made(dataset, config, fusion, folders[ANEW], None)
            line["seconds"] = {REFRESHED: went_on, ANEW: from_nothing}
            lines.append(line)
            figures = ", ".join(f"{way} {line[f'{way}, fused']['all']:.4f}" for way in bundles)
            say(f"{line['day']}: {figures}; {went_on:.0f} s against {from_nothing:.0f} s")
    return {"days": lines, "epochs": epochs, "refreshed_epochs": refreshed_epochs, "seed": seed}


def totals(record: dict[str, Any]) -> dict[str, Any]:
    """Means over all questions of all days, and what they cost."""
    days = record["days"]
    means = {
        f"{way}, {system}": {
            group: float(
                np.average([d[f"{way}, {system}"][group] for d in days], weights=[d["n"][group] + 1e-9 for d in days])
            )
            for group in GROUPS
        }
        for way in (NEVER, REFRESHED, ANEW)
        for system in ("fused", "model")
    }
    cost = {way: sum(d["seconds"][way] for d in days) for way in (REFRESHED, ANEW)}
    return {
        "means": means, "seconds": cost, "share_of_time": cost[REFRESHED] / cost[ANEW],
        "share_of_quality": means[f"{REFRESHED}, fused"]["all"] / means[f"{ANEW}, fused"]["all"],
        "never_of_refreshed": means[f"{NEVER}, fused"]["all"] / means[f"{REFRESHED}, fused"]["all"],
    }  # fmt: skip


def draw(record: dict[str, Any], path: Path) -> None:
    """A panel for each group of questions, a line for each way."""
    import matplotlib.pyplot as plt

    days = record["days"]
    figure, axes = plt.subplots(1, len(GROUPS), figsize=(13, 3.8), sharey=True, constrained_layout=True)
    styles = {NEVER: ("#8a4b00", "o"), REFRESHED: ("#0b6e4f", "s"), ANEW: ("#5d6b7a", "^")}
    places = np.arange(1, len(days) + 1)
    for axis, group in zip(axes, GROUPS, strict=True):
        for way, (colour, marker) in styles.items():
            for system, line in (("fused", "-"), ("model", ":")):
                values = [day[f"{way}, {system}"][group] for day in days]
                label = way if system == "fused" else f"{way}, the T5 alone"
                axis.plot(places, values, line, color=colour, marker=marker, markersize=4, linewidth=1.3, label=label)
        n = sum(day["n"][group] for day in days)
        axis.set_title(f"{group} ({n:,} questions)", fontsize=10)
        axis.set_xlabel("day")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_ylim(bottom=0)
    axes[0].set_ylabel(METRIC)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--epochs", type=int, default=16, help="of a training from nothing")
    parser.add_argument("--refreshed-epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--picture", type=Path, default=records.RESULTS / "daily_refresh.png")
    options = parser.parse_args()
    console = Console()
    if options.quick:
        options.days, options.epochs, options.refreshed_epochs = 2, 3, 1
    record = replayed(
        options.days, options.epochs, options.refreshed_epochs, options.seed,
        lambda text: console.print(text, highlight=False),
    )  # fmt: skip
    record["totals"] = totals(record)
    shown = records.table(f"{METRIC} on each next day, {options.days} days", "way", *GROUPS, left=("way",))
    for name, row in record["totals"]["means"].items():
        shown.add_row(name, *(f"{row[group]:.4f}" for group in GROUPS))
    console.print(shown)
    found = record["totals"]
    console.print(
        f"refreshed: {found['share_of_quality']:.1%} of trained anew, at {found['share_of_time']:.0%} of its time;"
        f" never refreshed: {found['never_of_refreshed']:.1%} of refreshed",
        highlight=False,
    )
    records.keep("daily_refresh", record, quick=options.quick)
    draw(record, options.picture)
    console.print(str(options.picture), highlight=False)


if __name__ == "__main__":
    main()
