"""The ASGI application: parts behind routes behind the edge. `rdrec-serve` (`server.py`) runs it in a process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from rdrec_core.errors import RDRecError
from service.engine.engine_process import OpenEngine
from service.engine.opening import open_engine
from service.engine.siblings import Seat
from service.parts import Stores, assemble, open_stores
from service.settings import Settings
from service.telemetry.tracing import open_tracer
from service.web import routes
from service.web.direct import PROBLEMS, Direct
from service.web.doorman import Doorman
from service.web.edge import Edge
from service.web.openapi import install_openapi
from service.web.operation_routes import look
from service.web.recommend_routes import ask
from service.web.security import ClosedPages, Guard, closed_pages, context_of
from service.wire.problems import problem_response

CONSOLE = Path(__file__).parents[1] / "console"


def create_app(
    settings: Settings,
    *,
    open_engine: OpenEngine = open_engine,
    stores: Stores | None = None,
    clock: Callable[[], float] = time.monotonic,
    on_failed_start: Callable[[RDRecError], None] | None = None,
    on_started: Callable[[], None] = lambda: None,
    seat: Seat | None = None,
) -> FastAPI:
    """The application; the bundle is opened and warmed up in the background once it is started.

    on_failed_start hears of a bundle that cannot be served; without it the lifespan itself waits, and fails. seat:
    which worker of several this is.
    """
    parts = assemble(settings, clock, open_engine, stores or open_stores(settings, clock), seat)
    guard = Guard(settings, parts.stores.limiter)
    tracer = open_tracer(settings.otel_endpoint, version("rdrec"))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async def start() -> None:
            try:
                await parts.host.start(await parts.siblings.start())
                on_started()
            except RDRecError as error:
                if on_failed_start is None:
                    raise
                on_failed_start(error)

        parts.start()
        starting = asyncio.create_task(start())
        if on_failed_start is None:
            await starting
        yield
        starting.cancel()
        await asyncio.wait({starting})
        await parts.close()
        if tracer is not None:
            tracer.close()

    app = FastAPIOffline(
        title="RDRec", version=version("rdrec"), lifespan=lifespan, redoc_url=None, redirect_slashes=False
    )
    app.state.parts = parts
    app.state.guard = guard
    app.state.doorman = Doorman(parts.admission, parts.metrics, clock, lambda: parts.host.is_draining)
    for router in routes.ROUTERS:
        if settings.console or router is not look:
            app.include_router(router)
    if settings.console:
        app.mount("/console", StaticFiles(directory=CONSOLE), name="console")
        app.add_api_route("/", _console, include_in_schema=False)
    for kind in PROBLEMS:
        app.add_exception_handler(kind, _problem)
    install_openapi(app, needs_keys=guard.needs_keys, fields=parts.host.fields, events=list(settings.events))
    app.add_middleware(Direct, routes=ask.routes)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "X-API-Key", "X-Request-ID"],
            expose_headers=["Retry-After", "Server-Timing", "X-Request-ID"],
        )
    app.add_middleware(ClosedPages, guard=guard, pages=closed_pages(settings))
    app.add_middleware(
        Edge,
        settings=settings,
        metrics=parts.metrics,
        tracer=tracer,
        clock=clock,
        is_draining=lambda: parts.host.is_draining,
        admission=parts.admission,
    )
    return app


async def _console() -> FileResponse:
    return FileResponse(CONSOLE / "index.html", media_type="text/html")


async def _problem(request: Request, error: Exception) -> JSONResponse:
    response = problem_response(error, context_of(request).request_id)
    if response.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        response.headers["Allow"] = ", ".join(sorted(_methods_of(request)))
    return response


def _methods_of(request: Request) -> set[str]:
    """Methods of every route of the path: the framework names those of the first one only."""
    path = request.scope["path"]
    included = (route for router in routes.ROUTERS for route in router.routes)
    known = [route for route in (*included, *request.app.routes) if isinstance(route, Route)]
    methods = {method for route in known if route.path_regex.match(path) for method in route.methods or ()}
    return methods | ({"HEAD"} if "GET" in methods else set())  # which the edge answers as it does GET
