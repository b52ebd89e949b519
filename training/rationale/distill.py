"""Distillation end to end: training reviews -> questions -> journal -> verdicts -> rationales.parquet.

Two passes over the reviews, each in bounded memory: `ask_about` asks what the journal does not know, `judge_and_write`
reads every answer back, judges it and writes the table. The second alone is what the batch road needs.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from itertools import islice

from pydantic import BaseModel, ConfigDict, Field

from training.data.dataset import Dataset
from training.rationale.asking import ENGLISH_ONLY, AskingTally, ask_all, look_up
from training.rationale.budget import Budget, Prices
from training.rationale.journal import AnswerJournal
from training.rationale.judging import Thresholds, judge
from training.rationale.languages import Languages
from training.rationale.prompt import PROMPT_VERSION
from training.rationale.report import JudgedReview, Report
from training.rationale.table import Review, reviews_of, write_rationales
from training.rationale.teacher import Teacher

_PASSES = 8
"""In which reviews are asked about, each every eighth: reviews lie by item, and a budget that ends should have reached
the whole catalogue.
"""


class Limits(BaseModel):
    """What one run may spend, over all its processes; None is no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens_total: int | None = Field(default=None, gt=0)
    max_cost: float | None = Field(default=None, gt=0)
    max_completion_tokens: int = Field(default=120, gt=0)


async def ask_about(
    dataset: Dataset,
    teacher: Teacher,
    journal: AnswerJournal,
    *,
    thresholds: Thresholds,
    limits: Limits,
    prices: Prices,
    languages: Languages = ENGLISH_ONLY,
    stop: asyncio.Event,
    observe: Callable[[AskingTally, Budget], None],
    clock: Callable[[], float] = time.time,
) -> AskingTally:
    """The first pass. The teacher is closed at the end, whatever the end.

    Raises TeacherError when the teacher cannot go on; the journal keeps what was answered.
    """
    budget = Budget(
        journal.spent(),
        prices,
        max_tokens=limits.max_tokens_total,
        max_cost=limits.max_cost,
        max_completion_tokens=limits.max_completion_tokens,
    )
    try:
        return await ask_all(
            reviews_to_ask(dataset, thresholds),
            teacher,
            journal,
            budget,
            prices,
            languages=languages,
            clock=clock,
            stop=stop,
            observe=lambda tally: observe(tally, budget),
        )
    finally:
        await teacher.aclose()


def reviews_to_ask(dataset: Dataset, thresholds: Thresholds) -> Iterator[str | None]:
    """The training reviews' texts, every eighth first, then those behind them; None for one not worth paying for."""
    for first in range(_PASSES):
        for review in islice(reviews_of(dataset), first, None, _PASSES):
            yield review.text if thresholds.worth_asking(review.text) else None


def training_texts(dataset: Dataset) -> Iterator[str]:
    """The training reviews' texts, as `languages_for` samples them."""
    return (review.text for review in reviews_of(dataset))


def judge_and_write(
    dataset: Dataset,
    teacher_name: str,
    journal: AnswerJournal,
    thresholds: Thresholds,
    rng: random.Random,
    languages: Languages = ENGLISH_ONLY,
) -> tuple[Report, int]:
    """The second pass: rationales.parquet from what the journal holds.

    Returns the report and the number of reviews whose question is open; those have no row, and a rerun asks them.
    """
    report = Report(rng)
    unanswered = 0

    def rows() -> Iterator[dict[str, object]]:
        nonlocal unanswered
        for review in reviews_of(dataset):
            row = _row(review, teacher_name, journal, thresholds, languages, report)
            if row is None:
                unanswered += 1
            else:
                yield row

    write_rationales(dataset.rationales_path, rows())
    return report, unanswered


def _row(
    review: Review,
    teacher_name: str,
    journal: AnswerJournal,
    thresholds: Thresholds,
    languages: Languages,
    report: Report,
) -> dict[str, object] | None:
    """One row of RATIONALES, None while the review's question is open.

    Tokens and cost are those of the answers behind the row, both askings together; identical reviews share their
    answers, so totals of what was paid come from the journal, not from a sum over rows.
    """
    rationale = None
    last_answer = ""
    language = languages.of(review.text)
    tokens: tuple[int | None, int | None] = (0, 0)
    cost = 0.0
    if thresholds.worth_asking(review.text):
        settled = look_up(review.text, journal, language)
        if settled.open is not None:
            return None
        rationale = settled.rationale
        last_answer = settled.answers[-1][0].text
        tokens = (
            _sum([answer.prompt_tokens for answer, _ in settled.answers]),
            _sum([answer.completion_tokens for answer, _ in settled.answers]),
        )
        cost = sum(cost for _, cost in settled.answers)
    judgement = judge(rationale, review.text, review.title, thresholds, language=language, last_answer=last_answer)
    report.add(JudgedReview(" ".join(review.text.split()), rationale, judgement))
    return {
        "user_index": review.user_index,
        "item_index": review.item_index,
        "user_preference": rationale.user_preference if rationale else None,
        "item_attributes": rationale.item_attributes if rationale else None,
        "verdict": judgement.verdict,
        "use": judgement.use,
        "grounding": judgement.score,
        "teacher": teacher_name,
        "prompt_version": PROMPT_VERSION,
        "prompt_tokens": tokens[0],
        "completion_tokens": tokens[1],
        "cost": cost,
    }


def _sum(counts: list[int | None]) -> int | None:
    """None when any is unknown."""
    return None if None in counts else sum(c for c in counts if c is not None)
