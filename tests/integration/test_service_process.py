"""A real process over loopback: signals under load, bodies that never end, clients that hang up.

Tests share a process where they can; the one that ends it comes last.
"""

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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from service.server import run
from tests.fake_server import open_slow
from tests.fake_service import item_id, write_bundle
from tests.service_process import HTTP, ROOT, ServiceProcess, service_process


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundles" / "first")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a bundle `first`, which one test writes anew."""
    folder = tmp_path_factory.mktemp("bundles")
    write_bundle(folder / "first")
    return folder


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[ServiceProcess]:
    """Its engine is a process of its own and takes 0.3 s for a batch; bodies are limited."""
    limits = {"timeout_ms": "20000", "body_timeout_s": "0.5", "max_body_bytes": "2048"}
    with service_process(folder / "first", folder / "log", engine_seconds=0.3, engine_process="true", **limits) as one:
        yield one


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """The engine is a thread of it; a body may take a minute, the end two seconds."""
    folder = tmp_path_factory.mktemp("one")
    limits = {"drain_s": "2", "drain_notice_s": "0.1", "body_timeout_s": "60"}
    bundle = write_bundle(folder / "first")
    with service_process(bundle, folder / "log", engine_process="false", **limits) as one:
        yield one


@pytest.fixture(scope="module")
def slow_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """One request after another, 0.3 s each."""
    folder = tmp_path_factory.mktemp("slow")
    limits = {"drain_s": "15", "drain_notice_s": "0.1", "batch_size": "1", "access_log": "true"}
    with service_process(write_bundle(folder / "first"), folder / "log", engine_seconds=0.3, **limits) as one:
        yield one


