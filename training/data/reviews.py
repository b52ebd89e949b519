"""One interaction, with or without a review: the names of its fields, and a row of any origin as a record.

Knows the published names (Amazon 2014, 2018, 2023, RecBole, MovieLens, RetailRocket, H&M) and what shops' logs call
things; not files or blocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import pyarrow as pa

from rdrec_core.errors import InputError
from training.data.times import unix_seconds
from training.data.values import Notes, identifier, rating
from training.data.words import clean, clean_name

Order = Literal["time", "file"]

RECORDS = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("timestamp", pa.int64()),  # unix seconds; null where the source has none or writes 0
        ("rating", pa.float32()),
        ("text", pa.string()),  # cleaned; "" where there is none
        ("title", pa.string()),  # the item's, where the table names it
        ("weight", pa.float32()),  # of the kind of event; 1 where kinds are not told apart
    ]
)
"""What every reader of reviews makes; nulls where the source has no such column."""

NAMES: Mapping[str, tuple[str, ...]] = {
    "user": (
        *(
            "user",
            "userid",
            "reviewerid",
            "customerid",
            "customer",
            "visitorid",
            "visitor",
            "uid",
            "memberid",
            "clientid",
        ),
        *("accountid", "buyerid", "username", "authorid", "reviewername"),
    ),
    "item": (
        *(
            "item",
            "itemid",
            "parentasin",
            "asin",
            "productid",
            "product",
            "articleid",
            "sku",
            "movieid",
            "bookid",
            "isbn",
        ),
        *("gameid", "songid", "trackid", "businessid", "iid", "offerid"),
    ),
    "text": ("text", "review", "reviewtext", "reviewbody", "reviewcontent", "comment", "body", "content"),
    "rating": ("rating", "overall", "stars", "starrating", "score", "bookrating", "rate"),
    "timestamp": (
        *(
            "timestamp",
            "time",
            "unixreviewtime",
            "unixtime",
            "ts",
            "datetime",
            "date",
            "eventtime",
            "eventdate",
            "createdat",
        ),
        *("created", "reviewdate", "purchasedate", "orderdate", "purchasetime", "ordertime", "tdat", "invoicedate"),
        *("interactiontime", "eventtimestamp", "timestampms", "unixtimestamp", "reviewtime", "dateadded"),
    ),
    "title": ("itemtitle", "producttitle", "productname", "prodname", "itemname"),
    "event": ("event", "eventtype", "eventname", "behaviortype", "behaviourtype", "behavior", "behaviour", "action"),
}
"""What a field is called, in lower case without punctuation, the best first; understood without `--columns`.

`title` alone is not the item's name: in reviews it is the headline.
"""
ROLES = tuple(NAMES)
HEADLINE = "title"


@lru_cache(maxsize=4096)
def plain_name(name: str) -> str:
    """`User-ID`, `user_id` and RecBole's `user_id:token` are one name."""
    return re.sub(r"[^a-z0-9]", "", re.sub(r":(?:token|float|token_seq|float_seq)$", "", str(name).strip().lower()))


@dataclass(frozen=True)
class Wanted:
    """The options that decide which rows of reviews are kept and how they are read."""

    order: Order = "time"
    min_rating: float | None = None
    event_column: str | None = None
    events: Mapping[str, float] | None = None
    """Kind of event -> weight, in lower case; None: every kind, alike."""
    time_format: str | None = None
    titles_elsewhere: bool = False
    """Whether there is metadata, so that a column chosen for titles may be there."""


@dataclass(frozen=True)
class ReviewNames:
    """The field of each role; an alternative of `item` is read where the one before it is missing."""

    user: str
    item: tuple[str, ...]
    timestamp: str | None = None
    text: str | None = None
    rating: str | None = None
    title: str | None = None
    event: str | None = None
    wanted: Wanted = field(default_factory=Wanted)

    @property
    def columns(self) -> list[str]:
        """Every field that is read."""
        given = (self.user, *self.item, self.timestamp, self.text, self.rating, self.title, self.event)
        return list(dict.fromkeys(name for name in given if name is not None))


