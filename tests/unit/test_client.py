"""The Python client against a scripted server: what is sent, what is tried again, what is raised."""

from __future__ import annotations

import asyncio
import inspect
import json
import random
import re
import socketserver
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from rdrec_client import (
    AsyncRDRecClient,
    Explain,
    Interaction,
    ProblemError,
    RDRecClient,
    RetryPolicy,
    Sequential,
    TopN,
    UnreachableError,
    UnreadableAnswerError,
    calls,
)
from rdrec_client.retrying import read_retry_after

RANKING = {
    "model_version": "demo-1", "history_source": "bundle", "degraded": False, "score_mode": "trie", "strategy": "exact",
    "items": [{"item_id": "i1", "title": None, "rank": 1, "score": 0.25, "signals": {"model": -1.5, "graph": None}}],
    "a_field_of_next_year": 1,
}  # fmt: skip
RECORDED = {"recorded": True, "history_source": "redis"}


def problem(status: int, slug: str = "overloaded", **headers: str) -> httpx.Response:
    body = {
        "type": f"urn:rdrec:problem:{slug}", "title": "No", "status": status, "detail": "not now", "request_id": "r1",
    }  # fmt: skip
    return httpx.Response(status, json=body, headers={"content-type": "application/problem+json", **headers})


class Server:
    """Answers with the scripted answers in turn; an exception in the script is raised as if the network had."""

    def __init__(self, *script: httpx.Response | Exception) -> None:
        self.script = list(script)
        self.seen: list[httpx.Request] = []
        self.slept: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        answer = self.script.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def clock(self) -> float:
        """Runs only while the client sleeps."""
        return sum(self.slept)


Ask = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """`await ask(server, "method", ...)` with either client; `changes` go to with_options."""

    async def run(
        server: Server,
        method: str,
        *arguments: Any,
        options: dict[str, Any] | None = None,
        changes: dict[str, Any] | None = None,
        **named: Any,
    ) -> Any:
        common = {"transport": httpx.MockTransport(server), "clock": server.clock, **(options or {})}
        if request.param == "sync":
            with RDRecClient("http://rdrec", sleep=server.slept.append, **common) as client:
                return getattr(client.with_options(**(changes or {})), method)(*arguments, **named)
        async with AsyncRDRecClient("http://rdrec", sleep=server.sleep, **common) as other:
            return await getattr(other.with_options(**(changes or {})), method)(*arguments, **named)

    return run


def sent(server: Server) -> Any:
    return json.loads(server.seen[-1].content)


async def test_only_what_was_given_is_sent_and_the_answer_is_typed(ask: Ask) -> None:
    server = Server(httpx.Response(200, json=RANKING))
    ranking = await ask(
        server, "sequential", "ü/1", n_items=3, exclude_seen=False, options={"api_key": "k", "timeout_s": 0.25}
    )
    request = server.seen[0]
    assert (request.method, request.url.path) == ("POST", "/recommend/sequential")
    assert sent(server) == {"user_id": "ü/1", "n_items": 3, "exclude_seen": False}
    assert request.headers["authorization"] == "Bearer k"
    assert request.headers["x-request-timeout-ms"] == "250"
    assert ranking.items[0].signals.model == -1.5
    assert ranking.items[0].signals.graph is None


async def test_a_batch_names_its_kinds_and_mixes_answers_and_problems(ask: Ask) -> None:
    text = {
        "model_version": "demo-1", "history_source": "none", "degraded": False, "item_id": "i", "title": "T",
        "explanation": "because", "basis": "catalogue",
        "user_preference": None, "item_attributes": None, "evidence": [],
    }  # fmt: skip
    refused = json.loads(problem(404, "unknown-item").content)
    results = [{"status": 200, "answer": RANKING}, {"status": 200, "answer": text}, {"status": 404, "problem": refused}]
    server = Server(httpx.Response(200, json={"results": results}))
    got = await ask(
        server, "batch", [Sequential(user_id="u"), Explain(user_id="u", item_id="i"), TopN(candidates=["x"])]
    )
    assert sent(server)["requests"] == [
        {"kind": "sequential", "user_id": "u"},
        {"kind": "explain", "user_id": "u", "item_id": "i"},
        {"kind": "topn", "candidates": ["x"]},
    ]
    assert got[0].answer.items[0].item_id == "i1"
    assert got[1].answer.explanation == "because"
    assert got[2].answer is None
    assert got[2].problem.type == "urn:rdrec:problem:unknown-item"


