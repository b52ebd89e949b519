"""The chat-server teacher's patience and impatience, request by request, against a scripted server."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from pydantic import SecretStr

from rdrec_core.errors import InputError
from tests.chat_server import Call, ChatServer, Reply, completion
from training.rationale.chat import Generation
from training.rationale.openai import FIRST_WAIT_S, LONGEST_RETRY_AFTER_S, LONGEST_WAIT_S, OpenAITeacher
from training.rationale.prompt import ANSWER_SCHEMA, question
from training.rationale.teacher import TeacherError, UnansweredError

NOW = datetime(2024, 2, 1, 12, 0, tzinfo=UTC)
GOOD = completion("The user likes soft toys. The item is a soft bear.")
ASKED = question("I love soft toys.")


class Waits(list[float]):
    """A sleep that only takes notes."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


def make(
    url: str, waits: Waits | None = None, *, structured: bool = True, attempts: int = 8, key: str | None = None
) -> OpenAITeacher:
    return OpenAITeacher(
        url,
        Generation("m", 0.25, 77, structured),
        concurrency=4,
        timeout_s=0.5,
        max_attempts=attempts,
        key=SecretStr(key) if key else None,
        rng=random.Random(0),
        sleep=waits if waits is not None else Waits(),
        now=lambda: NOW,
    )


def first(*replies: Reply) -> Callable[[Call], Reply]:
    """These replies in order, then a good one."""
    return lambda call: replies[call.attempt] if call.attempt < len(replies) else GOOD


async def test_the_request_is_a_chat_completion_with_schema_and_key() -> None:
    calls: list[Call] = []

    def script(call: Call) -> Reply:
        calls.append(call)
        return GOOD

    with ChatServer(script) as server:
        answer = (await make(server.url, key="sk-secret").ask([ASKED]))[0]
    assert (answer.text, answer.prompt_tokens, answer.completion_tokens) == (
        "The user likes soft toys. The item is a soft bear.", 50, 20,
    )  # fmt: skip
    body = calls[0].body
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0.25, 77)
    assert body["messages"] == [{"role": "system", "content": ASKED.system}, {"role": "user", "content": ASKED.prompt}]
    assert body["response_format"]["json_schema"]["schema"] == ANSWER_SCHEMA
    assert calls[0].headers["authorization"] == "Bearer sk-secret"


@pytest.mark.parametrize(
    "bad",
    [
        Reply(b"", status=429),
        Reply(b"", status=500),
        Reply(b"", status=502),
        Reply(b"", status=503),
        Reply(b"", status=504),
        Reply(b'{"choices": [', cut=True),
        Reply(b"<html>"),
        Reply(b"[]"),
        Reply(b"null"),
        Reply(b'{"choices": []}'),
        Reply(b'{"choices": [{}]}'),
        Reply(b'{"choices": [{"message": {"content": 5}}]}'),
        Reply(b'{"error": {"message": "Provider returned error", "code": 502}}'),
        Reply(b"\xff\xfe"),
        Reply(GOOD.body, delay_s=1.5),
    ],
    ids=[
        "429",
        "500",
        "502",
        "503",
        "504",
        "cut",
        "html",
        "array",
        "null",
        "no-choice",
        "no-message",
        "no-text",
        "error-in-200",
        "bytes",
        "slow",
    ],
)
async def test_what_may_mend_is_tried_again_with_growing_waits(bad: Reply) -> None:
    waits = Waits()
    with ChatServer(first(bad, bad, bad)) as server:
        answer = (await make(server.url, waits).ask([ASKED]))[0]
        assert server.sent.total() == 4
    assert answer.text.startswith("The user likes")
    assert len(waits) == 3
    for n, wait in enumerate(waits):
        assert 0.5 * FIRST_WAIT_S * 2**n <= wait <= FIRST_WAIT_S * 2**n


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("17", 17.0),
        ("90.5", 90.5),
        (format_datetime(NOW + timedelta(seconds=42), usegmt=True), 42.0),
        ("999999", LONGEST_RETRY_AFTER_S),
        ("soon", None),
        ("-5", None),
        ("nan", None),
        (format_datetime(NOW - timedelta(seconds=42), usegmt=True), None),
    ],
)
async def test_retry_after_is_honoured(header: str, seconds: float | None) -> None:
    waits = Waits()
    with ChatServer(first(Reply(b"", status=429, headers={"Retry-After": header}))) as server:
        await make(server.url, waits).ask([ASKED])
    if seconds is None:
        assert 0.5 * FIRST_WAIT_S <= waits[0] <= FIRST_WAIT_S
    else:
        assert waits == [seconds]


