"""One contract over every teacher: answers in order, one a question, settings that make a key, the same words again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.chat_server import Call, ChatServer, Reply, completion
from tests.tiny_language_models import NO_SYSTEM_TEMPLATE, tiny_causal, tiny_t5
from training.rationale.chat import Generation
from training.rationale.extractive import ExtractiveTeacher
from training.rationale.local_model import LocalModelTeacher
from training.rationale.openai import OpenAITeacher
from training.rationale.prompt import question
from training.rationale.teacher import Answer, Question, Teacher

QUESTIONS = [
    question("I love this puzzle, it is sturdy and bright."),
    question("My kids enjoy the game. It is easy to learn, quick to set up, and it looks very nice on the shelf."),
    question("Great gift."),
    question("I love this puzzle, it is sturdy and bright.", strict=True),
]


@dataclass
class FakeTeacher:
    """What tests elsewhere use in place of a model: a function of the question."""

    name: str = "fake"
    settings: dict[str, object] = field(default_factory=lambda: {"version": 1})
    batch_size: int = 2
    concurrency: int = 2

    async def ask(self, questions: Sequence[Question]) -> list[Answer]:
        return [Answer(f"The user said {len(q.review)} letters. The item is {q.strict}.", 7, 8) for q in questions]

    async def aclose(self) -> None:
        pass


def _echo(call: Call) -> Reply:
    prompt = call.question[1]
    return completion(
        json.dumps({"user_preference": f"The user says {len(prompt)}.", "item_attributes": "The item is."})
    )


@pytest.fixture(params=["extractive", "fake", "openai", "causal", "causal-no-system", "causal-no-chat", "t5"])
async def teacher(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Teacher]:
    def local(path: Path) -> Teacher:
        return LocalModelTeacher(str(path), batch_size=4, temperature=0.0, max_completion_tokens=12)

    made: Teacher
    with ChatServer(_echo) as server:
        if request.param == "openai":
            generation = Generation("m", 0.0, 50, True)
            made = OpenAITeacher(server.url, generation, concurrency=2, timeout_s=5.0, max_attempts=2)
        elif request.param == "causal":
            made = local(tiny_causal(tmp_path / "model"))
        elif request.param == "causal-no-system":
            made = local(tiny_causal(tmp_path / "model", NO_SYSTEM_TEMPLATE))
        elif request.param == "causal-no-chat":
            made = local(tiny_causal(tmp_path / "model", None))
        elif request.param == "t5":
            made = local(tiny_t5(tmp_path / "model"))
        else:
            made = ExtractiveTeacher() if request.param == "extractive" else FakeTeacher()
        yield made
        await made.aclose()


async def test_one_answer_a_question_in_order(teacher: Teacher) -> None:
    together = await teacher.ask(QUESTIONS)
    alone = [(await teacher.ask([q]))[0] for q in QUESTIONS]
    assert together == alone, "neither order nor batch-mates change an answer"
    assert len({a.text for a in alone}) > 1, "answers depend on the question"


async def test_answers_are_counted_or_none(teacher: Teacher) -> None:
    for answer in await teacher.ask(QUESTIONS):
        assert isinstance(answer.text, str)
        assert answer.prompt_tokens is None or answer.prompt_tokens >= 0
        assert answer.completion_tokens is None or answer.completion_tokens >= 0


def test_identity_is_json_and_stable(teacher: Teacher) -> None:
    assert json.loads(json.dumps(dict(teacher.settings))) == dict(teacher.settings)
    assert dict(teacher.settings) == dict(teacher.settings)
    assert teacher.name
    assert teacher.batch_size >= 1
    assert teacher.concurrency >= 1
