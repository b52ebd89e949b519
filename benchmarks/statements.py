"""What `rdrec profile` takes for its statements: time and memory over made-up reviews, and the line through them.

    python benchmarks/statements.py [--reviews 100000 200000] [--workers 1 2] [--at 10000000] [--quick] [--json FILE]

Ten reviews an item and seven a user, of a dozen sentences' length; words follow Zipf's law, so that phrases recur as
in a shop. Each size is built in a process of its own, whose peak memory is the system's word; `--workers`: by so many
others beside it, of whom the largest's peak counts so many times, as if they shared no page. `--at`: the size to which
the line through the last two is drawn, of the last number of workers.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.records import in_turns, keep, table
from training.data.dataset import ITEMS, REVIEWS, USERS, Dataset, DatasetInfo
from training.signals.statements import build_statements
from training.workers import blocks_by

PER_ITEM, PER_USER = 10, 7
PATTERNS = (
    "The {0} {1} is very {2}.", "It is easy to {3} and the {1} works well.", "I love the {1} and its {4}.",
    "I was looking for a {0} {4}, so I took it.", "My {4} came with a {2} {1}.",
    "We had it for a while, and nothing broke.",
    "It is not {0}, but the {4} is {2}.", "Thanks to the {2} {4} it stays on the table.",
)  # fmt: skip
_BLOCK = 50_000


def words(n: int, seed: int) -> np.ndarray:
    """n made-up words."""
    rng = np.random.default_rng(seed)
    syllables = np.asarray([c + v for c in "bdfgklmnprstvz" for v in "aeiou"])
    return np.asarray(["".join(syllables[rng.integers(0, len(syllables), rng.integers(2, 5))]) for _ in range(n)])


def write_reviews(folder: Path, n: int) -> Dataset:
    """A dataset folder with n training reviews and what statements need beside them."""
    rng = np.random.default_rng(5)
    nouns, adjectives = words(30_000, 1), words(5_000, 2)
    n_items, n_users = max(1, n // PER_ITEM), max(1, n // PER_USER)
    user = np.sort(rng.integers(0, n_users, n)).astype(np.int32)
    frames = []
    for start in range(0, n, _BLOCK):
        m = min(_BLOCK, n - start)

        def draw(table: np.ndarray, count: int = m) -> np.ndarray:
            return table[np.minimum(rng.zipf(1.3, count) - 1, len(table) - 1)]

        columns = [draw(adjectives), draw(nouns), draw(adjectives), draw(nouns), draw(nouns)]
        patterns = rng.integers(0, len(PATTERNS), (m, 4))
        text = [
            " ".join(PATTERNS[p].format(*row) for p in chosen)
            for chosen, row in zip(patterns.tolist(), zip(*columns, strict=True), strict=True)
        ]
        frames.append(
            pl.DataFrame(
                {
                    "user_index": user[start : start + m],
                    "item_index": rng.integers(0, n_items, m).astype(np.int32),
                    "text": text, "rating": rng.choice([5.0, 4.0, 3.0, 1.0], m, p=[0.6, 0.2, 0.1, 0.1]),
                    "explanation": [None] * m, "split": ["train"] * m,
                },
                schema=REVIEWS,
            )
        )  # fmt: skip
    pl.concat(frames).write_parquet(folder / "reviews.parquet", row_group_size=20_000)
    titles = [" ".join(row) for row in nouns[rng.integers(0, len(nouns), (n_items, 4))]]
    items = {"item_index": range(n_items), "item_id": [f"i{i}" for i in range(n_items)], "title": titles}
    pl.DataFrame({**items, "label": [str(i) for i in range(n_items)]}).select(*ITEMS).cast(ITEMS).write_parquet(  # type: ignore[arg-type]
        folder / "items.parquet"
    )
    users = pl.DataFrame({"user_index": range(n_users), "user_id": [f"u{i}" for i in range(n_users)]})
    users.cast(USERS).write_parquet(folder / "users.parquet")  # type: ignore[arg-type]
    info = DatasetInfo(
        name="made up", protocol="clean", label_scheme="shuffled", seed=0, n_users=n_users, n_items=n_items,
        n_interactions=n, n_reviews=n, min_interactions=1, source_sha256={},
    )  # fmt: skip
    (folder / "dataset.json").write_text(info.model_dump_json(), encoding="utf-8")
    return Dataset(folder)


def build(folder: Path, workers: int) -> dict[str, Any]:
    """What the statements of a dataset take, and how many there are."""
    dataset, started = Dataset(folder), time.perf_counter()
    with blocks_by(workers, folder) as blocks:
        made = build_statements(dataset, blocks=blocks)
    seconds = time.perf_counter() - started
    own, theirs = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "reviews": dataset.info.n_reviews, "items": dataset.info.n_items, "workers": workers, "seconds": seconds,
        "own_cpu_s": own.ru_utime + own.ru_stime, "own_peak_mb": own.ru_maxrss / 1024,
        "cpu_s": own.ru_utime + own.ru_stime + theirs.ru_utime + theirs.ru_stime,
        "peak_mb": (own.ru_maxrss + (workers > 1) * workers * theirs.ru_maxrss) / 1024,
        "rows": len(made.items.text) + len(made.users.text), "texts": len(made.texts),
        "array_mb": sum(array.nbytes for array in made.arrays().values()) / 2**20,
    }  # fmt: skip


def build_elsewhere(folder: Path, workers: int) -> dict[str, Any]:
    """`build` in a process of its own, whose peak is its own."""
    command = [sys.executable, __file__, "--build", str(folder), "--workers", str(workers)]
    built: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return built


def line_at(rows: list[dict[str, Any]], at: int) -> dict[str, float]:
    """Where the line through the last two sizes is at another one."""
    (first, last), out = rows[-2:], {}
    for name in ("cpu_s", "peak_mb", "array_mb"):
        slope = (last[name] - first[name]) / (last["reviews"] - first["reviews"])
        out[name] = last[name] + slope * (at - last["reviews"])
    return out


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reviews", type=int, nargs="+", default=[100_000, 200_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1], help="numbers of processes, by turns")
    parser.add_argument("--at", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=3, help="turns over the sizes, of which medians are shown")
    parser.add_argument("--quick", action="store_true", help="2,000 and 4,000 reviews; leaves no line")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.build is not None:
        print(json.dumps(build(arguments.build, arguments.workers[0])))
        return
    sizes = [2_000, 4_000] if arguments.quick else sorted(arguments.reviews)
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            (Path(folder) / str(size)).mkdir()
            write_reviews(Path(folder) / str(size), size)
        turns = {
            (n, size): partial(build_elsewhere, Path(folder) / str(size), n)
            for n in sorted(arguments.workers)
            for size in sizes
        }
        rows = list(in_turns(turns, 1 if arguments.quick else arguments.repeats).values())
    shown = table("statements", "reviews", "workers", "s", "CPU s", "peak MB", "rows", "phrases", "arrays MB")
    for row in rows:
        shown.add_row(
            f"{row['reviews']:,}", f"{row['workers']}", f"{row['seconds']:,.1f}", f"{row['cpu_s']:,.1f}",
            f"{row['peak_mb']:,.0f}", f"{row['rows']:,}", f"{row['texts']:,}", f"{row['array_mb']:,.1f}",
        )  # fmt: skip
    record: dict[str, Any] = {"cores": os.cpu_count(), "rows": rows}
    if len(sizes) > 1:
        record["line"] = line = line_at(rows, arguments.at)
        shown.add_row(
            f"line at {arguments.at:,}", f"{rows[-1]['workers']}", "", f"{line['cpu_s']:,.0f}",
            f"{line['peak_mb']:,.0f}", "", "", f"{line['array_mb']:,.0f}",
        )  # fmt: skip
    Console().print(shown)
    keep("statements", record, file=arguments.json, quick=arguments.quick)


if __name__ == "__main__":
    main()
