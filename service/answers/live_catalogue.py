"""The live catalogue: what shops write goes to the store, and from there into every arm of every replica.

A write is acknowledged once the store has it and, if the deadline allows, once this replica answers by it. Others
follow the store's changes; one that was away for too long, and an arm that is new, reads all of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from time import time
from weakref import WeakKeyDictionary

from rdrec_core.errors import InputError, RDRecError, UnknownItemError
from rdrec_core.filters import ItemValues
from service.engine.arm import Arm
from service.engine.lifecycle import ModelHost
from service.settings import Settings
from service.stores.catalogue.base import (
    CatalogueStore,
    CatalogueUnavailableError,
    CatalogueWrite,
    Cursor,
    LiveItem,
    Stored,
    Value,
)
from service.telemetry.observability import Metrics, describe_error
from service.wire.context import RequestContext
from service.wire.items import (
    CatalogueEntry,
    CataloguePage,
    ItemAnswer,
    ItemBody,
    ItemPart,
    ItemPatch,
    ItemResult,
    ItemResults,
    SentItem,
)
from service.wire.problems import problem_answer
from service.wire.work import CatalogueConflictError, CatalogueFullError

AT_ONCE = 200
"""Changes that are read and taken over in one step."""
ATTEMPTS = 5
"""Of a write that others forestall."""
log = logging.getLogger("rdrec.service")
Change = Callable[[LiveItem | None], LiveItem | None]
"""From what was said of an item, None where nothing or where it is gone, to what is said from now on."""


@dataclass(frozen=True, slots=True)
class _Asked:
    item_id: str
    change: Change


class LiveCatalogue:
    """One for the whole process."""

    def __init__(self, host: ModelHost, store: CatalogueStore, settings: Settings, metrics: Metrics) -> None:
        self._host = host
        self._store = store
        self._poll_s = settings.catalogue_poll_ms / 1000
        self._metrics = metrics
        self._cursors: WeakKeyDictionary[Arm, Cursor] = WeakKeyDictionary()
        self._following = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to follow the store; needs a running event loop."""
        self._task = asyncio.create_task(self.follow())

    async def close(self) -> None:
        """End what `start` began, and the store."""
        if self._task is not None:
            self._task.cancel()
        await self._store.close()

    async def follow(self) -> None:
        """Keep up with what is changed elsewhere, until cancelled."""
        while True:
            try:
                await self._catch_up_all()
            except CatalogueUnavailableError:  # what is known goes on to hold
                pass
            except Exception as error:  # whatever it was, the next change must not be missed
                log.error("catalogue_not_followed", extra=describe_error(error))
            await asyncio.sleep(self._poll_s)

    async def prepare(self, arm: Arm) -> None:
        """Bring a new arm up to date before it answers; where the store is away it begins as its bundle says."""
        try:
            async with self._following:
                await self._catch_up(arm)
        except CatalogueUnavailableError as error:
            log.warning("catalogue_not_read", extra={"arm": arm.name, **describe_error(error)})

    async def put(self, item_id: str, body: ItemBody, context: RequestContext) -> tuple[ItemAnswer, bool]:
        """Say all of an item; also whether it is new. Raises CatalogueFullError, CatalogueUnavailableError."""
        now = time()
        (outcome,) = await self._write([_Asked(item_id, lambda known: _said(item_id, body, known, now))])
        is_new, stored = _outcome(outcome)
        return await self._answer(stored, context), is_new

    async def put_all(self, parts: Sequence[ItemPart], context: RequestContext) -> ItemResults:
        """Say all of many items, each with its own result; the last of equal ids holds."""
        now = time()
        latest = {part.item_id: part for part in parts}
        asked = [_Asked(i, lambda known, i=i, part=part: _said(i, part, known, now)) for i, part in latest.items()]  # type: ignore[misc]
        outcomes = dict(zip(latest, await self._write(asked), strict=True))
        is_live = await self._apply(context)
        results = []
        for part in parts:
            outcome = outcomes[part.item_id]
            if isinstance(outcome, RDRecError):
                problem = problem_answer(outcome, context.request_id)
                results.append(ItemResult(item_id=part.item_id, status=problem.status, problem=problem))
            else:
                results.append(ItemResult(item_id=part.item_id, status=201 if outcome[0] else 200))
        return ItemResults(is_live=is_live, results=results)

    async def patch(self, item_id: str, body: ItemPatch, context: RequestContext) -> ItemAnswer:
        """Change some of an item. Raises UnknownItemError where nobody knows it."""

        def change(known: LiveItem | None) -> LiveItem:
            if known is None and not self._is_in_bundle(item_id):
                raise _unknown(item_id)
            item = known or self._in_bundle(item_id)
            attributes: dict[str, Value] = dict(item.attributes)
            for name, value in (body.attributes or {}).items():
                if value is None:
                    attributes.pop(name, None)
                else:
                    attributes[name] = value
            available = item.available if body.available is None else body.available
            return replace(item, attributes=attributes, available=available)

        (outcome,) = await self._write([_Asked(item_id, change)], even_deleted=False)
        return await self._answer(_outcome(outcome)[1], context)

    async def delete(self, item_id: str, context: RequestContext) -> None:
        """Have an item recommended nowhere any more. Raises UnknownItemError where nobody ever knew it."""
        (stored,) = await self._store.get([item_id])
        if stored is None and not self._is_in_bundle(item_id):
            raise _unknown(item_id)
        if stored is None or stored.item is not None:
            (outcome,) = await self._write([_Asked(item_id, lambda known: None)])
            _outcome(outcome)
        await self._apply(context)

    async def get(self, item_id: str) -> ItemAnswer:
        """The item as it is known. Raises UnknownItemError where nobody knows it, or it was deleted."""
        (stored,) = await self._store.get([item_id])
        if stored is None and self._is_in_bundle(item_id):
            return self._described(self._in_bundle(item_id), is_live=True)
        if stored is None or stored.item is None:
            raise _unknown(item_id)
        said = self._host.primary.items.said_of(item_id)
        return self._described(stored.item, is_live=said is not None and said.version >= stored.version)

    async def page(self, after: str, n: int) -> CataloguePage:
        """What was said of items, in the order of their ids."""
        found = await self._store.page(after, n)
        entries = [
            CatalogueEntry(
                item_id=stored.item_id, version=stored.version,
                item=None if stored.item is None else SentItem.model_validate(asdict(stored.item)),
            )
            for stored in found
        ]  # fmt: skip
        return CataloguePage(items=entries, next_after=found[-1].item_id if len(found) == n else None)

    async def _write(
        self, asked: Sequence[_Asked], *, even_deleted: bool = True
    ) -> list[tuple[bool, Stored] | RDRecError]:
        """Whether each item is new, and what is stored; an error where it was not written."""
        outcomes: dict[int, tuple[bool, Stored] | RDRecError] = {}
        room = self._host.primary.items.room_left
        for _ in range(ATTEMPTS):
            left = [place for place in range(len(asked)) if place not in outcomes]
            if not left:
                break
            known = await self._store.get([asked[place].item_id for place in left])
            writes: dict[int, tuple[CatalogueWrite, bool]] = {}
            taken = 0
            for place, stored in zip(left, known, strict=True):
                item_id, before = asked[place].item_id, None if stored is None else stored.item
                try:
                    if stored is not None and before is None and not even_deleted:
                        raise _unknown(item_id)
                    item = asked[place].change(before)
                    if item is not None:
                        self._check(item)
                    if item is not None and self._host.primary.items.needs_a_place(item_id, item):
                        taken += 1
                        if taken > room:
                            self._metrics.catalogue_refused.inc()
                            raise CatalogueFullError(
                                "all places for items that the bundle does not know are taken; serve a newer bundle, or"
                                " raise RDREC_MAX_NEW_ITEMS"
                            )
                except RDRecError as error:
                    outcomes[place] = error
                    continue
                is_new = before is None and (stored is not None or not self._is_in_bundle(item_id))
                writes[place] = CatalogueWrite(item_id, item, 0 if stored is None else stored.version), is_new
            versions = await self._store.put([write for write, _ in writes.values()])
            for (place, (write, is_new)), version in zip(writes.items(), versions, strict=True):
                if version is not None:
                    outcomes[place] = is_new, Stored(write.item_id, version, write.item)
        busy = CatalogueUnavailableError("others are changing this item at the same time")
        return [outcomes.get(place, busy) for place in range(len(asked))]

    def _check(self, item: LiveItem) -> None:
        """Raises CatalogueConflictError for an attribute of another type than it has in the catalogue."""
        try:
            self._host.primary.ranker.columns.check_put(ItemValues(attributes=item.attributes))
        except InputError as error:
            raise CatalogueConflictError(str(error), field=error.field) from error

    async def _apply(self, context: RequestContext) -> bool:
        """Have this replica answer by what was written; False where that takes longer than the deadline leaves."""
        applying = asyncio.ensure_future(self._catch_up_all())
        try:
            async with asyncio.timeout(max(0.0, 0.8 * context.remaining_s())):
                await asyncio.shield(applying)
        except TimeoutError:
            applying.add_done_callback(lambda task: task.cancelled() or task.exception())
            return False
        except CatalogueUnavailableError:  # it is written; the following goes on
            return False
        return True

    async def _answer(self, stored: Stored, context: RequestContext) -> ItemAnswer:
        assert stored.item is not None
        return self._described(stored.item, is_live=await self._apply(context))

    def _described(self, item: LiveItem, *, is_live: bool) -> ItemAnswer:
        known = self._is_in_bundle(item.item_id)
        return ItemAnswer.model_validate({**asdict(item), "known_to_model": known, "is_live": is_live})

    async def _catch_up_all(self) -> None:
        async with self._following:
            for arm in self._host.arms.values():
                await self._catch_up(arm)

    async def _catch_up(self, arm: Arm) -> None:
        """Bring one arm up to the store's newest change."""
        while (cursor := self._cursors.get(arm)) is not None:
            changes = await self._store.changes(cursor, AT_ONCE)
            if changes is None:
                break
            if changes.items:
                await arm.take(changes.items)
            self._cursors[arm] = changes.upto
            if len(changes.items) < AT_ONCE:
                return
        head, after, kept = await self._store.head(), "", set[str]()
        is_other = cursor is not None and cursor.epoch != head.epoch
        if cursor is not None:
            log.warning("catalogue_read_anew", extra={"arm": arm.name, "store_lost_it": is_other})
        if is_other:
            arm.items.forget_versions()
        while page := await self._store.page(after, AT_ONCE):
            await arm.take(page)
            kept.update(stored.item_id for stored in page)
            after = page[-1].item_id
        if is_other:
            await arm.take([], kept=kept)
        self._cursors[arm] = head

    def _is_in_bundle(self, item_id: str) -> bool:
        return self._host.primary.items.knows(item_id)

    def _in_bundle(self, item_id: str) -> LiveItem:
        """What the bundle says of an item."""
        arm = self._host.primary
        index = arm.items.in_bundle(item_id)
        assert index is not None
        said = arm.ranker.columns.values_of(index)
        return LiveItem(
            item_id, arm.items.title(index), said.brand, said.categories, None, said.attributes,
            bool(arm.items.available[index]), arm.made_at if said.arrived is None else said.arrived,
        )  # fmt: skip


def _said(item_id: str, body: ItemBody, known: LiveItem | None, now: float) -> LiveItem:
    attributes: Mapping[str, Value] = body.attributes
    return LiveItem(
        item_id, body.title, body.brand, tuple(body.categories), body.description, attributes, body.available,
        now if known is None else known.arrived,
    )  # fmt: skip


def _outcome(outcome: tuple[bool, Stored] | RDRecError) -> tuple[bool, Stored]:
    if isinstance(outcome, RDRecError):
        raise outcome
    return outcome


def _unknown(item_id: str) -> UnknownItemError:
    shown = item_id.encode("utf-8", "replace").decode()
    return UnknownItemError(f"item {shown!r} is neither in the bundle nor was it added", field="item_id")
