"""The endpoints that are asked most, reached by their path alone.

The framework's search through its routes and the contexts that it opens around each cost a third of what the service
does for a ranking, and none of these endpoints uses them. Everything else, other methods included, goes on to it.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from rdrec_core.errors import RDRecError
from service.web.security import context_of
from service.wire.problems import ProblemError, problem_response
from service.wire.work import QueueFullError

PROBLEMS = (RDRecError, ProblemError, HTTPException, RequestValidationError)
"""What becomes the answer; anything else nobody foresaw, and the edge logs it."""


class Direct:
    """routes: POST endpoints without anything in their paths."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self.app = app
        self._routes = {
            route.path: (route, route.get_route_handler()) for route in routes if isinstance(route, APIRoute)
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        found = self._routes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if found is None:
            await self.app(scope, receive, send)
            return
        scope["route"], answer = found
        request = Request(scope, receive)
        try:
            response = await answer(request)
        except PROBLEMS as error:
            context = context_of(request)
            context.is_too_late = isinstance(error, QueueFullError)
            response = problem_response(error, context.request_id)
        await response(scope, receive, send)
