"""From an explanation request to an answer: statements speak, the model's own text where they bear it out.

What forgotten users said is taken out first; while nobody can say who was forgotten, no statement is used. The engine
is asked only where its text could pass, with half of the time that is left; whatever becomes of it, the statements
answer. Knows neither HTTP nor how sentences are worded (`rdrec_core/explaining.py`).
"""

from __future__ import annotations

import logging
from typing import Literal

from rdrec_core.errors import RDRecError
from rdrec_core.explaining import Explained
from rdrec_core.types import Task, TextRequest
from service.answers.answer_cache import AnswerCache, SharedCache
from service.answers.histories import LiveHistories, ResolvedHistory
from service.answers.item_names import ItemNames
from service.answers.withdrawals import Withdrawals
from service.engine.arm import Arm
from service.engine.batcher import Computed
from service.engine.lifecycle import ModelHost
from service.settings import Settings
from service.telemetry.observability import Metrics, describe_error
from service.wire.context import RequestContext
from service.wire.explaining import Evidence, ExplainAnswer, ExplainRequest, SpokenStatement
from service.wire.work import EngineDownError, Kind

log = logging.getLogger("rdrec.service")
MAX_EVIDENCE = 5


class Explanations:
    """Answers `/explain`; one for the whole process."""

    def __init__(
        self,
        host: ModelHost,
        histories: LiveHistories,
        cache: AnswerCache,
        shared_cache: SharedCache | None,
        withdrawals: Withdrawals,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self._host = host
        self._withdrawals = withdrawals
        self._histories = histories
        self._cache = cache
        self._shared_cache = shared_cache
        self._settings = settings
        self._metrics = metrics

    async def explain(self, request: ExplainRequest, context: RequestContext) -> ExplainAnswer:
        """Why this item for this user. Raises UnknownItemError for an item that the bundle does not know."""
        with self._host.lease(request.user_id, request.arm) as arm:
            names = ItemNames(arm, strict=request.strict)
            item = names.one(request.item_id, "item_id")
            user = None if request.user_id is None else arm.find_user(request.user_id)
            given = names.history(request.history)
            history = await self._histories.resolve(arm, request.user_id, user, given, context)
            evidence = arm.ranker.evidence(history.items, item, MAX_EVIDENCE)
            support = [each.item_index for each in evidence]
            if await self._withdrawals.apply(arm):
                written = await self._written(arm, item, request.user_id, history, context)
                answer = arm.explainer.explain(item, history.user, history.items, support, written)
            else:
                context.degraded = True
                answer = arm.catalogue_explainer.explain(item, None, history.items, support)
            self._metrics.explanations.labels(arm.name, answer.basis).inc()
            if answer.refused is not None:
                self._metrics.refused_texts.labels(arm.name, answer.refused.replace(" ", "_")).inc()
            context.arm, context.model_version = arm.name, arm.version
            context.history_source, context.degraded = history.source, history.degraded or context.degraded
            return ExplainAnswer(
                model_version=arm.version,
                history_source=history.source,
                degraded=context.degraded,
                ignored_items=names.ignored,
                item_id=request.item_id,
                title=arm.items.title(item),
                explanation=answer.text,
                basis=answer.basis,
                statements=self._spoken(answer),
                user_preference=answer.user_preference,
                item_attributes=answer.item_attributes,
                caution=answer.caution,
                evidence=[
                    Evidence(item_id=arm.name_of(e.item_index)[0], title=arm.name_of(e.item_index)[1], share=e.share)
                    for e in evidence
                ],
            )

    def _spoken(self, answer: Explained) -> list[SpokenStatement]:
        polarities: dict[int, Literal["positive", "negative"]] = {1: "positive", -1: "negative"}
        return [
            SpokenStatement(
                text=used.statement.text,
                about=used.about,
                count=used.statement.count,
                total=used.statement.total,
                share=used.statement.share,
                polarity=polarities[used.statement.polarity],
                quote=used.statement.quote if self._settings.explain_quotes else None,
            )
            for used in answer.used
        ]

    async def _written(
        self, arm: Arm, item: int, user_id: str | None, history: ResolvedHistory, context: RequestContext
    ) -> str | None:
        """The model's sentence, cached or new; None where it has none to say or none that could be served."""
        user = history.user
        if (
            not self._settings.explain_model
            or user is None
            or Task.EXPLANATION not in arm.bundle.manifest.text_tasks
            or not arm.explainer.about(item)
        ):
            return None
        work = arm.text_request(TextRequest(Task.EXPLANATION, user, item))
        shared_key = f"{arm.version}:{arm.score_mode}:{work.task.name}:{work.user_index}:{work.item_index}:{work.fast}"
        now = context.clock()
        deadline = now + (context.deadline - now) / 2

        async def compute() -> str:
            known = None if self._shared_cache is None else await self._shared_cache.get(shared_key, user_id)
            if known is not None:
                return known
            outcome: Computed = await arm.submit(Kind.TEXT, 1, work, deadline, line=context.line)
            context.spend("queue", outcome.queue_s)
            context.spend("engine", outcome.engine_s)
            self._metrics.words.labels(arm.name).inc(len(outcome.value.split()))
            if self._shared_cache is not None:
                await self._shared_cache.put(shared_key, outcome.value, self._settings.shared_cache_ttl_s, user_id)
            return str(outcome.value)

        try:
            text, context.cache = await self._cache.get((arm.version, arm.name, work), deadline, compute)
        except RDRecError as error:
            context.degraded = context.degraded or isinstance(error, EngineDownError)
            self._metrics.refused_texts.labels(arm.name, "engine").inc()
            log.info("explained_without_model", extra=describe_error(error))
            return None
        return text
