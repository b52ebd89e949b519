"""What a history store promises. Stands beside its consumer, the recommender; knows external ids only.

A store holds the histories that changed since the bundle was made. The first write of a user copies the user's base
history out of the bundle, so that afterwards the store alone knows the whole (capped) history.
The contract suite `tests/contract/test_history_contract.py` runs over every implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from rdrec_core.errors import RDRecError

StoreName = Literal["memory", "redis"]


class HistoryUnavailableError(RDRecError):
    """The store cannot be reached or did not answer in time; nothing is known about the outcome of a write."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class HistoryStore(Protocol):
    """Capped histories by external user id, oldest first. Safe for concurrent use on one event loop.

    Every method raises HistoryUnavailableError when the store cannot do what it promises.
    """

    @property
    def name(self) -> StoreName:
        """What an answer reports as its `history_source`."""
        ...

    @property
    def is_available(self) -> bool:
        """Whether the next call is expected to succeed; costs no round trip."""
        ...

    async def recent(self, user_id: str, limit: int) -> Sequence[str] | None:
        """The user's last `limit` item ids, oldest first. None: never written, so the base history holds.

        An empty sequence: the user was forgotten and the base history must not come back.
        """
        ...

    async def append(
        self,
        user_id: str,
        item_id: str,
        timestamp: float,
        *,
        base: Sequence[str] = (),
        idempotency_key: str | None = None,
    ) -> bool:
        """Add one interaction behind the others; False when it was recorded before (see `write_token`).

        timestamp: seconds since 1970. base: the bundle's history, put in front on the user's first write, in the same
        atomic step. When this returns, `recent` shows the item to every replica.
        """
        ...

    async def forget(self, user_id: str) -> None:
        """Drop the history and what is known of earlier writes; from now on `recent` is empty, without the base."""
        ...

    async def close(self) -> None:
        """Release connections. Idempotent."""
        ...


def write_token(item_id: str, timestamp: float, idempotency_key: str | None) -> str:
    """What makes two writes of one user the same: the caller's key, else the timestamp; the item in both cases.

    The item is part of it so that a key used twice by mistake never swallows another item's interaction.
    """
    return f"key:{idempotency_key}:{item_id}" if idempotency_key is not None else f"at:{timestamp!r}:{item_id}"
