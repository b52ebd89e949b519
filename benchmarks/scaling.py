"""From what the other benchmarks measured to hardware and cost for 1, 10 and 100 million users: a model on paper.

    python benchmarks/scaling.py [--results DIR] [--bundle DIR] [--set NAME=VALUE ...] [--json FILE] [--write FILE.md]

Reads the last line of results/{load,decode,prepare,distill,train}.jsonl (prepare: memory by the largest runs, the rate
of the fastest), and measures what a history takes in Redis where redis-server is installed. What no benchmark has
measured is said to be missing and leaves its cells empty. Traffic and prices are assumptions: --set replaces them.
--write puts the tables between the two markers of a Markdown page.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import records  # noqa: E402

BEGIN, END = "<!-- begin: benchmarks/scaling.py -->", "<!-- end: benchmarks/scaling.py -->"
USERS = (1_000_000, 10_000_000, 100_000_000)
DECODE_THREADS = 2
"""Threads of every contestant in benchmarks/decode.py."""
HOURS_A_MONTH = 730
GB = 1e9
HISTORY_ITEMS = 14


@dataclass(frozen=True)
class Assumptions:
    """What nobody measured: replace by your own."""

    requests_a_user_day: float = 5.0
    peak_to_mean: float = 3.0
    utilisation: float = 0.5
    """Share of its capacity that a replica is loaded with at peak."""
    spare_replicas: int = 1
    redis_copies: int = 2
    """A primary and its replica."""
    batch_hours: float = 8.0
    """Within which everybody is scored offline."""
    price_core_hour: float = 0.04
    price_gb_hour: float = 0.005
    """Of a gigabyte of Redis memory."""


@dataclass(frozen=True)
class Measured:
    """What the benchmarks say; None where none was run. Rates are a second; `a_core` divides by the cores used."""

    cores: int | None = None
    capacity: float | None = None
    service_to_engine: float | None = None
    engine_a_core: float | None = None
    small_engine_a_core: float | None = None
    history_bytes: float | None = None
    bundle_bytes_a_user: float | None = None
    prepare_rows: float | None = None
    prepare_bytes_fixed: float | None = None
    prepare_bytes_a_row: float | None = None
    interactions_a_user: float | None = None
    reviews_a_user: float | None = None
    answers: float | None = None
    train_samples_a_core: float | None = None

    @property
    def capacity_a_core(self) -> float | None:
        """Requests a second."""
        return None if self.capacity is None or self.cores is None else self.capacity / self.cores

    @property
    def small_capacity_a_core(self) -> float | None:
        """Requests a second that T5-small's shape would leave, if HTTP costs it the same share."""
        if self.small_engine_a_core is None or self.service_to_engine is None:
            return None
        return self.small_engine_a_core * min(self.service_to_engine, 1.0)


def read_measured(results: Path) -> tuple[Measured, list[str]]:
    """Figures, and where each came from or what is missing."""
    found: dict[str, float | int | None] = {}
    said: list[str] = []

    def take(name: str, read: Callable[[list[dict[str, Any]]], tuple[dict[str, Any], str]], command: str) -> None:
        lines = records.lines(name, results)
        if not lines:
            said.append(f"{name}: missing; run `python benchmarks/{command}`")
            return
        values, source = read(lines)
        found.update(values)
        said.append(f"{name}: {source}")

    take("load", _load, "load.py --bundle BUNDLE")
    take("decode", _decode, "decode.py")
    take("prepare", _prepare, "prepare.py")
    take("distill", _distill, "distill.py")
    take("train", _train, "train.py")
    return Measured(**found), said


def _load(lines: list[dict[str, Any]]) -> tuple[dict[str, Any], str]:
    last = lines[-1]
    threads = last.get("engine_threads") or last["cores"]
    values = {
        "cores": last["cores"], "capacity": last["capacity"], "service_to_engine": last["service_to_engine"],
        "engine_a_core": last["engine"] / threads,
    }  # fmt: skip
    source = (
        f"bundle {last['bundle']} on {last['cores']} cores, {last['at']}: {last['capacity']:.0f} requests/s, "
        f"engine alone {last['engine']:.0f} users/s on {threads} thread(s), {last['unanswered']} unanswered"
    )
    return values, source


