"""What a history store promises. Stands beside its consumer, the recommender; knows external ids only.

A store holds what is newer than the bundle and nothing of what the bundle has: purchases since, and who was forgotten.
The contract suite `tests/contract/test_history_contract.py` runs over every implementation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from typing import Literal, Protocol

from rdrec_core.errors import RDRecError

StoreName = Literal["memory", "redis"]


class HistoryUnavailableError(RDRecError):
    """The store cannot be reached or did not answer in time; nothing is known about the outcome of a write."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


PURCHASE = "purchase"


@dataclass(frozen=True, slots=True)
class Write:
    """One event to be kept. timestamp: seconds since 1970."""

    item_id: str
    timestamp: float
    idempotency_key: str | None = None
    event: str = PURCHASE
    in_history: bool = True
    """False: it is no part of the history; its repetition is known all the same."""

    @property
    def token(self) -> bytes:
        """What makes two writes of one user the same: the caller's key, else the timestamp; event and item in any case.

        The item is part of it so that a key used twice by mistake never swallows another item's interaction. 96 bits:
        two of a user's last writes meet by chance once in 10^24.
        """
        key = self.idempotency_key
        said = f"key:{key}:{self.item_id}" if key is not None else f"at:{self.timestamp!r}:{self.item_id}"
        if self.event != PURCHASE:
            said = f"event:{self.event}:{said}"
        return hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=12).digest()

    def event_id(self, user_id: str) -> str:
        """Names the event in the log; the same for its repetition."""
        said = user_id.encode("utf-8", "surrogatepass") + b"\0" + self.token
        return hashlib.blake2b(said, digest_size=16, person=b"rdrec-event").hexdigest()


@dataclass(frozen=True, slots=True)
class Kept:
    """What a store has of a user: (item id, timestamp) in the order of the timestamps."""

    purchases: Sequence[tuple[str, float]] = field(default=())
    is_forgotten: bool = False
    """What a bundle knows of the user must not be used."""


class HistoryStore(Protocol):
    """Capped histories by external user id. Safe for concurrent use on one event loop.

    Every coroutine raises HistoryUnavailableError when the store cannot do what it promises.
    """

    @property
    def name(self) -> StoreName:
        """What an answer reports as its `history_source`."""
        ...

    @property
    def is_available(self) -> bool:
        """Whether the next call is expected to succeed; costs no round trip."""
        ...

    async def recent(self, user_id: str, limit: int) -> Kept:
        """The user's last `limit` purchases."""
        ...

    async def append(self, user_id: str, writes: Sequence[Write], log: Sequence[str] = ()) -> list[bool]:
        """Put each write where its timestamp belongs, behind what has the same one; False for one kept before.

        All or none. When this returns, `recent` shows them to every replica. log: a line each for the log of a store
        that keeps one, in which those stand that were not kept before.
        """
        ...

    async def forget(self, user_id: str, *, in_bundle: bool, log: str | None = None) -> None:
        """Drop the history, the texts written for the user, and what is known of earlier writes.

        Whoever is in a bundle or had a history is remembered as forgotten, for good; of anybody else no trace is left
        but the line for the log.
        """
        ...

    async def forgotten(self, user_ids: Sequence[str]) -> set[str]:
        """Those of the users who were forgotten."""
        ...

    async def sync(self) -> None:
        """Learn who was forgotten elsewhere, for the time in which the store may be out of reach."""
        ...

    def may_use_bundle(self, user_id: str) -> bool:
        """Whether, by the last `sync`, the user was not forgotten; False where nothing is known. No round trip."""
        ...

    def marks(self) -> Set[str] | None:
        """`mark_of` everybody who was forgotten, by the last `sync`; None where nothing is known. No round trip."""
        ...

    async def close(self) -> None:
        """Release connections. Idempotent."""
        ...


def mark_of(user_id: str) -> str:
    """What stands for a forgotten user in lists of them: 16 bytes in hex, from which the id cannot be read."""
    return hashlib.blake2b(user_id.encode("utf-8", "surrogatepass"), digest_size=16, person=b"rdrec-forget").hexdigest()


def marked(user_ids: Iterable[str], marks: set[str]) -> set[str]:
    """Users whose mark is among the marks."""
    return {user_id for user_id in user_ids if mark_of(user_id) in marks}
