"""From a request in external ids to an answer: asks the arm, translates back. Knows neither HTTP nor engines."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from rdrec_core.errors import RDRecError
from rdrec_core.ranked import NOTHING, Ranking
from rdrec_core.types import RankRequest, ScoreRequest, Spread, Task, Wish
from service.answers.answer_cache import AnswerCache
from service.answers.explanations import Explanations
from service.answers.histories import LiveHistories, ResolvedHistory
from service.answers.impressions import Impressions
from service.answers.item_names import ItemNames
from service.answers.ranking_answers import ranking_answer, where_of
from service.engine.arm import Arm
from service.engine.batcher import Computed
from service.engine.computation import RankWork, ScoreWork
from service.engine.lifecycle import ModelHost
from service.settings import Settings
from service.telemetry.observability import Metrics, describe_error
from service.wire.context import RequestContext
from service.wire.explaining import ExplainAnswer, ExplainRequest
from service.wire.fields import FoundBy
from service.wire.rankings import (
    RankingAnswer,
    SequentialRequest,
    SimilarRequest,
    TopNRequest,
)
from service.wire.work import EngineDownError, Kind, Line

log = logging.getLogger("rdrec.service")
DEFAULT_BEAM_WIDTH = 20
MAX_SHADOWS = 32
"""Shadow computations under way; more requests than that go without one."""
R = TypeVar("R", SequentialRequest, TopNRequest)
Rank = Callable[[Arm, R, RequestContext], Awaitable[RankingAnswer]]


class Recommender:
    """Answers every endpoint; one for the whole process."""

    def __init__(
        self,
        host: ModelHost,
        histories: LiveHistories,
        cache: AnswerCache,
        explanations: Explanations,
        settings: Settings,
        metrics: Metrics,
        impressions: Impressions,
    ) -> None:
        self._host = host
        self._histories = histories
        self._cache = cache
        self._settings = settings
        self._metrics = metrics
        self._explanations = explanations
        self._impressions = impressions
        self._shadows: set[asyncio.Task[None]] = set()

    async def sequential(self, request: SequentialRequest, context: RequestContext) -> RankingAnswer:
        """What the user will want next. Raises InputError naming the field, and what `Batcher.submit` raises."""
        return await self._ranked(self._sequential, request, context)

    async def topn(self, request: TopNRequest, context: RequestContext) -> RankingAnswer:
        """The best of the candidates. Raises like `sequential`."""
        return await self._ranked(self._topn, request, context)

    async def _ranked(self, rank: Rank[R], request: R, context: RequestContext) -> RankingAnswer:
        with self._host.lease(request.user_id, request.arm) as arm:
            answer = self._impressions.shown(await rank(arm, request, context))
        shadow = self._host.shadow
        if shadow is not None and shadow is not arm and len(self._shadows) < MAX_SHADOWS:
            task = asyncio.create_task(self._shadow(shadow, rank, request, context, answer))
            self._shadows.add(task)
            task.add_done_callback(self._shadows.discard)
        return answer

    async def _sequential(self, arm: Arm, request: SequentialRequest, context: RequestContext) -> RankingAnswer:
        names = ItemNames(arm, strict=request.strict)
        include = names.distinct(request.include, "include")
        exclude = names.distinct(request.exclude, "exclude") or ()
        user = arm.find_user(request.user_id) if request.user_id is not None else None
        given = names.history(request.history)
        history = await self._histories.resolve(arm, request.user_id, user, given, context)
        user = history.user
        if request.exclude_seen:
            exclude = tuple(dict.fromkeys((*exclude, *history.items)))
        width = request.beam_width or DEFAULT_BEAM_WIDTH
        where = await where_of(arm, request)
        asked = RankRequest(
            user, history.items, request.n_items, exclude, include, width, wish=_wish(request), where=where,
            spread=_spread(request),
        )  # fmt: skip
        found_by: FoundBy = "popularity"
        if include == ():  # none of the items that may be answered is known
            ranking, found_by = NOTHING, arm.strategy
        elif (at_once := await _at_once(arm, asked)) is not None:
            ranking = at_once
        else:
            found_by = arm.strategy
            work = RankWork(asked, request.fusion)
            try:
                ranking = await self._ask(arm, Kind.RANK, len(history.items), work, context)
            except EngineDownError:
                ranking, found_by, history = arm.ranker.without_model(asked), "graph", replace(history, degraded=True)
        return ranking_answer(arm, ranking, found_by, history, names, context)

    async def _topn(self, arm: Arm, request: TopNRequest, context: RequestContext) -> RankingAnswer:
        names = ItemNames(arm, strict=request.strict)
        given = names.distinct(request.candidates, "candidates")
        given = None if given is None else names.available(given)
        user = arm.find_user(request.user_id) if request.user_id is not None else None
        own = names.history(request.history)
        history = await self._histories.resolve(arm, request.user_id, user, own, context)
        user = history.user
        found_by: FoundBy = "popularity"
        wish, spread = _wish(request), _spread(request)
        where = await where_of(arm, request)
        if given is not None and (among := arm.ranker.open_to(where)) is not None:
            given = tuple(index for index in given if among.items[index])
        at_once = RankRequest(
            user, history.items, request.n_items, include=given, wish=wish, where=where, spread=spread
        )  # fmt: skip
        ranking = NOTHING if given == () else await _at_once(arm, at_once)  # (): no candidate is known
        if ranking is None:
            candidates = given if given is not None else await _drawn(arm, at_once)
            asked = ScoreRequest(user, candidates, history.items, wish=wish, spread=spread)
            work = ScoreWork(asked, request.n_items, request.fusion)
            found_by = "candidates"
            try:
                ranking = await self._ask(arm, Kind.SCORE, len(candidates), work, context) if candidates else NOTHING
            except EngineDownError:
                alone = replace(at_once, include=candidates)
                ranking, found_by = arm.ranker.without_model(alone, Task.TOPN), "graph"
                history = replace(history, degraded=True)
        return ranking_answer(arm, ranking, found_by, history, names, context)

    async def similar(self, request: SimilarRequest, context: RequestContext) -> RankingAnswer:
        """What is like these items. Raises InputError naming the field."""
        with self._host.lease(None, request.arm) as arm:
            names = ItemNames(arm, strict=request.strict)
            items = names.distinct(request.item_ids, "item_ids") or ()
            include = names.distinct(request.include, "include")
            exclude = names.distinct(request.exclude, "exclude") or ()
            where, spread = await where_of(arm, request), _spread(request)
            find = partial(
                arm.ranker.similar, items, request.n_items, exclude=exclude, include=include, where=where, spread=spread
            )
            ranking = find() if spread is None else await asyncio.to_thread(find)
            answer = ranking_answer(arm, ranking, "similar", ResolvedHistory(items, "request"), names, context)
            return self._impressions.shown(answer)

    async def explain(self, request: ExplainRequest, context: RequestContext) -> ExplainAnswer:
        """See Explanations.explain."""
        return await self._explanations.explain(request, context)

    async def close(self) -> None:
        """End the shadows."""
        for task in list(self._shadows):
            task.cancel()

    async def _ask(self, arm: Arm, kind: Kind, length: int, work: RankWork | ScoreWork, context: RequestContext) -> Any:
        async def compute() -> Computed:
            return await arm.submit(kind, length, work, context.deadline, line=context.line)

        key = (arm.version, arm.name, arm.items.version, work)
        outcome, context.cache = await self._cache.get(key, context.deadline, compute)
        if context.cache != "hit":
            context.spend("queue", outcome.queue_s)
            context.spend("engine", outcome.engine_s)
        return outcome.value

    async def _shadow(
        self, arm: Arm, rank: Rank[R], request: R, context: RequestContext, answer: RankingAnswer
    ) -> None:
        own = context.part()
        own.deadline = own.clock() + self._settings.timeout_ms / 1000
        own.line = Line.BATCH  # nobody waits for it
        arm.leases += 1
        try:
            other = await rank(arm, request, own)
        except RDRecError as error:
            self._metrics.shadow_failures.inc()
            log.info("shadow_failed", extra=describe_error(error))
            return
        finally:
            arm.leases -= 1
        self._metrics.arm_answers.labels(arm.name, "shadow").observe(own.clock() - own.started_at)
        if answer.items:
            named = {item.item_id for item in other.items}
            self._metrics.shadow_overlap.observe(sum(i.item_id in named for i in answer.items) / len(answer.items))


def _wish(request: SequentialRequest | TopNRequest) -> Wish | None:
    """The words of a request; None where it asks for the model alone, which reads none."""
    if request.prefer is None or not request.prefer.strip() or not request.fusion:
        return None
    return Wish(request.prefer, request.prefer_weight)


def _spread(request: SequentialRequest | TopNRequest | SimilarRequest) -> Spread | None:
    """How unlike each other the items are to be; None where nobody asks."""
    spread = Spread(request.diversity, request.max_per_brand, request.max_per_category)
    return None if spread == Spread() else spread


async def _at_once(arm: Arm, asked: RankRequest) -> Ranking | None:
    """`Ranker.at_once`, off the event loop where texts must be looked up."""
    if asked.wish is None and asked.spread is None:
        return arm.ranker.at_once(asked)
    return await asyncio.to_thread(arm.ranker.at_once, asked)


async def _drawn(arm: Arm, asked: RankRequest) -> tuple[int, ...]:
    """Candidates for a request without any: the graph's best that the user does not have yet."""
    width = max(asked.n_items, arm.bundle.manifest.candidate_width)
    draw = partial(
        arm.ranker.candidates, asked.history, width, exclude=asked.history, wish=asked.wish, where=asked.where
    )
    found = draw() if asked.wish is None else await asyncio.to_thread(draw)
    return tuple(found.tolist())
