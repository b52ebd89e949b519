"""Histories in this process: the default store. Needs no server, is not shared and does not outlive the process."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence

from service.stores.history.base import StoreName, write_token


class _UserHistory:
    """One user's items and the tokens of the latest writes, both capped."""

    def __init__(self, items: Sequence[str], cap: int) -> None:
        self.items = deque(items, maxlen=cap)
        self._order: deque[str] = deque()
        self._tokens: set[str] = set()
        self._cap = cap

    def append(self, item_id: str, token: str) -> bool:
        if token in self._tokens:
            return False
        if len(self._order) == self._cap:
            self._tokens.discard(self._order.popleft())
        self._order.append(token)
        self._tokens.add(token)
        self.items.append(item_id)
        return True


class MemoryHistoryStore:
    """See HistoryStore. Keeps `cap` items a user; past `max_users` the one written to longest ago is dropped."""

    name: StoreName = "memory"
    is_available = True

    def __init__(self, *, cap: int = 200, max_users: int = 1_000_000) -> None:
        self._cap = cap
        self._max_users = max_users
        self._users: OrderedDict[str, _UserHistory] = OrderedDict()

    async def recent(self, user_id: str, limit: int) -> Sequence[str] | None:
        """See HistoryStore."""
        history = self._users.get(user_id)
        return None if history is None else list(history.items)[max(0, len(history.items) - limit) :]

    async def append(
        self,
        user_id: str,
        item_id: str,
        timestamp: float,
        *,
        base: Sequence[str] = (),
        idempotency_key: str | None = None,
    ) -> bool:
        """See HistoryStore."""
        history = self._users.get(user_id) or self._put(user_id, base)
        self._users.move_to_end(user_id)
        return history.append(item_id, write_token(item_id, timestamp, idempotency_key))

    async def forget(self, user_id: str) -> None:
        """See HistoryStore."""
        self._put(user_id, ())

    async def close(self) -> None:
        """Nothing to release."""

    def _put(self, user_id: str, items: Sequence[str]) -> _UserHistory:
        self._users[user_id] = history = _UserHistory(items, self._cap)
        if len(self._users) > self._max_users:
            self._users.popitem(last=False)
        return history
