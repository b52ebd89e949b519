"""Histories as the service knows them: the request's, else the store's, else the bundle's. Reads, writes, forgets.

A store that is out of reach costs an answer its newest interactions, not the answer; a write then fails, and says so.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from service.engine.arm import Arm
from service.engine.lifecycle import ModelHost
from service.stores.history.base import HistoryStore, HistoryUnavailableError
from service.wire.context import RequestContext
from service.wire.schemas import HistoryAnswer, HistoryItem, HistorySource, InteractionAnswer, InteractionRequest


@dataclass(frozen=True, slots=True)
class ResolvedHistory:
    """Item indices, oldest first, and where they came from."""

    items: tuple[int, ...]
    source: HistorySource
    degraded: bool = False


class LiveHistories:
    """One for the whole process; `cap` items of a user are read at most."""

    def __init__(self, host: ModelHost, store: HistoryStore, *, cap: int) -> None:
        self._host = host
        self._store = store
        self._cap = cap

    async def append(
        self, request: InteractionRequest, idempotency_key: str | None, context: RequestContext
    ) -> InteractionAnswer:
        """Keep an interaction, also of an item that no model knows yet: it counts once one does.

        Raises HistoryUnavailableError if it is not known to be kept.
        """
        with self._host.lease(request.user_id) as arm:
            is_known = arm.find_item(request.item_id) is not None
            user = arm.find_user(request.user_id)
            base = [] if user is None else self._base_ids(arm, user)
        with context.timing("history"):
            recorded = await self._store.append(
                request.user_id,
                request.item_id,
                time.time() if request.timestamp is None else request.timestamp,
                base=base,
                idempotency_key=idempotency_key,
            )
        context.history_source = self._store.name
        return InteractionAnswer(recorded=recorded, history_source=self._store.name, known_to_model=is_known)

    async def read(self, user_id: str, limit: int, context: RequestContext) -> HistoryAnswer:
        """What is known of the user, from the store, else from the bundle."""
        with self._host.lease(user_id) as arm:
            user = arm.find_user(user_id)
            ids, source, degraded = await self._stored(arm, user_id, user, limit, context)
            items = [(item_id, arm.find_item(item_id)) for item_id in ids[max(0, len(ids) - limit) :]]
            context.history_source, context.degraded = source, degraded
            return HistoryAnswer(
                user_id=user_id,
                history_source=source,
                degraded=degraded,
                items=[
                    HistoryItem(item_id=item_id, title=None if index is None else arm.catalog.title(index))
                    for item_id, index in items
                ],
            )

    async def forget(self, user_id: str, context: RequestContext) -> None:
        """Drop the user's history. Raises HistoryUnavailableError if it is not known to be gone."""
        with context.timing("history"):
            await self._store.forget(user_id)

    def _base_ids(self, arm: Arm, user: int) -> list[str]:
        items = arm.users.history(user)
        return [arm.catalog.item_ids[int(index)] for index in items[-self._cap :]]

    async def _stored(
        self, arm: Arm, user_id: str, user: int | None, limit: int, context: RequestContext
    ) -> tuple[Sequence[str], HistorySource, bool]:
        degraded = False
        with context.timing("history"):
            try:
                stored = await self._store.recent(user_id, limit)
            except HistoryUnavailableError:
                stored, degraded = None, True
        if stored is not None:
            return stored, self._store.name, False
        if user is not None:
            return self._base_ids(arm, user), "bundle", degraded
        return (), "none", degraded

    async def resolve(
        self, arm: Arm, user_id: str | None, user: int | None, given: tuple[int, ...] | None, context: RequestContext
    ) -> ResolvedHistory:
        """The history that an answer is made from: the request's, else the store's, else the bundle's.

        user: the user's index in the arm's bundle. given: the request's history, None where it has none.
        """
        if given is not None:
            return ResolvedHistory(given, "request" if given else "none")
        if user_id is None:
            return ResolvedHistory((), "none")
        ids, source, degraded = await self._stored(arm, user_id, user, self._cap, context)
        found = (arm.find_item(item_id) for item_id in ids)  # an item may have left the catalogue since it was written
        return ResolvedHistory(tuple(index for index in found if index is not None), source, degraded)
