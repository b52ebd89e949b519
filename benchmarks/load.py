"""What the service makes of its engines, and what it does under twice the load that it can bear.

    python benchmarks/load.py --bundle DIR [--quick] [--runs N] [--json FILE] [--setting NAME=VALUE ...]
    python benchmarks/load.py --bundle DIR --mixed       explanations beside rankings
    python benchmarks/load.py --bundle DIR --engines 1 2 capacity and memory by number of engines
    python benchmarks/load.py --bundle DIR --text        capacity without and with channels of text

A run measures the engine alone, then a real `rdrec-serve` over loopback: closed loop for the capacity, then open loop
(Poisson arrivals that do not wait for answers) at 0.5, 1 and 2 times the capacity, then the engine again. Every request
is of another user, history or filter: nothing comes from the answer cache. Repeats of different things take turns, and
their medians are shown. Each run says how much of the machine other processes took. Keys of the JSON: capacity,
goodput_2x, unexpected_5xx, unanswered, service_to_engine, loads (all medians over the runs), runs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.load_generator import Load, Placement, Result, Stream, endless, request_bytes
from benchmarks.quiet import Usage, children_mb, others_share, verdict
from benchmarks.records import DEMO, keep, table
from rdrec_core.bundle import Bundle
from rdrec_core.engines import open_engine
from rdrec_core.item_graph import TEXT_PREFIX
from rdrec_core.ranking import Ranker
from rdrec_core.types import RankRequest
from training.evaluation.fusion_run import store_fusion

DEADLINE_S, EXPLAIN_DEADLINE_S = 1.0, 5.0
PATIENCE_S = 20.0
"""Deadline where capacities are compared: nobody is turned away, so that every answer costs an engine its time."""
CLIENTS = 64
"""Callers of the closed loop."""
EXPLANATIONS_PER_S = 48.0
FACTORS = (0.5, 1.0, 2.0)


def requests_of(bundle: Bundle, seed: int) -> Iterator[RankRequest]:
    """Endless requests as the engine sees them: a known user's history, and a filter that no other request has."""
    rng = random.Random(seed)
    users, n_items = bundle.users, len(bundle.catalog)
    while True:
        user = rng.randrange(len(users))
        history = tuple(int(i) for i in users.history(user))
        exclude = tuple(rng.sample(range(n_items), min(4, n_items // 4)))
        yield RankRequest(user, history, 10, exclude=(*exclude, *history))


def rankings(bundle: Bundle, n: int, seed: int = 2, deadline_s: float = DEADLINE_S) -> Iterator[bytes]:
    """The same questions over HTTP, n of them again and again; the service finds the histories itself."""
    ids, stream = bundle.catalog.item_ids, requests_of(bundle, seed)
    made = []
    for request, _ in zip(stream, range(n), strict=False):
        exclude = [ids[i] for i in request.exclude[: len(request.exclude) - len(request.history)]]
        body = json.dumps({"user_id": bundle.users.user_ids[request.user_index or 0], "exclude": exclude}).encode()
        made.append(request_bytes("/recommend/sequential", body, deadline_s))
    return endless(made)


def explanations(bundle: Bundle, n: int, seed: int = 3) -> Iterator[bytes]:
    """Users and items at random, n pairs again and again."""
    rng = random.Random(seed)
    made = []
    for _ in range(n):
        user, item = rng.randrange(len(bundle.users)), rng.randrange(len(bundle.catalog))
        asked = {"user_id": bundle.users.user_ids[user], "item_id": bundle.catalog.item_ids[item]}
        made.append(request_bytes("/explain", json.dumps(asked).encode(), EXPLAIN_DEADLINE_S))
    return endless(made)


def engine_alone(bundle: Bundle, batch_size: int, threads: int, seconds: float) -> float:
    """Requests a second through the ranker in batches of the served size, with the service's threads."""
    ranker = Ranker.of_bundle(bundle, open_engine(bundle, threads=threads))
    stream = requests_of(bundle, 1)
    batches = [[next(stream) for _ in range(batch_size)] for _ in range(64)]
    for batch in batches[:3]:
        ranker.recommend(batch)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        ranker.recommend(batches[done % len(batches)])
        done += 1
    return done * batch_size / (time.perf_counter() - started)


@contextmanager
def served(bundle: Path, settings: dict[str, str], placement: Placement) -> Iterator[int]:
    """A ready service process of its own; its port. Ends with status 0, or the benchmark fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "RDREC_ACCESS_LOG": "false", **settings}
    command = shutil.which("rdrec-serve", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert command is not None
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        environment.setdefault("RDREC_STATE_DIR", folder)
        placement.enter(placement.service)
        with log.open("wb") as output:
            arguments = [command, "--bundle", str(bundle), "--port", str(port)]
            process = subprocess.Popen(arguments, env=environment, stderr=output)
        placement.enter(placement.generator)
        try:
            _wait_until_ready(port, process, log)
            yield port
        finally:
            placement.enter(placement.service)
            process.send_signal(signal.SIGTERM)
            status = process.wait(60)
    if status != 0:
        sys.exit(f"rdrec-serve ended with {status}")


def _wait_until_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(1200):
        if process.poll() is not None:
            sys.exit(f"rdrec-serve ended with {process.returncode}:\n{log.read_text()}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    sys.exit("rdrec-serve was not ready within two minutes")


@contextmanager
def watched(record: dict[str, Any]) -> Iterator[None]:
    """Note in the record how much of the machine others took meanwhile."""
    before = Usage.now()
    yield
    record["others_cpu_share"] = others_share(before, Usage.now(), os.cpu_count() or 1)


def overload(bundle: Bundle, settings: dict[str, str], options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """The capacity and what is answered at half, once and twice of it."""
    placement, runs = Placement.of(list(os.sched_getaffinity(0))), []
    alone = (bundle, options.batch_size, options.engine_threads, seconds / 2)
    placement.enter(placement.service)
    with served(options.bundle, settings, placement) as port:
        load, asked = Load(port), rankings(bundle, 20_000)
        load.closed_loop(asked, CLIENTS, min(5.0, seconds))
        for number in range(options.runs):
            run: dict[str, Any] = {}
            with watched(run):
                placement.enter(placement.service)
                engine = engine_alone(*alone)
                placement.enter(placement.generator)
                run["loads"] = _loads(load, asked, seconds, number)
                placement.enter(placement.service)
                run["engine"] = (engine + engine_alone(*alone)) / 2
                placement.enter(placement.generator)
            runs.append(_with_ratios(run))
    first = runs[0]
    medians = {
        name: {key: _median([run["loads"][name][key] for run in runs]) for key in row} | {"shares": {}, "lost": {}}
        for name, row in first["loads"].items()
    }
    return {
        "bundle": bundle.manifest.model_version,
        "cores": os.cpu_count(),
        "placement": str(placement),
        "batch_size": options.batch_size,
        "engine_threads": options.engine_threads,
        "settings": options.setting,
        **{
            key: _median([run[key] for run in runs])
            for key in ("engine", "capacity", "service_to_engine", "goodput_2x")
        },
        **{key: sum(run[key] for run in runs) for key in ("unexpected_5xx", "unanswered")},
        "loads": medians if len(runs) > 1 else first["loads"],
        "runs": runs,
    }


def _loads(load: Load, asked: Iterator[bytes], seconds: float, number: int) -> dict[str, Any]:
    found = {"closed": load.closed_loop(asked, CLIENTS, seconds)}
    capacity = found["closed"].goodput
    for factor in FACTORS:
        (found[f"{factor:g}x"],) = load.open_loop(
            [Stream(factor * capacity, asked)], seconds, 100 * number + int(10 * factor)
        )
        time.sleep(1.0)
    return {name: result.summary() for name, result in found.items()}


def _with_ratios(run: dict[str, Any]) -> dict[str, Any]:
    loads = run["loads"]
    capacity = loads["closed"]["goodput_per_s"]
    return run | {
        "capacity": capacity,
        "service_to_engine": capacity / run["engine"],
        "goodput_2x": loads["2x"]["goodput_per_s"],
        "unexpected_5xx": sum(row["unexpected_5xx"] for row in loads.values()),
        "unanswered": sum(row["unanswered"] for row in loads.values()),
    }


def _median(values: list[Any]) -> Any:
    return statistics.median(values) if all(isinstance(value, int | float) for value in values) else None


def show(record: dict[str, Any]) -> None:
    """Each run beside what is asked of it, and the loads of the last."""
    console = Console(width=160)
    shown = table(
        f"{record['bundle']}: {record['placement']}",
        "run", "engine/s", "capacity/s", "service/engine (.80)", "goodput 2x (.90)", "p99 at 2x (1000 ms)",
        "429 at 1x (5 %)", "unanswered (0)", "others' CPU",
    )  # fmt: skip
    for number, run in enumerate(record["runs"], start=1):
        twice, once = run["loads"]["2x"], run["loads"]["1x"]
        share = run["others_cpu_share"]
        shown.add_row(
            str(number), f"{run['engine']:.0f}", f"{run['capacity']:.0f}", f"{run['service_to_engine']:.2f}",
            f"{run['goodput_2x'] / run['capacity']:.2f}", f"{twice['p99_ms']:.0f}",
            f"{once['shares'].get('429', 0):.1%}", str(run["unanswered"]), "?" if share is None else f"{share:.0%}",
        )  # fmt: skip
    console.print(shown)
    last = record["runs"][-1]["loads"]
    loads = table(
        "the last run", "load", "offered/s", "goodput/s", "p50 ms", "p95 ms", "p99 ms", "shares by status", "lost",
        left=("load", "shares by status", "lost"),
    )  # fmt: skip
    for name, row in last.items():
        columns = [str(row[k]) for k in ("offered_per_s", "goodput_per_s", "p50_ms", "p95_ms", "p99_ms")]
        shares = ", ".join(f"{status}: {share:.1%}" for status, share in row["shares"].items())
        loads.add_row(name, *columns, shares, ", ".join(f"{n} {why}" for why, n in row["lost"].items()) or "none")
    console.print(loads)
    for number, run in enumerate(record["runs"], start=1):
        console.print(f"run {number}: {verdict(run['others_cpu_share'])}")


def mixed(bundle: Bundle, settings: dict[str, str], options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """p99 of rankings at half load, alone and with explanations under way, in turns."""
    placement = Placement.of(list(os.sched_getaffinity(0)))
    record: dict[str, Any] = {"bundle": bundle.manifest.model_version, "placement": str(placement)}
    alone, beside, explained = [], [], []
    with watched(record), served(options.bundle, settings, placement) as port:
        load, asked, why = Load(port), rankings(bundle, 20_000), explanations(bundle, 20_000)
        load.closed_loop(asked, CLIENTS, min(5.0, seconds))
        record["capacity"] = load.closed_loop(asked, CLIENTS, seconds).goodput
        half = Stream(record["capacity"] / 2, asked)
        others = Stream(EXPLANATIONS_PER_S, why, EXPLAIN_DEADLINE_S)
        load.open_loop([half, others], min(3.0, seconds), 0)
        for number in range(options.runs):
            alone += load.open_loop([half], seconds, 2 * number)
            pair: list[Result] = load.open_loop([half, others], seconds, 2 * number + 1)
            beside.append(pair[0])
            explained.append(pair[1])
    for name, results in (("alone", alone), ("beside", beside), ("explanations", explained)):
        record[name] = [result.summary() for result in results]
    record["p99_ratio"] = _median([b["p99_ms"] for b in record["beside"]]) / _median(
        [a["p99_ms"] for a in record["alone"]]
    )
    return record


def show_mixed(record: dict[str, Any]) -> None:
    console = Console(width=160)
    shown = table(
        f"{record['bundle']}: half of {record['capacity']:.0f} rankings/s beside {EXPLANATIONS_PER_S:g} explained/s",
        "run", "p50 alone", "p99 alone", "p50 beside", "p99 beside", "explained/s", "p99 explain ms",
    )  # fmt: skip
    for n, (one, two, why) in enumerate(zip(record["alone"], record["beside"], record["explanations"], strict=True), 1):
        columns = (one["p50_ms"], one["p99_ms"], two["p50_ms"], two["p99_ms"], why["goodput_per_s"], why["p99_ms"])
        shown.add_row(str(n), *map(str, columns))
    console.print(shown)
    console.print(f"median p99 beside to alone {record['p99_ratio']:.2f} (asked: 2 at most); {record['placement']}")


def compared(variants: dict[str, tuple[Path, dict[str, str]]], options: argparse.Namespace, seconds: float) -> Any:
    """Closed-loop capacity and memory of each variant, a bundle and settings, in turns."""
    placement = Placement.of(list(os.sched_getaffinity(0)))
    bundle = Bundle.open(options.bundle)
    record: dict[str, Any] = {"bundle": bundle.manifest.model_version, "placement": str(placement)}
    found: dict[str, list[float]] = {name: [] for name in variants}
    memory: dict[str, list[float]] = {name: [] for name in variants}
    with watched(record):
        for _ in range(options.runs):
            for name, (path, settings) in variants.items():
                with served(path, settings, placement) as port:
                    load, asked = Load(port), rankings(bundle, 4_000, deadline_s=PATIENCE_S)
                    load.closed_loop(asked, CLIENTS, min(3.0, seconds), PATIENCE_S)
                    found[name].append(load.closed_loop(asked, CLIENTS, seconds, PATIENCE_S).goodput)
                    memory[name].append(children_mb())
    medians = {
        key: {name: statistics.median(values) for name, values in figures.items()}
        for key, figures in (("medians", found), ("memory_mb", memory))
    }
    return record | {"capacity": found} | medians


def show_compared(record: dict[str, Any]) -> None:
    console = Console(width=160)
    shown = table(
        f"{record['bundle']}: {record['placement']}", "", "capacity/s of each run", "median", "x first", "MB (PSS)"
    )
    first = next(iter(record["medians"].values()))
    for name, median in record["medians"].items():
        rates = ", ".join(f"{rate:.1f}" for rate in record["capacity"][name])
        shown.add_row(name, rates, f"{median:.1f}", f"{median / first:.2f}", f"{record['memory_mb'][name]:,.0f}")
    console.print(shown)


def without_text(bundle: Path, folder: Path) -> Path:
    """A copy whose ranking no channel of text has a say in."""
    copy = Path(shutil.copytree(bundle, folder / "without-text"))
    weights = Bundle.open(copy).manifest.fusion
    text = f".channel.{TEXT_PREFIX}"
    store_fusion(copy, {name: value for name, value in weights.items() if text not in name})
    return copy


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=DEMO / "bundle")
    parser.add_argument("--quick", action="store_true", help="loads of 10 s, and one run; about a minute each")
    parser.add_argument("--runs", type=int, help="3 by default, with --quick 1")
    parser.add_argument("--seconds", type=float, help="of each load; 40 by default, with --quick 10")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--mixed", action="store_true", help="explanations beside rankings")
    parser.add_argument("--engines", type=int, nargs="+", help="compare the capacity of so many engines")
    parser.add_argument("--text", action="store_true", help="compare the capacity without and with channels of text")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--engine-threads", type=int, default=max(1, len(os.sched_getaffinity(0)) - 1))
    parser.add_argument("--setting", action="append", default=[], help="NAME=VALUE for RDREC_NAME of the service")
    options = parser.parse_args()
    options.runs = options.runs or (1 if options.quick else 3)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    seconds = options.seconds or (10.0 if options.quick else 40.0)
    bundle = Bundle.open(options.bundle)
    settings = {f"RDREC_{name.upper()}": value for name, _, value in (s.partition("=") for s in options.setting)}
    settings["RDREC_BATCH_SIZE"] = str(options.batch_size)
    settings["RDREC_ENGINE_THREADS"] = str(options.engine_threads)
    if options.engines:
        one = settings | {"RDREC_ENGINE_THREADS": "1"}
        variants = {f"{n} engines": (options.bundle, one | {"RDREC_ENGINES": str(n)}) for n in options.engines}
        record, name, print_table = compared(variants, options, seconds), "load_engines", show_compared
    elif options.text:
        with tempfile.TemporaryDirectory() as folder:
            plain = without_text(options.bundle, Path(folder))
            variants = {"without text": (plain, settings), "with text": (options.bundle, settings)}
            record, name, print_table = compared(variants, options, seconds), "load_text", show_compared
    elif options.mixed:
        record, name, print_table = mixed(bundle, settings, options, seconds), "load_mixed", show_mixed
    else:
        record, name, print_table = overload(bundle, settings, options, seconds), "load", show
    print_table(record)
    keep(name, record, file=options.json)


if __name__ == "__main__":
    main()
