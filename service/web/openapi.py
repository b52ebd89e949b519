"""The OpenAPI document: which problems each endpoint can answer, and how keys are sent."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

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
    guarded: bool = True,
    unready: bool = False,
) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an endpoint: what may go wrong with its body, engine, history store, bundle, or key."""
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


def install_openapi(app: FastAPI, *, needs_keys: bool) -> None:
    """Replace the generated document by one with problems instead of the framework's own error schema."""

    def build() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, needs_keys)
        return app.openapi_schema

    app.openapi = build  # type: ignore[method-assign]


def _document(app: FastAPI, needs_keys: bool) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["ProblemAnswer"] = ProblemAnswer.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas["ProblemAnswer"].pop("$defs", None)
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
