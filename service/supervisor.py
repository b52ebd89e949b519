"""Several workers on one port: started, restarted, told to end. Serves nothing itself.

Each worker listens on a socket of its own (SO_REUSEPORT), so that the kernel spreads connections over them; what they
tell each other is `engine/siblings.py`'s matter. A worker that ends before it served has a reason that a new one would
have too, so all end with its status; later ones are replaced. When this process is killed its workers see the pipe
close and drain.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

from prometheus_client.multiprocess import mark_process_dead

from service.engine.engine_process import OpenEngine
from service.engine.lifecycle import RESTART_PAUSES_S
from service.engine.siblings import LEADER, Seat
from service.settings import Settings

log = logging.getLogger("rdrec.service")
SHARED_COUNTS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus_client reads it when it is imported: the workers then count in files of this folder."""
LOOK_EVERY_S = 0.2
WorkerMain = Callable[[Settings, OpenEngine, Seat, Connection], None]


def reserved_port(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen: it keeps the port, 0 becoming a free one. Raises OSError if it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:  # without SO_REUSEPORT: another service is not joined
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
    return listening_socket(host, port)


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket bound to a port that others of this user may bind too."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind((host, port))
    return bound


class _Worker:
    """One place, and the process that has it now."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.process: BaseProcess | None = None
        self.pipe: Connection | None = None
        self.has_served = False
        self.deaths = 0
        self.start_at = 0.0


class Supervisor:
    """See the module."""

    def __init__(self, settings: Settings, open_engine: OpenEngine, worker_main: WorkerMain) -> None:
        self._settings = settings
        self._open_engine = open_engine
        self._main = worker_main
        self._workers = [_Worker(index) for index in range(settings.workers)]
        self._folder = Path(tempfile.mkdtemp(prefix="rdrec-workers-"))
        self._ends = False
        self._status = 0

    def run(self) -> int:
        """Serve until told to stop; the exit status. Raises OSError where the port is taken."""
        try:
            with reserved_port(self._settings.host, self._settings.port) as reserved:
                self._settings = self._settings.model_copy(update={"port": reserved.getsockname()[1]})
                handled = {signal.SIGTERM: self._end, signal.SIGINT: self._end, signal.SIGHUP: self._reload}
                before = {number: signal.signal(number, handler) for number, handler in handled.items()}
                (self._folder / "metrics").mkdir()
                os.environ[SHARED_COUNTS_VARIABLE] = str(self._folder / "metrics")
                try:
                    self._watch()
                finally:
                    del os.environ[SHARED_COUNTS_VARIABLE]
                    for number, handler in before.items():
                        signal.signal(number, handler)
            return self._status
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _watch(self) -> None:
        while not self._ends or any(worker.process is not None for worker in self._workers):
            for worker in self._workers:
                if worker.process is None and not self._ends and time.monotonic() >= worker.start_at:
                    self._start(worker)
            running = [worker for worker in self._workers if worker.process is not None]
            pipes = [worker.pipe for worker in running if worker.pipe is not None and not worker.has_served]
            wait([*(worker.process.sentinel for worker in running if worker.process), *pipes], LOOK_EVERY_S)
            for worker in running:
                self._look_at(worker)

    def _start(self, worker: _Worker) -> None:
        ours, theirs = multiprocessing.Pipe()
        seat = Seat(worker.index, len(self._workers), self._folder)
        ids = self._settings.device_ids
        first = worker.index * self._settings.engines % len(ids)
        settings = self._settings.model_copy(update={"device_ids": ids[first:] + ids[:first]})
        worker.process = multiprocessing.get_context("spawn").Process(
            target=self._main,
            args=(settings, self._open_engine, seat, theirs),
            name=f"rdrec-worker-{worker.index}",
        )
        worker.pipe = ours
        with theirs:
            worker.process.start()

    def _look_at(self, worker: _Worker) -> None:
        process, pipe = worker.process, worker.pipe
        assert process is not None
        assert pipe is not None
        try:
            while not worker.has_served and pipe.poll():
                pipe.recv_bytes()
                worker.has_served = True
                log.info("worker_serves", extra={"worker": worker.index})
        except (EOFError, OSError):  # it ended
            process.join()
        if process.is_alive():
            return
        process.join()
        pipe.close()
        if process.pid is not None:
            mark_process_dead(process.pid, str(self._folder / "metrics"))  # type: ignore[no-untyped-call]
        status = process.exitcode
        worker.process = worker.pipe = None
        if self._ends:
            self._status = self._status or abs(status or 0)
        elif not worker.has_served:
            self._status = abs(status or 0) or 1
            self._end_all(signal.SIGTERM)
        else:
            pause_s = RESTART_PAUSES_S[min(worker.deaths, len(RESTART_PAUSES_S) - 1)]
            worker.deaths += 1
            worker.start_at = time.monotonic() + pause_s
            log.error("worker_died", extra={"worker": worker.index, "status": status, "restart_in_s": pause_s})

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._end_all(signal.SIGTERM)

    def _end_all(self, number: signal.Signals) -> None:
        """Also a second time: a worker that drains then ends at once."""
        self._ends = True
        for worker in self._workers:
            self._tell(worker, number)

    def _reload(self, number: int, frame: FrameType | None) -> None:
        """The leader swaps in all of them."""
        self._tell(self._workers[LEADER], signal.SIGHUP)

    def _tell(self, worker: _Worker, number: signal.Signals) -> None:
        if worker.process is not None and worker.process.pid is not None and worker.process.is_alive():
            os.kill(worker.process.pid, number)
