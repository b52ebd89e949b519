"""Puts every open question to a teacher and every answer into the journal: once each, in bounded memory.

A feeder walks the reviews and queues what the journal does not know; `teacher.concurrency` workers ask. An answer is on
file before anything else happens with it. An answer that cannot be parsed is followed by one stricter question. Knows
nothing of the rationales table.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from training.rationale.budget import Budget, Prices
from training.rationale.journal import AnswerJournal
from training.rationale.languages import ENGLISH, Language, Languages
from training.rationale.parse import Rationale, parse
from training.rationale.prompt import question
from training.rationale.teacher import Answer, Question, Teacher, TeacherError, UnansweredError

ENGLISH_ONLY = Languages()
SORT_WINDOW = 16
"""Batches that are gathered and sorted by length together, so that a local model pads little."""


@dataclass
class AskingTally:
    """Running counts of one asking; `reviews` counts those that need nothing more."""

    reviews: int = 0
    asked: int = 0
    reasked: int = 0
    failed: int = 0
    last_failure: str = ""
    stopped: Literal["", "budget", "interrupted"] = ""


@dataclass(frozen=True)
class Settled:
    """What the journal knows of a review. `open` is the question to ask next, None when there is none left."""

    open: Question | None
    answers: list[tuple[Answer, float]] = field(default_factory=list)
    rationale: Rationale | None = None


def look_up(review: str, journal: AnswerJournal, language: Language = ENGLISH) -> Settled:
    """First the ordinary question, then, when its answer cannot be parsed, the strict one."""
    answers: list[tuple[Answer, float]] = []
    for strict in (False, True):
        asked = question(review, strict=strict, language=language)
        entry = journal.get(asked)
        if entry is None:
            return Settled(open=asked, answers=answers)
        answers.append((entry.answer, entry.cost))
        rationale = parse(entry.answer.text, truncated=entry.answer.truncated, language=language)
        if rationale is not None:
            return Settled(open=None, answers=answers, rationale=rationale)
    return Settled(open=None, answers=answers)


async def ask_all(
    reviews: Iterable[str | None],
    teacher: Teacher,
    journal: AnswerJournal,
    budget: Budget,
    prices: Prices,
    *,
    languages: Languages = ENGLISH_ONLY,
    clock: Callable[[], float],
    stop: asyncio.Event,
    observe: Callable[[AskingTally], None],
) -> AskingTally:
    """Ask whatever is open about these reviews (None: nothing to ask). `stop` ends it after the calls under way.

    Raises TeacherError when the teacher cannot go on; everything answered until then is in the journal.
    """
    run = _Asking(teacher, journal, budget, prices, languages, clock, stop, observe)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(teacher.concurrency):
                group.create_task(run.work())
            group.create_task(run.feed(reviews))
    except ExceptionGroup as failures:
        known, unknown = failures.split(TeacherError)
        if known is None or unknown is not None:
            raise
        raise known.exceptions[0] from None
    return run.tally


@dataclass
class _Asking:
    teacher: Teacher
    journal: AnswerJournal
    budget: Budget
    prices: Prices
    languages: Languages
    clock: Callable[[], float]
    stop: asyncio.Event
    observe: Callable[[AskingTally], None]
    tally: AskingTally = field(default_factory=AskingTally)
    failures_in_a_row: int = 0

    def __post_init__(self) -> None:
        self.queue: asyncio.Queue[list[Question] | None] = asyncio.Queue(maxsize=self.teacher.concurrency)
        self.under_way: set[str] = set()  # reviews; bounded by the queue and the workers

    async def feed(self, reviews: Iterable[str | None]) -> None:
        size = self.teacher.batch_size
        window: list[Question] = []
        for review in reviews:
            if self.stop.is_set():
                self.tally.stopped = self.tally.stopped or "interrupted"
                break
            asked = None if review is None else look_up(review, self.journal, self.languages.of(review)).open
            if asked is None or asked.review in self.under_way:
                self._done(1)
                continue
            self.under_way.add(asked.review)
            window.append(asked)
            if len(window) >= (size * SORT_WINDOW if size > 1 else 1):
                await self._enqueue(window)
                window = []
        await self._enqueue(window)
        for _ in range(self.teacher.concurrency):
            await self.queue.put(None)

    async def _enqueue(self, window: list[Question]) -> None:
        size = self.teacher.batch_size
        window.sort(key=lambda q: len(q.review))
        for start in range(0, len(window), size):
            await self.queue.put(window[start : start + size])

    async def work(self) -> None:
        while (batch := await self.queue.get()) is not None:
            unparsed = await self._ask(batch)
            if unparsed:
                await self._ask([question(q.review, strict=True, language=q.language) for q in unparsed])
            self.under_way.difference_update(q.review for q in batch)

    async def _ask(self, batch: list[Question]) -> list[Question]:
        """Ask, file, and return the questions whose first answer cannot be parsed."""
        if self.stop.is_set():
            self.tally.stopped = self.tally.stopped or "interrupted"
            return []
        ticket = await self.budget.reserve(batch)
        if ticket is None:
            self.tally.stopped = "budget"
            self.stop.set()
            return []
        try:
            answers = await self.teacher.ask(batch)
        except UnansweredError as error:
            await self.budget.settle(ticket, [])
            self._failed(len(batch), error)
            return []
        self.failures_in_a_row = 0
        self.journal.add_many(
            [(self.journal.key(q), a, self.prices.of(a)) for q, a in zip(batch, answers, strict=True)], self.clock()
        )
        await self.budget.settle(ticket, answers)
        self.tally.asked += len(batch)
        self.tally.reasked += sum(q.strict for q in batch)
        again = [
            q
            for q, a in zip(batch, answers, strict=True)
            if not q.strict and parse(a.text, truncated=a.truncated, language=q.language) is None
        ]
        self._done(len(batch) - len(again))
        return again

    def _done(self, reviews: int) -> None:
        self.tally.reviews += reviews
        self.observe(self.tally)

    def _failed(self, questions: int, error: UnansweredError) -> None:
        self.tally.failed += questions
        self.tally.last_failure = str(error)
        self.failures_in_a_row += 1
        limit = 2 * self.teacher.concurrency + 8
        if self.failures_in_a_row >= limit:
            raise TeacherError(f"{limit} calls in a row failed, the last with: {error}") from error
        self.observe(self.tally)
