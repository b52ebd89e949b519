"""Distillation against a chat server of known latency: throughput beside the ideal, and memory by number of reviews.

    python benchmarks/distill.py [--quick] [--reviews 1000 100000] [--memory-latency-ms 20]
    python benchmarks/distill.py --at 10000000 [--asked 2000] [--bound-gb 8]   so many reviews, a part of them asked

Runs `rdrec distill` as its own process against a scripted server in this one. The ideal is concurrency / latency; the
rate is taken at the server, from the first request to the last answer. CPU time is the command's own, start included.
With `--at` a budget of tokens ends the asking early, and the table is written of what was answered; status 1 where that
takes more memory than the bound.
Appends one JSON line to results/distill.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.records import in_turns, keep, table  # noqa: E402
from tests.chat_server import Call, ChatServer, Reply, completion  # noqa: E402
from tests.rationale_dataset import write_dataset, write_many  # noqa: E402

LATENCY_S = 0.2
CONCURRENCY = 64
POLL_S = 0.02
OPEN = 3
"""Exit status of the command where reviews are left open."""
TOKENS_A_QUESTION = 400
ANSWER = json.dumps(
    {"user_preference": "The user loves sturdy puzzles.", "item_attributes": "The item is a sturdy, bright puzzle."}
)
FILLER = "We play it every week with the whole family and nobody is bored, which says a lot about how it is made. " * 3


@dataclass(frozen=True)
class Run:
    """What one run of the command took."""

    reviews: int
    asking_s: float
    whole_s: float
    cpu_s: float
    peak_rss_bytes: int

    @property
    def rate(self) -> float:
        return self.reviews / self.asking_s


def wait_for_peak(process: subprocess.Popen[bytes]) -> tuple[int, float]:
    """Wait for its end: (peak resident bytes, CPU seconds); sets its returncode.

    The peak is the kernel's high-water mark of the process, read until the end. Not ru_maxrss: there a child begins
    with the peak of its parent, and this parent has held every review.
    """
    peak_kib = 0
    while not os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        if found := re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE):  # gone once it is a zombie
            peak_kib = int(found[1])
        time.sleep(POLL_S)
    _, code, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(code)
    return peak_kib * 1024, usage.ru_utime + usage.ru_stime


def measure(reviews: int, latency_s: float, asked: int | None = None) -> Run:
    """Run the command over so many reviews; asked: have a budget end it after about so many questions."""
    first = last = 0.0

    def script(call: Call) -> Reply:
        nonlocal first, last
        now = time.perf_counter()
        first = first or now
        last = now + latency_s
        return completion(ANSWER, delay_s=latency_s)

    with tempfile.TemporaryDirectory() as folder, ChatServer(script) as server:
        if asked is None:
            texts = ((f"I love puzzle number {n}. {FILLER}", "train") for n in range(reviews))
            dataset = write_dataset(Path(folder) / "data", texts)
        else:
            dataset = write_many(Path(folder) / "data", reviews, FILLER)
        command = [sys.executable, "-m", "training.cli", "distill", str(dataset), "--teacher", f"openai:{server.url}"]
        command += ["--model", "m", "--concurrency", str(CONCURRENCY)]
        command += [] if asked is None else ["--max-tokens-total", str(asked * TOKENS_A_QUESTION)]
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        peak_rss_bytes, cpu_s = wait_for_peak(process)
        whole_s = time.perf_counter() - start
        stderr = process.stderr.read().decode() if process.stderr else ""
        if process.returncode != (0 if asked is None else OPEN):
            raise SystemExit(f"rdrec distill ended with {process.returncode}:\n{stderr}")
        assert sorted(set(server.sent.values())) == [1], "a review was asked twice"
        assert server.sent.total() == reviews if asked is None else 0 < server.sent.total() < reviews
    return Run(reviews, last - first, whole_s, cpu_s, peak_rss_bytes)


def at_size(reviews: int, asked: int, bound_gb: float) -> int:
    """Memory and time over many reviews of which few are asked; the exit status."""
    run = measure(reviews, 0.0, asked)
    shown = table(f"bound: {bound_gb:g} GB", "reviews", "asked about", "peak RSS MB", "whole command s", "CPU s")
    shown.add_row(
        f"{reviews:,}", f"{asked:,}", f"{run.peak_rss_bytes / 1e6:,.0f}", f"{run.whole_s:,.0f}", f"{run.cpu_s:,.0f}"
    )
    Console().print(shown)
    keep("distill_size", {"reviews": reviews, "asked": asked, **vars(run)})
    return int(run.peak_rss_bytes > bound_gb * 1e9)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer reviews: under a minute")
    parser.add_argument("--reviews", type=int, nargs="*", help="sizes of the memory runs (none: throughput only)")
    parser.add_argument("--memory-latency-ms", type=float, default=20.0, help="the server's latency in the memory runs")
    parser.add_argument("--at", type=int, help="memory at so many reviews, of which a part is asked")
    parser.add_argument("--asked", type=int, default=2_000)
    parser.add_argument("--bound-gb", type=float, default=8.0)
    options = parser.parse_args()
    if options.at is not None:
        return at_size(options.at, options.asked, options.bound_gb)
    quick = options.quick
    sizes = options.reviews
    if sizes is None:
        sizes = [1_000, 5_000] if quick else [1_000, 10_000, 100_000]
    console = Console()

    console.print(f"throughput at {LATENCY_S * 1000:.0f} ms latency, concurrency {CONCURRENCY} ...")
    turns = in_turns({"": lambda: vars(measure(1_280 if quick else 6_400, LATENCY_S))}, 1 if quick else 3)
    paced = Run(**turns[""])
    ideal = CONCURRENCY / LATENCY_S
    shown = table(
        None, "reviews", "answers/s", "ideal", "of the ideal", "asking s", "whole command s", "CPU ms an answer"
    )
    shown.add_row(
        f"{paced.reviews:,}", f"{paced.rate:.1f}", f"{ideal:.0f}", f"{paced.rate / ideal:.1%}",
        f"{paced.asking_s:.1f}", f"{paced.whole_s:.1f}", f"{1000 * paced.cpu_s / paced.reviews:.2f}",
    )  # fmt: skip
    console.print(shown)

    runs = []
    if sizes:
        console.print(f"memory of the command, server with {options.memory_latency_ms:g} ms latency ...")
        runs = [measure(reviews, options.memory_latency_ms / 1000) for reviews in sizes]
        memory = table(None, "reviews", "peak RSS MB", "over the first MB", "answers/s", "CPU ms an answer")
        for run in runs:
            over = (run.peak_rss_bytes - runs[0].peak_rss_bytes) / 1e6
            memory.add_row(
                f"{run.reviews:,}", f"{run.peak_rss_bytes / 1e6:.1f}", f"{over:+.1f}", f"{run.rate:.0f}",
                f"{1000 * run.cpu_s / run.reviews:.2f}",
            )  # fmt: skip
        console.print(memory)

    record = {
        "quick": quick,
        "latency_s": LATENCY_S,
        "concurrency": CONCURRENCY,
        "answers_per_s": paced.rate,
        "share_of_ideal": paced.rate / ideal,
        "cpu_s_an_answer": paced.cpu_s / paced.reviews,
        "memory_latency_ms": options.memory_latency_ms,
        "peak_rss_bytes": {str(run.reviews): run.peak_rss_bytes for run in runs},
    }
    keep("distill", record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
