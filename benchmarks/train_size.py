"""What training holds beside the model, at the size of a large shop, against a bound of 8 GB for two processes.

    python benchmarks/train_size.py [--items N] [--texts N] [--bound-gb 8] [--repeats N] [--quick] [--json FILE]

graph    places of the items in the co-purchase graph, by which a fresh model starts: ten interactions an item
texts    reviews as targets, made by the first of two processes and mapped by both

Each part runs in processes of its own, so that peaks are its own; `held` is what both hold after it, pages that
both map counted once. Exit status 1 where a part takes more than the bound.
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
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.graph import made_up  # noqa: E402
from benchmarks.records import in_turns, keep, table  # noqa: E402
from rdrec_core.encoding import encode_words  # noqa: E402
from rdrec_core.types import Task  # noqa: E402
from tests.ranking_world import tokenizer  # noqa: E402
from tests.rationale_dataset import write_many  # noqa: E402
from training.data.dataset import Dataset  # noqa: E402
from training.learning.examples import TrainingHistories, pool_arrays, text_pools  # noqa: E402
from training.learning.graph_embedding import graph_places  # noqa: E402
from training.learning.parallel import Arrays, processes  # noqa: E402
from training.learning.targets import TargetRule  # noqa: E402

WIDTH = 128
SENTENCE = "We play it every week with the whole family and nobody is bored, which says a lot about how it is made."


def part(name: str, size: int, folder: Path) -> None:
    """In one of two processes: prints what it took, as JSON."""
    rng = np.random.default_rng(0)

    def make() -> Arrays:
        if name == "graph":
            sequences = made_up(size, rng)
            none = np.full(len(sequences.indptr) - 1, -1, dtype=np.int32)
            histories = TrainingHistories(sequences.indptr, sequences.items, none, size)
            return {"places": graph_places(histories, WIDTH, 0)}
        words = tokenizer()
        rule = TargetRule(limit=20)
        pools = text_pools(
            Dataset(folder / "data"), "train", [Task.EXPLANATION], lambda texts: encode_words(words, texts), rule
        )
        return pool_arrays(pools)

    started = time.perf_counter()
    with processes() as group:
        arrays = group.once(folder / "shared", make)
        touched = sum(float(array[:: max(1, len(array) // 1000)].sum()) for array in arrays.values())
        group.wait()
        held = Path("/proc/self/smaps_rollup").read_text().splitlines()
        group.wait()
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    pss_mb = next(int(line.split()[1]) for line in held if line.startswith("Pss:")) / 1024
    took = {"seconds": time.perf_counter() - started, "peak_mb": peak_mb, "held_mb": pss_mb, "touched": touched}
    print(json.dumps(took | {"arrays_mb": sum(array.nbytes for array in arrays.values()) / 2**20}))


def measure(name: str, size: int) -> dict[str, Any]:
    """One part in two processes, as torchrun would start them."""
    with tempfile.TemporaryDirectory() as folder:
        if name == "texts":
            write_many(Path(folder) / "data", size, SENTENCE)
        command = [sys.executable, __file__, "--part", name, str(size), folder]
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(20_000 + os.getpid() % 10_000)}
        places = [os.environ | shared | {"RANK": str(n), "LOCAL_RANK": str(n)} for n in range(2)]
        running = [subprocess.Popen(command, env=place, stdout=subprocess.PIPE, text=True) for place in places]
        said = [process.communicate()[0] for process in running]
        if any(process.returncode for process in running):
            sys.exit(f"{name} failed")
        first, second = (json.loads(text.splitlines()[-1]) for text in said)
    return {
        "part": name, "size": size, "seconds": first["seconds"], "arrays_mb": first["arrays_mb"],
        "peak_mb": first["peak_mb"], "second_peak_mb": second["peak_mb"],
        "held_mb": first["held_mb"] + second["held_mb"],
    }  # fmt: skip


def main() -> int:
    """Command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--bound-gb", type=float, default=8.0)
    parser.add_argument("--repeats", type=int, default=3, help="of each part, in turns; medians are shown")
    parser.add_argument("--quick", action="store_true", help="20,000 of each, once")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--part", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        part(options.part[0], int(options.part[1]), Path(options.part[2]))
        return 0
    sizes = {"graph": options.items, "texts": options.texts}
    parts = {name: partial(measure, name, min(size, 20_000) if options.quick else size) for name, size in sizes.items()}
    rows = list(in_turns(parts, 1 if options.quick else options.repeats).values())
    shown = table(
        f"bound: {options.bound_gb:g} GB for both processes", "part", "size", "s", "arrays MB", "peak of the first MB",
        "peak of the second MB", "held by both MB", left=("part",),
    )  # fmt: skip
    for row in rows:
        columns = (row[key] for key in ("seconds", "arrays_mb", "peak_mb", "second_peak_mb", "held_mb"))
        shown.add_row(row["part"], f"{row['size']:,}", *(f"{value:,.0f}" for value in columns))
    Console().print(shown)
    keep("train_size", {"width": WIDTH, "rows": rows}, file=options.json, quick=options.quick)
    return int(any(row["peak_mb"] + row["second_peak_mb"] > 1000 * options.bound_gb for row in rows))


if __name__ == "__main__":
    sys.exit(main())
