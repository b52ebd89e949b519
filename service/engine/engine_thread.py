"""The engine on a thread of this process: a Lane for machines with one core, and for tests."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from service.engine.batcher import LaneEndedError
from service.wire.work import Kind

Runner = Callable[[Kind, Sequence[Any]], Sequence[Any]]
"""Computes a batch of works of one kind, in order."""
_Item = tuple[Kind, Sequence[Any], "asyncio.Future[Any]"]


class EngineThread:
    """See Lane. Made on the event loop that it answers to."""

    depth = 1

    def __init__(self, runner: Runner, device: str = "cpu") -> None:
        """device: where the runner computes."""
        self.device = device
        self._runner = runner
        self._loop = asyncio.get_running_loop()
        self._items: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._asked: set[asyncio.Future[Any]] = set()
        self._on_end: Callable[[str], None] = lambda cause: None
        self._cause: str | None = None
        self._thread = threading.Thread(target=self._work, name="rdrec-engine", daemon=True)
        self._thread.start()

    def watch(self, on_end: Callable[[str], None]) -> None:
        """See Lane."""
        self._on_end = on_end
        if self._cause is not None:
            on_end(self._cause)

    async def compute(self, kind: Kind, works: Sequence[Any]) -> tuple[Sequence[Any], float]:
        """See Lane."""
        if self._cause is not None:
            raise LaneEndedError(self._cause)
        future: asyncio.Future[Any] = self._loop.create_future()
        self._asked.add(future)
        self._items.put((kind, works, future))
        try:
            answer: tuple[Sequence[Any], float] = await future
            return answer
        finally:
            self._asked.discard(future)

    def kill(self) -> bool:
        """See Lane. Nothing ends a thread."""
        return False

    async def close(self, *, within_s: float = 5.0) -> None:
        """See Lane. A thread that hangs is left behind after `within_s`; it is a daemon."""
        self._on_end = lambda cause: None
        self._items.put(None)
        await asyncio.to_thread(self._thread.join, within_s)

    def _work(self) -> None:
        cause = "the engine's thread ended"
        try:
            while (item := self._items.get()) is not None:
                kind, works, future = item
                started = time.perf_counter()
                try:
                    answer: Any = (self._runner(kind, works), time.perf_counter() - started)
                except Exception as error:
                    answer = error
                self._call(_settle, future, answer)
        except BaseException as error:  # also SystemExit: nothing may end this thread unnoticed
            cause = f"the engine's thread died of {type(error).__name__}"
        finally:
            self._call(self._ended, cause)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    def _ended(self, cause: str) -> None:
        self._cause = cause
        for future in self._asked:
            _settle(future, LaneEndedError(cause))
        self._on_end(cause)


def _settle(future: asyncio.Future[Any], answer: Any) -> None:
    if future.done():
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