def test_wrong_redis_settings_are_told_before_anything_is_served(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RDREC_REDIS_URL", "http://:hunter2@host")
    assert run(["--bundle", str(bundle)], open_engine=open_slow) == 2
    said = capsys.readouterr().err
    assert "redis" in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bundle", "/nowhere"], "manifest.json is missing"),
        ([], "bundle: Field required"),
        (["--bundle", "/nowhere", "--port", "70000"], "port: Input should be less than or equal to 65535"),
    ],
)
def test_wrong_settings_are_told_in_a_line_and_are_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RDREC_BUNDLE", raising=False)
    assert run(arguments, open_engine=open_slow) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_bundle_that_cannot_be_served_ends_the_process_with_status_1(bundle: Path, tmp_path: Path) -> None:
    (bundle / "arrays" / "items" / "labels.npy").unlink()
    done = subprocess.run(
        [sys.executable, "-m", "tests.fake_server", "--bundle", str(bundle), "--port", "0"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "labels.npy" in done.stderr
    assert "Traceback" not in done.stderr


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


def children_of(service: ServiceProcess) -> list[int]:
    threads = Path(f"/proc/{service.process.pid}/task").glob("*/children")
    return [int(child) for thread in threads for child in thread.read_text().split()]


def assert_answers(service: ServiceProcess) -> None:
    body = {"user_id": "u0003", "candidates": ["i0012", "i0009"], "n_items": 2}
    answer = HTTP.post(f"{service.url}/recommend/topn", json=body).json()
    assert [item["item_id"] for item in answer["items"]] == ["i0009", "i0012"]
    explained = HTTP.post(f"{service.url}/explain", json={"user_id": "u0003", "item_id": "i0008"}).json()
    assert explained["explanation"] == "Customers who chose Toy 7 often choose Toy 8 too."
    assert explained["evidence"][0]["item_id"] == "i0007"


def test_the_engine_answers_in_its_own_process(service: ServiceProcess) -> None:
    assert_answers(service)
    assert children_of(service)


def test_the_engine_answers_as_a_thread(one_process: ServiceProcess) -> None:
    assert_answers(one_process)
    assert not children_of(one_process)


def test_a_killed_engine_thread_is_restarted_in_the_same_process(service: ServiceProcess) -> None:
    killed = HTTP.post(f"{service.url}/recommend/sequential", json={"user_id": "u0011"})
    assert (killed.status_code, killed.json()["type"]) == (500, "urn:rdrec:problem:engine-ended")
    deadline = time.monotonic() + 20
    while HTTP.get(f"{service.url}/health/ready").json()["status"] != "ready":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert HTTP.post(f"{service.url}/recommend/sequential", json={"user_id": "u0001"}).status_code == 200


def test_a_killed_engine_process_is_replaced_and_its_requests_are_answered(service: ServiceProcess) -> None:

    def ask(user: str = "u0001") -> httpx.Response:
        headers = {"X-Request-Timeout-Ms": "20000"}
        body = {"user_id": user, "n_items": 1}
        return HTTP.post(f"{service.url}/recommend/sequential", json=body, headers=headers, timeout=30)

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
    while HTTP.get(f"{service.url}/health/ready").json()["status"] != "ready":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    other = ask("u0002")
    assert (other.status_code, other.json()["degraded"]) == (200, False)


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


def test_bodies_that_are_slow_or_too_large_are_cut_off(service: ServiceProcess) -> None:
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
    assert HTTP.get(f"{service.url}/health/ready").status_code == 200


def test_sighup_reads_the_bundle_folder_again(service: ServiceProcess, folder: Path) -> None:
    before = HTTP.get(f"{service.url}/v1/model").json()["model_version"]
    write_bundle(folder / "first", name="renewed")
    service.signal(signal.SIGHUP)
    deadline = time.monotonic() + 20
    while (after := HTTP.get(f"{service.url}/v1/model").json()["model_version"]) == before:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert after.startswith("renewed-")
    (folder / "first" / "manifest.json").write_text("{}")
    service.signal(signal.SIGHUP)
    while "bundle_refused" not in service.log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert HTTP.get(f"{service.url}/v1/model").json()["model_version"] == after
    assert HTTP.get(f"{service.url}/health/ready").status_code == 200


def test_sigterm_ends_the_engine_s_process_too(service: ServiceProcess) -> None:
    children = children_of(service)
    assert children
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    deadline = time.monotonic() + 10  # multiprocessing's own tracker ends a moment after its parent
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_sigterm_exits_within_the_drain_time_even_when_a_request_never_ends(one_process: ServiceProcess) -> None:
    with socket.create_connection(("127.0.0.1", one_process.port)) as stuck:
        stuck.sendall(_head(one_process, 100) + b"{")
        time.sleep(0.3)
        started = time.monotonic()
        one_process.signal(signal.SIGTERM)
        assert one_process.wait(15) == 0
        assert time.monotonic() - started < 5


async def test_a_client_that_hangs_up_frees_its_place(slow_service: ServiceProcess) -> None:
    async with httpx.AsyncClient(timeout=30) as client:

        async def ask(n: int, timeout_s: float) -> int | None:
            headers = {"X-Request-Timeout-Ms": "20000"}
            body = {"history": [item_id(n)], "n_items": 1}
            try:
                answer = await client.post(
                    f"{slow_service.url}/recommend/sequential", json=body, headers=headers, timeout=timeout_s
                )
            except httpx.ReadTimeout:
                return None
            return answer.status_code

        gone = [asyncio.create_task(ask(n, 0.2)) for n in range(20)]
        assert await asyncio.gather(*gone) == [None] * 20
        started = time.monotonic()
        assert await ask(30, 30.0) == 200
        assert time.monotonic() - started < 3.0  # twenty of them would have taken six seconds
    assert '"status":499' in slow_service.log.read_text()


async def test_requests_in_flight_at_sigterm_are_answered_after_the_doors_are_closed(
    slow_service: ServiceProcess,
) -> None:
    async with httpx.AsyncClient(timeout=20, headers={"X-Request-Timeout-Ms": "20000"}) as client:
        asked = [
            asyncio.create_task(
                client.post(f"{slow_service.url}/recommend/sequential", json={"history": [item_id(n)], "fusion": False})
            )
            for n in range(8)
        ]
        await asyncio.sleep(0.4)
        slow_service.signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        with pytest.raises(httpx.ConnectError):
            await client.get(f"{slow_service.url}/health/live")
        assert [answer.status_code for answer in await asyncio.gather(*asked)] == [200] * 8
    assert slow_service.wait(10) == 0
