"""Sums by item in buckets of time: what happened to each item in an hour or on a day. Knows neither events nor windows.

A bucket's name is `h` or `d` and how many hours or days after 1970 it begins; it is kept until no window reaches it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

LENGTH_S = {"h": 3600, "d": 86_400}
KEPT_S = {"h": 49 * 3600, "d": 91 * 86_400}
READ_AT_MOST = 10_000
"""Items of a bucket that are read, those with the greatest sums."""
Sums = Mapping[str, Mapping[str, float]]
"""Bucket -> item -> how much is added."""


class Buckets(Protocol):
    """Contract suite in `tests/contract/test_buckets_contract.py`. Raises HistoryUnavailableError."""

    async def add(self, sums: Sums) -> None:
        """Add to sums."""
        ...

    async def read(self, bucket: str) -> dict[str, float]:
        """The greatest sums of a bucket by item, READ_AT_MOST of them."""
        ...


def start_of(bucket: str) -> float:
    """Seconds since 1970."""
    return float(int(bucket[1:]) * LENGTH_S[bucket[0]])


class MemoryBuckets:
    """See Buckets; of this process alone."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._sums: dict[str, dict[str, float]] = {}

    async def add(self, sums: Sums) -> None:
        """See Buckets."""
        for bucket, items in sums.items():
            own = self._sums.setdefault(bucket, {})
            for item_id, value in items.items():
                own[item_id] = own.get(item_id, 0.0) + value
        now = self._clock()
        for bucket in [name for name in self._sums if start_of(name) + KEPT_S[name[0]] < now]:
            del self._sums[bucket]

    async def read(self, bucket: str) -> dict[str, float]:
        """See Buckets."""
        own = self._sums.get(bucket, {})
        if len(own) <= READ_AT_MOST:
            return dict(own)
        return dict(sorted(own.items(), key=lambda pair: -pair[1])[:READ_AT_MOST])
