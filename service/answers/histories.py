"""Histories as the service knows them: the request's, else the bundle's with the store's behind it.

A store that is out of reach costs an answer its newest interactions, not the answer; a write then fails, and says so.
Of a user who was forgotten nothing is used, wherever it lies; while the store is away its last word on that holds.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from rdrec_core.errors import InputError, RDRecError
from service.answers.events import EventKinds, event_line, forget_line
from service.engine.arm import Arm
from service.engine.lifecycle import ModelHost
from service.stores.event_log import EventLog, LogLine
from service.stores.history.base import HistoryStore, HistoryUnavailableError, Kept, Write
from service.wire.context import RequestContext
from service.wire.fields import HistorySource
from service.wire.interactions import (
    HistoryAnswer,
    HistoryItem,
    InteractionAnswer,
    InteractionRequest,
    InteractionResult,
)
from service.wire.problems import problem_answer

SYNC_EVERY_S = 5.0
"""How often replicas learn whom the others forgot, for the time in which the store may be away."""
AT_ONCE = 16
"""Users of a batch of interactions that are written at a time."""


@dataclass(frozen=True, slots=True)
class ResolvedHistory:
    """Item indices, oldest first, and where they came from."""

    items: tuple[int, ...]
    source: HistorySource
    degraded: bool = False
    user: int | None = None
    """The user's index in the arm's bundle; None for a stranger, and for who was forgotten."""


class LiveHistories:
    """One for the whole process; `cap` items of a user are read at most."""

    def __init__(
        self,
        host: ModelHost,
        store: HistoryStore,
        *,
        cap: int,
        kinds: EventKinds,
        log: EventLog | None = None,
        on_event: Callable[[str, float, float], None] = lambda item_id, weight, at: None,
    ) -> None:
        """log: files in which every event stands before it is acknowledged; None where the store keeps them, or nobody.

        on_event hears of every event that is new: item, weight, time.
        """
        self._host = host
        self._store = store
        self._cap = cap
        self._kinds = kinds
        self._log = log
        self._on_event = on_event
        self._following: asyncio.Task[None] | None = None

    async def follow(self) -> None:
        """Keep up with whom other replicas forget, until cancelled."""
        while True:
            with suppress(HistoryUnavailableError):  # what is known goes on to hold
                await self._store.sync()
            await asyncio.sleep(SYNC_EVERY_S)

    def start(self) -> None:
        """Begin to follow; needs a running event loop."""
        self._following = asyncio.create_task(self.follow())

    async def close(self) -> None:
        """End what `start` began, and the store."""
        if self._following is not None:
            self._following.cancel()
        await self._store.close()
        if self._log is not None:
            await self._log.close()

    async def append(
        self, request: InteractionRequest, idempotency_key: str | None, context: RequestContext
    ) -> InteractionAnswer:
        """Keep an interaction, also of an item that no model knows yet: it counts once one does.

        Raises HistoryUnavailableError if it is not known to be kept, InputError for an event of no known kind.
        """
        (write,) = writes = [self._write(request, time.time(), idempotency_key)]
        with context.timing("history"):
            lines = self._lines([request], writes)
            await self._logged(lines)
            (recorded,) = await self._store.append(request.user_id, writes, [line.text for line in lines])
        context.history_source = self._store.name
        return self._kept(request, write, is_new=recorded)

    async def append_all(
        self, requests: Sequence[InteractionRequest], idempotency_key: str | None, context: RequestContext
    ) -> list[InteractionResult]:
        """Keep many interactions, each user's in one step; a user whose write fails has a problem for each of them.

        Raises InputError, with nothing kept, where one is of no known kind.
        """
        now = time.time()
        results: dict[int, InteractionResult] = {}
        writes: list[Write] = []
        by_user: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            key = None if idempotency_key is None else f"{idempotency_key}:{place}"
            try:
                writes.append(self._write(request, now + place * 1e-6, key))
            except InputError as error:
                raise InputError(str(error), field=f"interactions[{place}].event") from error
            by_user.setdefault(request.user_id, []).append(place)
        lines = self._lines(requests, writes)
        places = asyncio.Semaphore(AT_ONCE)

        async def write(user_id: str, own: list[int]) -> None:
            try:
                async with places:
                    log = [lines[n].text for n in own]
                    recorded = await self._store.append(user_id, [writes[n] for n in own], log)
            except RDRecError as error:
                results.update({n: _failed(error, context) for n in own})
                return
            for n, is_new in zip(own, recorded, strict=True):
                answer = self._kept(requests[n], writes[n], is_new=is_new)
                results[n] = InteractionResult(
                    status=201, recorded=is_new, known_to_model=answer.known_to_model, event_id=answer.event_id
                )

        with context.timing("history"):
            await self._logged(lines)
            await asyncio.gather(*(write(user_id, own) for user_id, own in by_user.items()))
        context.history_source = self._store.name
        return [results[n] for n in range(len(requests))]

    def _write(self, request: InteractionRequest, now: float, key: str | None) -> Write:
        return self._kinds.write(request, now if request.timestamp is None else request.timestamp, key)

    def _lines(self, requests: Sequence[InteractionRequest], writes: Sequence[Write]) -> list[LogLine]:
        now = time.time()
        return [
            event_line(request, write, received=now, known_to_model=self._is_known(request))
            for request, write in zip(requests, writes, strict=True)
        ]

    async def _logged(self, lines: Sequence[LogLine]) -> None:
        """Into the files, ahead of the store: what is acknowledged must not be missing there."""
        if self._log is not None and lines:
            await self._log.append(lines)

    def _kept(self, request: InteractionRequest, write: Write, *, is_new: bool) -> InteractionAnswer:
        known = self._is_known(request)
        weight = self._kinds.weights[request.event]
        if is_new and known and weight:
            self._on_event(request.item_id, weight, write.timestamp)
        return InteractionAnswer(
            recorded=is_new, history_source=self._store.name, known_to_model=known,
            event_id=write.event_id(request.user_id),
        )  # fmt: skip

    async def read(self, user_id: str, limit: int, context: RequestContext) -> HistoryAnswer:
        """What is known of the user: what the bundle has, and behind it what the store has."""
        with self._host.lease(user_id) as arm:
            user = arm.find_user(user_id)
            kept, degraded = await self._recalled(user_id, context)
            ids, source = self._known(arm, user, kept, degraded)
            context.history_source, context.degraded = source, degraded
            return HistoryAnswer(
                user_id=user_id,
                history_source=source,
                degraded=degraded,
                items=[
                    HistoryItem(item_id=item_id, title=None if index is None else arm.items.title(index))
                    for item_id, index in ((i, arm.find_item(i)) for i in ids[max(0, len(ids) - limit) :])
                ],
            )

    async def forget(self, user_id: str, context: RequestContext) -> None:
        """Forget the user, here and at every replica. Raises HistoryUnavailableError if that is not known to hold."""
        in_bundle = any(arm.find_user(user_id) is not None for arm in self._host.arms.values())
        line = forget_line(user_id, received=time.time())
        with context.timing("history"):
            await self._logged([line])
            await self._store.forget(user_id, in_bundle=in_bundle, log=line.text)

    async def not_forgotten(self, user_ids: Sequence[str]) -> list[str]:
        """Those who may be listed. Raises HistoryUnavailableError where nobody can say."""
        forgotten = await self._store.forgotten(user_ids)
        return [user_id for user_id in user_ids if user_id not in forgotten]

    def _is_known(self, request: InteractionRequest) -> bool:
        with self._host.lease(request.user_id) as arm:
            return arm.find_item(request.item_id) is not None

    def _known(self, arm: Arm, user: int | None, kept: Kept, degraded: bool) -> tuple[Sequence[str], HistorySource]:
        """Item ids oldest first, and their source."""
        base = [] if user is None or kept.is_forgotten else self._base_ids(arm, user)
        if degraded:
            return base, "bundle" if base else "none"
        if not kept.purchases and not kept.is_forgotten:
            return base, "bundle" if user is not None else "none"
        ids = with_newer(base, kept.purchases, made_at=arm.made_at)
        return ids[max(0, len(ids) - self._cap) :], self._store.name

    async def _recalled(self, user_id: str, context: RequestContext) -> tuple[Kept, bool]:
        """What the store has, and whether it was away."""
        with context.timing("history"):
            try:
                return await self._store.recent(user_id, self._cap), False
            except HistoryUnavailableError:
                return Kept(is_forgotten=not self._store.may_use_bundle(user_id)), True

    def _base_ids(self, arm: Arm, user: int) -> list[str]:
        return [arm.name_of(int(index))[0] for index in arm.users.history(user)]

    async def resolve(
        self, arm: Arm, user_id: str | None, user: int | None, given: tuple[int, ...] | None, context: RequestContext
    ) -> ResolvedHistory:
        """The history that an answer is made from: the request's, else the store's, else the bundle's.

        user: the user's index in the arm's bundle. given: the request's history, None where it has none.
        """
        if given is not None and user is None:
            return ResolvedHistory(given, "request" if given else "none")
        if user_id is None:
            return ResolvedHistory((), "none")
        kept, degraded = await self._recalled(user_id, context)
        if kept.is_forgotten:
            user = None
        if given is not None:
            return ResolvedHistory(given, "request" if given else "none", user=user)
        if user is not None and not kept.purchases:  # nothing to put together: indices as they are
            base = tuple(arm.users.history(user).tolist())
            return ResolvedHistory(base, "none" if degraded and not base else "bundle", degraded, user)
        ids, source = self._known(arm, user, kept, degraded)
        found = (arm.find_item(item_id) for item_id in ids)  # an item may be newer than the model, or gone
        return ResolvedHistory(tuple(index for index in found if index is not None), source, degraded, user)


def _failed(error: RDRecError, context: RequestContext) -> InteractionResult:
    problem = problem_answer(error, context.request_id)
    return InteractionResult(status=problem.status, problem=problem)


def with_newer(base: Sequence[str], newer: Sequence[tuple[str, float]], *, made_at: float) -> list[str]:
    """The bundle's history and behind it what the store has beside it.

    A purchase from before the bundle was made, of an item that the bundle's history has, is the same purchase: the data
    that the bundle was made from came from the same shop. Anything else is kept, whenever it happened.
    """
    left = Counter(base)
    added = []
    for item_id, timestamp in newer:
        if timestamp <= made_at and left[item_id] > 0:
            left[item_id] -= 1
        else:
            added.append(item_id)
    return [*base, *added]
