"""The two clients: the same methods, sync and async. `calls.py` says what is sent, `retrying.py` when again."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any

import httpx

from rdrec_client import calls
from rdrec_client.calls import A, Call
from rdrec_client.errors import ProblemError, RDRecClientError, UnreachableError
from rdrec_client.models import (
    ArmName,
    BatchResult,
    Explain,
    Explanation,
    History,
    HistoryItem,
    Model,
    Ranking,
    Recorded,
    Sequential,
    TopN,
)
from rdrec_client.retrying import RetryPolicy

PATIENCE_S = 30.0
"""How long a call without a deadline of its own waits for an answer."""
MARGIN_S = 1.0
"""Beyond the deadline that the service was told, for its answer to arrive."""


class _Base:
    """What both clients are made of."""

    def __init__(
        self, base_url: str, api_key: str | None, timeout_s: float | None, retry: RetryPolicy | None, seed: int | None
    ) -> None:
        headers = {"Accept": "application/json, application/problem+json"}
        if api_key is not None:
            headers["Authorization"] = f"Bearer {api_key}"
        if timeout_s is not None:
            headers["X-Request-Timeout-Ms"] = str(round(timeout_s * 1000))
        self._options: dict[str, Any] = {
            "base_url": base_url,
            "headers": headers,
            "timeout": PATIENCE_S if timeout_s is None else timeout_s + MARGIN_S,
        }
        self._retry = retry or RetryPolicy()
        self._rng = random.Random(seed)

    def _wait_s(self, attempt: int, error: RDRecClientError) -> float | None:
        """How long to wait after a failed try, or None to raise the error."""
        if isinstance(error, ProblemError):
            return self._retry.wait_s(attempt, self._rng, status=error.status, retry_after_s=error.retry_after_s)
        return self._retry.wait_s(attempt, self._rng) if isinstance(error, UnreachableError) else None


def _request(call: Call[Any]) -> dict[str, Any]:
    return {
        "method": call.method,
        "url": call.path,
        "json": call.body,
        "headers": call.headers,
        "params": call.query or None,
    }


def _unreachable(call: Call[Any], error: httpx.TransportError) -> UnreachableError:
    return UnreachableError(f"{call.method} {call.path}: no answer ({type(error).__name__})")


class RDRecClient(_Base):
    """Synchronous client; share one between threads, close it at the end or use it in a `with` block.

    Every method raises ProblemError where the service says no, UnreachableError where no answer comes, after the tries
    that `retry` allows.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        timeout_s: float | None = None,
        retry: RetryPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        seed: int | None = None,
    ) -> None:
        """timeout_s: deadline of each try, told to the service; None leaves it to the service's defaults."""
        super().__init__(base_url, api_key, timeout_s, retry, seed)
        self._http = httpx.Client(transport=transport, **self._options)
        self._sleep = sleep

    def __enter__(self) -> RDRecClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release connections."""
        self._http.close()

    def sequential(
        self,
        user_id: str | None = None,
        *,
        history: Sequence[str] | None = None,
        n_items: int | None = None,
        exclude_seen: bool | None = None,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        beam_width: int | None = None,
        fusion: bool | None = None,
        arm: ArmName | None = None,
    ) -> Ranking:
        """What will this user want next?"""
        return self._send(
            calls.sequential(
                Sequential(
                    user_id=user_id, history=history, n_items=n_items, exclude_seen=exclude_seen, include=include,
                    exclude=exclude, beam_width=beam_width, fusion=fusion, arm=arm,
                )
            )
        )  # fmt: skip

    def topn(
        self,
        user_id: str | None = None,
        *,
        candidates: Sequence[str] | None = None,
        history: Sequence[str] | None = None,
        n_items: int | None = None,
        fusion: bool | None = None,
        arm: ArmName | None = None,
    ) -> Ranking:
        """Which of these candidates suit this user best?"""
        request = TopN(user_id=user_id, candidates=candidates, history=history, n_items=n_items, fusion=fusion, arm=arm)
        return self._send(calls.topn(request))

    def explain(self, user_id: str, item_id: str, *, arm: ArmName | None = None) -> Explanation:
        """Why this item for this user?"""
        return self._send(calls.explain(Explain(user_id=user_id, item_id=item_id, arm=arm)))

    def batch(self, requests: Sequence[Sequential | TopN | Explain]) -> tuple[BatchResult, ...]:
        """Several requests at once (up to 256); each has its own answer or problem, in the order of the requests."""
        return self._send(calls.batch(requests)).results

    def record(
        self, user_id: str, item_id: str, *, timestamp: float | None = None, idempotency_key: str | None = None
    ) -> Recorded:
        """Keep an interaction. The tries of one call are one write; pass a key to make several calls one."""
        return self._send(calls.record(user_id, item_id, timestamp, idempotency_key))

    def history(self, user_id: str, *, limit: int | None = None) -> History:
        """What the service knows of the user, oldest first."""
        return self._send(calls.history(user_id, limit))

    def forget(self, user_id: str) -> None:
        """Drop the user's history; the bundle's base history does not come back either."""
        self._try(calls.forget(user_id))

    def find_users(self, query: str = "", *, limit: int | None = None) -> tuple[str, ...]:
        """Users of the bundle whose id begins with `query`."""
        return self._send(calls.find_users(query, limit)).user_ids

    def find_items(self, query: str = "", *, limit: int | None = None) -> tuple[HistoryItem, ...]:
        """Items whose id begins with `query` or whose title holds it."""
        return self._send(calls.find_items(query, limit)).items

    def model(self) -> Model:
        """What is being served."""
        return self._send(calls.model())

    def load_bundle(self, path: str | None = None) -> Model:
        """Serve another bundle, or read the present one again (scope admin)."""
        return self._send(calls.load_bundle(path))

    def is_ready(self) -> bool:
        """Whether the service takes requests now; one try, raises nothing."""
        try:
            return self._http.get("/health/ready").is_success
        except httpx.TransportError:
            return False

    def _send(self, call: Call[A]) -> A:
        answer = self._try(call)
        assert answer is not None
        return answer

    def _try(self, call: Call[A]) -> A | None:
        attempt = 1
        while True:
            try:
                return self._once(call)
            except RDRecClientError as error:
                wait_s = self._wait_s(attempt, error)
                if wait_s is None:
                    raise
            self._sleep(wait_s)
            attempt += 1

    def _once(self, call: Call[A]) -> A | None:
        try:
            response = self._http.request(**_request(call))
        except httpx.TransportError as error:
            raise _unreachable(call, error) from error
        return calls.answer_of(call, response)


class AsyncRDRecClient(_Base):
    """Asynchronous client; the methods of RDRecClient, to be awaited."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        timeout_s: float | None = None,
        retry: RetryPolicy | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        seed: int | None = None,
    ) -> None:
        """See RDRecClient."""
        super().__init__(base_url, api_key, timeout_s, retry, seed)
        self._http = httpx.AsyncClient(transport=transport, **self._options)
        self._sleep = sleep

    async def __aenter__(self) -> AsyncRDRecClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Release connections."""
        await self._http.aclose()

    async def sequential(
        self,
        user_id: str | None = None,
        *,
        history: Sequence[str] | None = None,
        n_items: int | None = None,
        exclude_seen: bool | None = None,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        beam_width: int | None = None,
        fusion: bool | None = None,
        arm: ArmName | None = None,
    ) -> Ranking:
        """What will this user want next?"""
        return await self._send(
            calls.sequential(
                Sequential(
                    user_id=user_id, history=history, n_items=n_items, exclude_seen=exclude_seen, include=include,
                    exclude=exclude, beam_width=beam_width, fusion=fusion, arm=arm,
                )
            )
        )  # fmt: skip

    async def topn(
        self,
        user_id: str | None = None,
        *,
        candidates: Sequence[str] | None = None,
        history: Sequence[str] | None = None,
        n_items: int | None = None,
        fusion: bool | None = None,
        arm: ArmName | None = None,
    ) -> Ranking:
        """Which of these candidates suit this user best?"""
        request = TopN(user_id=user_id, candidates=candidates, history=history, n_items=n_items, fusion=fusion, arm=arm)
        return await self._send(calls.topn(request))

    async def explain(self, user_id: str, item_id: str, *, arm: ArmName | None = None) -> Explanation:
        """Why this item for this user?"""
        return await self._send(calls.explain(Explain(user_id=user_id, item_id=item_id, arm=arm)))

    async def batch(self, requests: Sequence[Sequential | TopN | Explain]) -> tuple[BatchResult, ...]:
        """Several requests at once (up to 256); each has its own answer or problem, in the order of the requests."""
        return (await self._send(calls.batch(requests))).results

    async def record(
        self, user_id: str, item_id: str, *, timestamp: float | None = None, idempotency_key: str | None = None
    ) -> Recorded:
        """Keep an interaction. The tries of one call are one write; pass a key to make several calls one."""
        return await self._send(calls.record(user_id, item_id, timestamp, idempotency_key))

    async def history(self, user_id: str, *, limit: int | None = None) -> History:
        """What the service knows of the user, oldest first."""
        return await self._send(calls.history(user_id, limit))

    async def forget(self, user_id: str) -> None:
        """Drop the user's history; the bundle's base history does not come back either."""
        await self._try(calls.forget(user_id))

    async def find_users(self, query: str = "", *, limit: int | None = None) -> tuple[str, ...]:
        """Users of the bundle whose id begins with `query`."""
        return (await self._send(calls.find_users(query, limit))).user_ids

    async def find_items(self, query: str = "", *, limit: int | None = None) -> tuple[HistoryItem, ...]:
        """Items whose id begins with `query` or whose title holds it."""
        return (await self._send(calls.find_items(query, limit))).items

    async def model(self) -> Model:
        """What is being served."""
        return await self._send(calls.model())

    async def load_bundle(self, path: str | None = None) -> Model:
        """Serve another bundle, or read the present one again (scope admin)."""
        return await self._send(calls.load_bundle(path))

    async def is_ready(self) -> bool:
        """Whether the service takes requests now; one try, raises nothing."""
        try:
            return (await self._http.get("/health/ready")).is_success
        except httpx.TransportError:
            return False

    async def _send(self, call: Call[A]) -> A:
        answer = await self._try(call)
        assert answer is not None
        return answer

    async def _try(self, call: Call[A]) -> A | None:
        attempt = 1
        while True:
            try:
                return await self._once(call)
            except RDRecClientError as error:
                wait_s = self._wait_s(attempt, error)
                if wait_s is None:
                    raise
            await self._sleep(wait_s)
            attempt += 1

    async def _once(self, call: Call[A]) -> A | None:
        try:
            response = await self._http.request(**_request(call))
        except httpx.TransportError as error:
            raise _unreachable(call, error) from error
        return calls.answer_of(call, response)
