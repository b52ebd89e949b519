"""Asking with a scripted teacher: once each, in bounded memory, within the budget, and when to give up."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from training.rationale.asking import SORT_WINDOW, AskingTally, ask_all
from training.rationale.budget import Budget, Prices
from training.rationale.journal import AnswerJournal, Spent
from training.rationale.judging import Judgement
from training.rationale.parse import Rationale
from training.rationale.prompt import question
from training.rationale.report import SAMPLES, JudgedReview, Report
from training.rationale.teacher import Answer, Question, TeacherError, UnansweredError

GOOD = "The user likes soft toys. The item is a soft bear."


@dataclass
class Scripted:
    reply: Callable[[Question], str] = lambda q: GOOD
    batch_size: int = 1
    concurrency: int = 4
    name: str = "scripted"
    settings: dict[str, object] = field(default_factory=dict)
    asked: Counter[tuple[str, bool]] = field(default_factory=Counter)
    batches: list[list[str]] = field(default_factory=list)
    at_once: int = 0
    peak: int = 0

    async def ask(self, questions: Sequence[Question]) -> list[Answer]:
        assert 1 <= len(questions) <= self.batch_size
        self.asked.update((q.review, q.strict) for q in questions)
        self.batches.append([q.review for q in questions])
        self.at_once += 1
        self.peak = max(self.peak, self.at_once)
        await asyncio.sleep(0.001)
        self.at_once -= 1
        return [Answer(self.reply(q), 100, 20) for q in questions]

    async def aclose(self) -> None:
        pass


def run(
    reviews: Iterator[str | None] | list[str | None] | list[str],
    teacher: Scripted,
    path: Path,
    *,
    stop_after: int | None = None,
    **limits: float,
) -> AskingTally:
    async def main() -> AskingTally:
        stop = asyncio.Event()

        def observe(tally: AskingTally) -> None:
            if stop_after is not None and tally.asked >= stop_after:
                stop.set()

        with AnswerJournal(path, teacher) as journal:
            budget = Budget(journal.spent(), Prices(), max_completion_tokens=20, **limits)  # type: ignore[arg-type]
            return await ask_all(
                reviews, teacher, journal, budget, Prices(), clock=lambda: 0.0, stop=stop, observe=observe
            )

    return asyncio.run(main())


def test_each_distinct_review_is_asked_once(tmp_path: Path) -> None:
    rng = random.Random(0)
    reviews = [f"Review number {rng.randrange(50)}." for _ in range(300)]
    teacher = Scripted()
    tally = run([*reviews, None, None], teacher, tmp_path / "j")
    assert set(teacher.asked.values()) == {1}
    assert {review for review, _ in teacher.asked} == set(reviews)
    assert (tally.asked, tally.failed, tally.stopped) == (len(set(reviews)), 0, "")
    assert teacher.peak == 4
    again = Scripted()
    run(reviews, again, tmp_path / "j")
    assert not again.asked


def test_an_unparsed_answer_is_asked_strictly_once(tmp_path: Path) -> None:
    teacher = Scripted(
        reply=lambda q: GOOD if q.strict and "mends" in q.review else "No." if "bad" in q.review else GOOD
    )
    tally = run(["good", "bad", "bad but mends"], teacher, tmp_path / "j")
    assert teacher.asked == {
        ("good", False): 1,
        ("bad", False): 1,
        ("bad", True): 1,
        ("bad but mends", False): 1,
        ("bad but mends", True): 1,
    }
    assert (tally.asked, tally.reasked) == (5, 2)
    again = Scripted()
    run(["bad"], again, tmp_path / "j")
    assert not again.asked, "what stays unparsed is dropped, not asked for ever"


def test_batches_gather_reviews_of_like_length(tmp_path: Path) -> None:
    rng = random.Random(0)
    reviews = [f"{n} " + "x" * rng.randrange(500) for n in range(4 * SORT_WINDOW)]
    teacher = Scripted(batch_size=4, concurrency=1)
    run(reviews, teacher, tmp_path / "j")
    assert [len(batch) for batch in teacher.batches] == [4] * SORT_WINDOW
    assert [review for batch in teacher.batches for review in batch] == sorted(reviews, key=len)


def test_the_feeder_stays_just_ahead_of_the_workers(tmp_path: Path) -> None:
    read = 0
    ahead = []

    def reviews() -> Iterator[str]:
        nonlocal read
        for n in range(500):
            read += 1
            yield f"Review number {n}."

    teacher = Scripted()
    teacher.reply = lambda q: ahead.append(read - teacher.asked.total()) or GOOD  # type: ignore[func-returns-value]
    run(reviews(), teacher, tmp_path / "j")
    assert max(ahead) <= 2 * teacher.concurrency + 1, "reviews are not piled up in memory"


def test_stop_ends_after_what_is_under_way(tmp_path: Path) -> None:
    teacher = Scripted()
    tally = run([f"Review number {n}." for n in range(300)], teacher, tmp_path / "j", stop_after=20)
    assert tally.stopped == "interrupted"
    assert 20 <= tally.asked <= 20 + teacher.concurrency
    with AnswerJournal(tmp_path / "j", teacher) as journal:
        assert journal.spent().answers == teacher.asked.total(), "nothing that was asked is thrown away"


def test_single_failures_stay_open_and_many_in_a_row_stop_the_run(tmp_path: Path) -> None:
    @dataclass
    class Failing(Scripted):
        broken: Callable[[str], bool] = lambda review: True

        async def ask(self, questions: Sequence[Question]) -> list[Answer]:
            if self.broken(questions[0].review):
                raise UnansweredError("status 503")
            return await super().ask(questions)

    reviews = [f"Review number {n}." for n in range(200)]
    some = Failing(broken=lambda review: "7" in review)
    tally = run(reviews, some, tmp_path / "j")
    assert (tally.failed, tally.last_failure) == (sum("7" in r for r in reviews), "status 503")
    assert tally.asked == 200 - tally.failed
    with pytest.raises(TeacherError, match="calls in a row failed, the last with: status 503"):
        run(reviews, Failing(), tmp_path / "j")


@pytest.mark.parametrize("limit", [119, 1000, 5000])
def test_the_token_limit_holds(tmp_path: Path, limit: int) -> None:
    teacher = Scripted()
    tally = run([f"Review number {n}." for n in range(100)], teacher, tmp_path / "j", max_tokens=limit)
    assert tally.stopped == "budget"
    estimate = (
        len((question("Review number 10.").system + question("Review number 10.").prompt).encode()) // 3 + 32 + 20
    )
    assert estimate > 120, "the estimate is on the safe side here"
    assert teacher.asked.total() * 120 <= limit
    assert teacher.asked.total() * 120 + estimate > limit, "and what fits is asked"


async def test_a_waiting_call_takes_the_room_that_another_frees() -> None:
    asked = [question("Review.")]
    estimate = len((asked[0].system + asked[0].prompt).encode()) // 3 + 32
    budget = Budget(Spent(0, 0, 0, 0.0), Prices(), max_tokens=estimate + 50)
    first = await budget.reserve(asked)
    assert first is not None
    second = asyncio.create_task(budget.reserve(asked))
    await asyncio.sleep(0.01)
    assert not second.done(), "it waits: the first may take less than was put aside"
    await budget.settle(first, [Answer("", 30, 10)])
    ticket = await second
    assert ticket is not None
    await budget.settle(ticket, [Answer("", 30, 10)])
    assert budget.tokens == 80
    budget_left = Budget(Spent(1, estimate, 51, 0.0), Prices(), max_tokens=estimate + 50)
    assert await budget_left.reserve(asked) is None


def test_the_report_samples_every_row_alike() -> None:
    judgement = Judgement(verdict="ok", reason="", score=0.75, use=True)
    seen: Counter[str] = Counter()
    for seed in range(300):
        report = Report(random.Random(seed))
        for n in range(60):
            report.add(JudgedReview(str(n), Rationale("The user is.", "The item is."), judgement))
        kept = [sample.review for sample in report.samples[("ok", "")]]
        assert len(set(kept)) == SAMPLES
        seen.update(kept)
    # 300 draws of 20 from 60: each is kept 100 times on average, standard deviation about 8.
    assert min(seen.values()) > 60
    assert max(seen.values()) < 140
    assert report.histogram == [0, 0, 0, 0, 0, 0, 0, 60, 0, 0]


def test_the_report_escapes_what_reviews_hold() -> None:
    report = Report(random.Random(0))
    unparsed = Judgement(verdict="unparsed", reason="no two sentences", score=None, use=False)
    report.add(JudgedReview("a | b <script>alert(1)</script> " + "long " * 200, None, unparsed))
    text = report.markdown("T")
    assert "a \\| b &lt;script>" in text
    assert "long …" in text
    assert "| unparsed | no two sentences | 1 | 100.0% |" in text