async def test_retry_after_is_honoured_and_the_write_keeps_its_key(ask: Ask) -> None:
    server = Server(
        problem(503, "history-unavailable", **{"retry-after": "2"}),
        httpx.ReadTimeout("late"),
        httpx.Response(200, json=RECORDED),
    )
    assert (await ask(server, "record", "u", "i", timestamp=5.0)).recorded
    assert 2.0 <= server.slept[0] <= 2.2
    assert 0.0 <= server.slept[1] <= 0.4
    keys = {request.headers["idempotency-key"] for request in server.seen}
    assert len(keys) == 1
    assert len(keys.pop()) >= 32
    assert sent(server) == {"user_id": "u", "item_id": "i", "timestamp": 5.0}


async def test_two_writes_have_two_keys_unless_told(ask: Ask) -> None:
    server = Server(*[httpx.Response(200, json=RECORDED)] * 3)
    for key in (None, None, "mine"):
        await ask(server, "record", "u", "i", idempotency_key=key)
    keys = [request.headers["idempotency-key"] for request in server.seen]
    assert len(set(keys)) == 3
    assert keys[2] == "mine"


@pytest.mark.parametrize("status", [400, 401, 404, 422, 500, 504])
async def test_what_would_fail_again_is_raised_at_once(ask: Ask, status: int) -> None:
    server = Server(problem(status, "some-slug"))
    with pytest.raises(ProblemError, match="not now") as error:
        await ask(server, "explain", "u", "i")
    assert (error.value.status, error.value.slug) == (status, "some-slug")
    assert server.slept == []


async def test_the_last_error_is_raised_after_the_last_try(ask: Ask) -> None:
    server = Server(*[problem(429, **{"retry-after": "1"})] * 3)
    with pytest.raises(ProblemError) as error:
        await ask(server, "model", options={"retry": RetryPolicy(attempts=3), "timeout_s": 60.0})
    assert error.value.retry_after_s == 1.0
    assert len(server.seen) == 3
    assert len(server.slept) == 2


async def test_a_stated_wait_that_is_too_long_is_the_callers_decision(ask: Ask) -> None:
    server = Server(problem(429, "rate-limited", **{"retry-after": "3600"}))
    with pytest.raises(ProblemError):
        await ask(server, "topn", "u", candidates=["a"])
    assert server.slept == []


async def test_no_answer_at_all(ask: Ask) -> None:
    server = Server(*[httpx.ConnectError("refused")] * 2)
    with pytest.raises(UnreachableError, match="ConnectError"):
        await ask(server, "history", "u", options={"retry": RetryPolicy(attempts=2)})


async def test_answers_of_something_else_in_between(ask: Ask) -> None:
    with pytest.raises(UnreadableAnswerError, match="GET /v1/model"):
        await ask(Server(httpx.Response(200, text="<html>hello</html>")), "model")
    server = Server(httpx.Response(502, text="<html>bad gateway</html>"), httpx.Response(200, json=RANKING))
    assert (await ask(server, "sequential", "u")).model_version == "demo-1"
    with pytest.raises(ProblemError, match="413"):
        await ask(Server(httpx.Response(413, text="too big")), "sequential", "u")


@pytest.mark.parametrize("user", ["a/b?c d", "..", ".", "50%off"])
async def test_any_user_id_is_sent_as_it_is_and_forget_has_no_body(ask: Ask, user: str) -> None:
    server = Server(httpx.Response(204))
    assert await ask(server, "forget", user) is None
    assert (server.seen[0].method, server.seen[0].url.path) == ("DELETE", "/history")
    assert dict(server.seen[0].url.params) == {"user_id": user}


