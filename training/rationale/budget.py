"""What a distillation may spend: tokens and money are reserved before a call and settled after it.

Counts what earlier processes of the same run spent, so that a kill and a rerun share one budget. Knows no teacher.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from training.rationale.journal import Spent
from training.rationale.teacher import Answer, Question, TeacherError

_BYTES_PER_TOKEN = 3
_TURN_TOKENS = 32
"""Estimates on the safe side: English runs at about four bytes a token, a chat template adds some 20 tokens."""


@dataclass(frozen=True)
class Prices:
    """Money per million tokens."""

    prompt: float = 0.0
    completion: float = 0.0

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Price of one answer, or of many."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6

    def of(self, answer: Answer) -> float:
        """Price of an answer; tokens that the teacher did not count cost nothing here."""
        return self.cost(answer.prompt_tokens or 0, answer.completion_tokens or 0)


class Budget:
    """Admits calls as long as what is spent, what is under way and the next call fit under the limits."""

    def __init__(
        self,
        spent: Spent,
        prices: Prices,
        *,
        max_tokens: int | None = None,
        max_cost: float | None = None,
        max_completion_tokens: int = 0,
    ) -> None:
        self.tokens = spent.tokens
        self.cost = spent.cost
        self._prices = prices
        self._max_tokens = max_tokens
        self._max_cost = max_cost
        self._max_completion = max_completion_tokens
        self._open: dict[int, tuple[int, float]] = {}
        self._changed = asyncio.Condition()
        self._tickets = 0

    @property
    def limited(self) -> bool:
        """Whether any limit is set."""
        return self._max_tokens is not None or self._max_cost is not None

    async def reserve(self, questions: Sequence[Question]) -> int | None:
        """A ticket for this call, or None when it can no longer fit; waits while calls under way may free room."""
        prompt = sum(len((q.system + q.prompt).encode()) // _BYTES_PER_TOKEN + _TURN_TOKENS for q in questions)
        completion = self._max_completion * len(questions)
        wanted = (prompt + completion, self._prices.cost(prompt, completion))
        async with self._changed:
            while not self._fits(*wanted):
                if not self._open:
                    return None
                await self._changed.wait()
            self._tickets += 1
            self._open[self._tickets] = wanted
            return self._tickets

    def _fits(self, tokens: int, cost: float) -> bool:
        under_way = self._open.values()
        return (
            self._max_tokens is None or self.tokens + sum(t for t, _ in under_way) + tokens <= self._max_tokens
        ) and (self._max_cost is None or self.cost + sum(c for _, c in under_way) + cost <= self._max_cost)

    async def settle(self, ticket: int, answers: Sequence[Answer]) -> None:
        """Replace a reservation by what the answers really took (none: the call failed)."""
        for answer in answers:
            if self.limited and (answer.prompt_tokens is None or answer.completion_tokens is None):
                raise TeacherError(
                    "the server's answers carry no token usage, so no budget can be kept: "
                    "drop --max-tokens-total and --max-cost, or use a server that reports usage"
                )
            self.tokens += (answer.prompt_tokens or 0) + (answer.completion_tokens or 0)
            self.cost += self._prices.of(answer)
        async with self._changed:
            del self._open[ticket]
            self._changed.notify_all()
