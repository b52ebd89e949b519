"""When a call is tried again, and after how long. Pure: the random generator is passed in, nothing sleeps here.

Repeating is harmless: readings change nothing, and a write carries an idempotency key. Administration is repeated
only by callers who ask for it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

RETRIED = frozenset({429, 502, 503})
"""Full, between two processes (said by a proxy), not now. Not 504: who waited that long already should decide."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """At most `attempts` tries. Waits what Retry-After says, else a random time below `base_s` * 2^(try - 1)."""

    attempts: int = 4
    base_s: float = 0.2
    longest_wait_s: float = 10.0
    """A longer Retry-After is not waited for: the error is raised, and the caller decides."""

    def wait_s(
        self, attempt: int, rng: random.Random, *, status: int | None = None, retry_after_s: float | None = None
    ) -> float | None:
        """Seconds until the next try after the failed try number `attempt` (1 is the first), or None to give up.

        status None: no answer came. A stated time is lengthened by up to a tenth, so that not all come back at once.
        """
        if attempt >= self.attempts or (status is not None and status not in RETRIED):
            return None
        if retry_after_s is None:
            return rng.uniform(0, min(self.longest_wait_s, self.base_s * 2 ** (attempt - 1)))
        if retry_after_s > self.longest_wait_s:
            return None
        return retry_after_s * (1 + 0.1 * rng.random())


def read_retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds of the header Retry-After, in either of its forms (RFC 9110); None if absent or unreadable."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())
