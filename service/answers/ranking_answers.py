"""From a ranking in indices to the answer in external ids, and from a request's filter to what the ranker reads."""

from __future__ import annotations

import asyncio
import math
from typing import Any, Protocol

from rdrec_core.filters import Where
from rdrec_core.ranked import Ranking
from service.answers.histories import ResolvedHistory
from service.answers.item_names import ItemNames
from service.engine.arm import Arm
from service.wire.context import RequestContext
from service.wire.fields import FoundBy
from service.wire.rankings import RankingAnswer, RecommendedItem, Signals


class Filtered(Protocol):
    """A request that may have a filter."""

    @property
    def where(self) -> dict[str, Any] | None:
        """The filter as it was sent."""
        ...


async def where_of(arm: Arm, request: Filtered) -> Where | None:
    """The request's filter, of which the arm knows the mask from now on. Raises InputError naming what is wrong."""
    if request.where is None:
        return None
    where = Where.parse(request.where)
    if not arm.ranker.columns.is_kept(where):
        await asyncio.to_thread(arm.ranker.open_to, where)
    return where


def _note(arm: Arm, history: ResolvedHistory, context: RequestContext) -> None:
    context.arm, context.model_version = arm.name, arm.version
    context.history_source, context.degraded = history.source, history.degraded


def ranking_answer(
    arm: Arm,
    ranking: Ranking,
    found_by: FoundBy,
    history: ResolvedHistory,
    names: ItemNames,
    context: RequestContext,
) -> RankingAnswer:
    """The answer, without its impression; the context learns which arm answered from which history."""
    _note(arm, history, context)
    if ranking.steered and found_by == "popularity":
        found_by = "words"
    columns = zip(
        ranking.item_indices.tolist(),
        ranking.scores.tolist(),
        ranking.log_probs.tolist(),
        ranking.graph_scores.tolist(),
        ranking.text_scores.tolist(),
        strict=True,
    )
    return RankingAnswer(
        model_version=arm.version,
        history_source=history.source,
        degraded=history.degraded,
        ignored_items=names.ignored,
        unavailable_items=names.unavailable,
        items=[
            RecommendedItem(
                item_id=arm.name_of(index)[0],
                title=arm.name_of(index)[1],
                rank=place,
                score=score,
                signals=Signals(model=_known(model), graph=_known(graph), text=_known(text)),
            )
            for place, (index, score, model, graph, text) in enumerate(columns, start=1)
        ],
        score_mode=arm.score_mode,
        strategy=found_by,
        steered=ranking.steered,
        arm="b" if arm.name == "b" else "a",
    )


def _known(signal: float) -> float | None:
    return None if math.isnan(signal) else signal
