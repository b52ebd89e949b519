"""What the item graph costs as the catalogue grows: time and memory to build, size, and microseconds a query.

    python benchmarks/graph.py [--items 10000,100000] [--workers 2] [--quick] [--json FILE]

Users are made up: as many as items, ten interactions each, histories of 3 to 17, a few items bought much more than the
rest, and steps to near items that repeat often enough for the graph to have edges. Each size is built in a process of
its own, so that peak memory is that size's alone; workers' is added as if they shared no page. Appends one JSON line to
results/graph.jsonl.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.records import keep, table  # noqa: E402
from rdrec_core.item_graph import Eligible, ItemGraph, Mix  # noqa: E402
from training.signals.graph import GraphConfig, Sequences, graph_of  # noqa: E402
from training.workers import blocks_by  # noqa: E402

QUERIES = 2000


def made_up(n_items: int, rng: np.random.Generator) -> Sequences:
    lengths = rng.integers(3, 18, size=max(1, n_items))  # a user and ten interactions an item
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    total = int(indptr[-1])
    popular = (n_items * rng.random(total) ** 3).astype(np.int64)  # heavy head, long tail
    start = np.repeat(popular[indptr[:-1]], lengths)
    near = (start + rng.geometric(0.05, total)) % n_items
    items = np.where(rng.random(total) < 0.6, near, popular).astype(np.int32)
    return Sequences(indptr, items, n_items)


def built(sequences: Sequences, workers: int) -> ItemGraph:
    with tempfile.TemporaryDirectory() as folder, blocks_by(workers, Path(folder)) as blocks:
        return graph_of(sequences, GraphConfig(), blocks)


def measure(n_items: int, workers: int, connection: Any) -> None:
    rng = np.random.default_rng(0)
    sequences = made_up(n_items, rng)
    before = resource.getrusage(resource.RUSAGE_SELF)
    wall, cpu = time.perf_counter(), time.process_time()
    graph = built(sequences, workers)
    after, theirs = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    built_s = time.perf_counter() - wall
    built_cpu_s = time.process_time() - cpu + theirs.ru_utime + theirs.ru_stime
    mix = Mix(0.1, dict.fromkeys(graph.channels, 1.0))
    connection.send(
        {
            "n_items": n_items,
            "n_interactions": len(sequences.items),
            "build_s": built_s,
            "build_cpu_s": built_cpu_s,
            "workers": workers,
            "peak_memory_mib": (after.ru_maxrss + (workers > 1) * workers * theirs.ru_maxrss) / 1024,
            "memory_before_mib": before.ru_maxrss / 1024,
            "entries": sum(len(channel.items) for channel in graph.channels.values()),
            "size_mib": sum(array.nbytes for array in graph.arrays().values()) / 2**20,
            **query(graph, sequences, mix),
        }
    )


def query(graph: ItemGraph, sequences: Sequences, mix: Mix) -> dict[str, float]:
    times_us = []
    for user in range(min(QUERIES, len(sequences.indptr) - 1)):
        history = sequences.items[sequences.indptr[user] : sequences.indptr[user + 1]].tolist()
        started = time.perf_counter()
        graph.prior(history, mix).best(50, Eligible(exclude=history))
        times_us.append((time.perf_counter() - started) * 1e6)
    return {f"query_p{p}_us": float(np.percentile(times_us, p)) for p in (50, 99)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", default="10000,100000", help="catalogue sizes")
    parser.add_argument("--workers", type=int, default=1, help="processes; 1: none but the one that builds")
    parser.add_argument("--quick", action="store_true", help="the smallest size alone, nothing appended")
    parser.add_argument("--json", type=Path, help="write the record here")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.items.split(",")]
    console = Console()
    rows = []
    context = multiprocessing.get_context("spawn")
    for size in sizes[:1] if arguments.quick else sizes:
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=measure, args=(size, arguments.workers, there))
        with console.status(f"{size:,} items"):
            process.start()
            rows.append(here.recv())
            process.join()
    shown = table(
        "item graph, four channels, at most 200 entries a row",
        "items", "interactions", "build", "CPU", "peak memory", "arrays", "entries", "query p50", "p99",
    )  # fmt: skip
    for row in rows:
        shown.add_row(
            f"{row['n_items']:,}", f"{row['n_interactions']:,}",
            f"{row['build_s']:.1f} s", f"{row['build_cpu_s']:.1f} s",
            f"{row['peak_memory_mib']:,.0f} MiB", f"{row['size_mib']:,.0f} MiB", f"{row['entries']:,}",
            f"{row['query_p50_us']:,.0f} us", f"{row['query_p99_us']:,.0f} us",
        )  # fmt: skip
    console.print(shown)
    record = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "rows": rows}
    keep("graph", record, file=arguments.json, quick=arguments.quick)


if __name__ == "__main__":
    main()
