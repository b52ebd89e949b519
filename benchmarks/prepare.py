"""`rdrec prepare` on made-up reviews: records a second and peak memory, worker processes included.

    python benchmarks/prepare.py [--rows 20000000 | --interactions 100000000] [--files 4] [--labels SCHEME] [--quick]

Writes gzipped Amazon 2018 files of random sentences (users' activity and items' popularity are skewed), or, with
--interactions, Parquet files of the same purchases without texts; runs the command as its own process, and samples the
memory of its whole process tree: the sum of resident sets, which counts shared pages once for each process and so errs
on the high side. Appends one JSON line to results/prepare.jsonl.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from rich.console import Console

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.records import keep, table  # noqa: E402

QUICK_ROWS = 200_000
CHUNK_ROWS = 100_000
SUBJECTS = ("The wooden box", "My old kettle", "This lamp", "The blue scarf", "Our garden table", "The travel bag")
VERBS = ("arrived on time and", "kept its colour and", "surprised everybody because it", "was fair for the price and")
ENDS = (
    "still looks new after a long winter",
    "made the kitchen brighter",
    "fits into the smallest corner of the house",
    "survived two children and a dog",
    "was easy to put together without any tools",
    "reminded us of the one that my grandmother had",
)


def sentences() -> pl.Series:
    """Every subject with every verb and end, as sentences."""
    return pl.Series([f"{s} {v} {e}." for s in SUBJECTS for v in VERBS for e in ENDS])


def write_reviews(path: Path, rows: int, n_users: int, n_items: int, seed: int) -> None:
    """Write `rows` records; memory holds one chunk."""
    rng = np.random.default_rng(seed)
    pool = sentences()
    with gzip.open(path, "wb", compresslevel=1) as file:
        for start in range(0, rows, CHUNK_ROWS):
            n = min(CHUNK_ROWS, rows - start)
            # cubes of uniforms: a few users and items are very active, most have a handful
            users = (n_users * rng.random(n) ** 1.5).astype(np.int64)
            items = (n_items * rng.random(n) ** 3).astype(np.int64)
            frame = pl.DataFrame(
                {
                    "overall": rng.integers(1, 6, size=n).astype(np.float64),
                    "user": pl.Series(users).cast(pl.String),
                    "item": pl.Series(items).cast(pl.String),
                    "number": np.arange(start, start + n) * 97 + seed,
                    "unixReviewTime": rng.integers(1_300_000_000, 1_600_000_000, size=n),
                    **{f"sentence_{k}": pool.gather(rng.integers(len(pool), size=n)) for k in range(3)},
                }
            ).select(
                "overall",
                "unixReviewTime",
                reviewerID="A" + pl.col("user").str.zfill(13),
                asin="B" + pl.col("item").str.zfill(9),
                # a number makes each text one of its own: `clean` sets aside copies of held-out reviews
                reviewText=pl.concat_str("^sentence_.$", "number", separator=" "),
            )
            file.write(frame.write_ndjson().encode())


def write_interactions(path: Path, rows: int, n_users: int, n_items: int, seed: int) -> None:
    """Write `rows` purchases without texts; memory holds one chunk."""
    rng = np.random.default_rng(seed)
    writer: pq.ParquetWriter | None = None
    for start in range(0, rows, 10 * CHUNK_ROWS):
        n = min(10 * CHUNK_ROWS, rows - start)
        table = (
            pl.DataFrame(
                {
                    "user": (n_users * rng.random(n) ** 1.5).astype(np.int64),
                    "item": (n_items * rng.random(n) ** 3).astype(np.int64),
                    "timestamp": rng.integers(1_300_000_000, 1_600_000_000, size=n),
                }
            )
            .select(
                "timestamp",
                user_id="A" + pl.col("user").cast(pl.String).str.zfill(13),
                item_id="B" + pl.col("item").cast(pl.String).str.zfill(9),
            )
            .to_arrow()
        )
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd", compression_level=1)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def generate(folder: Path, rows: int, files: int, *, texts: bool = True) -> list[Path]:
    """Write `files` files of `rows` reviews, or of interactions alone, in all."""
    n_users, n_items = max(rows // 14, 50), max(rows // 130, 50)
    suffix, write = ("json.gz", write_reviews) if texts else ("parquet", write_interactions)
    paths = [folder / f"reviews-{number}.{suffix}" for number in range(files)]
    counts = [rows // files + (number < rows % files) for number in range(files)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(write, paths, counts, [n_users] * files, [n_items] * files, range(files)))
    return paths


def resident_bytes(root_pid: int) -> int:
    """Sum of the resident sets of a process and its descendants."""
    parents: dict[int, list[int]] = {}
    resident: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        except (FileNotFoundError, ProcessLookupError):
            continue
        pid = int(fields["Pid"])
        parents.setdefault(int(fields["PPid"]), []).append(pid)
        resident[pid] = int(fields.get("VmRSS", "0 kB").split()[0]) * 1024
    total, open_ = 0, [root_pid]
    while open_:
        pid = open_.pop()
        total += resident.get(pid, 0)
        open_ += parents.get(pid, [])
    return total


def run(paths: list[Path], out: Path, workers: int, labels: str) -> dict[str, float | int | str]:
    """Prepare a dataset from `paths`; seconds, peak memory, and the counts of the dataset."""
    command = [sys.executable, "-m", "training.cli", "prepare", "--out", str(out), "--workers", str(workers)]
    command += ["--core", "5", "--labels", labels, "--reviews", *map(str, paths)]
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak = 0
    while process.poll() is None:
        peak = max(peak, resident_bytes(process.pid))
        time.sleep(min(1.0, max(0.1, (time.perf_counter() - began) / 100)))  # looking costs time too
    seconds = time.perf_counter() - began
    if process.returncode:
        assert process.stderr is not None
        raise SystemExit(process.stderr.read().decode())
    info = json.loads((out / "dataset.json").read_text())
    return {"seconds": seconds, "peak_rss_bytes": peak} | {
        key: info[key] for key in ("n_users", "n_items", "n_interactions", "n_reviews")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--interactions", type=int, help="so many purchases without texts, instead of reviews")
    parser.add_argument("--labels", default="collaborative", help="the scheme; sequential costs no time")
    parser.add_argument("--folder", type=Path, help="where the files are made up; by default a temporary folder")
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROWS:,} rows")
    options = parser.parse_args()
    rows = QUICK_ROWS if options.quick else options.interactions or options.rows
    what = "interactions" if options.interactions else "reviews"
    console = Console()
    folder = Path(tempfile.mkdtemp(prefix="rdrec-prepare-", dir=options.folder))
    try:
        began = time.perf_counter()
        paths = generate(folder, rows, options.files, texts=not options.interactions)
        size = sum(path.stat().st_size for path in paths)
        console.print(f"made up {rows:,} {what}, {size / 1e9:.2f} GB, in {time.perf_counter() - began:.0f} s")
        result = run(paths, folder / "dataset", options.workers, options.labels)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = float(result["seconds"])
    record = {
        "rows": rows,
        "what": what,
        "labels": options.labels,
        "files": options.files,
        "workers": options.workers,
        "source_bytes": size,
        "rows_per_s": rows / seconds,
        "load_1min": os.getloadavg()[0],
        **result,
    }
    shown = table(
        f"rdrec prepare, {rows:,} {what} in {options.files} files, {options.workers} workers",
        "seconds", "rows/s", "peak memory", "users", "items", "interactions", "load",
    )  # fmt: skip
    shown.add_row(
        f"{seconds:.0f}",
        f"{record['rows_per_s']:,.0f}",
        f"{int(result['peak_rss_bytes']) / 1e9:.2f} GB",
        *(f"{result[key]:,}" for key in ("n_users", "n_items", "n_interactions")),
        f"{record['load_1min']:.1f}",
    )
    console.print(shown)
    keep("prepare", record)


if __name__ == "__main__":
    main()