async def test_many_interactions_are_one_write_with_a_result_each(ask: Ask) -> None:
    refused = json.loads(problem(503, "history-unavailable").content)
    results = [{"status": 201, "recorded": True, "known_to_model": False}, {"status": 503, "problem": refused}]
    server = Server(problem(503), httpx.Response(200, json={"history_source": "redis", "results": results}))
    got = await ask(
        server,
        "record_all",
        [Interaction(user_id="u", item_id="i", timestamp=5.0), Interaction(user_id="v", item_id="j")],
    )
    assert sent(server)["interactions"] == [
        {"user_id": "u", "item_id": "i", "timestamp": 5.0},
        {"user_id": "v", "item_id": "j"},
    ]
    assert len({request.headers["idempotency-key"] for request in server.seen}) == 1
    assert [(result.status, result.recorded) for result in got] == [(201, True), (503, None)]
    assert got[1].problem.status == 503


async def test_looking_up_users_and_items(ask: Ask) -> None:
    server = Server(httpx.Response(200, json={"user_ids": ["u1"]}))
    assert await ask(server, "find_users", "ü&", limit=3) == ("u1",)
    assert dict(server.seen[0].url.params) == {"query": "ü&", "limit": "3"}
    server = Server(httpx.Response(200, json={"items": [{"item_id": "i", "title": "T"}]}))
    assert (await ask(server, "find_items", "T"))[0].title == "T"


@pytest.mark.parametrize(("status", "ready"), [(200, True), (503, False)])
async def test_is_ready(ask: Ask, status: int, ready: bool) -> None:
    assert await ask(Server(httpx.Response(status)), "is_ready") is ready
    assert await ask(Server(httpx.ConnectError("refused")), "is_ready") is False


def test_both_clients_have_the_same_methods_with_the_signatures_of_the_calls() -> None:
    assert set(dir(RDRecClient)) - set(dir(AsyncRDRecClient)) == {"__enter__", "__exit__"}
    with RDRecClient("http://rdrec") as client:
        assert list(inspect.signature(client.record).parameters) == [
            "user_id", "item_id", "timestamp", "event", "quantity", "context", "idempotency_key",
        ]  # fmt: skip
        assert client.sequential.__doc__ == calls.sequential.__doc__
        assert RDRecClient.sequential is AsyncRDRecClient.sequential


async def test_a_call_ends_by_its_deadline_all_tries_together(ask: Ask) -> None:
    """2 s for reads unless told otherwise."""
    server = Server()
    server.script = [problem(429, **{"retry-after": "1"}) for _ in range(9)]
    with pytest.raises(ProblemError):
        await ask(server, "sequential", "u")
    assert len(server.seen) == 2
    assert sum(server.slept) < 2.0
    told = [int(request.headers["x-request-timeout-ms"]) for request in server.seen]
    assert told[0] == 2000
    assert told[1] == round((2.0 - server.slept[0]) * 1000)
    assert server.seen[1].extensions["timeout"]["read"] == pytest.approx(2.0 - server.slept[0])


async def test_a_call_has_the_options_that_it_is_given(ask: Ask) -> None:
    server = Server(httpx.Response(200, json=RANKING))
    changes = {"timeout_s": 0.3, "request_id": "order-17"}
    await ask(server, "sequential", "u", changes=changes)
    headers = server.seen[0].headers
    assert (headers["x-request-timeout-ms"], headers["x-request-id"]) == ("300", "order-17")


async def test_tries_of_one_call_share_an_id_and_calls_do_not(ask: Ask) -> None:
    server = Server(problem(503), httpx.ConnectError("refused"), *[httpx.Response(200, json=RANKING)] * 2)
    await ask(server, "sequential", "u")
    await ask(server, "sequential", "u")
    ids = [request.headers["x-request-id"] for request in server.seen]
    assert len(ids[0]) == 16
    assert ids[0] == ids[1] == ids[2] != ids[3]
    with pytest.raises(UnreachableError, match=r"request order-18"):
        await ask(Server(*[httpx.ConnectError("no")] * 4), "model", changes={"request_id": "order-18"})