async def test_waits_are_capped_and_end() -> None:
    waits = Waits()
    with ChatServer(lambda call: Reply(b"", status=503)) as server:
        teacher = make(server.url, waits, attempts=12)
        teacher._answered = True  # past its first request
        with pytest.raises(UnansweredError, match="12 attempts, the last with status 503"):
            await teacher.ask([ASKED])
    assert len(waits) == 11
    assert max(waits) <= LONGEST_WAIT_S


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_what_waiting_cannot_mend_stops_the_run(status: int) -> None:
    reply = Reply(b'{"error": {"message": "Incorrect API key provided: sk-secret"}}', status=status)
    with ChatServer(lambda call: reply) as server:
        with pytest.raises(TeacherError, match=str(status)) as caught:
            await make(server.url, key="sk-secret").ask([ASKED])
        assert server.sent.total() == 1
    assert not isinstance(caught.value, UnansweredError)
    assert "sk-secret" not in str(caught.value)


def error(status: int, message: str, **more: object) -> Reply:
    return Reply(json.dumps({"error": {"message": message, **more}}).encode(), status=status)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (error(402, "Insufficient Balance", code="invalid_request_error"), "402.*Insufficient Balance"),
        (error(429, "You exceeded your quota.", type="insufficient_quota"), "429.*You exceeded your quota"),
        (error(429, "No money left.", code="billing_hard_limit_reached"), "No money left"),
        (error(200, "Add credits.", code=402), "402.*Add credits"),
        (error(404, "The model `m` does not exist", code="model_not_found"), "404.*The model `m` does not exist"),
        (error(400, "Unsupported value: 'n' does not support 1.", code="unsupported_value"), "'n' does not support 1"),
        (Reply(b'{"detail": "the model is not supported"}', status=400), "the model is not supported"),
    ],
    ids=["402", "quota", "billing", "402-in-200", "404", "400", "detail"],
)
async def test_an_empty_purse_or_a_refused_parameter_stops_at_once_with_the_servers_words(
    reply: Reply, words: str
) -> None:
    waits = Waits()
    with ChatServer(lambda call: reply) as server:
        with pytest.raises(TeacherError, match=words) as caught:
            await make(server.url, waits).ask([ASKED])
        assert server.sent.total() <= 2  # a refusal is tried without the schema too
    assert not isinstance(caught.value, UnansweredError)
    assert waits == []


async def test_a_rate_limit_that_speaks_of_a_quota_is_waited_for() -> None:
    waits = Waits()
    busy = error(429, "You exceeded your current quota, retry in 3 s.", code="rate_limit_exceeded")
    with ChatServer(first(busy, busy)) as server:
        assert (await make(server.url, waits).ask([ASKED]))[0].text
    assert len(waits) == 2


async def test_an_echoed_key_is_not_repeated() -> None:
    for echoed in ("sk-secret", "quite-another-secret"):
        said = error(401, f"Incorrect API key provided: {echoed}. Look it up.")
        with ChatServer(lambda call, said=said: said) as server, pytest.raises(TeacherError) as caught:  # type: ignore[misc]
            await make(server.url, key="quite-another-secret").ask([ASKED])
        assert echoed not in str(caught.value)
        assert "Look it up." in str(caught.value)


