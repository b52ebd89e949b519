"""Stops asking a server that keeps failing, and lets one request try again after a while. Knows no server.

closed: every attempt goes through. open: attempts are refused at once. half-open, `open_for_s` later: one attempt goes
through and decides.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

BreakerState = Literal["closed", "open", "half-open"]


class BreakerOpenError(Exception):
    """The attempt was refused; worth trying again in `retry_after_s`."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"not tried again for another {retry_after_s:.1f} s")
        self.retry_after_s = retry_after_s


class CircuitBreaker:
    """Opens when `failures` of the last `window` attempts failed. `clock` counts seconds, monotonic.

    A share of the latest attempts rather than a row of failures: a server that answers every other time in time would
    otherwise keep it closed for ever. Half of them rather than a few: one dead shard of three should not keep it open.
    For one event loop; not thread-safe.
    """

    def __init__(
        self, clock: Callable[[], float], *, failures: int = 10, window: int = 20, open_for_s: float = 1.0
    ) -> None:
        self._clock = clock
        self._failures = failures
        self._open_for_s = open_for_s
        self._failed: deque[bool] = deque(maxlen=window)
        self._opened_at: float | None = None
        self._probing = False

    @property
    def state(self) -> BreakerState:
        """Whether the next attempt goes through (closed, half-open) or is refused (open)."""
        if self._opened_at is None:
            return "closed"
        return "open" if self._probing or self._remaining_s() > 0 else "half-open"

    @contextmanager
    def attempt(self, failures: tuple[type[BaseException], ...]) -> Iterator[None]:
        """Count the block as failed if it raises one of `failures`, as a success if it ends in another way.

        A cancelled block says nothing about the server and is not counted. Raises BreakerOpenError instead of
        entering the block.
        """
        state = self.state
        if state == "open":
            raise BreakerOpenError(max(self._remaining_s(), 0.1))
        probe = state == "half-open"
        self._probing = self._probing or probe
        try:
            yield
        except failures:
            self._record_failure()
            raise
        except Exception:  # the server answered, if only to refuse
            self._record_success()
            raise
        else:
            self._record_success()
        finally:
            if probe:
                self._probing = False

    def _remaining_s(self) -> float:
        assert self._opened_at is not None
        return self._opened_at + self._open_for_s - self._clock()

    def _record_success(self) -> None:
        if self._opened_at is not None:
            self._opened_at = None
            self._failed.clear()
        self._failed.append(False)

    def _record_failure(self) -> None:
        self._failed.append(True)
        if self._opened_at is not None or sum(self._failed) >= self._failures:
            self._opened_at = self._clock()
