"""A time as any source writes it, as unix seconds: numbers of every unit, dates, zones.

Knows single values. What can be read in two ways (03/04/2019) is refused by name instead of being guessed at.

| written | read as |
|---|---|
| 1588615855, 1588615855070, ...000, ...000000 | seconds, milliseconds, microseconds, nanoseconds, told apart by size |
| 20191001, 20191001T120000, 20191001120000 | a date, never a number of seconds |
| 2019-10-01, 2019/10/01 12:00:00 UTC, 2019-10-01T12:00+02:00 | a date; without a zone UTC, without a time midnight |
| 10 1, 2019; October 1, 2019; 1 Oct 2019; Tue, 1 Oct 2019 12:00:00 GMT | likewise |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

UNKNOWN = -1
"""What a time of 0 becomes: sources write 0 where they do not know it."""
_UNITS = ((10**11, 1), (10**14, 10**3), (10**17, 10**6), (10**20, 10**9))
"""Numbers below the first are in units of which the second make a second: seconds reach to the year 5138."""
PLAIN_SECONDS = (100_000_000, 10**11)
"""Whole numbers from the first to below the second are seconds and nothing else."""
_DATE = re.compile(r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:[01]\d|2[0-3])?(?:[0-5]\d)?(?:[0-5]\d)?")
_EITHER_WAY = re.compile(r"\d{1,2}[./-]\d{1,2}[./-]\d{2,4}(?!\d)")
_ZONE = re.compile(r"\s*(?:UTC|GMT|Z)$", re.IGNORECASE)
_FORMATS = (
    *("%Y/%m/%d", "%Y/%m/%d %H:%M", "%Y/%m/%d %H:%M:%S", "%Y.%m.%d", "%Y.%m.%d %H:%M:%S", "%Y-%m-%d %H:%M:%S %z"),
    *("%m %d, %Y", "%B %d, %Y", "%b %d, %Y", "%b. %d, %Y", "%d %B %Y", "%d %b %Y", "%B %d %Y", "%b %d %Y"),
    *(
        "%d %B %Y %H:%M:%S",
        "%d %b %Y %H:%M:%S",
        "%B %d, %Y %H:%M:%S",
        "%b %d, %Y %H:%M:%S",
        "%d-%b-%Y",
        "%d-%b-%Y %H:%M",
    ),
    *("%a %b %d %H:%M:%S %z %Y", "%a %b %d %H:%M:%S %Y", "%Y-%m-%d-%H.%M.%S", "%B %Y", "%b %Y"),
)


def unix_seconds(value: Any, name: str, time_format: str | None = None) -> int:
    """Whole seconds since 1970 UTC, UNKNOWN for 0. ValueError, naming the field and what was seen, where it is no time.

    time_format: for `datetime.strptime`, for texts.
    """
    if type(value) is int and PLAIN_SECONDS[0] <= value < PLAIN_SECONDS[1]:
        return value
    if isinstance(value, str):
        text = value.strip()
        if not text or text.lower() in ("nan", "null", "none", "nat", "\\n"):
            raise ValueError(f"no {name}")
        return _of_text(text, name, time_format)
    if value is None or value != value:
        raise ValueError(f"no {name}")
    if isinstance(value, datetime):
        return _of_datetime(value, name)
    if isinstance(value, date):
        return _of_datetime(datetime(value.year, value.month, value.day), name)
    if isinstance(value, Mapping) and "$date" in value:  # how MongoDB exports times
        return unix_seconds(value["$date"], name, time_format)
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        return _of_number(value, name)
    raise ValueError(f"{name} is neither a number nor a date")


def _of_number(value: float | Decimal, name: str) -> int:
    try:
        whole = int(value)
    except (OverflowError, ValueError):
        raise ValueError(f"{name} is out of range: {value}") from None
    if whole == 0:
        return UNKNOWN
    digits = str(whole)
    if len(digits) in (8, 14) and _DATE.fullmatch(digits):
        return _of_datetime(_compact(digits, name), name)
    if whole > 0:
        for limit, ticks in _UNITS:
            if whole < limit:
                return whole // ticks
    raise ValueError(f"{name} is out of range: {value}")


@lru_cache(maxsize=65_536)
def _of_text(text: str, name: str, time_format: str | None) -> int:
    if time_format is not None:
        try:
            return _of_datetime(datetime.strptime(text, time_format), name)
        except ValueError:
            raise ValueError(f"{name} is not written as --time-format says: {text[:40]}") from None
    number = _number(text)
    if number is not None:
        return _of_number(number, name)
    if _EITHER_WAY.match(text):
        raise ValueError(
            f"{name} {text[:20]} is day-first or month-first, and nothing tells which: name it by --time-format, such "
            "as %d/%m/%Y, or write 2019-10-31"
        )
    plain = _ZONE.sub("", text)
    if _DATE.fullmatch(plain):
        return _of_datetime(_compact(plain, name), name)
    try:
        return _of_datetime(datetime.fromisoformat(plain), name)
    except ValueError:
        pass
    for pattern in _FORMATS:
        try:
            return _of_datetime(datetime.strptime(plain, pattern), name)
        except ValueError:
            continue
    try:
        return _of_datetime(parsedate_to_datetime(text), name)
    except (ValueError, TypeError, IndexError):
        raise ValueError(f"{name} is neither a number nor a date: {text[:40]} (--time-format names its form)") from None


def _number(text: str) -> int | float | None:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return None
    return number if number == number and abs(number) < 1e300 else None


def _compact(digits: str, name: str) -> datetime:
    formats = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
    try:
        return datetime.strptime(digits, formats[len(digits)])
    except (KeyError, ValueError):
        raise ValueError(f"{name} is no date: {digits}") from None


def _of_datetime(value: datetime, name: str) -> int:
    try:
        seconds = int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
    except (OverflowError, ValueError):
        raise ValueError(f"{name} is out of range") from None
    if seconds < 0:
        raise ValueError(f"{name} is out of range: {value:%Y-%m-%d}")
    return seconds or UNKNOWN
