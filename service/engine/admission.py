"""How many requests may be under way in each line: learned from how much of its time each request took.

Additive growth, multiplicative cut (AIMD, as TCP's window), on a clock that the caller reads. A request that used more
than `LATE_SHARE` of the time until its deadline was late. In each window, where more than three in ten were late the
limit is cut; where hardly any was late and the limit was reached it grows; between the two it stays, so that goodput
does not swing. Knows neither HTTP nor engines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from service.telemetry.observability import StateRow
from service.wire.work import Line

LATE_SHARE = 0.5
CUT_ABOVE, CUT = 0.30, 0.85
"""Share of late requests above which the limit is cut, and to what part of itself."""
GROW_BELOW, GROWTH = 0.02, 0.05
"""Share of late requests below which a limit that was reached grows, and by what part of itself (1 at least)."""
WINDOW_S = 0.5
WINDOW_REQUESTS = 16
"""A window lasts so long, and until so many requests have ended."""
MOST: Mapping[Line, float] = {Line.INTERACTIVE: 1.0, Line.EXPLAIN: 0.25, Line.BATCH: 0.125, Line.OTHER: 1.0}
"""Part of the setting that each line's limit may reach; a batch is many requests."""
LEAST = 0.125
"""Part of the most below which no limit is cut."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that is turned away. Nothing was done for it."""

    detail: str
    retry_after_s: float


class AdaptiveLimit:
    """One line. See the module."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self.under_way = 0
        self.limit = float(most)
        self._most = float(most)
        self._least = max(1.0, most * LEAST)
        self._clock = clock
        self._window_ends = clock() + WINDOW_S
        self._ended = self._late = 0
        self._was_reached = False

    @property
    def is_full(self) -> bool:
        """Whether one more would be too many."""
        if self.under_way < int(self.limit):
            return False
        self._was_reached = True
        return True

    def enter(self) -> None:
        """A request begins."""
        self.under_way += 1

    def leave(self, share_of_time: float) -> None:
        """A request has ended, having used this share of the time until its deadline (0 where it has none)."""
        self.under_way -= 1
        self._ended += 1
        self._late += share_of_time > LATE_SHARE
        if self._ended >= WINDOW_REQUESTS and (now := self._clock()) >= self._window_ends:
            self._adjust()
            self._window_ends = now + WINDOW_S
            self._ended = self._late = 0
            self._was_reached = False

    def _adjust(self) -> None:
        late = self._late / self._ended
        if late > CUT_ABOVE:
            self.limit = max(self._least, self.limit * CUT)
        elif late < GROW_BELOW and self._was_reached:
            self.limit = min(self._most, self.limit + max(1.0, self.limit * GROWTH))


class Admission:
    """The limits of all lines. `seconds_ahead` estimates how long a request of a line would wait now."""

    def __init__(self, most: int, clock: Callable[[], float], seconds_ahead: Callable[[Line], float]) -> None:
        """most: requests under way at a time in a line that may have them all."""
        self.limits = {line: AdaptiveLimit(max(1, math.ceil(most * part)), clock) for line, part in MOST.items()}
        self._seconds_ahead = seconds_ahead

    def refusal(self, line: Line) -> Refusal | None:
        """Why a request may not begin now; None where it may."""
        limit = self.limits[line]
        if not limit.is_full:
            return None
        return Refusal(f"{limit.under_way} requests are being served already", self._seconds_ahead(line))

    def state(self) -> list[StateRow]:
        """For the metrics."""
        rows: list[StateRow] = []
        for line, limit in self.limits.items():
            labels = {"line": line.value}
            rows.append(("rdrec_admission_limit", "Requests of a line that may be under way", labels, limit.limit))
            rows.append(("rdrec_under_way", "Requests of a line that are under way", labels, float(limit.under_way)))
        return rows
