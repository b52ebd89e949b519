"""The teacher behind an OpenAI-compatible chat server: vLLM, llama.cpp, Ollama or a hosted one.

One question a request. Patient with a server that is slow, busy or broken for a while (429, 5xx, time-outs, cut
connections, replies that are no completion): jittered exponential back-off that honours Retry-After. Impatient with
what waiting cannot mend (wrong key, unknown model or address, an empty purse, a parameter that is refused): the run
stops with the server's words. The key is in a header and nowhere else.
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
from training.rationale.chat import ErrorReplyError, Failure, Generation, read_completion
from training.rationale.teacher import Answer, Question, TeacherError, UnansweredError

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
LONGEST_RETRY_AFTER_S = 600.0
_HOPELESS = {
    401: "the key is missing or wrong",
    402: "it wants to be paid",
    403: "the key may not do this",
    404: "no such address or model",
}
_SCHEMA_REFUSED = frozenset({400, 415, 422, 501})


class OpenAITeacher:
    """See the module's docstring. Its first request goes alone: it finds out whether the server works at all, whether
    it takes a JSON schema, and whether it takes `max_tokens` and a temperature; where it does not, the run goes on with
    `max_completion_tokens` and the model's own temperature. `modern` says so from the start."""

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
        modern: bool = False,
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
        self._modern = modern
        self._key = key
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
        """Generation settings. Not the address: the same model on another port gives the same answers."""
        return asdict(self._generation)

    async def aclose(self) -> None:
        """Close the connections."""
        for client in self._clients:
            await client.aclose()

    async def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """One request a question, each retried by itself."""
        return [await self._ask(question) for question in questions]

    async def _ask(self, question: Question) -> Answer:
        if self._answered:
            return await self._retried(question, structured=bool(self._structured), modern=self._modern)
        async with self._first:
            if not self._answered:
                return await self._ask_first(question)
        return await self._ask(question)

    async def _ask_first(self, question: Question) -> Answer:
        """Each way of asking once: with a schema first, then without; each as it stands, then in the modern spelling
        where the server complained of a limit or a temperature."""
        structured, modern = self._structured is not False, self._modern
        first: _RefusedError | None = None
        while True:
            try:
                answer = await self._retried(question, structured=structured, modern=modern)
                break
            except _RefusedError as refused:
                first = first or refused
                if refused.failure.about_limits and not modern:
                    modern = True
                elif structured and self._structured is not False:
                    structured = False
                elif first.failure.about_parameters:
                    raise TeacherError(f"{self.url} refuses the request: {first.failure.words}") from first
                else:
                    raise first from None  # not the way of asking: this one question
            except UnansweredError as error:
                raise TeacherError(f"no answer from {self.url}: {error}") from error
        self._structured, self._modern = structured, modern
        self._answered = True
        return answer

    async def _retried(self, question: Question, *, structured: bool, modern: bool) -> Answer:
        body = self._generation.body(question, structured=structured, modern=modern)
        reason = ""
        for attempt in range(self._max_attempts):
            wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**attempt) * self._rng.uniform(0.5, 1.0)
            try:
                response = await self._post(body)
            except httpx.RequestError as error:
                reason = f"{type(error).__name__}: {error}".rstrip(": ")
            else:
                status = response.status_code
                if status == 200:
                    try:
                        return read_completion(response.json())
                    except ErrorReplyError as error:
                        reason = self._said("an error", error.failure)
                        self._stop_if_hopeless(200, error.failure)
                    except ValueError as error:  # malformed JSON is one too
                        reason = f"not a chat completion: {error}"
                else:
                    failure = self._failure(response)
                    self._stop_if_hopeless(status, failure)
                    reason = self._said(f"status {status}", failure)
                    if status == 429 or (status >= 500 and status not in _SCHEMA_REFUSED):
                        wait_s = max(wait_s, self._retry_after_s(response))
                    elif failure.filtered:
                        return Answer("", 0, 0)  # for good: the same review would be filtered again
                    else:
                        raise _RefusedError(f"the server refused the request with {reason}", failure)
            if attempt + 1 < self._max_attempts:
                await self._sleep(wait_s)
        raise UnansweredError(f"{self._max_attempts} attempts, the last with {reason}")

    def _stop_if_hopeless(self, status: int, failure: Failure) -> None:
        if status in _HOPELESS or failure.codes & {str(code) for code in _HOPELESS}:
            known = status if status in _HOPELESS else next(c for c in _HOPELESS if str(c) in failure.codes)
            raise TeacherError(self._said(f"{self.url} answered {known}: {_HOPELESS[known]}", failure))
        if failure.purse_is_empty:
            raise TeacherError(f"{self.url} answered {status}: {failure.words}")

    def _failure(self, response: httpx.Response) -> Failure:
        try:
            failure = Failure.read(response.json())
        except ValueError:
            failure = Failure.read(None, response.text)
        if self._key and self._key.get_secret_value() in failure.words:  # whatever it looks like
            failure = Failure(failure.words.replace(self._key.get_secret_value(), "***"), failure.codes)
        return failure

    @staticmethod
    def _said(what: str, failure: Failure) -> str:
        return f"{what} ({failure.words})" if failure.words else what

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

    def __init__(self, message: str, failure: Failure) -> None:
        super().__init__(message)
        self.failure = failure
