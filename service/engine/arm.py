"""One bundle being served: its tables, its engine, and the queue in front of it.

Everything that an answer takes from a model comes through one Arm, so that an answer is of one model whatever is
swapped meanwhile. Speaks in indices; `recommender.py` translates.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np

from rdrec_core.bundle import Bundle
from rdrec_core.engines.base import Engine
from rdrec_core.errors import BundleError, EngineError
from rdrec_core.explaining import Explainer
from rdrec_core.filters import ItemValues
from rdrec_core.frames import Frames
from rdrec_core.growth import Grower, Growth
from rdrec_core.item_texts import ItemTexts
from rdrec_core.ranking import Ranker
from rdrec_core.statements import Statements
from rdrec_core.text_rows import GROUP as TEXT_ROWS
from rdrec_core.text_rows import TextRows
from rdrec_core.types import RankRequest, ScoreMode, ScoreRequest, Strategy, Task, TextRequest
from service.engine.arm_items import ArmItems, words_of
from service.engine.batch_queue import BatchQueue
from service.engine.batcher import Batcher, BatcherObserver, Computed, Lane
from service.engine.computation import CatalogueChange, Computation, RankWork, ScoreWork, open_ranker, take_values
from service.engine.engine_process import EngineElsewhere, EngineProcess, OpenEngine
from service.engine.engine_thread import EngineThread
from service.settings import Settings
from service.stores.catalogue.base import Stored
from service.wire.work import Kind, Line

log = logging.getLogger("rdrec.service")
WARM_UP_S = 120.0
PLACED_AT_ONCE = 32
"""New items that the engines take over in one step, between two batches."""


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
        self.items = ArmItems(bundle.catalog, room=settings.max_new_items)
        self.users = bundle.users
        frames = Frames() if settings.explain_frames is None else Frames.read(settings.explain_frames)
        self.explainer = Explainer(Statements.of_bundle(bundle), frames, self.items.title, self._popularity)
        self.catalogue_explainer = Explainer(Statements.none(), frames, self.items.title, self._popularity)
        """Speaks without anything that anybody said."""
        self.version = bundle.manifest.model_version
        self.made_at = _seconds_of(bundle.manifest.created_at)
        """Seconds since 1970."""
        self.leases = 0
        """Requests that are being answered by this arm; a replaced arm ends with the last of them."""
        self.find_user: Callable[[str], int | None] = lru_cache(maxsize=200_000)(self.users.user_ids.find)
        self.find_item = self.items.find
        self.name_of = self.items.name_of
        self._settings = settings
        self._open_engine = open_engine
        self._clock = clock
        self._was_opened = False
        self._places: dict[int, Lane] = {}
        self._can_grow = False
        self._grower: Grower | None = None
        self._growths: list[Growth] = []
        """All items that came since, for an engine that is opened later."""
        self._values: dict[int, ItemValues] = {}
        """What filters can ask of items since, likewise."""
        self._changing = asyncio.Lock()
        queue = BatchQueue(
            size=settings.queue_size,
            batch_size=settings.batch_size,
            wait_s=settings.batch_wait_ms / 1000,
            shares={Line(name): share for name, share in settings.shares.model_dump().items()},
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
        """Open the engines that are missing, all of them at first, and warm each up before it gets a request.

        Raises RDRecError where any of it fails; the engines that run go on.
        """
        running = self.batcher.lanes
        self._places = {place: lane for place, lane in self._places.items() if lane in running}
        missing = [place for place in range(self.n_engines) if place not in self._places]
        opened = await asyncio.gather(*(self._open_warm(place) for place in missing), return_exceptions=True)
        lanes = [lane for lane in opened if not isinstance(lane, BaseException)]
        errors = [error for error in opened if isinstance(error, BaseException)]
        if errors and not self._was_opened:
            await asyncio.gather(*(lane.close() for lane in lanes))
        else:
            async with self._changing:  # no change may come between what a new engine is told and its first batch
                for place, lane in zip(missing, opened, strict=True):
                    if isinstance(lane, BaseException):
                        continue
                    try:
                        await self._tell_all(lane)
                    except Exception as error:  # also its end
                        errors.append(EngineError(f"a new engine did not take over the catalogue: {error}"))
                        await lane.close()
                        continue
                    self._places[place] = lane
                    self.batcher.start(lane)
        if errors:
            raise errors[0]
        self._was_opened = True

    @property
    def devices(self) -> list[str]:
        """Where its engines compute, one for each that runs: `cpu`, `cuda:0`, ..."""
        return [lane.device for lane in self.batcher.lanes]

    @property
    def n_engines(self) -> int:
        """How many engines it should have; a thread of this process is always one."""
        return self._settings.engines if self._settings.engine_process else 1

    @property
    def is_ready(self) -> bool:
        """Whether an engine runs; each was warmed up before it began to."""
        return self.batcher.is_alive

    @property
    def is_whole(self) -> bool:
        """Whether all of its engines run."""
        return self.is_ready and len(self.batcher.lanes) >= self.n_engines

    async def submit(
        self, kind: Kind, length: int, work: Any, deadline: float, *, line: Line = Line.INTERACTIVE
    ) -> Computed:
        """See Batcher.submit."""
        return await self.batcher.submit(kind, length, work, deadline, line=line)

    async def stop(self) -> None:
        """Finish what is queued, end the engines."""
        await self.batcher.stop()

    def text_request(self, asked: TextRequest) -> TextRequest:
        """The request with the configured search."""
        fast = self._settings.text_search == "fast"
        return TextRequest(asked.task, asked.user_index, asked.item_index, fast=fast)

    async def take(self, changes: Sequence[Stored], *, kept: Collection[str] | None = None) -> None:
        """Take over what was said of items: the engine first, so that nobody names an item that it does not know.

        kept: nothing more is known of any item but these and those of `changes`; the store lost it.
        """
        async with self._changing:
            news = self.items.news(changes)
            new = [s for s in news if s.item is not None and self.items.needs_a_place(s.item_id, s.item)]
            if len(new) > self.items.room_left:
                log.error("catalogue_full", extra={"arm": self.name, "left_out": len(new) - self.items.room_left})
                new = new[: self.items.room_left]
            placed = {s.item_id for s in new}
            for start in range(0, len(new), PLACED_AT_ONCE):
                await self._place(new[start : start + PLACED_AT_ONCE])
            rest = [s for s in news if s.item_id not in placed]
            if kept is not None:
                self.items.unsay(kept)
            if rest or kept is not None:
                await self._settle(rest, {})

    async def _place(self, new: Sequence[Stored]) -> None:
        items = [stored.item for stored in new if stored.item is not None]
        if self._grower is None:
            rows = self.bundle.arrays(TEXT_ROWS) if self._can_grow else None
            assert self.ranker.graph is not None  # see `open_ranker`
            text_rows = TextRows.from_arrays(rows) if rows else None
            texts = self.ranker.texts if isinstance(self.ranker.texts, ItemTexts) else None
            self._grower = Grower(self.ranker.graph, texts, text_rows)
        growth = await asyncio.to_thread(self._grower.grow, [words_of(item) for item in items])
        first = len(self.items)
        self.items.add_names(items)
        self._growths.append(growth)
        # to begin with the new ones are shut: what an engine answers meanwhile cannot be said in the old way
        shut = np.append(self.items.available, np.zeros(len(items), dtype=np.bool_))
        await self.batcher.tell(Kind.CATALOGUE, CatalogueChange(growth, available=shut))
        self.ranker = self.ranker.grown(growth)
        await self._settle(new, {item.item_id: first + place for place, item in enumerate(items)})

    async def _settle(self, changes: Sequence[Stored], placed: Mapping[str, int]) -> None:
        values = self.items.settle(changes, placed)
        self._values |= values
        take_values(self.ranker.columns, values)
        self.ranker = self.ranker.with_available(self.items.available)
        await self.batcher.tell(Kind.CATALOGUE, CatalogueChange(values=values, available=self.items.available))

    async def _tell_all(self, lane: Lane) -> None:
        """Have a new engine, which begins as the bundle says, take over everything since."""
        changes = [CatalogueChange(growth) for growth in self._growths]
        if self.items.version:
            changes.append(CatalogueChange(values=self._values, available=self.items.available))
        for change in changes:
            await lane.compute(Kind.CATALOGUE, [change])

    def _popularity(self, index: int) -> float:
        """Share of the catalogue that is chosen less often; 0 for an item that nobody chose."""
        chosen = self.ranker.graph.popularity if self.ranker.graph is not None else np.empty(0)
        if index >= len(chosen) or chosen[index] <= 0:
            return 0.0
        return max(float((chosen < chosen[index]).mean()), 1e-9)

    @property
    def _asked_texts(self) -> list[Task]:
        """What `/explain` asks the engine to write."""
        written = Task.EXPLANATION in self.bundle.manifest.text_tasks and self._settings.explain_model
        return [Task.EXPLANATION] if written else []

    async def _open_warm(self, place: int) -> Lane:
        lane = await self._open(place)
        log.info("engine_opened", extra={"arm": self.name, "engine": place, "device": lane.device})
        try:
            await self._warm_up(lane)
        except BaseException:
            await lane.close()
            raise
        return lane

    async def _open(self, place: int) -> Lane:
        """An engine of the very bundle that was verified: what lies at its path by now may be another one."""
        again = self._was_opened
        if self._settings.engine_process:
            ids = self._settings.device_ids
            settings = self._settings.model_copy(update={"device_ids": (ids[place % len(ids)],)})
            process = await EngineProcess.open(self._open_engine, self.bundle, settings, verify=again)
            if not hasattr(self, "ranker"):
                self.ranker = self._open_ranker(lambda: EngineElsewhere(process.score_mode, process.device))
                self._can_grow = process.can_grow
            return process
        computation = Computation(await asyncio.to_thread(self._open_here, again))
        return EngineThread(computation, computation.device)

    def _open_here(self, again: bool) -> Ranker:
        if again:
            Bundle.open(self.bundle.path, expected_sha256=self.bundle.manifest_sha256)
        opened = self._open_ranker(lambda: self._open_engine(self.bundle, self._settings))
        if not again:  # a later one's graph is the lane's alone, which is told of all items
            self.ranker, self._can_grow = opened, opened.engine.can_grow
        return opened

    def _open_ranker(self, engine: Callable[[], Engine]) -> Ranker:
        return open_ranker(self.bundle, engine, new_words=self._settings.new_item_words)

    async def _warm_up(self, lane: Lane) -> None:
        """Ask one engine everything that the endpoints ask, alone and in full batches."""
        known = 0 if len(self.users) else None
        history = tuple(int(i) for i in self.users.history(0)[-20:]) if known is not None else ()
        if not self.items.available.any():
            raise BundleError(f"{self.bundle.path}: no item is available")
        candidates = tuple(range(min(100, self.items.n_bundle)))  # it has yet to be told of what came since
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
                asked = [works[i % len(works)] for i in range(max(n, len(works)))]
                answers = await self._warm(lane, kind, asked)
                if kind is not Kind.TEXT and any(not len(answer.item_indices) for answer in answers):
                    raise BundleError(f"{self.bundle.path}: the engine names no item in the warm-up ({kind})")

    async def _warm(self, lane: Lane, kind: Kind, works: list[Any]) -> Sequence[Any]:
        try:
            async with asyncio.timeout(WARM_UP_S):
                answers, _ = await lane.compute(kind, works)
            return answers
        except Exception as error:  # also a lane's end, and whatever a runtime raises
            raise BundleError(f"{self.bundle.path}: the warm-up failed ({kind}): {error}") from error


def _seconds_of(moment: str) -> float:
    """Seconds since 1970 of an ISO 8601 time; 0 for what is none, so that nothing is taken for known before."""
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return 0.0
