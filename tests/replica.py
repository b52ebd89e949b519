"""`rdrec-serve` as a real process: over the bundle of tests/fake_service.py with its engine, or over a real bundle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from rdrec_client import RDRecClient
from tests.redis_process import PATIENCE_S, free_port

ROOT = Path(__file__).parents[1]
FAKE = (sys.executable, "-m", "tests.fake_server")
REAL = (str(Path(sys.executable).with_name("rdrec-serve")),)


class Replica:
    """One process; `settings` become RDREC_* variables."""

    def __init__(
        self, bundle: Path, log: Path, *, port: int | None = None, program: Sequence[str] = FAKE, **settings: object
    ) -> None:
        self._program = program
        self.port = port or free_port()
        self._bundle, self._log = bundle, log
        self._settings = {"RDREC_STATE_DIR": f"{log}.state"}  # what it logs and forgets stays in the test's own folder
        self._settings |= {f"RDREC_{name.upper()}": str(value) for name, value in settings.items()}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *, wait: bool = True) -> None:
        command = [*self._program, "--bundle", str(self._bundle), "--port", str(self.port)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RDREC_")}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=environment | self._settings)
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + 3 * PATIENCE_S
        with RDRecClient(self.url) as client:
            while time.monotonic() < deadline and self.process.poll() is None:
                if client.is_ready():
                    return
                time.sleep(0.1)
        pytest.fail(f"the service did not become ready:\n{self._log.read_text()[-3000:]}")

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(2 * PATIENCE_S)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE_S)


@contextmanager
def running_replica(bundle: Path, log: Path, *, program: Sequence[str] = FAKE, **settings: object) -> Iterator[Replica]:
    """A ready process that is gone at the end of the block."""
    replica = Replica(bundle, log, program=program, **settings)
    try:
        replica.start()
        yield replica
    finally:
        replica.kill()
