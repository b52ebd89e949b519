"""A real process over loopback: signals under load, bodies that never end, clients that hang up."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.fake_service import item_id, write_bundle
from tests.service_process import ROOT, ServiceProcess, service_process


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundles" / "first")


async def test_sigterm_under_load_answers_every_request_and_exits_0(bundle: Path, tmp_path: Path) -> None:
    """Callers behave as behind a balancer: they ask until they are told that the connection closes."""
    log = tmp_path / "log"
    with service_process(bundle, log, engine_seconds=0.02, drain_s="10", drain_notice_s="0.5") as service:
        statuses: Counter[int] = Counter()

        async def load(worker: int, client: httpx.AsyncClient) -> None:
            n = worker * 50
            told = False
            while not told:
                n += 1
                body = {"history": [item_id(n % 40), item_id(n // 40 % 40)], "n_items": 2}
                answer = await client.post(f"{service.url}/recommend/sequential", json=body)
                statuses[answer.status_code] += 1
                told = answer.headers.get("connection") == "close"

        async with httpx.AsyncClient(timeout=20) as client:
            workers = [asyncio.create_task(load(n, client)) for n in range(12)]
            await asyncio.sleep(1.0)
            service.signal(signal.SIGTERM)
            await asyncio.sleep(0.1)
            ready = await client.get(f"{service.url}/health/ready")
            assert (ready.status_code, ready.json()["reasons"]) == (503, ["draining"])
            await asyncio.gather(*workers)
        assert service.wait(10) == 0
        assert set(statuses) <= {200, 429}
        assert statuses[200] > 50


async def test_requests_in_flight_at_sigterm_are_answered_after_the_doors_are_closed(
    bundle: Path, tmp_path: Path
) -> None:
    limits = {"drain_s": "15", "drain_notice_s": "0.1", "batch_size": "1"}
    with service_process(bundle, tmp_path / "log", engine_seconds=0.2, **limits) as service:
        async with httpx.AsyncClient(timeout=20, headers={"X-Request-Timeout-Ms": "20000"}) as client:
            asked = [
                asyncio.create_task(
                    client.post(f"{service.url}/recommend/sequential", json={"history": [item_id(n)], "fusion": False})
                )
                for n in range(12)
            ]
            await asyncio.sleep(0.4)
            service.signal(signal.SIGTERM)
            await asyncio.sleep(0.5)
            with pytest.raises(httpx.ConnectError):
                await client.get(f"{service.url}/health/live")
            assert [answer.status_code for answer in await asyncio.gather(*asked)] == [200] * 12
        assert service.wait(10) == 0


def test_sigterm_exits_within_the_drain_time_even_when_a_request_never_ends(bundle: Path, tmp_path: Path) -> None:
    limits = {"drain_s": "2", "drain_notice_s": "0.1", "body_timeout_s": "60"}
    with (
        service_process(bundle, tmp_path / "log", **limits) as service,
        socket.create_connection(("127.0.0.1", service.port)) as stuck,
    ):
        stuck.sendall(_head(service, 100) + b"{")
        time.sleep(0.3)
        started = time.monotonic()
        service.signal(signal.SIGTERM)
        assert service.wait(15) == 0
        assert time.monotonic() - started < 5


def test_sighup_reads_the_bundle_folder_again(bundle: Path, tmp_path: Path) -> None:
    with service_process(bundle, tmp_path / "log") as service:
        before = httpx.get(f"{service.url}/v1/model").json()["model_version"]
        write_bundle(bundle, name="renewed")
        service.signal(signal.SIGHUP)
        deadline = time.monotonic() + 20
        while (after := httpx.get(f"{service.url}/v1/model").json()["model_version"]) == before:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert after.startswith("renewed-")
        (bundle / "manifest.json").write_text("{}")
        service.signal(signal.SIGHUP)
        while "bundle_refused" not in service.log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert httpx.get(f"{service.url}/v1/model").json()["model_version"] == after
        assert httpx.get(f"{service.url}/health/ready").status_code == 200


def test_a_killed_engine_thread_is_restarted_in_the_same_process(bundle: Path, tmp_path: Path) -> None:
    with service_process(bundle, tmp_path / "log") as service:
        killed = httpx.post(f"{service.url}/recommend/sequential", json={"user_id": "u0011"})
        assert (killed.status_code, killed.json()["type"]) == (500, "urn:rdrec:problem:engine-ended")
        deadline = time.monotonic() + 20
        while httpx.get(f"{service.url}/health/ready").json()["status"] != "ready":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert httpx.post(f"{service.url}/recommend/sequential", json={"user_id": "u0001"}).status_code == 200


def _head(service: ServiceProcess, length: int, more: str = "") -> bytes:
    return (
        f"POST /recommend/sequential HTTP/1.1\r\nHost: 127.0.0.1:{service.port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n{more}\r\n"
    ).encode()


def _exchange(service: ServiceProcess, *pieces: bytes, pause_s: float = 0.0) -> tuple[int, dict[str, object]]:
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause_s)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the answer was sent before the body was
        received = b""
        try:
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionResetError:
            pass  # closed with a part of the body unread
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), json.loads(body) if body else {}


def test_bodies_that_are_slow_or_too_large_are_cut_off(bundle: Path, tmp_path: Path) -> None:
    with service_process(bundle, tmp_path / "log", body_timeout_s="0.5", max_body_bytes="2048") as service:
        status, problem = _exchange(service, _head(service, 100), *[b"{"] * 20, pause_s=0.1)
        assert (status, problem["type"]) == (408, "urn:rdrec:problem:slow-body")
        status, problem = _exchange(service, _head(service, 100))
        assert (status, problem["type"]) == (408, "urn:rdrec:problem:slow-body")
        status, problem = _exchange(service, _head(service, 10**12), b"{")
        assert (status, problem["type"]) == (413, "urn:rdrec:problem:body-too-large")
        chunk = b"400\r\n" + b" " * 1024 + b"\r\n"
        chunked = _head(service, 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        status, problem = _exchange(service, chunked, 3 * chunk)
        assert (status, problem["type"]) == (413, "urn:rdrec:problem:body-too-large")
        assert httpx.get(f"{service.url}/health/ready").status_code == 200


async def test_a_client_that_hangs_up_frees_its_place(bundle: Path, tmp_path: Path) -> None:
    with service_process(bundle, tmp_path / "log", engine_seconds=0.5, batch_size="1", access_log="true") as service:
        async with httpx.AsyncClient(timeout=30) as client:

            async def ask(n: int, timeout_s: float) -> int | None:
                headers = {"X-Request-Timeout-Ms": "20000"}
                body = {"history": [item_id(n)], "n_items": 1}
                try:
                    answer = await client.post(
                        f"{service.url}/recommend/sequential", json=body, headers=headers, timeout=timeout_s
                    )
                except httpx.ReadTimeout:
                    return None
                return answer.status_code

            gone = [asyncio.create_task(ask(n, 0.2)) for n in range(12)]
            assert await asyncio.gather(*gone) == [None] * 12
            started = time.monotonic()
            assert await ask(30, 30.0) == 200
            assert time.monotonic() - started < 3.0  # twelve of them would have taken six seconds
        assert '"status":499' in service.log.read_text()


def test_wrong_redis_settings_are_told_before_anything_is_served(bundle: Path) -> None:
    environment = {**os.environ, "RDREC_REDIS_URL": "http://:hunter2@host"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.fake_server", "--bundle", str(bundle)],
        cwd=ROOT, capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 2
    assert "redis" in done.stderr
    assert "hunter2" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bundle", "/nowhere"], "manifest.json is missing"),
        ([], "bundle: Field required"),
        (["--bundle", "/nowhere", "--port", "70000"], "port: Input should be less than or equal to 65535"),
    ],
)
def test_wrong_settings_are_told_in_a_line_and_exit_2(arguments: list[str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fake_server", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bundle_that_cannot_be_served_ends_the_process_with_status_1(bundle: Path, tmp_path: Path) -> None:
    (bundle / "arrays" / "items" / "labels.npy").unlink()
    done = subprocess.run(
        [sys.executable, "-m", "tests.fake_server", "--bundle", str(bundle), "--port", "0"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "labels.npy" in done.stderr
    assert "Traceback" not in done.stderr


def children_of(service: ServiceProcess) -> list[int]:
    threads = Path(f"/proc/{service.process.pid}/task").glob("*/children")
    return [int(child) for thread in threads for child in thread.read_text().split()]


@pytest.mark.parametrize("apart", ["true", "false"])
def test_the_engine_answers_in_its_own_process_as_in_this_one(bundle: Path, tmp_path: Path, apart: str) -> None:
    with service_process(bundle, tmp_path / "log", engine_process=apart) as service:
        body = {"user_id": "u0003", "candidates": ["i0012", "i0009"], "n_items": 2}
        answer = httpx.post(f"{service.url}/recommend/topn", json=body).json()
        assert [item["item_id"] for item in answer["items"]] == ["i0009", "i0012"]
        explained = httpx.post(f"{service.url}/explain", json={"user_id": "u0003", "item_id": "i0008"}).json()
        assert explained["explanation"] == "Customers who chose Toy 7 often choose Toy 8 too."
        assert explained["evidence"][0]["item_id"] == "i0007"
        children = children_of(service)
        assert bool(children) is (apart == "true")
        service.signal(signal.SIGTERM)
        assert service.wait() == 0
    deadline = time.monotonic() + 10  # multiprocessing's own tracker ends a moment after its parent
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_killed_engine_process_is_replaced_and_its_requests_are_answered(bundle: Path, tmp_path: Path) -> None:
    with service_process(bundle, tmp_path / "log", engine_seconds=0.3, engine_process="true") as service:

        def ask(user: str = "u0001") -> httpx.Response:
            headers = {"X-Request-Timeout-Ms": "20000"}
            body = {"user_id": user, "n_items": 1}
            return httpx.post(f"{service.url}/recommend/sequential", json=body, headers=headers, timeout=30)

        with ThreadPoolExecutor() as pool:
            asked = pool.submit(ask)
            time.sleep(0.15)
            engines = [
                child for child in children_of(service) if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
            ]
            assert len(engines) == 1
            os.kill(engines[0], signal.SIGKILL)
            answer = asked.result()  # 500 if the engine had begun with it, else the graph's
            assert answer.status_code == 500 or answer.json()["degraded"] is True
        deadline = time.monotonic() + 30
        while httpx.get(f"{service.url}/health/ready").json()["status"] != "ready":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        other = ask("u0002")
        assert (other.status_code, other.json()["degraded"]) == (200, False)
