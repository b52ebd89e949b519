"""Who may do what, how often: API keys with scopes, rate limits, host names and the headers of every answer.

A key is known by its SHA-256 only and compared in constant time with all of them.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence

from fastapi import Request
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as ASGIScope

from service.settings import ApiKey, Scope, Settings
from service.stores.rate_limit import RateLimit, RateLimiter
from service.wire.context import SCOPE_KEY, RequestContext
from service.wire.problems import FORBIDDEN, RATE_LIMITED, UNAUTHENTICATED, ProblemError, problem_response

ANONYMOUS_SCOPES: frozenset[Scope] = frozenset({"recommend", "write", "catalog"})
"""What may be done where no keys are listed: all but the administration."""

_PAGE = (
    "default-src 'none'; script-src 'self'{inline}; style-src 'self'{inline}; img-src 'self' data:; connect-src 'self'"
)
_END = "; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
CONSOLE_POLICY = _PAGE.format(inline="") + _END
DOCS_POLICY = _PAGE.format(inline=" 'unsafe-inline'") + _END
"""Swagger's page starts itself by an inline script."""


_CHARGED = "rdrec.charged"
"""Where in the scope of a request that was let in its bucket and limit are."""


class Keyring:
    """The accepted API keys."""

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        self._keys = tuple(keys)

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, presented: str) -> ApiKey | None:
        """The key that was presented. Takes the same time whichever matches, or none."""
        digest = hashlib.sha256(presented.encode("utf-8", "replace")).hexdigest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found


class Guard:
    """Lets a request in, or raises the problem that keeps it out."""

    def __init__(self, settings: Settings, limiter: RateLimiter) -> None:
        self._keyring = Keyring(settings.api_keys)
        self._limiter = limiter
        rate = settings.anonymous_rate_per_s
        self._anonymous = None if rate is None else RateLimit(rate, settings.anonymous_burst)

    @property
    def needs_keys(self) -> bool:
        """Whether any keys are listed."""
        return len(self._keyring) > 0

    async def admit(self, request: Request, scope: Scope) -> None:
        """Check key, scope and rate, of which it takes one. Raises ProblemError: 401, 403 or 429."""
        context = context_of(request)
        if self.needs_keys:
            key = self._keyring.find(_presented(request.headers))
            if key is None:
                raise ProblemError(
                    UNAUTHENTICATED,
                    "send a known key as `Authorization: Bearer KEY` or `X-API-Key: KEY`",
                    headers={"WWW-Authenticate": "Bearer"},
                )
            if scope not in key.scopes:
                raise ProblemError(FORBIDDEN, f"this key lacks the scope {scope!r}")
            context.caller = key.name
            limit = None if key.rate_per_s is None else RateLimit(key.rate_per_s, key.burst)
            bucket = f"key:{key.name}"
        else:
            if scope not in ANONYMOUS_SCOPES:
                raise ProblemError(FORBIDDEN, "administration needs an API key, and none is configured")
            limit, bucket = self._anonymous, f"address:{request.client.host if request.client else ''}"
        request.scope[_CHARGED] = (bucket, limit)
        await self._take(bucket, limit, 1)

    async def charge(self, request: Request, more: int) -> None:
        """Take what a batch costs beyond the one of `admit`, which saw no body yet. Raises ProblemError: 429.

        Both together are the burst at most, so that the largest batch passes on a full bucket.
        """
        bucket, limit = request.scope[_CHARGED]
        if limit is not None and (cost := min(more, limit.burst - 1)) > 0:
            await self._take(bucket, limit, cost)

    async def _take(self, bucket: str, limit: RateLimit | None, cost: int) -> None:
        if limit is None:
            return
        wait_s = await self._limiter.take(bucket, limit, cost)
        if wait_s > 0:
            raise ProblemError(RATE_LIMITED, f"more than {limit.per_s:g} requests a second", retry_after_s=wait_s)


class ClosedPages:
    """Asks for a key before pages that describe the service rather than use it, whoever serves them.

    pages: the scope by the beginning of the path, see `closed_pages`.
    """

    def __init__(self, app: ASGIApp, guard: Guard, pages: Mapping[str, Scope]) -> None:
        self.app = app
        self._guard = guard
        self._pages = dict(pages)

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """ASGI."""
        needed = self._needed(scope["path"]) if scope["type"] == "http" and self._pages else None
        if needed is not None:
            request = Request(scope)
            try:
                await self._guard.admit(request, needed)
            except ProblemError as error:
                await problem_response(error, context_of(request).request_id)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _needed(self, path: str) -> Scope | None:
        return next((scope for page, scope in self._pages.items() if path == page or path.startswith(page + "/")), None)


def closed_pages(settings: Settings) -> dict[str, Scope]:
    """Pages that ask for a key: all of them where keys are listed, but those that the settings open."""
    if not settings.api_keys:
        return {}
    pages: dict[str, Scope] = {}
    if not settings.open_docs:
        pages |= dict.fromkeys(("/docs", "/openapi.json", "/static-offline-docs"), "recommend")
    if not settings.open_metrics:
        pages["/metrics"] = "metrics"
    return pages


def context_of(request: Request) -> RequestContext:
    """The context that `edge.py` made."""
    context = request.scope[SCOPE_KEY]
    assert isinstance(context, RequestContext)
    return context


def _presented(headers: Mapping[str, str]) -> str:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")


def host_is_allowed(host: str, allowed: Sequence[str]) -> bool:
    """Whether a Host header names an allowed host; `*` allows all, `*.example.org` the names below it."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
    name = name.lower()
    return any(
        pattern in ("*", name) or (pattern.startswith("*.") and name.endswith(pattern[1:].lower()))
        for pattern in allowed
    )


def security_headers(path: str) -> Sequence[tuple[bytes, bytes]]:
    """Headers of every answer; pages get the policy that they can live with, data gets none to run."""
    if path == "/" or path.startswith("/console/"):
        return _CONSOLE_HEADERS
    return _DOCS_HEADERS if path.startswith(("/docs", "/static-offline-docs")) else _DATA_HEADERS


_ALWAYS = (b"x-content-type-options", b"nosniff")


def _page_headers(policy: str) -> Sequence[tuple[bytes, bytes]]:
    return (
        _ALWAYS,
        (b"x-frame-options", b"DENY"),
        (b"referrer-policy", b"no-referrer"),
        (b"content-security-policy", policy.encode()),
        (b"cache-control", b"no-cache"),
    )


_CONSOLE_HEADERS = _page_headers(CONSOLE_POLICY)
_DOCS_HEADERS = _page_headers(DOCS_POLICY)
_DATA_HEADERS = (_ALWAYS, (b"cache-control", b"no-store"))
