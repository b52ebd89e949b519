"""What a catalogue store promises. Stands beside its consumer, `answers/live_catalogue.py`; knows external ids only.

A store holds what was said of items since a bundle was made: new ones, what changed of known ones, and which are gone.
Every change has a version, one more than the last, so that whoever follows notices a gap. The contract suite
`tests/contract/test_catalogue_contract.py` runs over every implementation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import orjson

from rdrec_core.errors import RDRecError

StoreName = Literal["memory", "redis"]
Value = float | int | bool | str | list[str]


class CatalogueUnavailableError(RDRecError):
    """The store cannot be reached or did not answer in time; nothing is known about the outcome of a write."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class LiveItem:
    """An item as the shop describes it. What is None or empty of an item that a bundle knows is as the bundle says."""

    item_id: str
    title: str | None = None
    brand: str | None = None
    categories: tuple[str, ...] = ()
    description: str | None = None
    attributes: Mapping[str, Value] = field(default_factory=dict)
    available: bool = True
    arrived: float = 0.0
    """Seconds since 1970."""

    def to_json(self) -> str:
        """The body under which stores keep it, and `rdrec collect` finds it."""
        return orjson.dumps(asdict(self)).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> LiveItem:
        """Read what `to_json` wrote; fields of a newer writer are left out."""
        body: dict[str, Any] = orjson.loads(text)
        known = {name: body[name] for name in cls.__dataclass_fields__ if name in body}
        return cls(**{**known, "categories": tuple(known.get("categories", ()))})


@dataclass(frozen=True, slots=True)
class Stored:
    """The last that was said of an item; None: it is gone."""

    item_id: str
    version: int
    item: LiveItem | None


@dataclass(frozen=True, slots=True)
class CatalogueWrite:
    """item None deletes. expected: only if the item's version is still this one (0: nothing was said of it)."""

    item_id: str
    item: LiveItem | None
    expected: int


class Cursor(NamedTuple):
    """How far somebody has followed. A store that lost its data begins another epoch."""

    epoch: str
    version: int


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes in the order of their versions; upto: where to go on."""

    items: Sequence[Stored]
    upto: Cursor


class CatalogueStore(Protocol):
    """Safe for concurrent use on one event loop; coroutines raise CatalogueUnavailableError where they cannot."""

    @property
    def name(self) -> StoreName:
        """Where changes are kept."""
        ...

    @property
    def is_available(self) -> bool:
        """Whether the next call is expected to succeed; costs no round trip."""
        ...

    async def get(self, item_ids: Sequence[str]) -> list[Stored | None]:
        """What was said of each item, None where nothing."""
        ...

    async def put(self, writes: Sequence[CatalogueWrite]) -> list[int | None]:
        """The version of each write, None where the item had another version than expected and nothing was done."""
        ...

    async def page(self, after: str, n: int) -> list[Stored]:
        """The first n items behind the id `after`, in the order of their UTF-8 bytes, those that are gone included."""
        ...

    async def head(self) -> Cursor:
        """The newest version."""
        ...

    async def changes(self, since: Cursor, n: int) -> Changes | None:
        """The next n changes at most; None where some are no longer kept: read all pages, after a `head`."""
        ...

    async def close(self) -> None:
        """Release connections. Idempotent."""
        ...
