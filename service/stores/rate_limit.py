"""How often one API key may ask: token buckets. The Protocol and the buckets of this process; knows nothing of HTTP."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RateLimit:
    """`per_s` tokens flow in each second, up to `burst`; a request costs one (a batch: one for each of its parts)."""

    per_s: float
    burst: int


class RateLimiter(Protocol):
    """Takes tokens out of named buckets; contract suite in `tests/contract/test_rate_limit_contract.py`."""

    async def take(self, bucket: str, limit: RateLimit, cost: int = 1) -> float:
        """0.0 if the tokens were taken, else the seconds until they will be there (nothing was taken).

        A cost above the burst is treated as the burst, so that it passes on a full bucket. Never raises: a limiter
        whose server is down falls back to limiting in this process.
        """
        ...


class MemoryRateLimiter:
    """See RateLimiter; limits this process only. `clock` counts seconds, monotonic."""

    def __init__(self, clock: Callable[[], float], *, max_buckets: int = 10_000) -> None:
        self._clock = clock
        self._max_buckets = max_buckets
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def take(self, bucket: str, limit: RateLimit, cost: int = 1) -> float:
        """See RateLimiter."""
        now = self._clock()
        tokens, then = self._buckets.pop(bucket, (float(limit.burst), now))
        tokens = min(float(limit.burst), tokens + (now - then) * limit.per_s)
        wanted = min(cost, limit.burst)
        wait_s = 0.0 if tokens >= wanted else (wanted - tokens) / limit.per_s
        self._buckets[bucket] = (tokens - wanted if wait_s == 0.0 else tokens, now)
        if len(self._buckets) > self._max_buckets:
            self._buckets.popitem(last=False)
        return wait_s
