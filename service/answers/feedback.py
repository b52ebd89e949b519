"""What became of a list that was answered, counted by arm: each item and event of a list once. Knows no users."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from rdrec_core.errors import UnknownItemError
from service.answers.events import EventKinds
from service.answers.impressions import Impressions
from service.stores.history.base import HistoryUnavailableError
from service.stores.marks import Marks
from service.telemetry.observability import Metrics
from service.wire.feedback import FeedbackAnswer, FeedbackRequest

ASK_AGAIN_S = 1.0
"""How long after a failure the key of the impressions is asked for again."""


class Feedback:
    """One for the whole process."""

    def __init__(self, impressions: Impressions, marks: Marks, kinds: EventKinds, metrics: Metrics) -> None:
        self._impressions = impressions
        self._marks = marks
        self._kinds = kinds
        self._metrics = metrics
        self._asking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to share the key of the impressions with the other replicas; needs a running event loop."""
        self._asking = asyncio.create_task(self._share_secret())

    async def close(self) -> None:
        """End what `start` began."""
        if self._asking is not None:
            self._asking.cancel()

    async def take(self, request: FeedbackRequest) -> FeedbackAnswer:
        """Count the event, unless it was counted before.

        Raises UnknownImpressionError, OldImpressionError, InputError naming the field (UnknownItemError for an item
        that is not in the list), and HistoryUnavailableError.
        """
        self._kinds.check(request.event)
        impression = self._impressions.read(request.impression_id)
        rank = impression.rank_of(request.item_id)
        if rank is None:
            raise UnknownItemError("the item is not in the list of this impression_id", field="item_id")
        marks = [f"{request.event}:{request.item_id}", "taken"]
        if request.event in self._kinds.history:
            marks.append("converted")
        is_new, is_first, *converted = await self._marks.put(impression.name, marks)
        if is_new:
            self._metrics.feedback.labels(impression.arm, request.event).inc()
            self._metrics.taken_rank.labels(impression.arm).observe(rank)
        if is_first:
            self._metrics.taken.labels(impression.arm).inc()
        if any(converted):
            self._metrics.converted.labels(impression.arm).inc()
        return FeedbackAnswer(recorded=is_new, arm=impression.arm, rank=rank)

    async def _share_secret(self) -> None:
        while True:
            with suppress(HistoryUnavailableError):
                self._impressions.adopt(await self._marks.secret())
                return
            await asyncio.sleep(ASK_AGAIN_S)
