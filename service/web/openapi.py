"""The OpenAPI document: which problems each endpoint can answer, and how keys are sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from rdrec_core.columns import COLUMNS, ColumnType
from rdrec_core.filters import MAX_NUMBER, MAX_VALUES, NOT
from service.wire.base import ProblemAnswer
from service.wire.problems import MEDIA_TYPE, PROBLEM_TYPES

DESCRIPTION = """\
Recommendations and explanations from an RDRec bundle.

* Every answer names the `model_version` that made it and where the history came from.
* Every error is an RFC 9457 problem with a stable `type`; `docs/api.md` lists them.
* `X-Request-Timeout-Ms` (1 to 60000) sets the deadline of a request; past it the answer is a 504.
* `X-Request-ID` is echoed, and made where absent. `Server-Timing` says where the time went.
"""
_RETRY = {429, 503}


def problems(
    *,
    body: bool = False,
    engine: bool = False,
    history: bool = False,
    bundle: bool = False,
    full: bool = False,
    item: bool = False,
    guarded: bool = True,
    unready: bool = False,
    gone: bool = False,
) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an endpoint: what may go wrong with its body, engine, stores, bundle, item, or key."""
    statuses: set[int] = set()
    if guarded:
        statuses |= {400, 401, 403, 422, 429, 503}
    if body:
        statuses |= {400, 404, 408, 413, 415}
    if engine:
        statuses |= {504}
    if history:
        statuses |= {503}
    if bundle:
        statuses |= {409}
    if gone:
        statuses |= {410}
    if full:
        statuses |= {409, 507}
    if item:
        statuses |= {404}
    documented: dict[int | str, dict[str, Any]] = {status: _documented(status) for status in sorted(statuses)}
    if unready:
        documented[503] = {
            "description": "Not ready, or dead; `reasons` says why.",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/HealthAnswer"}}},
        }
    return documented


def _documented(status: int) -> dict[str, Any]:
    kinds = [kind for kind in PROBLEM_TYPES if kind.status == status]
    entry: dict[str, Any] = {
        "description": " / ".join(f"{kind.title} (`{kind.slug}`)" for kind in kinds),
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemAnswer"}}},
    }
    if status in _RETRY:
        entry["headers"] = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer", "minimum": 1}}}
    return entry


def install_openapi(
    app: FastAPI, *, needs_keys: bool, fields: Callable[[], Mapping[str, ColumnType]], events: Sequence[str]
) -> None:
    """Replace the generated document by one with problems instead of the framework's own error schema.

    It tells what this very service takes. fields: what items can be filtered by now; events: their kinds.
    """

    def build() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, needs_keys, events)
        app.openapi_schema["components"]["schemas"] |= where_schemas(fields())
        return app.openapi_schema

    app.openapi = build  # type: ignore[method-assign]


def _document(app: FastAPI, needs_keys: bool, events: Sequence[str]) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["ProblemAnswer"] = ProblemAnswer.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas["ProblemAnswer"].pop("$defs", None)
    for name, schema in schemas.items():
        if "where" in schema.get("properties", {}) and not name.endswith("Part"):  # a batch fails by its parts
            schema["properties"]["where"]["anyOf"][0] = {"$ref": "#/components/schemas/Where"}
        if "event" in schema.get("properties", {}):
            schema["properties"]["event"]["enum"] = list(events)
    for path, item in document["paths"].items():
        for operation in item.values():
            operation["responses"].get("422", {}).get("content", {}).pop("application/json", None)
            if needs_keys and not path.startswith("/health/"):
                operation["security"] = [{"bearer": []}, {"header": []}]
    if needs_keys:
        document["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
    return document


def where_schemas(fields: Mapping[str, ColumnType]) -> dict[str, Any]:
    """The schema of filters over these fields, `Where`, and of what stands under `not`, which may be nested further."""
    properties = {name: _condition_schema(type_) for name, type_ in fields.items()}
    inner = {
        "type": "object",
        "title": "What items must not be",
        "properties": properties,
        "additionalProperties": False,
    }
    outer = {**properties, NOT: {"$ref": "#/components/schemas/WhereNot"}}
    return {
        "Where": {**inner, "title": "What items must be", "properties": outer},
        "WhereNot": inner,
    }


def _condition_schema(type_: ColumnType) -> dict[str, Any]:
    value: dict[str, Any] = {"type": "boolean" if type_ == "boolean" else "string"}
    if type_ == "number":
        value = {"type": "number", "minimum": -MAX_NUMBER, "maximum": MAX_NUMBER}
    several = {"type": "array", "items": value, "minItems": 1, "maxItems": MAX_VALUES}
    operators = {name: several if name in ("in", "any", "all") else value for name in COLUMNS[type_].operators}
    condition = {"type": "object", "properties": operators, "minProperties": 1, "additionalProperties": False}
    return {"anyOf": [value, condition]}
