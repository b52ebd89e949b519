"""The two sides of one chat completion, as every OpenAI-compatible server and the batch files spell them.

Pure: no connection, no file. `openai.py` sends these bodies, `batch.py` writes them into shards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from training.rationale.prompt import ANSWER_SCHEMA
from training.rationale.teacher import Answer, Question


@dataclass(frozen=True)
class Generation:
    """Settings of a chat completion; all of them are part of the journal's key."""

    model: str
    temperature: float
    max_completion_tokens: int
    structured: bool
    """Whether to ask for JSON by schema."""

    def body(self, question: Question, *, structured: bool) -> dict[str, object]:
        """The request's JSON body."""
        body: dict[str, object] = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": question.system},
                {"role": "user", "content": question.prompt},
            ],
            "temperature": self.temperature,
            "max_tokens": self.max_completion_tokens,
        }
        if structured:
            schema = {"name": "rationale", "strict": True, "schema": ANSWER_SCHEMA}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body


def read_completion(payload: object) -> Answer:
    """The answer in a chat completion. Raises ValueError where the payload is none; null content is an empty answer."""
    if not isinstance(payload, Mapping):
        raise ValueError("the reply is not a JSON object")
    choices = payload.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        raise ValueError("the reply has no choices")
    message = choices[0].get("message")
    if not isinstance(message, Mapping) or not isinstance(message.get("content", ...), str | None):
        raise ValueError("the reply's first choice has no message content")
    usage = payload.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    return Answer(
        text=message["content"] or "",
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        truncated=choices[0].get("finish_reason") == "length",
    )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
