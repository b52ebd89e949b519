"""What the nearest items by text cost as the catalogue grows, and how many of the true ones are found.

    python benchmarks/text_neighbours.py [--items 10000,100000] [--kinds sparse,dense] [--workers 2] [--quick]

Titles are made up: products of a few variants each, with brand, category path and words as frequent as in Zipf's law;
dense vectors lie around products around categories. Each size and kind runs in a process of its own, so that peak
memory is its alone; workers' is added as if they shared no page. Recall is over a sample of items: how many of the
neighbours found are as near as the exact hundredth. Appends one JSON line to results/text_neighbours.jsonl.
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
from scipy.sparse import csr_array

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.records import keep, table  # noqa: E402
from rdrec_core.text_vectors import SparseVectors  # noqa: E402
from training.signals.nearest import nearest_dense, nearest_sparse  # noqa: E402
from training.workers import blocks_by  # noqa: E402

N, SAMPLE, WIDTH = 100, 300, 384
COLUMNS = ("items", "vectors", "made", "neighbours", "CPU", "peak MiB", "entries", f"recall@{N}")


def titles(n_items: int, rng: np.random.Generator) -> list[str]:
    """About 17 words each: brand, words of the product, category path, words of the variant."""
    n_words, n_products = 60_000, max(1, n_items // 12)
    product_words, own_words = (
        (n_words * rng.random(shape) ** 4).astype(np.int64) for shape in ((n_products, 6), (n_items, 4))
    )
    brand = (n_items // 100 * rng.random(n_products) ** 2).astype(np.int64)
    category = (400 * rng.random(n_products) ** 2).astype(np.int64)
    out = []
    for own, p in zip(own_words.tolist(), rng.integers(n_products, size=n_items).tolist(), strict=True):
        words, c = " ".join(f"w{w}" for w in (*product_words[p].tolist(), *own)), int(category[p])
        out.append(f"b{brand[p]} {words} shop d{c % 5} d{c % 25} c{c}")
    return out


def dense_vectors(n_items: int, rng: np.random.Generator) -> np.ndarray:
    """Vectors of length one, as near to each other as a sentence encoder's."""
    n_products = max(1, n_items // 12)
    products = rng.standard_normal((400, WIDTH), dtype=np.float32)[rng.integers(400, size=n_products)]
    products += rng.standard_normal(products.shape, dtype=np.float32)
    vectors = products[rng.integers(n_products, size=n_items)]
    for part in np.array_split(vectors, max(1, n_items // 50_000)):
        part += rng.standard_normal(part.shape, dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return vectors


def measure(n_items: int, kind: str, workers: int, connection: Any) -> None:
    rng, started = np.random.default_rng(0), time.perf_counter()
    sample = np.sort(rng.choice(n_items, min(SAMPLE, n_items), replace=False))
    if kind == "sparse":
        vectors, rows = SparseVectors.from_texts(titles(n_items, rng))
    else:
        dense = dense_vectors(n_items, rng)
    made_s, started, cpu = time.perf_counter() - started, time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder, blocks_by(workers, Path(folder)) as blocks:
        if kind == "sparse":
            found = nearest_sparse(rows, len(vectors), N, blocks=blocks)
        else:
            found = nearest_dense(dense, N, blocks=blocks)
    wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    own, theirs = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    if kind == "sparse":
        matrix = csr_array((rows.weights, rows.terms, rows.indptr), shape=(n_items, len(vectors)))
        exact = (matrix[sample] @ matrix.T).toarray()
    else:
        exact = dense[sample] @ dense.T
    exact[np.arange(len(sample)), sample] = 0.0
    connection.send({
        "n_items": n_items, "kind": kind, "workers": workers, "made_s": made_s, "neighbours_s": wall_s,
        "neighbours_cpu_s": cpu_s + theirs.ru_utime + theirs.ru_stime, "entries": int(found.nnz),
        "peak_memory_mib": (own.ru_maxrss + (workers > 1) * workers * theirs.ru_maxrss) / 1024,
        "recall": recall(found, exact, sample),
    })  # fmt: skip


def recall(found: csr_array, exact: np.ndarray, sample: np.ndarray) -> float:
    """Mean share of a row's neighbours that are as near as its exact n-th."""
    shares = []
    for cosines, item in zip(exact, sample.tolist(), strict=True):
        near = cosines[found.indices[found.indptr[item] : found.indptr[item + 1]]]
        if there := min(N, int((cosines > 0).sum())):
            border = np.partition(cosines, len(cosines) - there)[len(cosines) - there]
            shares.append(min(1.0, float((near >= border - 1e-5).sum()) / there))
    return float(np.mean(shares))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", default="10000,100000", help="catalogue sizes")
    parser.add_argument("--kinds", default="sparse,dense", help="kinds of vectors")
    parser.add_argument("--workers", type=int, default=1, help="processes; 1: threads of the one that builds")
    parser.add_argument("--quick", action="store_true", help="the smallest size alone, nothing appended")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.items.split(",")]
    shown, rows, context = table(f"the {N} nearest items", *COLUMNS), [], multiprocessing.get_context("spawn")
    for size in sizes[:1] if arguments.quick else sizes:
        for kind in arguments.kinds.split(","):
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=measure, args=(size, kind, arguments.workers, there))
            process.start()
            there.close()
            rows.append(row := here.recv())
            process.join()
            shown.add_row(
                f"{size:,}", kind, *(f"{row[name]:.1f} s" for name in ("made_s", "neighbours_s", "neighbours_cpu_s")),
                f"{row['peak_memory_mib']:,.0f}", f"{row['entries']:,}", f"{row['recall']:.3f}",
            )  # fmt: skip
    Console(width=100).print(shown)
    record = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "rows": rows}
    keep("text_neighbours", record, quick=arguments.quick)


if __name__ == "__main__":
    main()
