"""The two clients: the same methods, sync and async. `calls.py` says what is sent, `retrying.py` when again.

What differs between them is how one waits; everything else is in `_Base` and `_Tries`, once.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import random
import ssl
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypedDict, Unpack, overload

import httpx

from rdrec_client import calls
from rdrec_client.calls import A, Call
from rdrec_client.errors import ProblemError, RDRecClientError, UnreachableError
from rdrec_client.retrying import RetryPolicy

P = ParamSpec("P")
MAX_TOLD_MS = 60_000
"""The longest deadline that the service takes."""
Fallback = Callable[[RDRecClientError], Any]


@dataclass(frozen=True, slots=True)
class _Options:
    timeout_s: float | None = None
    retry: RetryPolicy | None = None
    request_id: str | None = None
    fallback: Fallback | None = None


class Options(TypedDict, total=False):
    """What `with_options` may change. None takes the default again."""

    timeout_s: float | None
    """Of a call, all its tries together; told to the service. By default 2 s for reads, see `calls.py`."""
    retry: RetryPolicy | None
    """By default four tries, but one of `load_bundle`."""
    request_id: str | None
    """Sent as X-Request-ID, so that the service's log can be searched for it; made for each call by default."""
    fallback: Fallback | None
    """Called with the error in place of raising it, where a read found the service away, full or late; its result is
    the answer."""


class _Tries:
    """One call's time and tries. Pure: the clock and the random generator are passed in, nothing sleeps here."""

    def __init__(self, call: Call[Any], options: _Options, clock: Callable[[], float], rng: random.Random) -> None:
        self.request_id = options.request_id or uuid.uuid4().hex[:16]
        self._call = call
        self._clock = clock
        self._rng = rng
        self._attempt = 1
        self._deadline = clock() + (call.timeout_s if options.timeout_s is None else options.timeout_s)
        self._policy = options.retry or (RetryPolicy() if call.is_retried else RetryPolicy(attempts=1))

    def request(self) -> dict[str, Any]:
        """What httpx sends in the next try; neither it nor the service takes longer than is left."""
        left_s = max(self._deadline - self._clock(), 0.001)
        told_ms = max(1, min(round(left_s * 1000), MAX_TOLD_MS))
        headers = {"X-Request-ID": self.request_id, "X-Request-Timeout-Ms": str(told_ms), **self._call.headers}
        return {
            "method": self._call.method,
            "url": self._call.path,
            "json": self._call.body,
            "headers": headers,
            "params": self._call.query or None,
            "timeout": left_s,
        }

    def no_answer(self, error: httpx.TransportError) -> UnreachableError:
        """The error of a try that nobody answered."""
        what = f"{self._call.method} {self._call.path}"
        return UnreachableError(f"{what}: no answer ({type(error).__name__}) [request {self.request_id}]")

    def wait_s(self, error: RDRecClientError) -> float | None:
        """How long to wait before the next try, or None where the error stands."""
        wait_s = None
        if isinstance(error, ProblemError):
            wait_s = self._policy.wait_s(
                self._attempt, self._rng, status=error.status, retry_after_s=error.retry_after_s
            )
        elif isinstance(error, UnreachableError):
            wait_s = self._policy.wait_s(self._attempt, self._rng)
        self._attempt += 1
        return None if wait_s is None or self._clock() + wait_s >= self._deadline else wait_s


@functools.cache
def _authorities() -> ssl.SSLContext:
    """httpx's own default, read once a process: that takes ten times as long as all else that a client needs."""
    return httpx.create_ssl_context()


class _Base:
    """What both clients are made of, but their methods."""

    def __init__(
        self, base_url: str, api_key: str | None, options: _Options, clock: Callable[[], float], seed: int | None
    ) -> None:
        headers = {"Accept": "application/json, application/problem+json"}
        if api_key is not None:
            headers["Authorization"] = f"Bearer {api_key}"
        self._connection: dict[str, Any] = {"base_url": base_url, "headers": headers, "verify": _authorities()}
        self._options = options
        self._clock = clock
        self._rng = random.Random(seed)

    def with_options(self, **changes: Unpack[Options]) -> Self:
        """The same client, over the same connections, with other options: for one call, or to keep.

        client.with_options(timeout_s=0.3, fallback=lambda error: None).sequential("u0007")
        """
        other = copy.copy(self)
        other._options = replace(self._options, **changes)
        return other

    def _tries(self, call: Call[Any]) -> _Tries:
        return _Tries(call, self._options, self._clock, self._rng)

    def _instead(self, call: Call[A], error: RDRecClientError) -> A:
        """The fallback's answer; raises the error where there is none, or where it would hide a mistake or a write."""
        fallback = self._options.fallback
        caller_is_wrong = isinstance(error, ProblemError) and error.status < 500 and error.status != 429
        if fallback is None or caller_is_wrong or not call.is_read:
            raise error
        answer: A = fallback(error)
        return answer


