"""How much happened to each item lately: weighted events, an event counting half as much after half of the window.

Events are added up here and given to the store once a second, so that none waits for it; a kill loses that second's
counts, not the events, which are in the log. Knows external ids and weights only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from service.stores.buckets import KEPT_S, LENGTH_S, Buckets, start_of
from service.stores.history.base import HistoryUnavailableError

FLUSH_EVERY_S = 1.0
FRESH_S, OLD_FRESH_S = 2.0, 60.0
"""How long what was read of the present bucket counts, and of those before it, to which little is added."""
HELD_AT_MOST = 100_000
"""Sums that wait for a store that is away; more are dropped."""
HOURLY_UP_TO_S = 48 * 3600


class EventCounts:
    """One for the whole process; `clock` counts seconds since 1970."""

    def __init__(self, store: Buckets, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._held: dict[str, dict[str, float]] = {}
        self._n_held = 0
        self._read: dict[str, tuple[float, dict[str, float]]] = {}
        self._totals: dict[int, tuple[float, dict[str, float]]] = {}
        self._flushing: asyncio.Task[None] | None = None
        self._one_at_a_time = asyncio.Lock()

    def note(self, item_id: str, weight: float, at: float) -> None:
        """An event of so much weight happened to the item."""
        now = self._clock()
        at = min(at, now)
        for unit, kept_s in KEPT_S.items():
            if at + kept_s > now and self._n_held < HELD_AT_MOST:
                own = self._held.setdefault(f"{unit}{int(at // LENGTH_S[unit])}", {})
                self._n_held += item_id not in own
                own[item_id] = own.get(item_id, 0.0) + weight

    def start(self) -> None:
        """Begin to give to the store what was noted; needs a running event loop."""
        self._flushing = asyncio.create_task(self._flush_for_ever())

    async def close(self) -> None:
        """Give to the store what is left."""
        if self._flushing is not None:
            self._flushing.cancel()
        with suppress(HistoryUnavailableError):
            await self.flush()

    async def flush(self) -> None:
        """Give to the store what was noted. Raises HistoryUnavailableError, and then holds on to it."""
        if not self._held:
            return
        held, self._held, self._n_held = self._held, {}, 0
        try:
            await self._store.add(held)
        except HistoryUnavailableError:
            for bucket, items in held.items():
                own = self._held.setdefault(bucket, {})
                for item_id, value in items.items():
                    self._n_held += item_id not in own
                    own[item_id] = own.get(item_id, 0.0) + value
            raise

    async def weights(self, window_s: int) -> dict[str, float]:
        """Weight of each item in the last window_s seconds. Raises HistoryUnavailableError."""
        async with self._one_at_a_time:
            now = self._clock()
            kept = self._totals.get(window_s)
            if kept is not None and now < kept[0]:
                return kept[1]
            await self.flush()
            unit = "h" if window_s <= HOURLY_UP_TO_S else "d"
            length_s = LENGTH_S[unit]
            total: dict[str, float] = {}
            for number in range(int((now - window_s) // length_s), int(now // length_s) + 1):
                bucket = f"{unit}{number}"
                age_s = max(0.0, now - start_of(bucket) - length_s / 2)
                factor = 0.5 ** (age_s / (window_s / 2))
                for item_id, value in (await self._bucket(bucket, now)).items():
                    total[item_id] = total.get(item_id, 0.0) + factor * value
            self._totals[window_s] = now + FRESH_S, total
            return total

    async def _bucket(self, bucket: str, now: float) -> dict[str, float]:
        kept = self._read.get(bucket)
        if kept is None or now >= kept[0]:
            is_present = start_of(bucket) + LENGTH_S[bucket[0]] > now
            kept = now + (FRESH_S if is_present else OLD_FRESH_S), await self._store.read(bucket)
            self._read[bucket] = kept
            for name in [name for name in self._read if start_of(name) + KEPT_S[name[0]] < now]:
                del self._read[name]
        return kept[1]

    async def _flush_for_ever(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            with suppress(HistoryUnavailableError):
                await self.flush()
