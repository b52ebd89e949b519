"""What the service makes of its engine, and what it does under twice the load that it can bear.

    python benchmarks/load.py --bundle DIR [--quick] [--json FILE] [--setting NAME=VALUE ...]

Runs the engine alone, then a real `rdrec-serve` over loopback: closed loop for the capacity, then open loop (Poisson
arrivals that do not wait for answers) at 0.5, 1 and 2 times the capacity. Latency counts from the time at which a
request was due, so a stalled service cannot hide its delays. Every request is of another user, history or filter:
nothing comes from the answer cache. Keys of the JSON: capacity, goodput_2x, unexpected_5xx, unanswered,
service_to_engine, loads.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.records import keep, table
from rdrec_core.bundle import Bundle
from rdrec_core.engines import open_engine
from rdrec_core.ranking import Ranker
from rdrec_core.types import RankRequest

ENDPOINT = "/recommend/sequential"
DEADLINE_S = 1.0
CLIENTS = 64
"""Callers of the closed loop."""
GRACE_S = 5.0
"""An answer that is later than the deadline by more than this counts as none."""
CONTRACT_5XX = {503, 504}


def requests_of(bundle: Bundle, seed: int) -> Any:
    """Endless requests as the engine sees them: a known user's history, and a filter that no other request has."""
    rng = random.Random(seed)
    users, n_items = bundle.users, len(bundle.catalog)
    while True:
        user = rng.randrange(len(users))
        history = tuple(int(i) for i in users.history(user))
        exclude = tuple(rng.sample(range(n_items), min(4, n_items // 4)))
        yield RankRequest(user, history, 10, exclude=(*exclude, *history))


def body_of(bundle: Bundle, request: RankRequest) -> bytes:
    """The same question in JSON; the service finds the history itself."""
    exclude = [bundle.catalog.item_ids[i] for i in request.exclude[: len(request.exclude) - len(request.history)]]
    return json.dumps({"user_id": bundle.users.user_ids[request.user_index or 0], "exclude": exclude}).encode()


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


@dataclass
class Result:
    """One run: statuses, latencies of the answers 200 in seconds, and what never came back."""

    seconds: float
    offered: float
    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    unanswered: int = 0

    def note(self, status: int, latency: float) -> None:
        self.statuses[status] += 1
        if status == 200:
            self.latencies.append(latency)

    def summary(self) -> dict[str, Any]:
        total = sum(self.statuses.values()) + self.unanswered
        cuts = statistics.quantiles(self.latencies, n=100) if len(self.latencies) > 1 else [float("nan")] * 99
        return {
            "offered_per_s": round(self.offered, 1),
            "goodput_per_s": round(self.statuses[200] / self.seconds, 1),
            "p50_ms": round(cuts[49] * 1000, 1),
            "p95_ms": round(cuts[94] * 1000, 1),
            "p99_ms": round(cuts[98] * 1000, 1),
            "shares": {str(k): round(v / max(1, total), 4) for k, v in sorted(self.statuses.items())},
            "unexpected_5xx": sum(n for k, n in self.statuses.items() if k >= 500 and k not in CONTRACT_5XX),
            "unanswered": self.unanswered,
        }


class Load:
    """Requests over keep-alive connections, one at a time on each, by plain epoll: every microsecond that the generator
    takes on this machine is one that the service does not get. Knows just enough of HTTP/1.1 for this service.
    """

    def __init__(self, port: int, bodies: list[bytes]) -> None:
        self._address = ("127.0.0.1", port)
        self._requests = [_request(body) for body in bodies]
        self._sent = 0
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._free: list[int] = []
        self._due: dict[int, float] = {}
        """When the request that a connection carries was due, by file number, in the order of sending."""
        self._parts: dict[int, bytes] = {}

    def closed_loop(self, clients: int, seconds: float) -> Result:
        """`clients` callers, each asking again as soon as it has its answer."""
        result = Result(seconds, float("nan"))
        started = time.perf_counter()
        while (now := time.perf_counter()) < started + seconds:
            while len(self._due) < clients:
                self._ask(now, result)
            self._collect(0.05, result)
        self._wait_for_the_rest(result)
        result.seconds = time.perf_counter() - started
        return result

    def open_loop(self, rate: float, seconds: float, seed: int) -> Result:
        """Poisson arrivals at `rate`, whatever becomes of the earlier ones."""
        rng = random.Random(seed)
        result = Result(seconds, rate)
        due = started = time.perf_counter()
        while (due := due + rng.expovariate(rate)) < started + seconds:
            self._collect(0.0, result)
            while (ahead := due - time.perf_counter()) > 0:
                self._collect(ahead, result)
            self._ask(due, result)
        self._wait_for_the_rest(result)
        result.seconds = max(seconds, time.perf_counter() - started)
        return result

    def _ask(self, due: float, result: Result) -> None:
        self._sent += 1
        request = self._requests[self._sent % len(self._requests)]
        while self._free:
            number = self._free.pop()
            try:
                self._sockets[number].send(request)
            except OSError:  # closed while it was idle: nothing was asked on it
                self._drop(number)
                continue
            self._due[number] = due
            return
        try:
            connection = socket.create_connection(self._address, timeout=1.0)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.send(request)
        except OSError:
            result.unanswered += 1
            return
        connection.setblocking(False)
        number = connection.fileno()
        self._sockets[number] = connection
        self._epoll.register(number, select.EPOLLIN)
        self._due[number] = due

    def _collect(self, wait_s: float, result: Result) -> None:
        for number, _ in self._epoll.poll(max(0.0, wait_s), 256):
            try:
                received = self._parts.pop(number, b"") + self._sockets[number].recv(65536)
            except OSError:
                received = b""
            head, separator, body = received.partition(b"\r\n\r\n")
            if not received:
                result.unanswered += self._due.pop(number, None) is not None
                self._drop(number)
            elif not separator or len(body) < _length(head):
                self._parts[number] = received
            else:
                result.note(int(head[9:12]), time.perf_counter() - self._due.pop(number))
                if b"connection: close" in head:
                    self._drop(number)
                else:
                    self._free.append(number)

    def _drop(self, number: int) -> None:
        if number in self._free:
            self._free.remove(number)
        self._epoll.unregister(number)
        self._sockets.pop(number).close()

    def _wait_for_the_rest(self, result: Result) -> None:
        """Until every request is answered, or too late to count."""
        while self._due and time.perf_counter() - next(iter(self._due.values())) < DEADLINE_S + GRACE_S:
            self._collect(0.1, result)
        for number in list(self._due):
            result.unanswered += 1
            del self._due[number]
            self._drop(number)


def _request(body: bytes) -> bytes:
    head = (
        f"POST {ENDPOINT} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"X-Request-Timeout-Ms: {round(DEADLINE_S * 1000)}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _length(head: bytes) -> int:
    at = head.index(b"content-length: ") + 16
    return int(head[at : (head + b"\r").index(b"\r", at)])


def serve(bundle: Path, port: int, settings: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """A service process of its own."""
    environment = {**os.environ, "RDREC_ACCESS_LOG": "false", **settings}
    command = shutil.which("rdrec-serve", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert command is not None
    with log.open("wb") as output:
        return subprocess.Popen([command, "--bundle", str(bundle), "--port", str(port)], env=environment, stderr=output)


def wait_until_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until /health/ready says so."""
    for _ in range(1200):
        if process.poll() is not None:
            sys.exit(f"rdrec-serve ended with {process.returncode}:\n{log.read_text()}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    sys.exit("rdrec-serve was not ready within two minutes")


def measure(bundle: Bundle, port: int, seconds: float) -> tuple[float, dict[str, Any]]:
    """Capacity in requests a second, and a summary by load."""
    stream = requests_of(bundle, 2)
    load = Load(port, [body_of(bundle, next(stream)) for _ in range(20_000)])
    load.closed_loop(CLIENTS, min(5.0, seconds))
    saturated = load.closed_loop(CLIENTS, seconds)
    capacity = saturated.statuses[200] / saturated.seconds
    loads = {"closed": saturated.summary()}
    for factor in (0.5, 1.0, 2.0):
        busy = time.process_time()
        result = load.open_loop(factor * capacity, seconds, seed=int(10 * factor))
        loads[f"{factor:g}x"] = {
            **result.summary(),
            "generator_cores": round((time.process_time() - busy) / seconds, 2),
        }
        time.sleep(1.0)
    return capacity, loads


def show(record: dict[str, Any]) -> None:
    """The table."""
    shown = table(
        f"{record['bundle']}: capacity {record['capacity']:.0f}/s, engine alone {record['engine']:.0f}/s",
        "load", "offered/s", "goodput/s", "p50 ms", "p95 ms", "p99 ms", "shares by status", "unanswered",
        left=("load", "shares by status"),
    )  # fmt: skip
    for name, row in record["loads"].items():
        shares = ", ".join(f"{status}: {share:.1%}" for status, share in row["shares"].items())
        columns = [row[k] for k in ("offered_per_s", "goodput_per_s", "p50_ms", "p95_ms", "p99_ms")]
        shown.add_row(name, *map(str, columns), shares, str(row["unanswered"]))
    console = Console()
    console.print(shown)
    console.print(
        f"service to engine {record['service_to_engine']:.2f}, goodput at 2x {record['goodput_2x']:.0f}/s "
        f"({record['goodput_2x'] / record['capacity']:.0%} of capacity), unexpected 5xx {record['unexpected_5xx']}, "
        f"unanswered {record['unanswered']}"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("work/demo/bundle"))
    parser.add_argument("--quick", action="store_true", help="shorter runs; under five minutes in all")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--engine-threads", type=int, default=max(1, len(os.sched_getaffinity(0)) - 1))
    parser.add_argument("--setting", action="append", default=[], help="NAME=VALUE for RDREC_NAME of the service")
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    seconds = 10.0 if arguments.quick else 40.0
    bundle = Bundle.open(arguments.bundle)
    settings = {f"RDREC_{name.upper()}": value for name, _, value in (s.partition("=") for s in arguments.setting)}
    settings["RDREC_BATCH_SIZE"] = str(arguments.batch_size)
    settings["RDREC_ENGINE_THREADS"] = str(arguments.engine_threads)
    engine = engine_alone(bundle, arguments.batch_size, arguments.engine_threads, seconds / 2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        process = serve(arguments.bundle, port, settings, log)
        try:
            wait_until_ready(port, process, log)
            capacity, loads = measure(bundle, port, seconds)
        finally:
            process.send_signal(signal.SIGTERM)
            exit_status = process.wait(60)
    engine = (engine + engine_alone(bundle, arguments.batch_size, arguments.engine_threads, seconds / 2)) / 2
    record = {
        "bundle": bundle.manifest.model_version,
        "cores": os.cpu_count(),
        "batch_size": arguments.batch_size,
        "engine_threads": arguments.engine_threads,
        "settings": arguments.setting,
        "engine": engine,
        "capacity": capacity,
        "service_to_engine": capacity / engine,
        "goodput_2x": loads["2x"]["goodput_per_s"],
        "unexpected_5xx": sum(row["unexpected_5xx"] for row in loads.values()),
        "unanswered": sum(row["unanswered"] for row in loads.values()),
        "exit_status": exit_status,
        "loads": loads,
    }
    show(record)
    keep("load", record, file=arguments.json)


if __name__ == "__main__":
    main()
