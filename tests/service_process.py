"""Starts `rdrec-serve` over the fake engine on a free port and waits until it is ready."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.fake_server import ENGINE_SECONDS

ROOT = Path(__file__).parents[1]
HTTP = httpx.Client(verify=False, timeout=20, limits=httpx.Limits(max_keepalive_connections=0))
"""A connection for each request, and no authorities to read for it: httpx.get takes 60 ms of CPU for them each time."""


@dataclass
class ServiceProcess:
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, timeout_s: float = 30.0) -> int:
        return self.process.wait(timeout_s)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def service_process(
    bundle: Path, log: Path, *, engine_seconds: float = 0.0, **settings: str
) -> Iterator[ServiceProcess]:
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RDREC_")}
    environment["RDREC_STATE_DIR"] = f"{log}.state"  # what it logs and forgets stays in the test's own folder
    environment |= {f"RDREC_{name.upper()}": value for name, value in settings.items()}
    environment[ENGINE_SECONDS] = str(engine_seconds)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fake_server", "--bundle", str(bundle), "--port", str(port)],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    service = ServiceProcess(process, port, log)
    try:
        _wait_until_ready(service)
        yield service
    finally:
        process.kill()
        process.wait()


def _wait_until_ready(service: ServiceProcess) -> None:
    deadline = time.monotonic() + 180  # a busy machine takes long to start a process
    while time.monotonic() < deadline:
        assert service.process.poll() is None, service.log.read_text()
        try:
            if HTTP.get(f"{service.url}/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(service.log.read_text())
