"""Single values of a record, ids and ratings, and the note that is taken of every guess made on the way.

Knows values, not formats. An id is never repaired into another one: what it cannot be is refused with the reason.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from training.data.words import NOTHING

MAX_ID = 128
"""Characters of an id; the service takes no longer ones, so nobody could ask about them."""
_SPREADSHEET = re.compile(r"\d(?:[.,]\d+)?E\+\d{1,3}", re.IGNORECASE)
_LONGEST_NOTHING = max(map(len, NOTHING))

RATING_UNREAD = "ratings that are no number, kept as unknown"
FLOAT_IDS = "ids written as decimals, read as the whole numbers that they were"
SPREADSHEET_IDS = "ids that a spreadsheet has shortened, so that several may be one (save the column as text)"


class Missing(ValueError):  # noqa: N818 - of a row
    """A row without an id, or with a word for nothing in its place: a guest's order, no damage."""


@dataclass
class Notes:
    """What was guessed or looks damaged: kind -> how often, with the first example."""

    seen: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, kind: str, example: str, n: int = 1) -> None:
        """Count a guess."""
        count, first = self.seen.get(kind, (0, example))
        self.seen[kind] = (count + n, first)

    @property
    def total(self) -> int:
        """Of all kinds."""
        return sum(count for count, _ in self.seen.values())

    def merge(self, other: Notes) -> None:
        """Add another's counts; the examples of the earlier stay."""
        for kind, (count, example) in other.seen.items():
            self.add(kind, example, count)

    def lines(self) -> Iterator[str]:
        """One sentence a kind."""
        for kind, (count, example) in self.seen.items():
            yield f"{kind}: {count:,} (such as {example})"


def identifier(value: Any, name: str, notes: Notes) -> str:
    """An external id. ValueError where there is none, or none that the service could be asked about."""
    if isinstance(value, str):
        text = value.strip()
        if len(text) <= _LONGEST_NOTHING and text.lower() in NOTHING:
            raise Missing(f"no {name}")
        if not text.isascii():
            _refuse_broken(text, name)
        if text.endswith(".0") and text[:-2].isdigit():
            notes.add(FLOAT_IDS, text)
            text = text[:-2]
        elif "+" in text and _SPREADSHEET.fullmatch(text):
            notes.add(SPREADSHEET_IDS, text)
    elif isinstance(value, bool):
        raise ValueError(f"{name} is neither text nor a whole number")
    elif isinstance(value, int):
        text = str(value)
    elif isinstance(value, float):
        if math.isnan(value):
            raise Missing(f"no {name}")
        if not value.is_integer():
            raise ValueError(f"{name} is neither text nor a whole number: {value}")
        if abs(value) >= 1 << 53:
            notes.add(SPREADSHEET_IDS, repr(value))
        else:
            notes.add(FLOAT_IDS, repr(value))
        text = str(int(value))
    elif isinstance(value, bytes):
        try:
            return identifier(value.decode("utf-8"), name, notes)
        except UnicodeDecodeError:
            raise ValueError(f"{name} is not UTF-8") from None
    elif isinstance(value, dict) and isinstance(value.get("$oid"), str):  # how MongoDB exports ids
        return identifier(value["$oid"], name, notes)
    elif value is None:
        raise Missing(f"no {name}")
    elif isinstance(value, dict | list):
        raise ValueError(f"{name} is nested, as {str(value)[:40]}: write the id itself as a field, one record a line")
    else:
        raise ValueError(f"{name} is neither text nor a whole number")
    if len(text) > MAX_ID:
        raise ValueError(f"{name} has {len(text)} characters, the service takes up to {MAX_ID}: {text[:20]}...")
    return text


def _refuse_broken(text: str, name: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} holds half a character") from None


def rating(value: Any, notes: Notes) -> float | None:
    """A number, or None where there is none; what cannot be read is noted and no fault."""
    if value is None:
        return None
    if isinstance(value, str):
        value = value.strip()
        if value.lower() in NOTHING:
            return None
        if "," in value and "." not in value:
            value = value.replace(",", ".", 1)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        notes.add(RATING_UNREAD, str(value)[:40])
        return None
    if not math.isfinite(number):
        if isinstance(value, str):
            notes.add(RATING_UNREAD, value[:40])
        return None
    return number