@pytest.mark.parametrize("status", [429, 500, 503, 504])
async def test_a_fallback_answers_for_a_service_that_cannot(ask: Ask, status: int) -> None:
    heard: list[Exception] = []
    changes = {"fallback": lambda error: heard.append(error) or "popular", "retry": RetryPolicy(attempts=1)}
    assert await ask(Server(problem(status)), "sequential", "u", changes=changes) == "popular"
    assert await ask(Server(httpx.ReadTimeout("late")), "history", "u", changes=changes) == "popular"
    assert [type(error) for error in heard] == [ProblemError, UnreachableError]


async def test_a_fallback_hides_neither_mistakes_nor_lost_writes(ask: Ask) -> None:
    options = {"fallback": lambda error: "popular", "retry": RetryPolicy(attempts=1)}
    with pytest.raises(ProblemError, match="422"):
        await ask(Server(problem(422, "invalid-request")), "sequential", "u", options=options)
    with pytest.raises(UnreachableError):
        await ask(Server(httpx.ConnectError("no")), "record", "u", "i", options=options)


async def test_administration_is_not_repeated_unless_asked(ask: Ask) -> None:
    server = Server(*[problem(503, "engine-down")] * 2)
    with pytest.raises(ProblemError):
        await ask(server, "load_bundle", "bundle-2")
    assert len(server.seen) == 1
    assert int(server.seen[0].headers["x-request-timeout-ms"]) == 60_000
    server = Server(*[problem(503, "engine-down")] * 2)
    with pytest.raises(ProblemError):
        await ask(server, "load_bundle", "bundle-2", changes={"retry": RetryPolicy(attempts=2)})
    assert len(server.seen) == 2


@pytest.fixture
def closes_at_the_second_request() -> Iterator[tuple[str, list[bytes]]]:
    """A URL, and every request that came: a connection answers one and closes at the next, as one idle for too long."""
    heard: list[bytes] = []
    body = json.dumps(RECORDED).encode()
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)

    class Connection(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            for reply in (answer, b""):
                request = b""
                while not request.endswith(b"}"):
                    if not (part := self.request.recv(65536)):
                        return
                    request += part
                heard.append(request)
                self.request.sendall(reply)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Connection) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", heard
        server.shutdown()


async def test_a_connection_that_is_closed_at_that_moment_costs_a_try_and_no_second_write(
    closes_at_the_second_request: tuple[str, list[bytes]],
) -> None:
    url, heard = closes_at_the_second_request

    def keys() -> list[bytes]:
        found = [re.search(rb"(?i)idempotency-key: (\S+)", request) for request in heard]
        heard.clear()
        return [match[1] for match in found if match]

    with RDRecClient(url, sleep=lambda _: None) as client:
        await asyncio.to_thread(lambda: [client.record("u", "i") for _ in range(2)])
        first, closed, again = keys()
        assert first != closed == again, "the second write, sent twice, is one"
        with pytest.raises(UnreachableError):  # the second connection is used up too
            await asyncio.to_thread(client.load_bundle, "other")
        assert len(heard) == 1, "administration is not repeated"
        heard.clear()
    async with AsyncRDRecClient(url, sleep=lambda _: asyncio.sleep(0)) as other:
        for _ in range(2):
            await other.record("u", "i")
        first, closed, again = keys()
        assert first != closed == again


def test_waits_grow_and_are_bounded() -> None:
    policy = RetryPolicy(attempts=10, base_s=1.0, longest_wait_s=5.0)
    rng = random.Random(0)
    for attempt, bound in [(1, 1.0), (2, 2.0), (3, 4.0), (4, 5.0), (9, 5.0)]:
        waits = [policy.wait_s(attempt, rng) for _ in range(200)]
        assert all(wait is not None and 0 <= wait <= bound for wait in waits)
        assert max(wait for wait in waits if wait is not None) > bound * 0.9
    assert policy.wait_s(10, rng) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0), ("", None), ("soon", None), ("-3", None), ("1.5", None), ("\u0667", None),
        ("Tue, 24 Nov 2026 18:00:30 GMT", 30.0), ("Tue, 24 Nov 2026 17:00:00 GMT", 0.0),
    ],
)  # fmt: skip
def test_both_forms_of_retry_after(value: str, seconds: float | None) -> None:
    now = datetime(2026, 11, 24, 18, 0, 0, tzinfo=UTC)
    assert read_retry_after({"retry-after": value}, now) == seconds