def _decode(lines: list[dict[str, Any]]) -> tuple[dict[str, Any], str]:
    rows = [r for r in lines[-1]["records"] if r["task"] == "sequential" and r["mode"] in ("trie", "trie-int8")]
    best = max(rows, key=lambda row: row["users_per_s"])
    return {"small_engine_a_core": best["users_per_s"] / DECODE_THREADS}, (
        f"{best['mode']} {best['strategy']}, batches of {best['batch']}: {best['users_per_s']:.1f} users/s on "
        f"{DECODE_THREADS} threads"
    )


def _prepare(lines: list[dict[str, Any]]) -> tuple[dict[str, Any], str]:
    runs = sorted((line for line in lines if line.get("what") != "interactions"), key=lambda line: line["rows"])
    if not runs:
        return {}, "missing; only interactions without reviews were measured"
    large, small = runs[-1], next((r for r in reversed(runs) if r["rows"] < runs[-1]["rows"]), None)
    fastest = max(runs, key=lambda line: line["rows_per_s"])  # the machine had other work during the others
    values = {
        "prepare_rows": fastest["rows_per_s"], "interactions_a_user": large["n_interactions"] / large["n_users"],
        "reviews_a_user": large["n_reviews"] / large["n_users"],
    }  # fmt: skip
    if small is not None:
        slope = (large["peak_rss_bytes"] - small["peak_rss_bytes"]) / (large["rows"] - small["rows"])
        fixed = large["peak_rss_bytes"] - slope * large["rows"]
        values |= {"prepare_bytes_a_row": slope, "prepare_bytes_fixed": fixed}
    return values, (
        f"{large['rows']:,} reviews: {large['peak_rss_bytes'] / GB:.2f} GB with {large['workers']} workers;"
        f" {fastest['rows']:,}: {fastest['rows_per_s']:,.0f} rows/s"
    )


def _distill(lines: list[dict[str, Any]]) -> tuple[dict[str, Any], str]:
    last = next((line for line in reversed(lines) if not line["quick"]), lines[-1])
    return {"answers": last["answers_per_s"]}, (
        f"one client process, {last['concurrency']} requests at once, a stand-in teacher of {last['latency_s']} s: "
        f"{last['answers_per_s']:.0f} answers/s (a real teacher's rate on a GPU was not measured)"
    )


def _train(lines: list[dict[str, Any]]) -> tuple[dict[str, Any], str]:
    last = lines[-1]
    rows = [row for row in last["results"] if row["task"] == "sequential"]
    best = max(rows, key=lambda row: row["samples_per_s"]["scratch"])
    rate = best["samples_per_s"]["scratch"]
    return {"train_samples_a_core": rate / last["threads"]}, (
        f"recipe scratch, {best['backbone']}, {last['device']}, {last['threads']} thread(s): {rate:.0f} interactions/s"
    )


