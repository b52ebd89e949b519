"""Optional OpenTelemetry traces (extra `otel`): one span a request, one child for each phase where time went."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rdrec_core.errors import RDRecError
from service.wire.context import Phase, RequestContext

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

_PHASES: tuple[Phase, ...] = ("history", "queue", "engine")


class Tracer:
    """OpenTelemetry spans of requests; `open_tracer` gives None where the extra or the endpoint is missing."""

    def __init__(self, exporter: SpanExporter, version: str) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        resource = Resource.create({"service.name": "rdrec", "service.version": version})
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("rdrec.service")

    def record(self, context: RequestContext, status: int, seconds: float, traceparent: str | None) -> None:
        """Write a finished request as a span with one child a phase, under the caller's trace if it sent one."""
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        parent = TraceContextTextMapPropagator().extract({"traceparent": traceparent} if traceparent else {})
        end = time.time_ns()
        start = end - int(seconds * 1e9)
        span = self._tracer.start_span(
            context.endpoint, parent, kind=trace.SpanKind.SERVER, start_time=start, attributes=span_attributes(context)
        )
        span.set_attribute("http.response.status_code", status)
        inside = trace.set_span_in_context(span)
        at = start
        for phase in _PHASES:
            spent = int(context.seconds.get(phase, 0.0) * 1e9)
            if spent:
                self._tracer.start_span(phase, inside, start_time=at).end(at + spent)
                at += spent
        span.end(end)

    def close(self) -> None:
        """Send what is buffered."""
        self._provider.shutdown()


def span_attributes(context: RequestContext) -> dict[str, str | bool]:
    """What a span says besides its times; no user, not even hashed."""
    named = {
        "rdrec.request_id": context.request_id,
        "rdrec.model_version": context.model_version,
        "rdrec.arm": context.arm,
        "rdrec.history_source": context.history_source,
        "rdrec.cache": context.cache,
        "rdrec.degraded": context.degraded,
    }
    return {name: value for name, value in named.items() if value is not None}


def open_tracer(endpoint: str | None, version: str) -> Tracer | None:
    """A tracer if an endpoint is configured. Raises RDRecError where the extra `otel` is not installed."""
    if endpoint is None:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return Tracer(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces"), version)
    except ImportError as error:
        raise RDRecError("RDREC_OTEL_ENDPOINT is set but the extra is missing: pip install 'rdrec[otel]'") from error
