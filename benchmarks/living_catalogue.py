"""Items put while two replicas serve: how soon each is in the lists that its words fit, and what goes wrong meanwhile.

    python benchmarks/living_catalogue.py --bundle DIR [--items N] [--rate N] [--words N] [--quick] [--json FILE]

Two real `rdrec-serve` share a real Redis (append-only file). Requests arrive all the time, half of them at each. New
items borrow the words of one of the bundle's; from the acknowledgement on, both replicas are asked for the list of ten
of somebody who has that one. On the way one replica, and later Redis, is ended by `kill -9` and started again;
for a replica that was away the time counts from when it is ready. An answer is wrong that names too few items, one
twice, one that nobody put, or one that this replica had acknowledged as out of stock before it was asked. Keys of the
JSON: seconds (by item and replica), slowest_s, missed, wrong, unexpected_5xx, answered, failed_over.
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
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.records import DEMO, keep, table
from rdrec_core.bundle import Bundle
from rdrec_core.filters import GROUP as COLUMNS
from rdrec_core.filters import ItemColumns

PROMISE_S = 5.0
GIVE_UP_S = 30.0
READY_S = 120.0
LIST = 10


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """A process that is ended and started again at its port."""

    command: list[str]
    port: int
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    ready_at: float = 0.0

    def start(self) -> None:
        with self.log.open("ab") as log:
            clean = {name: value for name, value in os.environ.items() if not name.startswith("RDREC_")}
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, env=clean | self.environment)

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None
        self.ready_at = 0.0

    async def until_ready(self, client: httpx.AsyncClient) -> None:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            with suppress(httpx.TransportError):
                if (await client.get(f"http://127.0.0.1:{self.port}/health/ready")).status_code == 200:
                    self.ready_at = time.monotonic()
                    return
            await asyncio.sleep(0.05)
        raise SystemExit(f"the service did not become ready; see {self.log}")


@dataclass
class Trial:
    """The replicas, what the callers know of the shop, and what happened to all requests."""

    client: httpx.AsyncClient
    replicas: list[Server]
    bundle: Bundle
    known: set[str]
    """Every id that was ever put."""
    shut: list[set[str]] = field(default_factory=lambda: [set(), set()])
    """What each replica has acknowledged as out of stock."""
    answered: int = 0
    failed_over: int = 0
    wrong: list[str] = field(default_factory=list)
    unexpected: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    took: dict[str, list[float | None]] = field(default_factory=dict)
    """From the acknowledgement to the first list, by item and replica."""

    def url(self, place: int, path: str) -> str:
        return f"http://127.0.0.1:{self.replicas[place].port}{path}"

    async def ask(self, place: int, body: dict[str, Any]) -> list[str] | None:
        """The ids of one list; None where the replica is away or says no. What is wrong with it is noted."""
        shut, started = set(self.shut[place]), time.monotonic()
        try:
            answer = await self.client.post(self.url(place, "/recommend/sequential"), json=body)
        except httpx.TransportError:
            self.failed_over += 1
            return None
        if answer.status_code != 200:
            if answer.status_code >= 500:
                self.unexpected[answer.status_code] += 1
            return None
        self.answered += 1
        self.seconds.append(time.monotonic() - started)
        ids = [item["item_id"] for item in answer.json()["items"]]
        faults = {"twice": len(ids) - len(set(ids)), "unknown": set(ids) - self.known, "shut": set(ids) & shut}
        self.wrong += [f"{name}: {found}" for name, found in {**faults, "missing": LIST - len(ids)}.items() if found]
        return ids

    async def load(self, rate: float) -> None:
        """Requests at a rate until cancelled, at both replicas in turn; where one is away the other is asked."""
        rng, users = random.Random(7), self.bundle.users
        tasks: set[asyncio.Task[None]] = set()

        async def one(number: int) -> None:
            body = {"user_id": users.user_ids[rng.randrange(len(users))], "exclude": [f"none-{number}"]}
            for place in (number % 2, 1 - number % 2):
                if self.replicas[place].ready_at and await self.ask(place, body) is not None:
                    return

        started, number = time.monotonic(), 0
        try:
            while True:
                await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
                task = asyncio.create_task(one(number))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                number += 1
        finally:
            await asyncio.gather(*tasks, return_exceptions=True)

    async def write(self, place: int, method: str, item: str, body: Any) -> int:
        """Write until a replica acknowledges, as a shop would; which one did."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            if self.replicas[place].ready_at:
                with suppress(httpx.TransportError):
                    answer = await self.client.request(method, self.url(place, f"/items/{item}"), json=body)
                    if answer.is_success:
                        return place
                    if answer.status_code != 503:
                        raise SystemExit(f"{method} {item}: {answer.status_code} {answer.text}")
                    await asyncio.sleep(0.1)
            place = 1 - place
            await asyncio.sleep(0.02)
        raise SystemExit(f"{method} {item} was never acknowledged")

    async def until_listed(self, place: int, new: str, history: str, since: float) -> None:
        """Ask one replica until the item is in the list that it fits; how long that took."""
        replica = self.replicas[place]
        while time.monotonic() < since + GIVE_UP_S + READY_S:
            if not replica.ready_at:
                await asyncio.sleep(0.05)
                continue
            start = max(since, replica.ready_at)
            if new in (await self.ask(place, {"history": [history], "exclude": [f"none-{time.monotonic()}"]}) or ()):
                self.took[new][place] = time.monotonic() - start
                return
            if time.monotonic() > start + GIVE_UP_S:
                return
            await asyncio.sleep(0.05)

    def originals(self, n: int) -> list[int]:
        """Items of the bundle whose words the new ones borrow."""
        titled = [index for index in range(len(self.bundle.catalog)) if self.bundle.catalog.title(index)]
        return random.Random(3).sample(titled, min(n, len(titled)))

    def words_of(self, item: int) -> dict[str, Any]:
        """What an item of the bundle says of itself, as far as the bundle has it."""
        columns = ItemColumns.from_arrays(self.bundle.arrays(COLUMNS), len(self.bundle.catalog))
        own = columns.values_of(item)
        return {"title": self.bundle.catalog.title(item), "brand": own.brand, "categories": list(own.categories)}

    def record(self) -> dict[str, Any]:
        every = [seconds for pair in self.took.values() for seconds in pair]
        times = [seconds for seconds in every if seconds is not None]
        return {
            "items": len(self.took),
            "slowest_s": round(max(times), 2) if times else None,
            "mean_s": round(sum(times) / len(times), 2) if times else None,
            "missed": len(every) - len(times),
            "wrong": len(self.wrong),
            "wrong_examples": self.wrong[:5],
            "unexpected_5xx": dict(self.unexpected),
            "answered": self.answered,
            "mean_ms": round(1000 * sum(self.seconds) / max(1, len(self.seconds)), 1),
            "failed_over": self.failed_over,
            "seconds": {new: [None if s is None else round(s, 2) for s in pair] for new, pair in self.took.items()},
        }


