"""The slots of a page where nobody is known: what sells now, by events, and what is new. Asks no model."""

from __future__ import annotations

import asyncio
from functools import partial

from service.answers.event_counts import EventCounts
from service.answers.histories import ResolvedHistory
from service.answers.impressions import Impressions
from service.answers.item_names import ItemNames
from service.answers.ranking_answers import ranking_answer, where_of
from service.engine.lifecycle import ModelHost
from service.stores.buckets import LENGTH_S
from service.stores.history.base import HistoryUnavailableError
from service.wire.context import RequestContext
from service.wire.fields import FoundBy
from service.wire.rankings import LatestRequest, PopularRequest, RankingAnswer


class Shelf:
    """One for the whole process."""

    def __init__(self, host: ModelHost, counts: EventCounts, impressions: Impressions) -> None:
        self._host = host
        self._counts = counts
        self._impressions = impressions

    async def popular(self, request: PopularRequest, context: RequestContext) -> RankingAnswer:
        """What most events of the window speak for; where there are none, what the training data's purchases do.

        Raises InputError naming the field. Without the store the answer is degraded: the training data's.
        """
        window_s = int(request.window[:-1]) * LENGTH_S[request.window[-1]]
        try:
            with context.timing("history"):
                weights, degraded = await self._counts.weights(window_s), False
        except HistoryUnavailableError:
            weights, degraded = {}, True
        with self._host.lease(None, request.arm) as arm:
            found = ((arm.find_item(item_id), weight) for item_id, weight in weights.items())
            counts = {index: weight for index, weight in found if index is not None}
            names = ItemNames(arm, strict=request.strict)
            exclude = names.distinct(request.exclude, "exclude") or ()
            where = await where_of(arm, request)
            ranking = await asyncio.to_thread(
                arm.ranker.popular, request.n_items, counts, exclude=exclude, where=where
            )  # fmt: skip
            by_events = any(index in counts for index in ranking.item_indices.tolist())
            source = ResolvedHistory((), "none", degraded)
            found_by: FoundBy = "events" if by_events else "popularity"
            return self._impressions.shown(ranking_answer(arm, ranking, found_by, source, names, context))

    async def latest(self, request: LatestRequest, context: RequestContext) -> RankingAnswer:
        """What arrived last. Raises InputError naming the field."""
        with self._host.lease(None, request.arm) as arm:
            names = ItemNames(arm, strict=request.strict)
            exclude = names.distinct(request.exclude, "exclude") or ()
            where = await where_of(arm, request)
            find = partial(arm.ranker.latest, request.n_items, exclude=exclude, where=where)
            ranking = await asyncio.to_thread(find)
            answer = ranking_answer(arm, ranking, "latest", ResolvedHistory((), "none"), names, context)
            return self._impressions.shown(answer)
