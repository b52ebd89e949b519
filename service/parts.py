"""The parts of one running service, put together from the settings. The only place that knows which store is used."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from service.answers.answer_cache import AnswerCache, SharedCache
from service.answers.event_counts import EventCounts
from service.answers.events import EventKinds
from service.answers.explanations import Explanations
from service.answers.feedback import Feedback
from service.answers.histories import LiveHistories
from service.answers.impressions import Impressions
from service.answers.live_catalogue import LiveCatalogue
from service.answers.recommender import Recommender
from service.answers.shelf import Shelf
from service.answers.withdrawals import Withdrawals
from service.engine.admission import Admission
from service.engine.engine_process import OpenEngine
from service.engine.lifecycle import ModelHost
from service.engine.siblings import Seat, Siblings
from service.settings import Settings
from service.stores.buckets import Buckets, MemoryBuckets
from service.stores.catalogue.base import CatalogueStore
from service.stores.catalogue.memory import MemoryCatalogueStore
from service.stores.event_log import FileEventLog
from service.stores.history.base import HistoryStore
from service.stores.history.memory import MemoryHistoryStore
from service.stores.marks import Marks, MemoryMarks
from service.stores.rate_limit import MemoryRateLimiter, RateLimiter
from service.telemetry.observability import Metrics, StateRow

log = logging.getLogger("rdrec.service")


@dataclass(frozen=True, slots=True)
class Stores:
    """What may live outside the process."""

    history: HistoryStore
    limiter: RateLimiter
    texts: SharedCache | None = None
    buckets: Buckets = field(default_factory=MemoryBuckets)
    marks: Marks | None = None
    """None: this process's own."""
    breaker_state: Callable[[], str] | None = None
    catalogue: CatalogueStore = field(default_factory=MemoryCatalogueStore)


@dataclass(frozen=True, slots=True)
class Parts:
    """See the module."""

    settings: Settings
    metrics: Metrics
    stores: Stores
    host: ModelHost
    siblings: Siblings
    admission: Admission
    cache: AnswerCache
    histories: LiveHistories
    recommender: Recommender
    counts: EventCounts
    shelf: Shelf
    feedback: Feedback
    catalogue: LiveCatalogue

    def start(self) -> None:
        """Begin what goes on in the background, but the model; needs a running event loop."""
        self.histories.start()
        self.counts.start()
        self.feedback.start()
        self.catalogue.start()

    async def close(self) -> None:
        """Finish what is under way and let go of everything."""
        await self.siblings.close()
        await self.recommender.close()
        await self.feedback.close()
        await self.catalogue.close()
        await self.host.stop()
        await self.counts.close()
        await self.histories.close()


def open_stores(settings: Settings, clock: Callable[[], float]) -> Stores:
    """Redis if a URL is configured, else this process's memory."""
    limiter = MemoryRateLimiter(clock)
    if settings.redis_url is None:
        memory = MemoryHistoryStore(
            cap=settings.history_cap, max_bytes=settings.history_max_bytes, marks=settings.marks_file
        )
        return Stores(memory, limiter, catalogue=MemoryCatalogueStore(changes_kept=settings.catalogue_changes_kept))
    from service.stores.catalogue.redis import RedisCatalogueStore
    from service.stores.history.redis import RedisHistoryStore
    from service.stores.redis_buckets import RedisBuckets
    from service.stores.redis_gateway import RedisGateway
    from service.stores.redis_marks import RedisMarks
    from service.stores.redis_rate_limit import RedisRateLimiter
    from service.stores.redis_text_cache import RedisTextCache

    gateway = RedisGateway.open(
        settings.redis_url.get_secret_value(),
        timeout_s=settings.redis_timeout_ms / 1000,
        max_connections=settings.redis_pool_size,
        clock=clock,
    )
    prefix = settings.redis_prefix
    return Stores(
        RedisHistoryStore(
            gateway,
            prefix=prefix,
            cap=settings.history_cap,
            ttl_s=settings.history_ttl_s,
            log_length=settings.event_log_length if settings.event_log in ("auto", "redis") else 0,
        ),
        RedisRateLimiter(gateway, limiter, prefix=prefix),
        RedisTextCache(gateway, prefix=prefix),
        RedisBuckets(gateway, prefix=prefix),
        RedisMarks(gateway, prefix=prefix, ttl_s=settings.impression_ttl_s),
        lambda: gateway.breaker.state,
        RedisCatalogueStore(gateway, prefix=prefix, changes_kept=settings.catalogue_changes_kept),
    )