def history_bytes(items: int = HISTORY_ITEMS, users: int = 500) -> float | None:
    """What a history of so many items takes in a redis-server that is started here; None without one."""
    server = shutil.which("redis-server")
    if server is None:
        return None
    from service.stores.history.base import Write
    from service.stores.history.redis import RedisHistoryStore
    from service.stores.redis_gateway import RedisGateway
    from service.stores.redis_url import redis_client

    async def fill(url: str) -> float:
        client = redis_client(url, timeout_s=5.0, max_connections=4)
        store = RedisHistoryStore(RedisGateway.open(url, timeout_s=5.0, max_connections=4))
        await store.append("warm-up", [Write("B00ITEM000", 0.0)])  # the scripts are loaded

        async def used() -> int:
            info = await client.execute("INFO", "memory")
            return int(info["used_memory"] if isinstance(info, dict) else info.split("used_memory:")[1].split()[0])

        before = await used()
        for user in range(users):
            for place in range(items):
                await store.append(f"A{user:013d}", [Write(f"B{user * items + place:09d}", 1.7e9 + place)])
        grown = (await used() - before) / users
        await store.close()
        await client.close()
        return grown

    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "redis.sock"
        process = subprocess.Popen(
            [server, "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", folder],
            stdout=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + 10
            while not socket.exists():
                if time.monotonic() > deadline:
                    raise SystemExit("redis-server does not answer")
                time.sleep(0.02)
            return asyncio.run(fill(f"unix://{socket}"))
        finally:
            process.terminate()
            process.wait()


def bundle_bytes_a_user(path: Path) -> float:
    """Bytes of the bundle's tables of users (ids and base histories) by user; mapped from disk by every replica."""
    from rdrec_core.bundle import Bundle

    manifest = Bundle.open(path, verify=False).manifest
    size = sum(entry.size_bytes for name, entry in manifest.files.items() if name.startswith("arrays/users/"))
    return size / manifest.n_users


@dataclass(frozen=True)
class Row:
    """One line of the table; values by number of users, None where an input is missing. `form` is a format spec."""

    what: str
    unit: str
    values: tuple[float | None, ...]
    form: str = ",.0f"


def per_million(assumed: Assumptions, capacity_a_core: float | None) -> float | None:
    """Price of the cores that a million sequential requests take, at the assumed utilisation."""
    if capacity_a_core is None:
        return None
    return 1e6 / (capacity_a_core * assumed.utilisation) / 3600 * assumed.price_core_hour


def table(measured: Measured, assumed: Assumptions) -> list[Row]:
    """The model, one function of the number of users a row."""

    def row(what: str, unit: str, of: Callable[[float], float | None], form: str = ",.0f") -> Row:
        return Row(what, unit, tuple(of(float(n)) for n in USERS), form)

    def peak(n: float) -> float:
        return n * assumed.requests_a_user_day / 86_400 * assumed.peak_to_mean

    def cores(n: float, a_core: float | None) -> float | None:
        return None if a_core is None else math.ceil(peak(n) / (a_core * assumed.utilisation))

    def replicas(n: float, a_core: float | None) -> float | None:
        busy = cores(n, a_core)
        if busy is None or measured.cores is None:
            return None
        return math.ceil(busy / measured.cores) + assumed.spare_replicas

    def month(n: float, a_core: float | None) -> float | None:
        many = replicas(n, a_core)
        if many is None or measured.cores is None:
            return None
        return many * measured.cores * HOURS_A_MONTH * assumed.price_core_hour

    def times(n: float, *factors: float | None) -> float | None:
        return None if None in factors else n * math.prod(f for f in factors if f is not None)

    def core_hours(n: float, a_core: float | None) -> float | None:
        return None if a_core is None else n / a_core / 3600

    def redis(n: float) -> float | None:
        return times(n, measured.history_bytes, assumed.redis_copies, 1 / GB)

    def prepare_rows(n: float) -> float | None:
        return times(n, measured.interactions_a_user)

    def prepare_memory(n: float) -> float | None:
        rows = prepare_rows(n)
        if rows is None or measured.prepare_bytes_a_row is None or measured.prepare_bytes_fixed is None:
            return None
        return (measured.prepare_bytes_fixed + measured.prepare_bytes_a_row * rows) / GB

    ours, small = measured.capacity_a_core, measured.small_capacity_a_core
    window = 1 / assumed.batch_hours

    def shards(n: float, a_core: float | None) -> float | None:
        hours = core_hours(n, a_core)
        return None if hours is None else math.ceil(hours * window)

    return [
        row("requests at peak", "1/s", peak),
        row("serving, measured bundle: cores", "", lambda n: cores(n, ours)),
        row("serving, measured bundle: replicas", "", lambda n: replicas(n, ours)),
        row("serving, measured bundle: a month", "price", lambda n: month(n, ours)),
        row("serving, T5-small: cores", "", lambda n: cores(n, small)),
        row("serving, T5-small: replicas", "", lambda n: replicas(n, small)),
        row("serving, T5-small: a month", "price", lambda n: month(n, small)),
        row("user tables, each replica", "GB", lambda n: times(n, measured.bundle_bytes_a_user, 1 / GB), ",.2f"),
        row("Redis memory, all copies", "GB", redis, ",.1f"),
        row("Redis memory: a month", "price", lambda n: times(1.0, redis(n), HOURS_A_MONTH, assumed.price_gb_hour)),
        row("`rdrec batch`, measured bundle", "core hours", lambda n: core_hours(n, measured.engine_a_core), ",.1f"),
        row("`rdrec batch`, measured bundle: shards", "cores", lambda n: shards(n, measured.engine_a_core)),
        row("`rdrec batch`, T5-small", "core hours", lambda n: core_hours(n, measured.small_engine_a_core), ",.1f"),
        row("`rdrec batch`, T5-small: shards", "cores", lambda n: shards(n, measured.small_engine_a_core)),
        row("reviews", "million", lambda n: times(n, measured.interactions_a_user, 1e-6)),
        row(
            "`rdrec prepare`, one machine", "hours",
            lambda n: None if measured.prepare_rows is None else times(n, measured.interactions_a_user,
                                                                       1 / measured.prepare_rows / 3600), ",.1f",
        ),
        row("`rdrec prepare`, memory (straight line)", "GB", prepare_memory, ",.1f"),
        row(
            "`rdrec distill`, every review, one client", "hours",
            lambda n: None if measured.answers is None else times(n, measured.reviews_a_user,
                                                                  1 / measured.answers / 3600), ",.0f",
        ),
        row(
            "`rdrec train`, one pass over the interactions", "core hours",
            lambda n: None if measured.interactions_a_user is None
            else core_hours(n * measured.interactions_a_user, measured.train_samples_a_core), ",.0f",
        ),
    ]  # fmt: skip


def markdown(measured: Measured, assumed: Assumptions, said: list[str]) -> str:
    """The tables as they stand in docs/scaling.md."""

    def cell(value: float | None, form: str) -> str:
        return "missing" if value is None else format(value, form)

    out = [f"| | unit | {' | '.join(f'{n:,} users' for n in USERS)} |", f"|---|---|{'---:|' * len(USERS)}"]
    out += [
        f"| {line.what} | {line.unit} | {' | '.join(cell(v, line.form) for v in line.values)} |"
        for line in table(measured, assumed)
    ]
    ours = cell(per_million(assumed, measured.capacity_a_core), ".3f")
    small = cell(per_million(assumed, measured.small_capacity_a_core), ".3f")
    out += [
        "",
        f"Cost of a million sequential requests: measured bundle {ours}, T5-small {small} (cores only).",
        "",
        "Assumed: " + ", ".join(f"`{name}` {value:g}" for name, value in asdict(assumed).items()) + ".",
        "",
        "Measured:",
        "",
        *(f"- {line}" for line in said),
    ]
    return "\n".join(out)


def with_tables(page: str, tables: str) -> str:
    """The page with what stands between the markers replaced."""
    if BEGIN not in page or END not in page:
        raise SystemExit(f"the page has no lines {BEGIN} and {END}")
    return page.partition(BEGIN)[0] + f"{BEGIN}\n{tables}\n{END}" + page.partition(END)[2]


def assumptions_of(pairs: list[str]) -> Assumptions:
    """Defaults with NAME=VALUE pairs put over them."""
    kinds = {field.name: type(field.default) for field in fields(Assumptions)}
    values: dict[str, Any] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name not in kinds:
            raise SystemExit(f"--set {pair}: the names are {', '.join(kinds)}")
        values[name] = kinds[name](value)
    return Assumptions(**values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=records.RESULTS)
    parser.add_argument("--bundle", type=Path, help="the bundle that load.py measured, for the size of its tables")
    parser.add_argument("--set", action="append", default=[], help="NAME=VALUE of an assumption")
    parser.add_argument("--json", type=Path, help="write figures and assumptions here")
    parser.add_argument("--write", type=Path, help="put the tables into this Markdown page")
    parser.add_argument("--quick", action="store_true", help="changes nothing; every benchmark has it")
    arguments = parser.parse_args()
    assumed = assumptions_of(arguments.set)
    measured, said = read_measured(arguments.results)
    taken = history_bytes()
    if taken is None:
        said.append("Redis: missing; redis-server is not installed")
    else:
        said.append(f"Redis: {taken:.0f} bytes a history of {HISTORY_ITEMS} items")
    measured = replace(measured, history_bytes=taken)
    if arguments.bundle is None:
        said.append("bundle's user tables: missing; pass --bundle")
    else:
        size = bundle_bytes_a_user(arguments.bundle)
        measured = replace(measured, bundle_bytes_a_user=size)
        said.append(f"bundle's user tables: {size:.0f} bytes a user")
    tables = markdown(measured, assumed, said)
    print(tables)
    if arguments.json is not None:
        record = {
            "assumed": asdict(assumed), "measured": asdict(measured), "sources": said, "users": USERS,
            "rows": [asdict(row) for row in table(measured, assumed)],
        }  # fmt: skip
        arguments.json.write_text(json.dumps(record, indent=2))
    if arguments.write is not None:
        page = arguments.write.read_text(encoding="utf-8")
        arguments.write.write_text(with_tables(page, tables), encoding="utf-8")


if __name__ == "__main__":
    main()
