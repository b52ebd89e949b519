"""The engine in a process of its own, so that its Python and numpy do not share an interpreter lock with HTTP.

A crash of the runtime then costs a restart of the engine, not of the service. The engine thread of `batcher.py` sends a
batch through a pipe and waits; nothing else talks to the process.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rdrec_core.bundle import Bundle
from rdrec_core.engines.base import Engine
from rdrec_core.errors import EngineError, RDRecError
from rdrec_core.ranking import Ranker
from rdrec_core.types import ScoreMode
from service.batch_queue import Kind
from service.computation import Computation, open_ranker
from service.observability import configure_logging, describe_error
from service.settings import Settings

OpenEngine = Callable[[Bundle, Settings], Engine]
log = logging.getLogger("rdrec.engine")


class EngineProcessDied(BaseException):
    """The process ended by itself. Not an Exception: no batch may be tried again on it, the engine thread must end."""


class EngineProcess:
    """A Runner. Opening it waits until the engine is there; raises RDRecError where it cannot be opened."""

    score_mode: ScoreMode

    def __init__(self, open_engine: OpenEngine, bundle: Path, settings: Settings) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, open_engine, bundle, settings), name="rdrec-engine", daemon=True
        )
        self._process.start()
        theirs.close()
        try:
            self.score_mode = self._receive()
        except EngineProcessDied as error:
            raise EngineError("the engine's process ended before the engine was open") from error
        except BaseException:
            self.close()
            raise

    def __call__(self, kind: Kind, works: Sequence[Any]) -> Sequence[Any]:
        """See Computation."""
        try:
            self._pipe.send((kind, works))
        except OSError as error:
            raise EngineProcessDied from error
        answer: Sequence[Any] = self._receive()
        return answer

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._pipe.close()
        self._process.kill()
        self._process.join()

    def _receive(self) -> Any:
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise EngineProcessDied from error
        if isinstance(answer, Exception):
            raise answer
        return answer


class EngineElsewhere:
    """Stands in a Ranker of this process, whose graph is asked here and whose engine runs in another."""

    def __init__(self, score_mode: ScoreMode) -> None:
        self.score_mode = score_mode

    def recommend(self, requests: Sequence[Any]) -> list[Any]:
        """Never."""
        raise EngineError("the engine runs in a process of its own")

    score = generate_text = recommend


def _serve(pipe: Connection, open_engine: OpenEngine, path: Path, settings: Settings) -> None:
    """The process: open, then answer batches until the pipe closes, which it does with the service's process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the service decides when to end
        signal.signal(number, signal.SIG_IGN)
    configure_logging(settings.log_level)
    try:
        computation = _open(open_engine, path, settings)
        pipe.send(computation.score_mode)
        while True:
            kind, works = pipe.recv()
            pipe.send(_answer(computation, kind, works))
    except RDRecError as error:
        pipe.send(error)
    except (EOFError, OSError):
        return


def _open(open_engine: OpenEngine, path: Path, settings: Settings) -> Computation:
    bundle = Bundle.open(path, verify=False)  # the service has just verified it
    return Computation(open_ranker(bundle, lambda: open_engine(bundle, settings)))


def _answer(computation: Computation, kind: Kind, works: Sequence[Any]) -> Any:
    try:
        return computation(kind, works)
    except RDRecError as error:
        return error
    except Exception as error:
        log.warning("engine_failed", extra=describe_error(error))
        return EngineError(f"the engine failed with {type(error).__name__}")


def as_ranker(bundle: Bundle, process: EngineProcess) -> Ranker:
    """A Ranker whose graph is asked in this process."""
    return open_ranker(bundle, lambda: EngineElsewhere(process.score_mode))