class _Method(Generic[P, A]):
    """A function of `calls.py` as a method: of RDRecClient it returns the answer, of the other one an awaitable."""

    def __init__(self, make: Callable[P, Call[A]]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, client: None, owner: type[Any]) -> Self: ...

    @overload
    def __get__(self, client: RDRecClient, owner: type[Any]) -> Callable[P, A]: ...

    @overload
    def __get__(self, client: AsyncRDRecClient, owner: type[Any]) -> Callable[P, Awaitable[A]]: ...

    def __get__(self, client: RDRecClient | AsyncRDRecClient | None, owner: type[Any]) -> Any:
        """See descriptors; the bound method has the function's name, signature and docstring."""
        if client is None:
            return self

        @functools.wraps(self._make)
        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return client._send(self._make(*args, **kwargs))

        return method


class _Calls:
    """Every endpoint; signatures and docstrings are those in `calls.py`."""

    sequential = _Method(calls.sequential)
    topn = _Method(calls.topn)
    similar = _Method(calls.similar)
    popular = _Method(calls.popular)
    latest = _Method(calls.latest)
    explain = _Method(calls.explain)
    batch = _Method(calls.batch)
    record = _Method(calls.record)
    record_all = _Method(calls.record_all)
    give_feedback = _Method(calls.give_feedback)
    history = _Method(calls.history)
    forget = _Method(calls.forget)
    find_users = _Method(calls.find_users)
    find_items = _Method(calls.find_items)
    put_item = _Method(calls.put_item)
    put_items = _Method(calls.put_items)
    patch_item = _Method(calls.patch_item)
    delete_item = _Method(calls.delete_item)
    get_item = _Method(calls.get_item)
    catalogue = _Method(calls.catalogue)
    model = _Method(calls.model)
    load_bundle = _Method(calls.load_bundle)


class RDRecClient(_Base, _Calls):
    """Synchronous client; share one between threads, close it at the end or use it in a `with` block.

    Every method raises ProblemError where the service says no, UnreachableError where no answer comes in time, after
    the tries that `retry` allows.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        timeout_s: float | None = None,
        retry: RetryPolicy | None = None,
        fallback: Fallback | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        seed: int | None = None,
    ) -> None:
        """timeout_s, retry, fallback: see `Options`."""
        super().__init__(base_url, api_key, _Options(timeout_s, retry, fallback=fallback), clock, seed)
        self._http = httpx.Client(transport=transport, **self._connection)
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

    def is_ready(self) -> bool:
        """Whether the service takes requests now; one try, raises nothing."""
        try:
            return self._http.get("/health/ready", timeout=calls.READ_S).is_success
        except httpx.TransportError:
            return False

    def _send(self, call: Call[A]) -> A:
        tries = self._tries(call)
        while True:
            try:
                return self._once(call, tries)
            except RDRecClientError as error:
                wait_s = tries.wait_s(error)
                if wait_s is None:
                    return self._instead(call, error)
            self._sleep(wait_s)

    def _once(self, call: Call[A], tries: _Tries) -> A:
        try:
            response = self._http.request(**tries.request())
        except httpx.TransportError as error:
            raise tries.no_answer(error) from error
        return calls.answer_of(call, response)


class AsyncRDRecClient(_Base, _Calls):
    """Asynchronous client; the methods of RDRecClient, to be awaited."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        timeout_s: float | None = None,
        retry: RetryPolicy | None = None,
        fallback: Fallback | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        seed: int | None = None,
    ) -> None:
        """See RDRecClient."""
        super().__init__(base_url, api_key, _Options(timeout_s, retry, fallback=fallback), clock, seed)
        self._http = httpx.AsyncClient(transport=transport, **self._connection)
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

    async def is_ready(self) -> bool:
        """Whether the service takes requests now; one try, raises nothing."""
        try:
            return (await self._http.get("/health/ready", timeout=calls.READ_S)).is_success
        except httpx.TransportError:
            return False

    async def _send(self, call: Call[A]) -> A:
        tries = self._tries(call)
        while True:
            try:
                return await self._once(call, tries)
            except RDRecClientError as error:
                wait_s = tries.wait_s(error)
                if wait_s is None:
                    return self._instead(call, error)
            await self._sleep(wait_s)

    async def _once(self, call: Call[A], tries: _Tries) -> A:
        try:
            response = await self._http.request(**tries.request())
        except httpx.TransportError as error:
            raise tries.no_answer(error) from error
        return calls.answer_of(call, response)
