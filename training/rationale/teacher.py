"""What a teacher is: something that answers rationale questions, be it a server, a local model or a rule.

The contract that `asking.py` relies on. Knows nothing of reviews tables, journals, parsing or verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from rdrec_core.errors import RDRecError
from training.rationale.languages import ENGLISH, Language


class TeacherError(RDRecError):
    """The teacher cannot go on (wrong key, unknown model, server down): the run stops, the journal is kept."""


class UnansweredError(TeacherError):
    """One call failed for good after its retries; its questions stay open and a rerun asks them again."""


@dataclass(frozen=True)
class Question:
    """One review put to a teacher: the chat's system and user turns, and the bare review for the rule."""

    review: str
    system: str
    prompt: str
    strict: bool
    """Whether this is the second, stricter asking after an answer that could not be parsed."""
    language: Language = ENGLISH
    """What the sentences are to be written in; the turns say so."""


@dataclass(frozen=True)
class Answer:
    """A teacher's raw words. Tokens are as the teacher counted them, None where it did not say."""

    text: str
    prompt_tokens: int | None
    completion_tokens: int | None
    truncated: bool = False
    """Whether the token limit cut the text."""


class Identity(Protocol):
    """What tells one teacher's answers from another's."""

    @property
    def name(self) -> str:
        """As written in the table's `teacher` column."""

    @property
    def settings(self) -> Mapping[str, object]:
        """JSON values: everything that alters an answer. Part of the journal's key; never holds a secret."""


class Teacher(Identity, Protocol):
    """One implementation a file; `tests/contract/test_teacher_contract.py` runs over all of them."""

    @property
    def batch_size(self) -> int:
        """How many questions one call takes at most."""

    @property
    def concurrency(self) -> int:
        """How many calls may be under way at once."""

    async def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer for each question, in order.

        Raises UnansweredError when this call failed for good, TeacherError when further calls would fail alike.
        """

    async def aclose(self) -> None:
        """Let go of connections or models."""
