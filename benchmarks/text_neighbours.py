"""What the nearest items by text cost as the catalogue grows, and how many of the true ones are found.

    python benchmarks/text_neighbours.py [--items 10000,100000] [--kinds sparse,dense] [--quick] [--json FILE]

Titles are made up: products of a few variants each, with brand, category path and words as frequent as in Zipf's law;
dense vectors are made up in groups of like kind. Each size and kind runs in a process of its own, so that peak memory
is its alone. Recall is over a sample of items: how many of the neighbours found are as near as the exact hundredth.
Appends one JSON line to results/text_neighbours.jsonl.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from scipy.sparse import csr_array

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.records import keep, table  # noqa: E402
from rdrec_core.text_vectors import Rows, SparseVectors  # noqa: E402
from training.signals.nearest import nearest_dense, nearest_sparse  # noqa: E402

N = 100
SAMPLE = 300
WIDTH = 384
KINDS = ("sparse", "dense")


def titles(n_items: int, rng: np.random.Generator) -> list[str]:
    """About 17 words each: brand, words of the product, category path, words of the variant."""
    n_words, n_products = 60_000, max(1, n_items // 12)
    product_words = (n_words * rng.random((n_products, 6)) ** 4).astype(np.int64)
    brand = (n_items // 100 * rng.random(n_products) ** 2).astype(np.int64)
    category = (400 * rng.random(n_products) ** 2).astype(np.int64)
    product = rng.integers(n_products, size=n_items)
    own_words = (n_words * rng.random((n_items, 4)) ** 4).astype(np.int64)
    out = []
    for item in range(n_items):
        p = product[item]
        words = [f"w{w}" for w in (*product_words[p].tolist(), *own_words[item].tolist())]
        c = int(category[p])
        out.append(f"b{brand[p]} {' '.join(words)} shop d{c % 5} d{c % 25} c{c}")
    return out


def dense_vectors(n_items: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Vectors of length one around products around categories, as near to each other as a sentence encoder's."""
    categories = rng.standard_normal((400, WIDTH), dtype=np.float32)
    n_products = max(1, n_items // 12)
    products = categories[rng.integers(400, size=n_products)] + rng.standard_normal((n_products, WIDTH), np.float32)
    vectors = products[rng.integers(n_products, size=n_items)]
    for start in range(0, n_items, 50_000):
        part = vectors[start : start + 50_000]
        part += rng.standard_normal(part.shape, dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return vectors


def measure(n_items: int, kind: str, connection: Any) -> None:
    rng = np.random.default_rng(0)
    sample = np.sort(rng.choice(n_items, min(SAMPLE, n_items), replace=False))
    vectors_s = 0.0
    if kind == "sparse":
        texts = titles(n_items, rng)
        started = time.perf_counter()
        vectors, rows = SparseVectors.from_texts(texts)
        vectors_s = time.perf_counter() - started
        del texts
        started, cpu = time.perf_counter(), time.process_time()
        found = nearest_sparse(rows, len(vectors), N)
    else:
        made = dense_vectors(n_items, rng)
        started, cpu = time.perf_counter(), time.process_time()
        found = nearest_dense(made, N)
    wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    exact = exact_sparse(rows, len(vectors), sample) if kind == "sparse" else made[sample] @ made.T
    exact[np.arange(len(sample)), sample] = 0.0
    connection.send(
        {
            "n_items": n_items, "kind": kind, "vectors_s": vectors_s, "neighbours_s": wall_s, "neighbours_cpu_s": cpu_s,
            "peak_memory_mib": peak, "entries": int(found.nnz), "recall": recall(found, exact, sample),
        }
    )  # fmt: skip


def exact_sparse(rows: Rows, n_terms: int, sample: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    matrix = csr_array((rows.weights, rows.terms, rows.indptr), shape=(len(rows), n_terms))
    return (matrix[sample] @ matrix.T).toarray()


def recall(found: csr_array, exact: npt.NDArray[np.floating], sample: npt.NDArray[np.int64]) -> float:
    """Mean share of a row's neighbours that are as near as its exact n-th."""
    shares = []
    for cosines, item in zip(exact, sample.tolist(), strict=True):
        own = found.indices[found.indptr[item] : found.indptr[item + 1]]
        there = min(N, int((cosines > 0).sum()))
        if there:
            border = np.partition(cosines, len(cosines) - there)[len(cosines) - there]
            shares.append(min(1.0, float((cosines[own] >= border - 1e-5).sum()) / there))
    return float(np.mean(shares))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", default="10000,100000", help="catalogue sizes")
    parser.add_argument("--kinds", default="sparse,dense", help="kinds of vectors")
    parser.add_argument("--quick", action="store_true", help="the smallest size alone, nothing appended")
    parser.add_argument("--json", type=Path, help="write the record here")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.items.split(",")]
    kinds = arguments.kinds.split(",")
    console = Console()
    rows = []
    context = multiprocessing.get_context("spawn")
    for size in sizes[:1] if arguments.quick else sizes:
        for kind in kinds:
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=measure, args=(size, kind, there))
            with console.status(f"{size:,} items, {kind}"):
                process.start()
                there.close()
                rows.append(here.recv())
                process.join()
    shown = table(
        f"the {N} nearest items by text",
        "items", "vectors", "made", "neighbours", "CPU", "peak memory", "entries", f"recall@{N}",
    )  # fmt: skip
    for row in rows:
        shown.add_row(
            f"{row['n_items']:,}", row["kind"], f"{row['vectors_s']:.1f} s", f"{row['neighbours_s']:.1f} s",
            f"{row['neighbours_cpu_s']:.1f} s", f"{row['peak_memory_mib']:,.0f} MiB", f"{row['entries']:,}",
            f"{row['recall']:.3f}",
        )  # fmt: skip
    console.print(shown)
    record = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "rows": rows}
    keep("text_neighbours", record, file=arguments.json, quick=arguments.quick)


if __name__ == "__main__":
    main()
