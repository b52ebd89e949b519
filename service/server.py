"""`rdrec-serve`: the process around the application: command line, signals, drain, exit status."""

from __future__ import annotations

import argparse
import asyncio
import logging
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from rdrec_core.bundle import Bundle
from rdrec_core.errors import RDRecError
from service.engine.engine_process import OpenEngine
from service.engine.lifecycle import ModelHost
from service.engine.opening import open_engine
from service.engine.siblings import Seat
from service.settings import Settings, read_settings
from service.supervisor import Supervisor, listening_socket
from service.telemetry.observability import configure_logging, describe_error
from service.web.app import create_app
from service.web.doorman import protocol_of

log = logging.getLogger("rdrec.service")
FAILED = 1
USAGE = 2


class Server(uvicorn.Server):
    """SIGTERM: not ready, then drained, then exit 0. SIGHUP: the bundle folder is read again. A second SIGTERM: now."""

    def __init__(
        self, config: uvicorn.Config, host: ModelHost, settings: Settings, supervisor: Connection | None = None
    ) -> None:
        """supervisor: what closes when the process that started this worker is gone."""
        super().__init__(config)
        self._supervisor = supervisor
        self._models = host
        self._settings = settings
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.exit_status = 0

    def fail(self, error: RDRecError) -> None:
        """End the process: the bundle cannot be served."""
        log.error("cannot_serve", extra=describe_error(error))
        self.exit_status = FAILED
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals while serving, and swallow them: having been asked to stop is no failure."""
        self._loop = asyncio.get_running_loop()
        handled = {signal.SIGTERM: self._end, signal.SIGINT: self._end, signal.SIGHUP: self._reload}
        before = {number: signal.signal(number, handler) for number, handler in handled.items()}
        if self._supervisor is not None:
            self._loop.add_reader(self._supervisor.fileno(), self._orphaned)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, number: int, frame: FrameType | None) -> None:
        if self._models.is_draining:
            self.should_exit = self.force_exit = True
            return
        self._on_loop(self._drain)

    def _orphaned(self) -> None:
        assert self._loop is not None
        assert self._supervisor is not None
        self._loop.remove_reader(self._supervisor.fileno())
        if not self._models.is_draining:
            self._on_loop(self._drain)

    def _reload(self, number: int, frame: FrameType | None) -> None:
        self._on_loop(self._models.reload)

    def _on_loop(self, work: object) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._spawn, work)

    def _spawn(self, work: object) -> None:
        assert callable(work)
        task = asyncio.ensure_future(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drain(self) -> None:
        log.info("draining")
        self._models.drain()
        await asyncio.sleep(min(self._settings.drain_notice_s, self._settings.drain_s / 2))
        self.should_exit = True


def run(arguments: list[str], *, open_engine: OpenEngine = open_engine) -> int:
    """Serve until told to stop; the exit status: 0, 1 where the bundle cannot be served, 2 for wrong settings."""
    parser = argparse.ArgumentParser("rdrec-serve", description="Serve a bundle. Settings: docs/operations.md.")
    parser.add_argument("--bundle", type=Path, help="folder that `rdrec export` wrote (RDREC_BUNDLE)")
    parser.add_argument("--host", help="address to listen on (RDREC_HOST), 127.0.0.1 by default")
    parser.add_argument("--port", type=int, help="port (RDREC_PORT), 8000 by default; 0 takes a free one")
    parser.add_argument("--tls-certificate", type=Path, help="PEM file (RDREC_TLS_CERTIFICATE)")
    parser.add_argument("--tls-key", type=Path, help="PEM file (RDREC_TLS_KEY)")
    parser.add_argument("--workers", type=int, help="processes that speak HTTP (RDREC_WORKERS); several need Redis")
    parser.add_argument("--engines", type=int, help="engine processes of a bundle in each worker (RDREC_ENGINES)")
    server: Server
    try:
        settings = read_settings(**vars(parser.parse_args(arguments)))
        Bundle.open(settings.bundle, verify=False)
        configure_logging(settings.log_level)
        _allow_many_connections()
        if settings.workers > 1:
            return Supervisor(settings, open_engine, serve_as_worker).run()
        app = create_app(settings, open_engine=open_engine, on_failed_start=lambda error: server.fail(error))
    except (ValidationError, RDRecError, OSError) as error:
        print(f"rdrec-serve: {_readable(error)}", file=sys.stderr)
        return USAGE
    server = Server(uvicorn_config(app, settings), app.state.parts.host, settings)
    server.run()
    return server.exit_status if server.started else server.exit_status or FAILED


def serve_as_worker(settings: Settings, open_engine: OpenEngine, seat: Seat, supervisor: Connection) -> None:
    """The life of one of several workers; ends the process with the status that `run` would return."""
    configure_logging(settings.log_level)
    server: Server

    def started() -> None:
        with suppress(OSError):  # the supervisor is gone, which the server sees for itself
            supervisor.send_bytes(b"serves")

    app = create_app(
        settings,
        open_engine=open_engine,
        on_failed_start=lambda error: server.fail(error),
        on_started=started,
        seat=seat,
    )
    server = Server(uvicorn_config(app, settings), app.state.parts.host, settings, supervisor)
    server.run(sockets=[listening_socket(settings.host, settings.port)])
    sys.exit(server.exit_status if server.started else server.exit_status or FAILED)


def uvicorn_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How uvicorn serves the application."""
    return uvicorn.Config(
        app,
        http=protocol_of(app.state.doorman),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=max(1, round(settings.drain_s - min(settings.drain_notice_s, settings.drain_s / 2))),
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
    )


def _allow_many_connections() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _readable(error: Exception) -> str:
    """Names of settings and what would be right; never a value, which may be a secret."""
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(": ".join(filter(None, [".".join(map(str, e["loc"])), e["msg"]])) for e in error.errors())
