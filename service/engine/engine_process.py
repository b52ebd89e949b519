"""The engine in a process of its own, so that its Python and numpy do not share an interpreter lock with HTTP.

A crash of the runtime then costs a restart of the engine, not of the service. Batches go through a socket pair, which
nobody else can write to, as pickles: a length in eight bytes, then the pickle.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import pickle
import signal
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rdrec_core.bundle import Bundle
from rdrec_core.engines.base import Engine
from rdrec_core.errors import EngineError, RDRecError
from rdrec_core.types import ScoreMode
from service.engine.batcher import LaneEndedError
from service.engine.computation import Computation, open_ranker
from service.settings import Settings
from service.telemetry.observability import configure_logging, describe_error
from service.wire.work import Kind

OpenEngine = Callable[[Bundle, Settings], Engine]
log = logging.getLogger("rdrec.engine")
_HEAD = struct.Struct("!Q")
_ENDED = "the engine's process ended"


class EngineProcess:
    """See Lane; `open` makes one."""

    depth = 4

    def __init__(
        self,
        process: multiprocessing.process.BaseProcess,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        score_mode: ScoreMode,
        device: str,
        can_grow: bool,
    ) -> None:
        self.score_mode, self.device, self.can_grow = score_mode, device, can_grow
        self._process = process
        self._reader = reader
        self._writer = writer
        self._asked: deque[asyncio.Future[Any]] = deque()
        self._on_end: Callable[[str], None] = lambda cause: None
        self._has_ended = False
        self._reading = asyncio.get_running_loop().create_task(self._read())

    @classmethod
    async def open(cls, open_engine: OpenEngine, bundle: Bundle, settings: Settings, *, verify: bool) -> EngineProcess:
        """Start the process and wait until the engine is there. Raises RDRecError where it cannot be opened.

        It opens the very bundle that is given, or nothing; `verify` where that was checked a while ago.
        """
        ours, theirs = socket.socketpair()
        context = multiprocessing.get_context("spawn")
        process = context.Process(
            target=_serve,
            args=(theirs, open_engine, bundle.path, bundle.manifest_sha256, verify, settings),
            name="rdrec-engine",
            daemon=True,
        )
        with theirs:
            await asyncio.to_thread(process.start)
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            first = await _receive(reader)
        except BaseException as error:
            writer.close()
            process.kill()
            if isinstance(error, asyncio.IncompleteReadError | OSError):
                raise EngineError(f"{_ENDED} before the engine was open") from error
            raise
        if isinstance(first, Exception):
            writer.close()
            await asyncio.to_thread(process.join)
            raise first
        return cls(process, reader, writer, *first)

    def watch(self, on_end: Callable[[str], None]) -> None:
        """See Lane."""
        self._on_end = on_end
        if self._has_ended:
            on_end(_ENDED)

    async def compute(self, kind: Kind, works: Sequence[Any]) -> tuple[Sequence[Any], float]:
        """See Lane."""
        if self._has_ended:
            raise LaneEndedError(_ENDED)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked.append(future)
        self._writer.write(_packed((kind, works)))
        answer, seconds = await future
        if isinstance(answer, Exception):
            raise answer
        return answer, seconds

    def kill(self) -> bool:
        """See Lane."""
        self._process.kill()
        return True

    async def close(self) -> None:
        """See Lane."""
        self._on_end = lambda cause: None
        self._reading.cancel()
        self._writer.close()
        self._process.kill()
        await asyncio.to_thread(self._process.join)

    async def _read(self) -> None:
        try:
            while True:
                answer = await _receive(self._reader)
                future = self._asked.popleft()
                if not future.done():
                    future.set_result(answer)
        except (asyncio.IncompleteReadError, OSError):
            self._has_ended = True
            for future in self._asked:
                if not future.done():
                    future.set_exception(LaneEndedError(_ENDED))
            self._on_end(_ENDED)


def _packed(message: Any) -> bytes:
    content = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return _HEAD.pack(len(content)) + content


async def _receive(reader: asyncio.StreamReader) -> Any:
    (length,) = _HEAD.unpack(await reader.readexactly(_HEAD.size))
    return pickle.loads(await reader.readexactly(length))


class EngineElsewhere:
    """Stands in a Ranker of this process, whose graph is asked here and whose engine runs in another."""

    def __init__(self, score_mode: ScoreMode, device: str) -> None:
        self.score_mode, self.device = score_mode, device

    def recommend(self, requests: Sequence[Any]) -> list[Any]:
        """Never."""
        raise EngineError("the engine runs in a process of its own")

    score = generate_text = recommend
    can_grow = False

    def grow(self, rows: Any) -> None:
        """Nothing: the other process is told of changes as of batches."""

    def set_available(self, available: Any) -> None:
        """Nothing, as `grow`."""


def _serve(
    connection: socket.socket, open_engine: OpenEngine, path: Path, sha256: str, verify: bool, settings: Settings
) -> None:
    """The process: open, then answer batches until the socket closes, as it does when the service's process ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the service decides when to end
        signal.signal(number, signal.SIG_IGN)
    configure_logging(settings.log_level)
    with connection, connection.makefile("rb") as incoming:
        try:
            computation = _open(open_engine, path, sha256, verify, settings)
        except RDRecError as error:
            connection.sendall(_packed(error))
            return
        connection.sendall(_packed((computation.score_mode, computation.device, computation.can_grow)))
        while len(head := incoming.read(_HEAD.size)) == _HEAD.size:
            kind, works = pickle.loads(incoming.read(_HEAD.unpack(head)[0]))
            started = time.perf_counter()
            answer = _answer(computation, kind, works)
            connection.sendall(_packed((answer, time.perf_counter() - started)))


def _open(open_engine: OpenEngine, path: Path, sha256: str, verify: bool, settings: Settings) -> Computation:
    bundle = Bundle.open(path, verify=verify, memory_map=settings.memory_map, expected_sha256=sha256)
    return Computation(open_ranker(bundle, lambda: open_engine(bundle, settings), new_words=settings.new_item_words))


def _answer(computation: Computation, kind: Kind, works: Sequence[Any]) -> Any:
    try:
        return computation(kind, works)
    except RDRecError as error:
        return error
    except Exception as error:
        log.warning("engine_failed", extra=describe_error(error))
        return EngineError(f"the engine failed with {type(error).__name__}")
