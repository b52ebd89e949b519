"""What forgotten users said, taken out of what a bundle says of items: at every replica, by the marks that all share.

A mark cannot be turned into an id, so the bundle's users are marked once, when the first mark is seen. Knows marks and
indices, no statements.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Set
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from service.engine.arm import Arm
from service.stores.history.base import HistoryStore, mark_of

log = logging.getLogger("rdrec.service")


@dataclass
class _Applied:
    """What one arm has heard of. users: those whose marks begin with `prefixes`, which are ascending."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    marks: set[str] = field(default_factory=set)
    prefixes: npt.NDArray[np.uint64] | None = None
    users: npt.NDArray[np.int64] | None = None


class Withdrawals:
    """One for the whole process."""

    def __init__(self, store: HistoryStore) -> None:
        self._store = store
        self._applied: WeakKeyDictionary[Arm, _Applied] = WeakKeyDictionary()

    async def apply(self, arm: Arm) -> bool:
        """Bring the arm up to date; False where nobody can say who was forgotten, so that nothing may be used."""
        marks = self._store.marks()
        if marks is None:
            return False
        applied = self._applied.setdefault(arm, _Applied())
        if len(marks) != len(applied.marks):  # marks only ever come
            async with applied.lock:
                new = marks - applied.marks
                if new:
                    arm.explainer.withdrawn.add(await asyncio.to_thread(_users_of, arm, applied, new))
                    applied.marks |= new
                    if not len(arm.explainer.statements.sources) and len(arm.explainer.statements.items):
                        log.warning("statements_without_sources", extra={"model_version": arm.version})
        return True


def _users_of(arm: Arm, applied: _Applied, marks: Set[str]) -> list[int]:
    """Indices of the marked users in the arm's bundle."""
    ids = arm.users.user_ids
    if applied.prefixes is None or applied.users is None:
        prefixes = np.fromiter((_prefix(mark_of(ids[n])) for n in range(len(ids))), dtype=np.uint64, count=len(ids))
        applied.users = np.argsort(prefixes, kind="stable")
        applied.prefixes = prefixes[applied.users]
    found = []
    for mark in marks:
        low, high = (
            int(np.searchsorted(applied.prefixes, np.uint64(_prefix(mark)), side)) for side in ("left", "right")
        )
        found += [int(user) for user in applied.users[low:high] if mark_of(ids[int(user)]) == mark]
    return found


def _prefix(mark: str) -> int:
    return int(mark[:16], 16)
