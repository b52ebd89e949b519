"""A history store as tests like to ask it: one write at a time, item ids alone."""

from __future__ import annotations

from service.stores.history.base import HistoryStore, Write


async def add(
    store: HistoryStore, user: str, item: str, timestamp: float, *, idempotency_key: str | None = None
) -> bool:
    (recorded,) = await store.append(user, [Write(item, timestamp, idempotency_key)])
    return recorded


async def recent(store: HistoryStore, user: str, limit: int = 100) -> list[str] | None:
    """Item ids; None for a user of whom the store knows nothing, empty for a forgotten one."""
    kept = await store.recent(user, limit)
    return [item for item, _ in kept.purchases] if kept.purchases or kept.is_forgotten else None
