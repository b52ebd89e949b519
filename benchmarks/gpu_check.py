"""What a GPU makes of the engines, beside the processor, in one table: for machines that have one, in ten minutes.

    python benchmarks/gpu_check.py [--bundle DIR] [--seconds 20] [--json FILE]
    make gpu-check

Each engine ranks and scores the same requests; its lists are held to the processor's float32 lists, and it must compute
where it was told to: a demand that falls back is a failure. Exit status 0 where every row passed, 1 where one failed, 3
where there is no GPU (0 with --quick, which `make bench` runs everywhere).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.records import DEMO, keep, table
from rdrec_core.bundle import Bundle
from rdrec_core.engines import Runtime, open_engine
from rdrec_core.engines.base import Engine
from rdrec_core.engines.hardware import Device, Hardware, Precision
from rdrec_core.errors import RDRecError
from rdrec_core.types import RankRequest

NO_GPU = 3
LEAST_OVERLAP = {"onnx": 0.99, "onnx float16": 0.97, "torch": 0.90}
"""Of the top 10 with the processor's float32 lists; half precision swaps near neighbours."""


@dataclass
class Row:
    """One line of the table."""

    name: str
    passed: bool
    device: str = ""
    requests_per_s: float | None = None
    overlap: float | None = None
    said: str = ""


def gpus() -> list[str]:
    """Names, by the driver; empty where there is none."""
    try:
        asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        listed = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in listed.stdout.splitlines() if line.strip()]


def requests_of(bundle: Bundle, n: int) -> list[RankRequest]:
    users = bundle.users
    return [RankRequest(user, tuple(int(i) for i in users.history(user)), 10) for user in range(min(n, len(users)))]


def lists(engine: Engine, requests: Sequence[RankRequest]) -> list[list[int]]:
    return [ranked.item_indices.tolist() for ranked in engine.recommend(requests)]


def rate(engine: Engine, requests: Sequence[RankRequest], seconds: float) -> float:
    """Requests a second: the median of batches, after each shape was met once."""
    engine.recommend(requests)
    times = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(times) < 3:
        begun = time.perf_counter()
        engine.recommend(requests)
        times.append(time.perf_counter() - begun)
    return len(requests) / float(np.median(times))


def overlap(mine: list[list[int]], theirs: list[list[int]]) -> float:
    return float(np.mean([len(set(a) & set(b)) / max(1, len(b)) for a, b in zip(mine, theirs, strict=True)]))


def measured(
    bundle: Bundle, runtime: Runtime, hardware: Hardware, reference: list[list[int]] | None, seconds: float
) -> tuple[Row, list[list[int]]]:
    """An engine on its hardware; reference: what its lists are held to."""
    kind = f"{runtime} {hardware.precision}" if hardware.precision is Precision.FLOAT16 else runtime
    name = f"{kind} on {hardware.device}"
    try:
        engine = open_engine(bundle, runtime=runtime, hardware=hardware)
        requests = requests_of(bundle, 256)
        found = lists(engine, requests)
        agrees = None if reference is None else overlap(found, reference)
        is_there = engine.device.startswith(hardware.device.value)
        passed = is_there and (agrees is None or agrees >= LEAST_OVERLAP[kind])
        said = "" if is_there else f"computes on {engine.device}"
        return Row(name, passed, engine.device, rate(engine, requests[:64], seconds), agrees, said), found
    except RDRecError as error:
        return Row(name, False, said=str(error)), []


def refused(name: str, wanted: Callable[[], Any]) -> Row:
    """What must not be possible."""
    try:
        wanted()
    except RDRecError as error:
        return Row(name, True, said=str(error))
    return Row(name, False, said="was not refused")


def check(bundle: Bundle, seconds: float, n_gpus: int) -> list[Row]:
    """All rows."""
    cpu, reference = measured(bundle, "onnx", Hardware(Device.CPU), None, seconds)
    rows = [cpu]
    kinds: list[tuple[Runtime, Precision]] = [("onnx", Precision.FLOAT32), ("torch", Precision.FLOAT32)]
    if any(name.endswith(".float16.onnx") for name in bundle.manifest.files):
        kinds.insert(1, ("onnx", Precision.FLOAT16))
    for runtime, precision in kinds:
        for device_id in range(n_gpus):
            hardware = Hardware(Device.CUDA, device_id=device_id, memory_limit_bytes=8 << 30, precision=precision)
            rows.append(measured(bundle, runtime, hardware, reference, seconds)[0])
    missing = Hardware(Device.CUDA, device_id=n_gpus)
    for runtime in ("onnx", "torch"):
        opening = partial(open_engine, bundle, runtime=runtime, hardware=missing)
        rows.append(refused(f"{runtime} on a GPU that is not there", opening))
    return rows


def show(rows: Sequence[Row]) -> None:
    shown = table(
        "GPU check; overlap of the top 10 with the processor's float32 lists",
        "", "engine", "device", "requests/s", "overlap", "says", left=("", "engine", "device", "says"),
    )  # fmt: skip
    for row in rows:
        shown.add_row(
            "ok" if row.passed else "FAILED", row.name, row.device,
            "" if row.requests_per_s is None else f"{row.requests_per_s:.0f}",
            "" if row.overlap is None else f"{row.overlap:.3f}", row.said,
        )  # fmt: skip
    Console(width=160).print(shown)


def main() -> int:
    """Command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=DEMO / "bundle")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each engine's rate")
    parser.add_argument("--quick", action="store_true", help="two seconds each")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = gpus()
    if not found:
        print("no GPU here (nvidia-smi lists none): nothing was checked")
        return 0 if options.quick else NO_GPU
    bundle = Bundle.open(options.bundle)
    rows = check(bundle, 2.0 if options.quick else options.seconds, len(found))
    show(rows)
    keep("gpu_check", {"gpus": found, "rows": [vars(row) for row in rows]}, file=options.json, quick=options.quick)
    return 0 if all(row.passed for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