@pytest.mark.parametrize("param", ["max_tokens", "temperature"])
@pytest.mark.parametrize("schema", [True, False])
async def test_limits_that_are_refused_are_spelled_anew_once_for_the_run(param: str, schema: bool) -> None:
    bodies: list[dict[str, object]] = []

    def script(call: Call) -> Reply:
        bodies.append(call.body)
        if "response_format" in call.body and not schema:
            return error(400, "response_format is unknown")
        if param in call.body:
            return error(400, f"Unsupported parameter: '{param}' is not supported with this model.", param=param)
        return GOOD

    with ChatServer(script) as server:
        teacher = make(server.url)
        for n in range(4):
            assert (await teacher.ask([question(f"I love soft toys, {n} of them.")]))[0].text
    assert len(bodies) == 4 + (1 if schema else 2)
    for body in bodies[-4:]:
        assert body["max_completion_tokens"] == 77
        assert "max_tokens" not in body
        assert "temperature" not in body
        assert ("response_format" in body) == schema


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": [{"type": "text", "text": "The user "}, {"type": "text", "text": "likes."}]}, "The user likes."),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"text": "A."}]}, "A."),
        ({"content": ["The user likes."]}, "The user likes."),
        ({"content": []}, ""),
        ({}, ""),
        ({"content": None, "reasoning_content": "Let me see."}, ""),
        ({"content": None, "refusal": "I cannot help."}, "I cannot help."),
    ],
    ids=["parts", "thinking", "strings", "no-part", "missing", "reasoning", "refusal"],
)  # fmt: skip
async def test_content_of_every_shape_is_an_answer(message: dict[str, object], text: str) -> None:
    payload = {"choices": [{"message": {"role": "assistant", **message}, "finish_reason": "content_filter"}]}
    waits = Waits()
    with ChatServer(lambda call: Reply(json.dumps(payload).encode())) as server:
        assert (await make(server.url, waits).ask([ASKED]))[0].text == text
        assert server.sent.total() == 1
    assert waits == []


async def test_a_filtered_review_is_an_empty_answer_and_not_asked_again() -> None:
    filtered = error(400, "The response was filtered", code="content_filter", param="prompt")
    waits = Waits()
    with ChatServer(lambda call: filtered) as server:
        answer = (await make(server.url, waits).ask([ASKED]))[0]
        assert server.sent.total() == 1
    assert (answer.text, answer.prompt_tokens, answer.completion_tokens) == ("", 0, 0)
    assert waits == []


async def test_a_server_that_never_answers_stops_the_run() -> None:
    with ChatServer(lambda call: GOOD) as server:
        url = server.url
    with pytest.raises(TeacherError, match="no answer from") as caught:
        await make(url, attempts=2).ask([ASKED])
    assert not isinstance(caught.value, UnansweredError)


@pytest.mark.parametrize("status", [400, 415, 422, 501])
async def test_a_refused_schema_is_dropped_once_for_the_run(status: int) -> None:
    refused: list[Call] = []

    def script(call: Call) -> Reply:
        if "response_format" in call.body:
            refused.append(call)
            return Reply(b'{"error": "response_format is not supported"}', status=status)
        return GOOD

    with ChatServer(script) as server:
        teacher = make(server.url)
        for n in range(5):
            await teacher.ask([question(f"I love soft toys, {n} of them.")])
        assert len(refused) == 1
        assert server.answered.total() == 5


async def test_a_bad_request_that_the_schema_did_not_cause_leaves_its_question_open() -> None:
    def script(call: Call) -> Reply:
        return Reply(b'{"error": "too long"}', status=400) if "huge" in call.question[1] else GOOD

    with ChatServer(script) as server:
        teacher = make(server.url)
        for _ in range(2):  # as the first request and later
            with pytest.raises(UnansweredError, match="400"):
                await teacher.ask([question("A huge review.")])
            answer = await teacher.ask([question("I love soft toys.")])
            assert answer[0].text


async def test_no_schema_when_it_is_not_wanted() -> None:
    calls: list[Call] = []

    def script(call: Call) -> Reply:
        calls.append(call)
        return completion(None, usage=False, finish_reason="length")

    with ChatServer(script) as server:
        answer = (await make(server.url, structured=False).ask([ASKED]))[0]
    assert "response_format" not in calls[0].body
    assert (answer.text, answer.prompt_tokens, answer.completion_tokens, answer.truncated) == ("", None, None, True)


@pytest.mark.parametrize(
    "url", ["http://user:sk-secret@host/v1", "http://host/v1?key=sk-secret", "ftp://host", "host:80", "http://"]
)
def test_an_address_that_is_none_or_holds_a_key_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="RDREC_TEACHER_API_KEY") as caught:
        make(url)
    assert "sk-secret" not in str(caught.value)


def test_settings_hold_all_that_alters_an_answer_and_no_key() -> None:
    settings = make("http://host/v1/", key="sk-secret").settings
    assert "sk-secret" not in json.dumps(dict(settings))
    assert settings == {"model": "m", "temperature": 0.25, "max_completion_tokens": 77, "structured": True}
    assert settings == make("http://elsewhere:81/v1").settings, "a server that moved is the same teacher"
