"""The teacher behind an OpenAI-compatible chat server: vLLM, llama.cpp, Ollama or a hosted one.

One question a request. Patient with a server that is slow, busy or broken for a while (429, 5xx, time-outs, cut
connections, replies that are no completion): jittered exponential back-off that honours Retry-After. Impatient with
what waiting cannot mend (wrong key, unknown model or address). The key is in a header and nowhere else.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
from pydantic import SecretStr

from rdrec_core.errors import InputError
from training.rationale.chat import Generation, read_completion
from training.rationale.teacher import Answer, Question, TeacherError, UnansweredError

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
LONGEST_RETRY_AFTER_S = 600.0
_HOPELESS = {401: "the key is missing or wrong", 403: "the key may not do this", 404: "no such address or model"}
_SCHEMA_REFUSED = frozenset({400, 415, 422, 501})


class OpenAITeacher:
    """See the module's docstring. Its first request goes alone: it finds out whether the server works at all and
    whether it takes a JSON schema; where it does not, the run goes on without one."""

    batch_size = 1

    def __init__(
        self,
        url: str,
        generation: Generation,
        *,
        concurrency: int,
        timeout_s: float,
        max_attempts: int,
        key: SecretStr | None = None,
        rng: random.Random | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        parts = httpx.URL(url)
        if parts.scheme not in {"http", "https"} or not parts.host or parts.userinfo or parts.query:
            raise InputError(
                "--teacher openai:URL needs an http(s) address without user, password or query, such as "
                "http://127.0.0.1:8000/v1; a key belongs into RDREC_TEACHER_API_KEY",
                field="--teacher",
            )
        self.url = str(parts).rstrip("/").removesuffix("/chat/completions")
        self.concurrency = concurrency
        self._generation = generation
        self._max_attempts = max_attempts
        self._rng = rng or random.Random()
        self._sleep = sleep
        self._now = now
        self._structured: bool | None = None if generation.structured else False
        self._answered = False
        self._first = asyncio.Lock()
        self._headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
        self._timeout_s = timeout_s
        self._certificates = httpx.create_ssl_context()
        self._clients: list[httpx.AsyncClient] = []
        self._idle: list[httpx.AsyncClient] = []

    @property
    def name(self) -> str:
        """`openai:` and the model."""
        return f"openai:{self._generation.model}"

    @property
    def settings(self) -> Mapping[str, object]:
        """Address and generation settings; two servers may call different models by one name."""
        return {"url": self.url, **asdict(self._generation)}

    async def aclose(self) -> None:
        """Close the connections."""
        for client in self._clients:
            await client.aclose()

    async def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """One request a question, each retried by itself."""
        return [await self._ask(question) for question in questions]

    async def _ask(self, question: Question) -> Answer:
        if self._answered:
            return await self._retried(question, structured=bool(self._structured))
        async with self._first:
            if not self._answered:
                return await self._ask_first(question)
        return await self._ask(question)

    async def _ask_first(self, question: Question) -> Answer:
        try:
            answer = await self._retried(question, structured=self._structured is not False)
        except _RefusedError as refused:
            if self._structured is False:
                raise
            try:
                answer = await self._retried(question, structured=False)
            except _RefusedError:
                raise refused from None  # not the schema's fault: this one question's
            self._structured = False
        except UnansweredError as error:
            raise TeacherError(f"no answer from {self.url}: {error}") from error
        self._structured = self._structured is not False
        self._answered = True
        return answer

    async def _retried(self, question: Question, *, structured: bool) -> Answer:
        body = self._generation.body(question, structured=structured)
        reason = ""
        for attempt in range(self._max_attempts):
            wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**attempt) * self._rng.uniform(0.5, 1.0)
            try:
                response = await self._post(body)
            except httpx.RequestError as error:
                reason = f"{type(error).__name__}: {error}".rstrip(": ")
            else:
                status = response.status_code
                if status in _HOPELESS:
                    raise TeacherError(f"{self.url} answered {status}: {_HOPELESS[status]}")
                if status == 429 or (status >= 500 and status not in _SCHEMA_REFUSED):
                    reason = f"status {status}"
                    wait_s = max(wait_s, self._retry_after_s(response))
                elif status != 200:
                    raise _RefusedError(f"the server refused the request with status {status}")
                else:
                    try:
                        return read_completion(response.json())
                    except ValueError as error:  # malformed JSON is one too
                        reason = f"not a chat completion: {error}"
            if attempt + 1 < self._max_attempts:
                await self._sleep(wait_s)
        raise UnansweredError(f"{self._max_attempts} attempts, the last with {reason}")

    async def _post(self, body: Mapping[str, object]) -> httpx.Response:
        """Over a client of one connection: httpx looks through its whole pool at each request, and with 64 connections
        in one pool that costs more than the request itself (measured: 7 ms of CPU instead of 1)."""
        client = self._idle.pop() if self._idle else self._open_client()
        try:
            return await client.post(f"{self.url}/chat/completions", json=body)
        finally:
            self._idle.append(client)

    def _open_client(self) -> httpx.AsyncClient:
        client = httpx.AsyncClient(
            headers=self._headers,
            timeout=self._timeout_s,
            verify=self._certificates,
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
        )
        self._clients.append(client)
        return client

    def _retry_after_s(self, response: httpx.Response) -> float:
        """Seconds that the server asks to wait, 0 where it does not say; a number or an HTTP date."""
        value = response.headers.get("retry-after", "").strip()
        try:
            seconds = float(value)
        except ValueError:
            try:
                when = parsedate_to_datetime(value)
            except ValueError:
                return 0.0
            seconds = (when.replace(tzinfo=when.tzinfo or UTC) - self._now()).total_seconds()
        return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S) if seconds == seconds else 0.0


class _RefusedError(UnansweredError):
    """A 4xx that waiting does not mend: this request as it stands."""