def open_log(settings: Settings) -> FileEventLog | None:
    """The files that events are logged to, where they are not logged in Redis.

    Where nobody asked for them and there is no place for them (a read-only container), there are none, and the log of
    the service says so.
    """
    folder = settings.event_log_folder
    if folder is None:
        return None
    if settings.event_log == "auto" and settings.event_log_dir is None and not _is_writable(folder):
        log.warning("events_are_not_logged", extra={"folder": str(folder), "set": "RDREC_EVENT_LOG_DIR"})
        return None
    return FileEventLog(folder, max_bytes=settings.event_log_max_bytes, fsync=settings.event_log_fsync)


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def assemble(
    settings: Settings, clock: Callable[[], float], open_engine: OpenEngine, stores: Stores, seat: Seat | None = None
) -> Parts:
    """All parts, not started yet. seat: which worker of several this is."""
    metrics = Metrics(None if seat is None else seat.metrics)
    host = ModelHost(settings, metrics, clock, open_engine)
    cache = AnswerCache(settings.cache_size, settings.cache_ttl_s, clock)
    kinds, counts = EventKinds.of(settings), EventCounts(stores.buckets)
    histories = LiveHistories(
        host, stores.history, cap=settings.history_cap, kinds=kinds, log=open_log(settings), on_event=counts.note
    )
    withdrawals = Withdrawals(stores.history)
    explanations = Explanations(host, histories, cache, stores.texts, withdrawals, settings, metrics)
    impressions = Impressions(metrics, ttl_s=settings.impression_ttl_s)
    recommender = Recommender(host, histories, cache, explanations, settings, metrics, impressions)
    marks = stores.marks or MemoryMarks(clock, ttl_s=settings.impression_ttl_s)
    admission = Admission(settings.max_in_flight, clock, host.seconds_ahead)

    catalogue = LiveCatalogue(host, stores.catalogue, settings, metrics)
    host.before_serving = catalogue.prepare

    def state() -> list[StateRow]:
        return [*_state(parts), *admission.state()]

    siblings = Siblings(host, seat, state)
    parts = Parts(
        settings, metrics, stores, host, siblings, admission, cache, histories, recommender, counts,
        Shelf(host, counts, impressions), Feedback(impressions, marks, kinds, metrics), catalogue,
    )  # fmt: skip
    return parts


def _state(parts: Parts) -> list[StateRow]:
    """Gauges that are read when somebody asks for them."""
    host = parts.host
    rows: list[StateRow] = [
        ("rdrec_ready", "Whether new requests should come here", {}, float(not host.unready())),
        ("rdrec_answer_cache_size", "Answers kept", {}, float(len(parts.cache))),
        (
            "rdrec_history_store_available",
            "Whether the history store is expected to answer",
            {"store": parts.stores.history.name},
            float(parts.stores.history.is_available),
        ),
    ]
    rows.append(
        (
            "rdrec_catalogue_store_available",
            "Whether the catalogue store is expected to answer",
            {"store": parts.stores.catalogue.name},
            float(parts.stores.catalogue.is_available),
        )
    )
    if parts.stores.breaker_state is not None:
        state = parts.stores.breaker_state()
        rows += [
            ("rdrec_breaker_state", "1 for the state of the Redis breaker", {"state": name}, float(name == state))
            for name in ("closed", "half-open", "open")
        ]
    for name, arm in host.arms.items():
        rows.append(("rdrec_queue_depth", "Jobs waiting for the engine", {"arm": name}, float(arm.batcher.depth)))
        rows.append(("rdrec_engine_up", "Whether an engine runs", {"arm": name}, float(arm.is_ready)))
        rows.append(("rdrec_engines", "Engines that run", {"arm": name}, float(len(arm.batcher.lanes))))
        for device, engines in Counter(arm.devices).items():
            where = {"arm": name, "device": device}
            rows.append(("rdrec_engine_device", "Engines that run, by where they compute", where, float(engines)))
        for place, count in (
            ("placed", arm.items.n_late), ("room", arm.items.room_left), ("waiting", arm.items.waiting)
        ):  # fmt: skip
            text = "Items that the bundle does not know: placed, that may still come (room), without a place"
            rows.append(("rdrec_catalogue_new_items", text, {"arm": name, "state": place}, float(count)))
        version = {"arm": name, "model_version": arm.version, "score_mode": arm.score_mode.value}
        rows.append(("rdrec_model_info", "1 for the bundle that is served", version, 1.0))
        manifest = arm.bundle.manifest
        made_by = {"arm": name, "refreshed": "true" if "refreshed_at" in manifest.metrics else "false"}
        created = datetime.fromisoformat(manifest.created_at).timestamp()
        rows.append(("rdrec_bundle_created_timestamp_seconds", "When the bundle was made", made_by, created))
    return rows
