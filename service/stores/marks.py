"""Marks that are put on a thing once each, for a while: what makes a repetition harmless. Knows no feedback.

The Protocol and the marks of this process; contract suite in
`tests/contract/test_marks_contract.py`.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol


class Marks(Protocol):
    """Raises HistoryUnavailableError."""

    async def put(self, thing: str, marks: Sequence[str]) -> list[bool]:
        """Whether each mark is new, in order; from now on none of them is."""
        ...

    async def secret(self) -> bytes:
        """A key of 32 bytes, the same for all who share the marks."""
        ...


class MemoryMarks:
    """See Marks; the `size` things marked last, for ttl_s each. `clock` counts seconds."""

    def __init__(self, clock: Callable[[], float], *, ttl_s: int, size: int = 100_000) -> None:
        self._clock = clock
        self._ttl_s = ttl_s
        self._size = size
        self._secret = os.urandom(32)
        self._things: OrderedDict[str, tuple[float, set[str]]] = OrderedDict()

    async def put(self, thing: str, marks: Sequence[str]) -> list[bool]:
        """See Marks."""
        now = self._clock()
        until, known = self._things.pop(thing, (0.0, set()))
        if until <= now:
            known = set()
        self._things[thing] = now + self._ttl_s, known
        if len(self._things) > self._size:
            self._things.popitem(last=False)
        new = []
        for mark in marks:
            new.append(mark not in known)
            known.add(mark)
        return new

    async def secret(self) -> bytes:
        """See Marks."""
        return self._secret
