"""The one way to Redis for history, rate limits and cached texts: bounded in time and number, behind the breaker.

Knows commands and failures, not what the keys mean. A Redis that is down or slow costs a caller at most
four attempts' time (two tries, each of which may first wait for a connection), and nothing while the breaker is open.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any

from redis import exceptions

from rdrec_core.errors import RDRecError
from service.stores.breaker import BreakerOpenError, CircuitBreaker
from service.stores.redis_url import RedisClient, redis_client

logger = logging.getLogger(__name__)

_DOWN: tuple[type[BaseException], ...] = (
    exceptions.ConnectionError,  # LOADING and a refused login are among these
    exceptions.TimeoutError,
    exceptions.ClusterError,  # CLUSTERDOWN, MASTERDOWN
    exceptions.RedisClusterException,  # no node answered, a slot without a node
    TimeoutError,
    OSError,
)
"""Says that Redis does not serve, so that asking again at once is pointless. Any other error is Redis's own answer."""

_REFUSED = {
    "OOM": "Redis is full",
    "READONLY": "Redis takes no writes here: it is a replica",
    "MISCONF": "Redis cannot write to its disk",
    "NOREPLICAS": "Redis has too few replicas to take writes",
    "BUSY": "Redis is busy with a script",
    "TRYAGAIN": "the cluster is moving this key",
    "NOPERM": "Redis does not allow this user to do that",
    "WRONGTYPE": "a key holds something else; is the prefix shared with another program?",
}


def user_tag(prefix: str, user_id: str) -> str:
    """Beginning of a user's keys: the user in a hash tag, which ends at the first brace and must not be empty."""
    tag = user_id.replace("%", "%25").replace("{", "%7B").replace("}", "%7D") or "%"
    return f"{prefix}:{{{tag}}}"


class RedisUnavailableError(RDRecError):
    """Redis did not do it, or nobody knows whether it did. The text is fit for a caller: it names no host."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0, is_down: bool = True) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.is_down = is_down
        """False where Redis answered, and refused."""


@dataclass(frozen=True)
class LuaScript:
    """A script that Redis runs in one atomic step; `name` is its file in service/lua."""

    name: str

    @cached_property
    def source(self) -> str:
        """Text of the file."""
        return (files("service.stores") / "lua" / f"{self.name}.lua").read_text(encoding="utf-8")

    @cached_property
    def sha1(self) -> str:
        """By which Redis finds a script that it ran before."""
        return hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


class RedisGateway:
    """Sends commands and scripts. At most `max_connections` at a time; the others wait, no longer than one attempt."""

    def __init__(self, client: RedisClient, breaker: CircuitBreaker, *, timeout_s: float, max_connections: int) -> None:
        """timeout_s: the socket time-out the client was made with; connecting and asking may each take as long."""
        self._client = client
        self._breaker = breaker
        self._attempt_s = 2 * timeout_s
        self._places = asyncio.Semaphore(max_connections)

    @classmethod
    def open(
        cls, url: str, *, timeout_s: float, max_connections: int, clock: Callable[[], float] = time.monotonic
    ) -> RedisGateway:
        """Gateway to the URL (see redis_url.py); nothing is sent yet. Raises InputError for a URL it cannot read."""
        client = redis_client(url, timeout_s=timeout_s, max_connections=max_connections)
        return cls(client, CircuitBreaker(clock), timeout_s=timeout_s, max_connections=max_connections)

    @property
    def breaker(self) -> CircuitBreaker:
        """For metrics and readiness."""
        return self._breaker

    @property
    def is_cluster(self) -> bool:
        """Whether a script may name keys of one slot only."""
        return self._client.is_cluster

    async def command(self, *words: str | int | float, is_read: bool = False) -> Any:
        """One command; a read is tried a second time if Redis seems down. Raises RedisUnavailableError."""
        return await self._call(words, is_read)

    async def script(
        self, script: LuaScript, keys: Sequence[str], arguments: Sequence[str | int | float], *, is_read: bool = False
    ) -> Any:
        """Run a script, by its hash where Redis knows it. All keys must be in one slot. Raises like `command`."""
        tail = (len(keys), *keys, *arguments)
        try:
            return await self._call(("EVALSHA", script.sha1, *tail), is_read)
        except exceptions.NoScriptError:  # a new server, a fail-over, SCRIPT FLUSH: nothing ran
            return await self._call(("EVAL", script.source, *tail), is_read)

    async def close(self) -> None:
        """Release connections. Idempotent."""
        await self._client.close()

    async def _call(self, words: Sequence[str | int | float], is_read: bool) -> Any:
        if not is_read:
            return await self._attempt(words)
        try:
            return await self._attempt(words)
        except RedisUnavailableError as error:
            if not error.is_down:
                raise
            return await self._attempt(words)

    async def _attempt(self, words: Sequence[str | int | float]) -> Any:
        try:
            async with asyncio.timeout(self._attempt_s):
                await self._places.acquire()
        except TimeoutError as error:
            raise RedisUnavailableError("too many requests wait for Redis") from error
        try:
            with self._breaker.attempt(_DOWN):
                async with asyncio.timeout(self._attempt_s):
                    return await self._client.execute(*words)
        except BreakerOpenError as error:
            raise RedisUnavailableError("Redis does not answer", retry_after_s=error.retry_after_s) from error
        except _DOWN as error:
            logger.warning("redis_down", extra={"error": type(error).__name__, "breaker": self._breaker.state})
            raise RedisUnavailableError("Redis does not answer") from error
        except exceptions.NoScriptError:
            raise
        except exceptions.RedisError as error:
            code = str(getattr(error, "status_code", None) or str(error).partition(" ")[0])
            logger.warning("redis_refused", extra={"error": type(error).__name__, "code": code})
            if (
                code == "READONLY" and self._client.reconnect is not None
            ):  # the address may lead to a new primary by now
                await self._client.reconnect()
            raise RedisUnavailableError(_REFUSED.get(code, "Redis refused the command"), is_down=False) from error
        finally:
            self._places.release()
