"""What the logs say of errors and users, and what they keep to themselves; spans of a finished request."""

from __future__ import annotations

import json
import logging

import pytest

from rdrec_core.errors import EngineError
from service.telemetry.observability import JsonFormatter, describe_error, user_hash
from service.telemetry.tracing import Tracer, open_tracer, span_attributes
from service.wire.context import RequestContext


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    try:
        raise error from cause
    except type(error) as caught:
        return caught


def test_an_error_is_logged_by_type_and_place_without_its_values() -> None:
    error = raised(EngineError("the engine failed"), raised(ValueError("password=hunter2")))
    described = describe_error(error)
    assert described["error"] == "EngineError"
    assert described["reason"] == "the engine failed"
    assert described["cause"]["error"] == "ValueError"
    assert "raised" in described["where"][-1]
    assert "hunter2" not in json.dumps(described)


def test_a_line_is_json_with_its_fields_and_no_traceback() -> None:
    record = logging.LogRecord(
        "rdrec", logging.ERROR, "file", 1, "boom", (), (ValueError, raised(ValueError("x=1")), None)
    )
    record.request_id = "abc"
    line = JsonFormatter().format(record)
    entry = json.loads(line)
    assert (entry["event"], entry["level"], entry["request_id"], entry["error"]) == (
        "boom",
        "error",
        "abc",
        "ValueError",
    )
    assert "\n" not in line
    assert "x=1" not in line


def test_a_user_hash_depends_on_the_salt_and_takes_any_string() -> None:
    assert user_hash("u", "a") == user_hash("u", "a") != user_hash("u", "b")
    assert len(user_hash("\ud800", "salt" * 100)) == 12


def test_phases_side_by_side_count_once() -> None:
    context = RequestContext("r", lambda: 0.0, 0.0)
    context.spend("engine", 2.0)
    context.spend("engine", 3.0)
    part = context.part()
    part.spend("engine", 1.0)
    part.degraded = True
    context.absorb(part)
    assert context.seconds == {"engine": 3.0}
    assert context.degraded


def test_without_an_endpoint_nothing_is_traced() -> None:
    assert open_tracer(None, "1") is None


def test_a_request_becomes_a_span_with_a_child_for_each_phase_under_the_callers_trace() -> None:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans = InMemorySpanExporter()
    tracer = Tracer(spans, "1")
    context = RequestContext("r1", lambda: 0.0, 0.0, endpoint="/explain", model_version="m", degraded=True)
    context.spend("queue", 0.01)
    context.spend("engine", 0.02)
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    tracer.record(context, 200, 0.05, f"00-{trace_id}-00f067aa0ba902b7-01")
    tracer.close()
    found = {span.name: span for span in spans.get_finished_spans()}
    assert set(found) == {"/explain", "queue", "engine"}
    parent = found["/explain"]
    assert parent.context.trace_id == int(trace_id, 16)
    assert parent.attributes == {**span_attributes(context), "http.response.status_code": 200}
    assert parent.end_time - parent.start_time == pytest.approx(0.05e9, rel=1e-3)
    assert all(found[name].parent.span_id == parent.context.span_id for name in ("queue", "engine"))
    assert found["engine"].start_time == found["queue"].end_time
