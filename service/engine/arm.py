"""One bundle being served: its tables, its engine, and the queue in front of it.

Everything that an answer takes from a model comes through one Arm, so that an answer is of one model whatever is
swapped meanwhile. Speaks in indices; `recommender.py` translates.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from rdrec_core.bundle import Bundle
from rdrec_core.errors import BundleError, RDRecError
from rdrec_core.explaining import Explainer
from rdrec_core.frames import Frames
from rdrec_core.ranking import Ranker
from rdrec_core.statements import Statements
from rdrec_core.types import RankRequest, ScoreMode, ScoreRequest, Strategy, Task, TextRequest
from service.engine.batch_queue import BatchQueue
from service.engine.batcher import Batcher, BatcherObserver, Computed, Lane
from service.engine.computation import Computation, RankWork, ScoreWork, open_ranker
from service.engine.engine_process import EngineElsewhere, EngineProcess, OpenEngine
from service.engine.engine_thread import EngineThread
from service.settings import Settings
from service.wire.work import EngineDownError, Kind

WARM_UP_S = 120.0
_SEARCHED_TITLE_BYTES = 8_000_000


class Arm:
    """See the module. `name` is the arm's label in metrics: `a` (the first bundle) or `b` (the second)."""

    ranker: Ranker
    """Its graph may be asked from any thread, its engine through the batcher only."""

    def __init__(
        self,
        name: str,
        bundle: Bundle,
        settings: Settings,
        open_engine: OpenEngine,
        observer: BatcherObserver,
        clock: Callable[[], float],
        on_death: Callable[[Arm, str], None],
    ) -> None:
        self.name = name
        self.bundle = bundle
        self.catalog = bundle.catalog
        self.users = bundle.users
        frames = Frames() if settings.explain_frames is None else Frames.read(settings.explain_frames)
        self.explainer = Explainer(Statements.of_bundle(bundle), frames, self._title, self._popularity)
        self.version = bundle.manifest.model_version
        self.made_at = _seconds_of(bundle.manifest.created_at)
        """Seconds since 1970."""
        self.leases = 0
        """Requests that are being answered by this arm; a replaced arm ends with the last of them."""
        self.find_item: Callable[[str], int | None] = lru_cache(maxsize=200_000)(self.catalog.item_ids.find)
        """Index of an external item id; remembered, because a request may name a thousand."""
        self.find_user: Callable[[str], int | None] = lru_cache(maxsize=200_000)(self.users.user_ids.find)
        self.name_of: Callable[[int], tuple[str, str | None]] = lru_cache(maxsize=200_000)(self._name_of)
        """External id and title of an item index; remembered, because popular items are in every answer."""
        self._settings = settings
        self._open_engine = open_engine
        self._clock = clock
        self._is_warm = False
        self._was_opened = False
        queue = BatchQueue(
            size=settings.queue_size, batch_size=settings.batch_size, wait_s=settings.batch_wait_ms / 1000
        )
        self.batcher = Batcher(queue, clock, observer, lambda cause: on_death(self, cause))

    @property
    def score_mode(self) -> ScoreMode:
        """How the engine defines a log-probability."""
        return self.ranker.engine.score_mode

    @property
    def strategy(self) -> Strategy:
        """How the engine finds items."""
        return self._settings.strategy or self.bundle.manifest.strategy

    async def start(self) -> None:
        """Open an engine, start its thread, warm up; also after a death. Raises RDRecError where any of it fails."""
        self._is_warm = False
        self.batcher.start(await self._open())
        self._was_opened = True
        try:
            await self._warm_up()
        except BaseException:
            await self.stop()
            raise
        self._is_warm = self.batcher.takes_requests = True

    @property
    def is_ready(self) -> bool:
        """Whether the engine runs and was warmed up."""
        return self._is_warm and self.batcher.is_alive

    async def submit(self, kind: Kind, length: int, work: Any, deadline: float) -> Computed:
        """See Batcher.submit; nothing is taken while the engine warms up, lest a deadly request kill each new one."""
        if not self._is_warm:
            raise EngineDownError("the engine is being restarted")
        return await self.batcher.submit(kind, length, work, deadline)

    async def stop(self) -> None:
        """Finish what is queued, end the engine."""
        await self.batcher.stop()

    def text_request(self, asked: TextRequest) -> TextRequest:
        """The request with the configured search."""
        fast = self._settings.text_search == "fast"
        return TextRequest(asked.task, asked.user_index, asked.item_index, fast=fast)

    def search_items(self, text: str, limit: int) -> list[int]:
        """Items whose id begins with the text, then those whose title holds it, in catalogue order."""
        found = dict.fromkeys(self.catalog.item_ids.starting_with(text, limit))
        if text:
            offsets = self.catalog.titles.offsets
            for match in re.finditer(re.escape(text.encode("utf-8", "replace")), self._titles, re.IGNORECASE):
                if len(found) >= limit:
                    break
                found[int(np.searchsorted(offsets, match.start(), side="right")) - 1] = None
        return list(found)[:limit]

    def _title(self, index: int) -> str | None:
        return self.name_of(index)[1]

    def _popularity(self, index: int) -> float:
        """Share of the catalogue that is chosen less often; 0 for an item that nobody chose."""
        chosen = self.ranker.graph.popularity if self.ranker.graph is not None else np.empty(0)
        if index >= len(chosen) or chosen[index] <= 0:
            return 0.0
        return max(float((chosen < chosen[index]).mean()), 1e-9)

    def _name_of(self, index: int) -> tuple[str, str | None]:
        return self.catalog.item_ids[index], self.catalog.title(index)

    @property
    def _asked_texts(self) -> list[Task]:
        """What `/explain` asks the engine to write."""
        written = Task.EXPLANATION in self.bundle.manifest.text_tasks and self._settings.explain_model
        return [Task.EXPLANATION] if written else []

    @cached_property
    def _titles(self) -> bytes:
        return self.catalog.titles.blob[:_SEARCHED_TITLE_BYTES].tobytes()

    async def _open(self) -> Lane:
        """The engine of the very bundle that was verified: what lies at its path by now may be another one."""
        again = self._was_opened
        if self._settings.engine_process:
            process = await EngineProcess.open(self._open_engine, self.bundle, self._settings, verify=again)
            if not again:
                self.ranker = open_ranker(self.bundle, lambda: EngineElsewhere(process.score_mode))
            return process
        return EngineThread(Computation(await asyncio.to_thread(self._open_here, again)))

    def _open_here(self, again: bool) -> Ranker:
        if again:
            Bundle.open(self.bundle.path, expected_sha256=self.bundle.manifest_sha256)
        self.ranker = open_ranker(self.bundle, lambda: self._open_engine(self.bundle, self._settings))
        return self.ranker

    async def _warm_up(self) -> None:
        """Ask everything that the endpoints ask, alone and in full batches."""
        known = 0 if len(self.users) else None
        history = tuple(int(i) for i in self.users.history(0)[-20:]) if known is not None else ()
        candidates = tuple(self.ranker.candidates((), 100).tolist())
        if not candidates:
            raise BundleError(f"{self.bundle.path}: no item is available")
        history = history or candidates[:1]
        ranks = [RankWork(RankRequest(user, history), fusion=True) for user in (known, None)]
        scores = [ScoreWork(ScoreRequest(known, candidates, history), 10, fusion=True)]
        texts = [self.text_request(TextRequest(task, known, 0)) for task in self._asked_texts]
        for kind, works, copies in (
            (Kind.RANK, ranks, self._settings.batch_size),
            (Kind.SCORE, scores, self._settings.batch_size),
            (Kind.TEXT, texts, 1),
        ):
            for n in sorted({1, copies}) if works else ():
                asked = [self._warm(kind, works[i % len(works)]) for i in range(max(n, len(works)))]
                outcomes = await asyncio.gather(*asked)
                if kind is not Kind.TEXT and any(not len(outcome.value.item_indices) for outcome in outcomes):
                    raise BundleError(f"{self.bundle.path}: the engine names no item in the warm-up ({kind})")

    async def _warm(self, kind: Kind, work: Any) -> Computed:
        try:
            return await self.batcher.submit(kind, 1, work, self._clock() + WARM_UP_S)
        except RDRecError as error:
            raise BundleError(f"{self.bundle.path}: the warm-up failed ({kind}): {error}") from error


def _seconds_of(moment: str) -> float:
    """Seconds since 1970 of an ISO 8601 time; 0 for what is none, so that nothing is taken for known before."""
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return 0.0
