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
import asyncio
import json
import os
import random
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

import uvloop
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rdrec_core.bundle import Bundle
from rdrec_core.engines import open_engine
from rdrec_core.ranking import Ranker
from rdrec_core.types import RankRequest

ENDPOINT = "/recommend/sequential"
DEADLINE_S = 1.0
GRACE_S = 5.0
"""An answer that is later than the deadline by more than this counts as none."""
CONTRACT_5XX = {503, 504}
RESULTS = Path(__file__).parent / "results" / "load.jsonl"


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


def engine_alone(bundle: Bundle, batch_size: int, seconds: float) -> float:
    """Requests a second through the ranker in batches of the served size, in this process, nothing else running."""
    ranker = Ranker.of_bundle(bundle, open_engine(bundle))
    stream = requests_of(bundle, 1)
    batches = [[next(stream) for _ in range(batch_size)] for _ in range(64)]
    for batch in batches[:3]:
        ranker.recommend(batch)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        ranker.recommend(batches[done % len(batches)])
        done += 1
    return done * batch_size / (time.perf_counter() - started)


class Connection(asyncio.Protocol):
    """One keep-alive HTTP/1.1 connection with one request at a time; knows just enough of HTTP for this service."""

    def __init__(self) -> None:
        self.transport: Any = None
        self._buffer = b""
        self._answer: asyncio.Future[int] | None = None
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("closed without an answer"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        lower = head.lower()
        at = lower.index(b"content-length:") + 15
        length = int(lower[at : (lower + b"\r\n").index(b"\r\n", at)])
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        if b"connection: close" in lower:
            self.closed = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(int(head[9:12]))

    def ask(self, request: bytes) -> asyncio.Future[int]:
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answer


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
    """A pool of connections and the requests that go through them."""

    def __init__(self, port: int, bodies: list[bytes]) -> None:
        self._port = port
        self._bodies = bodies
        self._free: list[Connection] = []
        self._next = 0

    def _request(self) -> bytes:
        body = self._bodies[self._next % len(self._bodies)]
        self._next += 1
        head = (
            f"POST {ENDPOINT} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"X-Request-Timeout-Ms: {round(DEADLINE_S * 1000)}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def _once(self, due: float, result: Result) -> None:
        loop = asyncio.get_running_loop()
        connection = None
        try:
            while self._free and (connection is None or connection.closed):
                connection = self._free.pop()
            if connection is None or connection.closed:
                _, connection = await loop.create_connection(Connection, "127.0.0.1", self._port)
            async with asyncio.timeout(DEADLINE_S + GRACE_S):
                status = await connection.ask(self._request())
        except (OSError, TimeoutError):
            result.unanswered += 1
            if connection is not None:
                connection.transport.abort()
            return
        result.note(status, loop.time() - due)
        if not connection.closed:
            self._free.append(connection)

    async def closed_loop(self, clients: int, seconds: float) -> Result:
        """`clients` callers, each asking again as soon as it has its answer."""
        loop = asyncio.get_running_loop()
        result = Result(seconds, float("nan"))
        end = loop.time() + seconds

        async def client() -> None:
            while (now := loop.time()) < end:
                await self._once(now, result)

        await asyncio.gather(*(client() for _ in range(clients)))
        result.seconds = seconds + max(0.0, loop.time() - end)
        return result

    async def open_loop(self, rate: float, seconds: float, seed: int) -> Result:
        """Poisson arrivals at `rate`, whatever becomes of the earlier ones."""
        loop = asyncio.get_running_loop()
        rng = random.Random(seed)
        result = Result(seconds, rate)
        due = started = loop.time()
        asked: set[asyncio.Task[None]] = set()
        while (due := due + rng.expovariate(rate)) < started + seconds:
            if (ahead := due - loop.time()) > 0:
                await asyncio.sleep(ahead)
            task = asyncio.create_task(self._once(due, result))
            asked.add(task)
            task.add_done_callback(asked.discard)
        if asked:
            await asyncio.wait(asked)
        return result


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


async def measure(bundle: Bundle, port: int, seconds: float) -> tuple[float, dict[str, Any]]:
    """Capacity in requests a second, and a summary by load."""
    stream = requests_of(bundle, 2)
    load = Load(port, [body_of(bundle, next(stream)) for _ in range(20_000)])
    await load.closed_loop(48, min(5.0, seconds))
    saturated = await load.closed_loop(48, seconds)
    capacity = saturated.statuses[200] / saturated.seconds
    loads = {"closed": saturated.summary()}
    for factor in (0.5, 1.0, 2.0):
        result = await load.open_loop(factor * capacity, seconds, seed=int(10 * factor))
        loads[f"{factor:g}x"] = result.summary()
        await asyncio.sleep(1.0)
    return capacity, loads


def show(record: dict[str, Any]) -> None:
    """The table."""
    table = Table(
        title=f"{record['bundle']}: capacity {record['capacity']:.0f}/s, engine alone {record['engine']:.0f}/s"
    )
    for column in ("load", "offered/s", "goodput/s", "p50 ms", "p95 ms", "p99 ms", "shares by status", "unanswered"):
        table.add_column(column)
    for name, row in record["loads"].items():
        shares = ", ".join(f"{status}: {share:.1%}" for status, share in row["shares"].items())
        columns = [row[k] for k in ("offered_per_s", "goodput_per_s", "p50_ms", "p95_ms", "p99_ms")]
        table.add_row(name, *map(str, columns), shares, str(row["unanswered"]))
    console = Console()
    console.print(table)
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
    parser.add_argument("--setting", action="append", default=[], help="NAME=VALUE for RDREC_NAME of the service")
    arguments = parser.parse_args()
    seconds = 10.0 if arguments.quick else 40.0
    bundle = Bundle.open(arguments.bundle)
    settings = {f"RDREC_{name.upper()}": value for name, _, value in (s.partition("=") for s in arguments.setting)}
    settings["RDREC_BATCH_SIZE"] = str(arguments.batch_size)
    engine = engine_alone(bundle, arguments.batch_size, seconds / 2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        process = serve(arguments.bundle, port, settings, log)
        try:
            wait_until_ready(port, process, log)
            capacity, loads = uvloop.run(measure(bundle, port, seconds))
        finally:
            process.send_signal(signal.SIGTERM)
            exit_status = process.wait(60)
    engine = (engine + engine_alone(bundle, arguments.batch_size, seconds / 2)) / 2
    record = {
        "bundle": bundle.manifest.model_version,
        "cores": os.cpu_count(),
        "batch_size": arguments.batch_size,
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
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps({"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **record}) + "\n")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
