"""Metrics and JSON logs. Knows names and formats; the numbers come from whoever measures them."""

from __future__ import annotations

import hashlib
import logging
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from rdrec_core.errors import RDRecError
from service.wire.context import RequestContext
from service.wire.work import Kind, Line

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_JOBS = (1, 2, 4, 8, 16, 32, 64)
_RANKS = (1, 2, 3, 5, 10, 20, 50, 100)
_SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
ENDPOINTS = ("/recommend/sequential", "/recommend/topn", "/explain", "/recommend/batch", "/interactions")
"""Whose metrics are there before the first request."""
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class Metrics:
    """All metrics of one service on a registry of its own, so that several can live in one process."""

    def __init__(self, shared: Path | None = None) -> None:
        """shared: where all workers keep their counts; prometheus_client was told the same when it was imported."""
        self.registry = CollectorRegistry()
        self._shared = shared
        self.requests = self._seconds("request_seconds", "Latency of HTTP requests", "endpoint", "status")
        self.in_flight = Gauge(
            "rdrec_requests_in_flight",
            "HTTP requests being served",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.turned_away = self._counter("turned_away", "Requests refused because their line was full", "line")
        self.answers = self._counter("answers", "Answers by source of the history", "endpoint", "history_source")
        self.degraded = self._counter("degraded_answers", "Answers without the newest history or model", "endpoint")
        self.cache = self._counter("answer_cache", "Answer cache look-ups: hit, miss, joined", "outcome")
        self.queue_wait = self._seconds("queue_wait_seconds", "Time in the queue", "arm", "kind")
        self.expired = self._counter("expired_jobs", "Jobs dropped in the queue past their deadline", "arm", "kind")
        self.batch_size = self._histogram("batch_size", "Jobs in an engine batch", _JOBS, "arm", "kind")
        self.engine = self._seconds("engine_batch_seconds", "Engine time of a batch", "arm", "kind")
        self.words = self._counter("generated_words", "Words of generated text", "arm")
        self.explanations = self._counter("explanations", "Explanations by what speaks in them", "arm", "basis")
        self.refused_texts = self._counter("refused_texts", "Texts of the model that were not served", "arm", "why")
        self.arm_answers = self._seconds("arm_seconds", "Latency of answers by arm", "arm", "endpoint")
        self.shadow_overlap = self._histogram("shadow_overlap", "Share of the items that the shadow names too", _SHARES)
        self.shadow_failures = self._counter("shadow_failures", "Shadow computations that failed")
        self.impressions = self._counter("impressions", "Lists with items that were answered", "arm")
        self.feedback = self._counter("feedback", "Events of items of a list, each once", "arm", "event")
        self.taken = self._counter("taken_impressions", "Lists of which anything was taken", "arm")
        self.converted = self._counter("converted_impressions", "Lists of which a taken item became history", "arm")
        self.taken_rank = self._histogram("taken_rank", "Rank of the items of a list that were taken", _RANKS, "arm")
        self.swaps = self._counter("bundle_swaps", "Bundle changes: done, refused", "outcome")
        self.catalogue_refused = self._counter("catalogue_refused_items", "Items for which there was no place (507)")
        self.restarts = self._counter("engine_restarts", "Engine threads started after a death")

        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """A counter that appears with its first event hides that event from `rate` and `increase`."""
        for line in Line:
            self.turned_away.labels(line.value)
        for counter in (self.impressions, self.taken, self.converted, self.taken_rank):
            counter.labels("a")
        for outcome in ("done", "refused"):
            self.swaps.labels(outcome)
        for outcome in ("hit", "miss", "joined"):
            self.cache.labels(outcome)
        for endpoint in ENDPOINTS:
            self.degraded.labels(endpoint)
            for source in ("request", "redis", "memory", "bundle", "none"):
                self.answers.labels(endpoint, source)
            for status in ("200", "429", "500", "503", "504"):
                self.requests.labels(endpoint, status)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"rdrec_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"rdrec_{name}", text, labels, buckets=buckets, registry=self.registry)

    def _seconds(self, name: str, text: str, *labels: str) -> Histogram:
        return self._histogram(name, text, _SECONDS, *labels)

    def exposition(self, state: list[StateRow]) -> bytes:
        """Everything in Prometheus's text format: what all workers counted, and the gauges that were read."""
        gauges = CollectorRegistry()
        gauges.register(StateCollector(lambda: state))
        counts = self.registry
        if self._shared is not None:
            counts = CollectorRegistry()
            MultiProcessCollector(counts, path=str(self._shared))  # type: ignore[no-untyped-call]
        return generate_latest(counts) + generate_latest(gauges)

    def observe_request(self, context: RequestContext, status: int, seconds: float) -> None:
        """Count one finished HTTP request."""
        self.requests.labels(context.endpoint, str(status)).observe(seconds)
        if context.history_source is not None:
            self.answers.labels(context.endpoint, context.history_source).inc()
        if context.degraded:
            self.degraded.labels(context.endpoint).inc()
        if context.cache is not None:
            self.cache.labels(context.cache).inc()
        if context.arm is not None:
            self.arm_answers.labels(context.arm, context.endpoint).observe(seconds)


class ArmObserver:
    """What a Batcher reports, under the arm's name."""

    def __init__(self, metrics: Metrics, arm: str) -> None:
        self._size = {kind: metrics.batch_size.labels(arm, kind.value) for kind in Kind}
        self._engine = {kind: metrics.engine.labels(arm, kind.value) for kind in Kind}
        self._wait = {kind: metrics.queue_wait.labels(arm, kind.value) for kind in Kind}
        self._expired = {kind: metrics.expired.labels(arm, kind.value) for kind in Kind}
        metrics.words.labels(arm)

    def batch_done(self, kind: Kind, jobs: int, seconds: float) -> None:
        """See BatcherObserver."""
        self._size[kind].observe(jobs)
        self._engine[kind].observe(seconds)

    def left_queue(self, kind: Kind, waited_s: float, *, expired: bool) -> None:
        """See BatcherObserver."""
        self._wait[kind].observe(waited_s)
        if expired:
            self._expired[kind].inc()


StateRow = tuple[str, str, dict[str, str], float]
"""Name, help, labels, value of one gauge."""


class StateCollector(Collector):
    """Gauges read at scrape time."""

    def __init__(self, read: Callable[[], list[StateRow]]) -> None:
        self._read = read

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing: asked at registration, before there is any state."""
        return []

    def collect(self) -> list[GaugeMetricFamily]:
        """One family a name."""
        families: dict[str, GaugeMetricFamily] = {}
        for name, text, labels, value in self._read():
            family = families.setdefault(name, GaugeMetricFamily(name, text, labels=list(labels)))
            family.add_metric(list(labels.values()), value)
        return list(families.values())


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts, level, event, and the fields given as `extra`.

    Of an exception only its type and places are written: its text may quote what a user sent.
    """

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        entry: dict[str, Any] = {
            "ts": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        entry.update({k: v for k, v in vars(record).items() if k not in _STANDARD and not k.startswith("_")})
        if record.exc_info and record.exc_info[1] is not None:
            entry.update(describe_error(record.exc_info[1]))
        return orjson.dumps(entry, default=str).decode()


def describe_error(error: BaseException) -> dict[str, Any]:
    """Fields for the log: type, the places it passed (innermost last), and the text of our own errors alone."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    described: dict[str, Any] = {
        "error": type(error).__name__,
        "where": [f"{f.filename.rpartition('/')[2]}:{f.lineno} {f.name}" for f in frames],
    }
    if isinstance(error, RDRecError):
        described["reason"] = str(error)
    if error.__cause__ is not None:
        described["cause"] = describe_error(error.__cause__)
    return described


def configure_logging(level: str) -> None:
    """JSON lines on stderr for every logger; uvicorn's own access log is replaced by ours."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = name != "uvicorn.access"
    logging.getLogger("httpx").setLevel(logging.WARNING)


def user_hash(user_id: str, salt: str) -> str:
    """Twelve hex digits that stand for a user in logs."""
    return hashlib.blake2b(user_id.encode("utf-8", "replace"), key=salt.encode()[:64], digest_size=6).hexdigest()
