"""Identical questions are computed once: an LRU of finished answers and a table of the ones being computed.

A key holds everything an answer depends on, the resolved history and the model version included, so that a write or a
new bundle makes the old answer unreachable. Knows nothing of what is cached.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

T = TypeVar("T")
How = Literal["hit", "miss", "joined"]


class SharedCache(Protocol):
    """Texts that all replicas share. Never raises: a cache that is down holds nothing."""

    async def get(self, key: str) -> str | None:
        """The text, or None."""
        ...

    async def put(self, key: str, text: str, ttl_s: int) -> None:
        """Keep the text for ttl_s seconds."""
        ...


class SharedDeadline:
    """The latest deadline of all who wait for one computation; read when it is queued, extended by who joins."""

    def __init__(self, deadline: float) -> None:
        self.value = deadline

    def extend(self, deadline: float) -> None:
        """A later deadline counts."""
        self.value = max(self.value, deadline)


@dataclass(eq=False, slots=True)
class _Flight:
    task: asyncio.Task[Any]
    deadline: SharedDeadline
    waiting: int = 0


@dataclass(slots=True)
class AnswerCache:
    """At most `size` answers for `ttl_s`; `clock` counts seconds. size 0 still runs identical questions once."""

    size: int
    ttl_s: float
    clock: Callable[[], float]
    _answers: OrderedDict[Hashable, tuple[float, Any]] = field(default_factory=OrderedDict)
    _flights: dict[Hashable, _Flight] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._answers)

    async def get(
        self, key: Hashable, deadline: float, compute: Callable[[SharedDeadline], Awaitable[T]]
    ) -> tuple[T, How]:
        """The answer, from the cache, from a computation under way, or from `compute`.

        The computation goes on while anybody waits for it and is cancelled with the last one. Its error reaches all who
        wait and is not kept.
        """
        found = self._answers.get(key)
        if found is not None:
            if self.clock() < found[0]:
                self._answers.move_to_end(key)
                return found[1], "hit"
            del self._answers[key]
        flight = self._flights.get(key)
        how: How = "miss" if flight is None else "joined"
        if flight is None:
            shared = SharedDeadline(deadline)
            flight = _Flight(asyncio.ensure_future(self._compute(key, shared, compute)), shared)
            self._flights[key] = flight
        flight.deadline.extend(deadline)
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task), how
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                self._flights.pop(key, None)
                flight.task.cancel()

    async def _compute(
        self, key: Hashable, deadline: SharedDeadline, compute: Callable[[SharedDeadline], Awaitable[T]]
    ) -> T:
        task = asyncio.current_task()
        try:
            answer = await compute(deadline)
        finally:
            flight = self._flights.get(key)
            if flight is not None and flight.task is task:
                del self._flights[key]
        if self.size:
            self._answers[key] = (self.clock() + self.ttl_s, answer)
            self._answers.move_to_end(key)
            if len(self._answers) > self.size:
                self._answers.popitem(last=False)
        return answer
