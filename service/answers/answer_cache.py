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

from service.wire.work import DeadlineError

T = TypeVar("T")
How = Literal["hit", "miss", "joined"]


class SharedCache(Protocol):
    """Texts that all replicas share. Never raises: a cache that is down holds nothing."""

    async def get(self, key: str, user_id: str | None) -> str | None:
        """The text, or None. user_id: for whom it was written; None for texts about an item alone."""
        ...

    async def put(self, key: str, text: str, ttl_s: int, user_id: str | None) -> None:
        """Keep the text for ttl_s seconds, or until the user is forgotten."""
        ...


class _Abandoned(Exception):  # noqa: N818
    """Whoever computed the answer left, or ran out of time; one of those who wait takes over."""


@dataclass(slots=True)
class AnswerCache:
    """At most `size` answers for `ttl_s`; `clock` counts seconds. size 0 still runs identical questions once."""

    size: int
    ttl_s: float
    clock: Callable[[], float]
    _answers: OrderedDict[Hashable, tuple[float, Any]] = field(default_factory=OrderedDict)
    _flights: dict[Hashable, asyncio.Future[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._answers)

    async def get(self, key: Hashable, deadline: float, compute: Callable[[], Awaitable[T]]) -> tuple[T, How]:
        """The answer, from the cache, from a computation under way, or from `compute`.

        The first to ask computes, the others wait for it. If the first is cancelled or its deadline passes, another
        one computes; every other error reaches all who wait. Raises DeadlineError past `deadline` (of `clock`).
        """
        while True:
            found = self._answers.get(key)
            if found is not None:
                if self.clock() < found[0]:
                    self._answers.move_to_end(key)
                    return found[1], "hit"
                del self._answers[key]
            flight = self._flights.get(key)
            if flight is None:
                return await self._lead(key, compute), "miss"
            try:
                async with asyncio.timeout(deadline - self.clock()):
                    return await asyncio.shield(flight), "joined"
            except _Abandoned:
                continue
            except TimeoutError as error:
                raise DeadlineError("the deadline passed before the answer was there") from error

    async def _lead(self, key: Hashable, compute: Callable[[], Awaitable[T]]) -> T:
        flight: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._flights[key] = flight
        outcome: BaseException = _Abandoned()
        try:
            answer = await compute()
        except DeadlineError:
            raise
        except Exception as error:
            outcome = error
            raise
        else:
            flight.set_result(answer)
            self._keep(key, answer)
            return answer
        finally:
            del self._flights[key]
            if not flight.done():
                flight.set_exception(outcome)
                flight.exception()  # nobody may be waiting, and that is no fault

    def _keep(self, key: Hashable, answer: Any) -> None:
        if not self.size:
            return
        self._answers[key] = (self.clock() + self.ttl_s, answer)
        self._answers.move_to_end(key)
        if len(self._answers) > self.size:
            self._answers.popitem(last=False)