class Dropped(Exception):  # noqa: N818 - an outcome, no error
    """A sound row that the options leave out."""


def match_names(fields: Iterable[str], chosen: Mapping[str, str], wanted: Wanted, source: str) -> ReviewNames:
    """Which field has which role. `chosen` (`--columns`) wins over NAMES.

    Raises InputError where a chosen field is missing, or none is there for the user, the item or the time.
    """
    there = list(fields)
    by_name: dict[str, str] = {}
    for name in there:
        by_name.setdefault(plain_name(name), name)
    has = f"it has {', '.join(map(str, there[:30]))}"
    matched: dict[str, list[str]] = {}
    asked = {role: column for role, column in chosen.items() if role in NAMES}
    if wanted.event_column is not None:
        asked["event"] = wanted.event_column
    for role, guesses in NAMES.items():
        if role in asked:
            if asked[role] in there:
                matched[role] = [asked[role]]
                continue
            if role != "title" or not wanted.titles_elsewhere:
                raise InputError(f"--columns {role}={asked[role]}: {source} has no such column; {has}", field="columns")
        found = [by_name[guess] for guess in guesses if guess in by_name]
        if found:
            matched[role] = found
    for role in ("user", "item"):
        if role not in matched:
            raise InputError(
                f"{source} has no column for the {role}; name it by --columns {role}=... ({has})", field="columns"
            )
    if wanted.events is not None and "event" not in matched:
        raise InputError(
            f"{source} has no column for the kind of event; name it by --event-column ({has})", field="event_column"
        )
    if "timestamp" not in matched and wanted.order == "time":
        raise InputError(
            f"{source} has no column for the time; name it by --columns timestamp=..., or, if its lines are in order "
            f"of time, say so by --order file ({has})",
            field="columns",
        )
    single = {role: names[0] for role, names in matched.items() if role != "item"}
    return ReviewNames(**single, item=tuple(matched["item"][:1] if "item" in asked else matched["item"]), wanted=wanted)


def review_row(row: Mapping[str, Any], names: ReviewNames, notes: Notes) -> tuple[Any, ...]:
    """A record in the order of RECORDS. ValueError for a bad row, Dropped for one that the options leave out."""
    user = identifier(row.get(names.user), names.user, notes)
    item = _item(row, names, notes)
    wanted = names.wanted
    seconds = None
    if names.timestamp is not None and (wanted.order == "time" or row.get(names.timestamp) not in (None, "")):
        seconds = unix_seconds(row.get(names.timestamp), names.timestamp, wanted.time_format)
        if seconds < 0:
            notes.add(
                f"times of 0, taken for unknown: the first in the user's history ({names.timestamp})", f"user {user}"
            )
            seconds = None
    stars = rating(row.get(names.rating), notes) if names.rating is not None else None
    weight = 1.0
    if names.event is not None:
        kind = str(row.get(names.event) or "").strip().lower()
        if wanted.events is not None:
            weight = wanted.events.get(kind, 0.0)
            if weight <= 0:
                raise Dropped(f"kind of event not chosen by --events: {kind or 'none'}")
        else:
            notes.add(
                f"events of kind {kind or 'none'}, which count like every other kind (--events chooses)", f"user {user}"
            )
    if wanted.min_rating is not None and stars is not None and stars < wanted.min_rating:
        raise Dropped(f"rating below --min-rating {wanted.min_rating:g}")
    return (
        user,
        item,
        seconds,
        stars,
        clean(row.get(names.text)) if names.text is not None else "",
        clean_name(row.get(names.title)) or None if names.title is not None else None,
        weight,
    )


def _item(row: Mapping[str, Any], names: ReviewNames, notes: Notes) -> str:
    for name in names.item[:-1]:
        value = row.get(name)
        if value is not None and value != "":
            return identifier(value, name, notes)
    return identifier(row.get(names.item[-1]), names.item[0], notes)
