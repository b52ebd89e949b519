"""What a bundle's score modes and strategies cost in quality: NDCG@10 of the model alone, and what the beams miss.

    python benchmarks/modes.py [--bundle BUNDLE] [--dataset DATASET] [--split test] [--limit-users N] [--repeats N]
                               [--quick] [--json FILE]

Every mode and strategy that the bundle holds ranks the same users, in turns. Lists are compared with those of `exact`
in the same mode (for trie-int8 with float32's, too): how many users' top ten the beams miss an item of, and how many
items.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress, TaskID

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.records import DEMO, in_turns, keep, table
from rdrec_core.bundle import Bundle
from rdrec_core.errors import BundleError
from rdrec_core.types import Strategy
from training.data.dataset import Dataset
from training.evaluation.measure import Answers, rank_sequential
from training.evaluation.metrics import summary
from training.evaluation.protocol import questions
from training.evaluation.systems import System, load_system

Lists = npt.NDArray[np.int64]


def missed(lists: Lists, exact: Lists) -> tuple[float, float]:
    """Share of users whose list lacks an item of the exact one, and how many of ten items are lacking on average."""
    lacking = np.array([len(set(b.tolist()) - set(a.tolist()) - {-1}) for a, b in zip(lists, exact, strict=True)])
    return float((lacking > 0).mean()), float(lacking.mean())


def measure(
    bundle_path: Path, dataset: Dataset, split: str, limit: int | None, beam_width: int, repeats: int, console: Console
) -> list[dict[str, Any]]:
    """One record a mode and strategy."""
    asked = questions(dataset, "val" if split == "val" else "test", limit=limit)
    with Progress(console=console, transient=True) as bar:

        def contestant(system: System, row: TaskID) -> dict[str, Any]:
            answers = rank_sequential(
                system.ranker(None, None), asked, fusion=False, beam_width=beam_width,
                progress=lambda n: bar.advance(row, n),
            )  # fmt: skip
            return {"answers": answers, "users_per_s": answers.users_per_s}

        field = {}
        for mode in Bundle.open(bundle_path).manifest.score_modes:
            for strategy in Strategy:
                try:
                    system = load_system(bundle_path, dataset, mode=mode, strategy=strategy)
                except BundleError:  # too many states for an exact graph of this mode
                    continue
                row = bar.add_task(f"{mode} {strategy}", total=repeats * len(asked))
                field[mode.value, strategy.value] = partial(contestant, system, row)
        measured = in_turns(field, repeats)
    outcomes: dict[tuple[str, str], Answers] = {name: found["answers"] for name, found in measured.items()}
    records = []
    for (mode, strategy), outcome in outcomes.items():
        record: dict[str, Any] = {"mode": mode, "strategy": strategy, "users": len(asked)}
        record |= {name: summary(outcome.ranks)[name] for name in ("HR@10", "NDCG@10")}
        record["users_per_s"] = measured[mode, strategy]["users_per_s"]
        for name, reference in (("exact", (mode, "exact")), ("float", ("trie", "exact"))):
            if reference in outcomes and reference != (mode, strategy):
                share, items = missed(outcome.lists, outcomes[reference].lists)
                record |= {f"users_missing_of_{name}": share, f"items_missing_of_{name}": items}
        records.append(record)
    return records


def show(records: list[dict[str, Any]], console: Console) -> None:
    base = next(
        (r for r in records if (r["mode"], r["strategy"]) == ("full", "beam")),
        next(r for r in records if r["strategy"] == "beam"),
    )
    shown = table(
        f"{records[0]['users']:,} users, the model alone; change against {base['mode']} with beams",
        "mode", "strategy", "HR@10", "NDCG@10", "change", "users/s", "users whose exact top 10 is missed",
        "items missed of 10", left=("mode", "strategy"),
    )  # fmt: skip
    for r in records:
        share, items = r.get("users_missing_of_exact"), r.get("items_missing_of_exact")
        shown.add_row(
            r["mode"], r["strategy"], f"{r['HR@10']:.4f}", f"{r['NDCG@10']:.4f}",
            f"{100 * (r['NDCG@10'] / max(base['NDCG@10'], 1e-12) - 1):+.2f} %", f"{r['users_per_s']:,.0f}",
            "" if share is None else f"{share:.2%}", "" if items is None else f"{items:.3f}",
        )  # fmt: skip
    console.print(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=DEMO / "bundle")
    parser.add_argument("--dataset", type=Path, default=DEMO / "dataset")
    parser.add_argument("--split", choices=("test", "val"), default="test")
    parser.add_argument("--limit-users", type=int)
    parser.add_argument("--beam-width", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3, help="of each, for the speed; its median is shown")
    parser.add_argument("--quick", action="store_true", help="once, and no line under benchmarks/results")
    parser.add_argument("--json", type=Path, help="write the records here")
    arguments = parser.parse_args()
    console = Console()
    records = measure(
        arguments.bundle, Dataset(arguments.dataset), arguments.split, arguments.limit_users, arguments.beam_width,
        1 if arguments.quick else arguments.repeats, console,
    )  # fmt: skip
    show(records, console)
    keep("modes", {"records": records}, file=arguments.json, quick=arguments.quick)


if __name__ == "__main__":
    main()
