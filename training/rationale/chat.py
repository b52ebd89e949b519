"""The two sides of one chat completion, as every OpenAI-compatible server and the batch files spell them.

Pure: no connection, no file. `openai.py` sends these bodies, `batch.py` writes them into shards.
"""

from __future__ import annotations

import re
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

    def body(self, question: Question, *, structured: bool, modern: bool = False) -> dict[str, object]:
        """The request's JSON body. modern: as newer models of OpenAI want it, with `max_completion_tokens` in place of
        `max_tokens` and without a temperature."""
        body: dict[str, object] = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": question.system},
                {"role": "user", "content": question.prompt},
            ],
        }
        if modern:
            body["max_completion_tokens"] = self.max_completion_tokens
        else:
            body |= {"temperature": self.temperature, "max_tokens": self.max_completion_tokens}
        if structured:
            schema = {"name": "rationale", "strict": True, "schema": ANSWER_SCHEMA}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body


class ErrorReplyError(ValueError):
    """The payload is an error, whatever the status it came with; `failure` tells which."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.words)
        self.failure = failure


def read_completion(payload: object) -> Answer:
    """The answer in a chat completion; an empty one where a filter or a limit left no text.

    Content may be a string, null, missing, or a list of parts, of which the text parts count and thoughts do not.
    Raises ErrorReplyError where an error came in place of choices, ValueError where the payload is no completion.
    """
    if not isinstance(payload, Mapping):
        raise ValueError("the reply is not a JSON object")
    choices = payload.get("choices")
    if not choices and payload.get("error"):
        raise ErrorReplyError(Failure.read(payload))
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        raise ValueError("the reply has no choices")
    message = choices[0].get("message")
    if not isinstance(message, Mapping):
        raise ValueError("the reply's first choice has no message")
    usage = payload.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    refusal = message.get("refusal")
    return Answer(
        text=_text(message.get("content")) or (refusal if isinstance(refusal, str) else ""),
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        truncated=choices[0].get("finish_reason") == "length",
    )


def _text(content: object) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise ValueError("the reply's message content is neither text nor a list of parts")
    parts = [part if isinstance(part, str) else _part(part) for part in content]
    return "".join(parts)


def _part(part: object) -> str:
    if not isinstance(part, Mapping) or part.get("type", "text") not in ("text", "output_text"):
        return ""
    text = part.get("text")
    return text if isinstance(text, str) else ""


_SPENT = frozenset(
    {
        "insufficient_quota", "insufficient_user_quota", "insufficient_balance", "insufficient_credits",
        "billing_hard_limit_reached", "billing_not_active", "quota_exceeded", "payment_required",
        "account_deactivated", "access_terminated",
    }
)  # fmt: skip
_PARAMETER = re.compile(r"max_(?:completion_)?tokens|temperature", re.I)
_ABOUT_PARAMETERS = re.compile(
    r"unsupported (?:parameter|value)|unknown parameter|unrecognized|is not supported|does not support|not permitted",
    re.I,
)
_SECRET = re.compile(r"\b(?:sk|pk|key|gsk|hf)[-_][\w*.-]{6,}|(?i:bearer)\s+\S+")
_MOST_WORDS = 300


@dataclass(frozen=True)
class Failure:
    """What a server says of an error, in its own words, without anything that looks like a key."""

    words: str
    codes: frozenset[str]
    """Its `type`, `code` and `param`, as far as it gave them, in lower case."""

    @classmethod
    def read(cls, payload: object, text: str = "") -> Failure:
        """From a JSON body (or the text of one that is none)."""
        error = payload.get("error", payload) if isinstance(payload, Mapping) else None
        if isinstance(error, Mapping):
            message = error.get("message") or error.get("detail") or error.get("msg") or ""
            codes = {str(error[name]).lower() for name in ("type", "code", "param") if error.get(name) is not None}
        else:
            message, codes = error or text, set()
        words = " ".join(re.sub(r"<[^>]*>", " ", str(message)).split())
        return cls(_SECRET.sub("***", words)[:_MOST_WORDS], frozenset(codes))

    @property
    def purse_is_empty(self) -> bool:
        """Whether paying helps and waiting does not. Told by its codes: the words alone are those of a rate limit."""
        return bool(self.codes & _SPENT)

    @property
    def filtered(self) -> bool:
        """Whether a content filter refused this one review."""
        return any("content_filter" in code or "content_policy" in code for code in self.codes)

    @property
    def about_limits(self) -> bool:
        """Whether `max_tokens` or `temperature` was refused."""
        return bool(_PARAMETER.search(self.words)) or any(_PARAMETER.search(code) for code in self.codes)

    @property
    def about_parameters(self) -> bool:
        """Whether a parameter was refused that every request of this run carries."""
        return bool(_ABOUT_PARAMETERS.search(self.words)) or any(code.startswith("unsupported_") for code in self.codes)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
