"""Distillation end to end: training reviews -> questions -> journal -> verdicts -> rationales.parquet.

Two passes over the reviews, each in bounded memory: `ask_about` asks what the journal does not know, `judge_and_write`
reads every answer back, judges it and writes the table. The second alone is what the batch road needs.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator

from pydantic import BaseModel, ConfigDict, Field

from training.data.dataset import Dataset
from training.rationale.asking import Tally, ask_all, look_up
from training.rationale.budget import Budget, Prices
from training.rationale.journal import Journal
from training.rationale.judging import Thresholds, judge
from training.rationale.prompt import PROMPT_VERSION
from training.rationale.report import Report, Sample
from training.rationale.table import Review, training_reviews, write_rationales
from training.rationale.teacher import Teacher


class Limits(BaseModel):
    """What one run may spend, over all its processes; None is no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens_total: int | None = Field(default=None, gt=0)
    max_cost: float | None = Field(default=None, gt=0)
    max_completion_tokens: int = Field(default=120, gt=0)


async def ask_about(
    dataset: Dataset,
    teacher: Teacher,
    journal: Journal,
    *,
    thresholds: Thresholds,
    limits: Limits,
    prices: Prices,
    stop: asyncio.Event,
    observe: Callable[[Tally, Budget], None],
    clock: Callable[[], float] = time.time,
) -> Tally:
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
            clock=clock,
            stop=stop,
            observe=lambda tally: observe(tally, budget),
        )
    finally:
        await teacher.aclose()


def reviews_to_ask(dataset: Dataset, thresholds: Thresholds) -> Iterator[str | None]:
    """The training reviews' texts; None for one that is not worth paying for."""
    return (r.text if thresholds.worth_asking(r.text) else None for r in training_reviews(dataset))


def judge_and_write(
    dataset: Dataset, teacher_name: str, journal: Journal, thresholds: Thresholds, rng: random.Random
) -> tuple[Report, int]:
    """The second pass: rationales.parquet from what the journal holds.

    Returns the report and the number of reviews whose question is open; those have no row, and a rerun asks them.
    """
    report = Report(rng)
    unanswered = 0

    def rows() -> Iterator[dict[str, object]]:
        nonlocal unanswered
        for review in training_reviews(dataset):
            row = _row(review, teacher_name, journal, thresholds, report)
            if row is None:
                unanswered += 1
            else:
                yield row

    write_rationales(dataset.rationales_path, rows())
    return report, unanswered


def _row(
    review: Review, teacher_name: str, journal: Journal, thresholds: Thresholds, report: Report
) -> dict[str, object] | None:
    """One row of RATIONALES, None while the review's question is open.

    Tokens and cost are those of the answers behind the row, both askings together; identical reviews share their
    answers, so totals of what was paid come from the journal, not from a sum over rows.
    """
    rationale = None
    tokens: tuple[int | None, int | None] = (0, 0)
    cost = 0.0
    if thresholds.worth_asking(review.text):
        settled = look_up(review.text, journal)
        if settled.open is not None:
            return None
        rationale = settled.rationale
        tokens = (
            _sum([answer.prompt_tokens for answer, _ in settled.answers]),
            _sum([answer.completion_tokens for answer, _ in settled.answers]),
        )
        cost = sum(cost for _, cost in settled.answers)
    judgement = judge(rationale, review.text, review.title, thresholds)
    report.add(Sample(" ".join(review.text.split()), rationale, judgement))
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
