"""Two replicas behind nginx on one Redis, each restarted under load: no request fails, no write is lost.

The engine is the real one, over a small model trained here.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from rdrec_core.bundle import Bundle
from tests.redis_process import PATIENCE_S, free_port, running_redis
from tests.replica import REAL, ROOT, Replica, running_replica
from tests.small_dataset import write_small_dataset
from training.cli import main
from training.learning.config import load_config
from training.learning.run import train

WORKERS = 6


@contextmanager
def running_nginx(folder: Path, ports: list[int]) -> Iterator[str]:
    """nginx with deploy/nginx/rdrec.conf, its names and ports replaced by these; yields its URL."""
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed (apt-get install nginx)")
    port = free_port()
    site = (ROOT / "deploy/nginx/rdrec.conf").read_text()
    for name, replacement in {
        "rdrec-1:8000": f"127.0.0.1:{ports[0]}",
        "rdrec-2:8000": f"127.0.0.1:{ports[1]}",
        "listen 8080": f"listen 127.0.0.1:{port}",
    }.items():
        assert name in site
        site = site.replace(name, replacement)
    folder.mkdir()
    (folder / "rdrec.conf").write_text(site)
    (folder / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{ worker_connections 256; }}\n"
        f"http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n"
        f"  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n"
        f"  include {folder}/rdrec.conf; }}\n"
    )
    command = ["nginx", "-e", f"{folder}/error.log", "-p", str(folder), "-c", f"{folder}/nginx.conf"]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    process = subprocess.Popen(command)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                httpx.get(url)
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline, (folder / "error.log").read_text()
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    dataset = write_small_dataset(tmp_path / "dataset", reviews=False)
    config = load_config("scratch", None, {"epochs": 1, "passes": 1, "vocabulary_size": 300})
    train(config, dataset, tmp_path / "checkpoint")
    assert main(["export", str(tmp_path / "checkpoint"), "--out", str(tmp_path / "bundle")]) == 0
    return tmp_path / "bundle"


@pytest.mark.slow
async def test_no_request_fails_while_each_replica_is_restarted(tmp_path: Path, bundle: Path) -> None:
    opened = Bundle.open(bundle)
    users, items = opened.users.user_ids, opened.catalog.item_ids
    with running_redis(tmp_path / "redis") as redis:
        settings = {
            "redis_url": redis.url, "redis_timeout_ms": 5000, "timeout_ms": 20_000, "engine_threads": 1,
            "cache_size": 0,  # each request is computed
        }  # fmt: skip
        with (
            running_replica(bundle, tmp_path / "a.log", program=REAL, **settings) as one,
            running_replica(bundle, tmp_path / "b.log", program=REAL, **settings) as two,
            running_nginx(tmp_path / "nginx", [one.port, two.port]) as url,
        ):
            stop = asyncio.Event()
            statuses: Counter[tuple[str, int]] = Counter()
            written: defaultdict[str, Counter[str]] = defaultdict(Counter)

            async def worker(number: int) -> None:
                """Asks and writes by turns, without a second try of its own: a failure would show."""
                async with httpx.AsyncClient(base_url=url, timeout=30) as client:
                    for turn in itertools.count():
                        if stop.is_set():
                            return
                        asked = {"user_id": users[turn % 5], "n_items": 3}
                        answer = await client.post("/recommend/sequential", json=asked)
                        statuses["ask", answer.status_code] += 1
                        writer, item = f"w{number}-{turn // 150}", items[turn % len(items)]  # below the store's cap
                        key = {"Idempotency-Key": f"{number}-{turn}"}
                        wish = {"user_id": writer, "item_id": item}
                        answer = await client.post("/interactions", json=wish, headers=key)
                        statuses["write", answer.status_code] += 1
                        written[writer][item] += 1

            workers = [asyncio.create_task(worker(number)) for number in range(WORKERS)]
            exits = []
            for replica in (one, two):
                await asyncio.sleep(2.0)  # as rdrec.conf says
                exits.append(await asyncio.to_thread(restart, replica))
            await asyncio.sleep(0.5)
            stop.set()
            await asyncio.gather(*workers)

            assert exits == [0, 0]
            assert set(statuses) == {("ask", 200), ("write", 201)}, statuses
            assert len(written) >= WORKERS
            for writer, expected in written.items():
                history = httpx.get(f"{url}/users/{writer}/history?limit=1000").json()
                assert Counter(item["item_id"] for item in history["items"]) == expected
            assert httpx.get(f"{url}/metrics").status_code == 404


def restart(replica: Replica) -> int:
    """SIGTERM, wait, start again on the same port; the exit status of the old process."""
    status = replica.stop()
    replica.start()
    return status