async def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    bundle = Bundle.open(options.bundle, verify=False)
    port = free_port()
    kept = ["--dir", str(folder), "--save", "", "--appendonly", "yes"]
    redis = Server(["redis-server", "--port", str(port), "--bind", "127.0.0.1", *kept], port, folder / "redis.log")
    redis.start()
    settings = {
        "RDREC_REDIS_URL": f"redis://127.0.0.1:{port}", "RDREC_REDIS_TIMEOUT_MS": "500",
        **({} if options.words is None else {"RDREC_NEW_ITEM_WORDS": str(options.words)}),
        "RDREC_ACCESS_LOG": "false", "RDREC_TIMEOUT_MS": "10000", "RDREC_ENGINE_THREADS": "1",
    }  # fmt: skip
    program = str(Path(sys.executable).with_name("rdrec-serve"))
    replicas = []
    for name in "ab":
        port = free_port()
        command = [program, "--bundle", str(options.bundle), "--port", str(port)]
        replicas.append(Server(command, port, folder / f"{name}.log", settings))
    known = {bundle.catalog.item_ids[index] for index in range(len(bundle.catalog))}
    try:
        async with httpx.AsyncClient(timeout=15.0, limits=httpx.Limits(max_connections=400)) as client:
            trial = Trial(client, replicas, bundle, known)
            for replica in replicas:
                replica.start()
                await replica.until_ready(client)
            loading = asyncio.create_task(trial.load(options.rate))
            waiting: list[asyncio.Task[None]] = []
            originals = trial.originals(options.items)
            for number, item in enumerate(originals):
                if number == len(originals) // 3:
                    replicas[1].kill()
                    replicas[1].start()
                    waiting.append(asyncio.create_task(replicas[1].until_ready(client)))
                if number == 2 * len(originals) // 3:
                    redis.kill()
                    asyncio.get_running_loop().call_later(1.0, redis.start)
                new = f"new-{number}"
                known.add(new)
                trial.took[new] = [None, None]
                await trial.write(number % 2, "PUT", new, trial.words_of(item))
                since = time.monotonic()
                tasks = [
                    asyncio.create_task(trial.until_listed(place, new, bundle.catalog.item_ids[item], since))
                    for place in (0, 1)
                ]
                waiting += tasks
                if number % 4 == 3:  # and some that were listed go out of stock again
                    await asyncio.gather(*tasks)
                    trial.shut[await trial.write(0, "PATCH", new, {"available": False})].add(new)
                await asyncio.sleep(options.pause)
            await asyncio.gather(*waiting)
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
            return trial.record()
    finally:
        for server in (*replicas, redis):
            server.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=DEMO / "bundle")
    parser.add_argument("--items", type=int, default=20)
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second, over both replicas")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two new items")
    parser.add_argument("--words", type=float, default=None, help="RDREC_NEW_ITEM_WORDS; as fitted unless given")
    parser.add_argument("--quick", action="store_true", help="6 items at 40 requests/s; keeps no result")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    if options.quick:
        options.items, options.rate, options.pause = 6, 40.0, 0.5
    if shutil.which("redis-server") is None:
        raise SystemExit("redis-server is not installed (apt-get install redis-server)")
    with tempfile.TemporaryDirectory() as name:
        found = asyncio.run(run(options, Path(name)))
    shown = table("Items put while two replicas serve", "", "value", left=[""])
    for key, value in found.items():
        if key != "seconds":
            shown.add_row(key, json.dumps(value))
    Console().print(shown)
    keep("living_catalogue", {"rate": options.rate, **found}, file=options.json, quick=options.quick)
    slow = found["slowest_s"] is None or found["slowest_s"] > PROMISE_S
    if found["missed"] or found["wrong"] or found["unexpected_5xx"] or slow:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
