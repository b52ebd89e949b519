"""The batching policy on a clock that the test moves."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.batch_queue import BACKGROUND_S, BatchQueue, Job, length_band
from service.wire.work import Kind, Line, QueueFullError


def job(
    kind: Kind = Kind.RANK,
    *,
    at: float = 0.0,
    deadline: float = 100.0,
    length: int = 5,
    line: Line = Line.INTERACTIVE,
) -> Job:
    return Job(kind, length, object(), deadline, at, lambda value: None, line=line)


def queue_of(*jobs: Job, size: int = 100, batch_size: int = 4, wait_s: float = 0.01) -> BatchQueue:
    queue = BatchQueue(size=size, batch_size=batch_size, wait_s=wait_s)
    for each in jobs:
        queue.offer(each, each.enqueued_at)
    return queue


def test_a_lone_job_does_not_wait() -> None:
    first = job(at=5.0)
    decision = queue_of(first).take(5.0)
    assert decision.batch == [first]
    assert first.started_at == 5.0


def test_jobs_of_one_kind_and_band_go_together_up_to_the_batch_size_in_order() -> None:
    jobs = [job(at=n) for n in range(6)]
    queue = queue_of(*jobs)
    assert queue.take(10.0).batch == jobs[:4]
    assert queue.depth == 2
    assert queue.take(10.0).batch == jobs[4:]
    assert queue.take(10.0).batch == []
    assert queue.depth == 0


def test_kinds_and_length_bands_do_not_mix_and_the_oldest_group_comes_first() -> None:
    score, short, long, late_score = job(Kind.SCORE, at=2), job(at=1), job(at=0, length=500), job(Kind.SCORE, at=3)
    queue = queue_of(score, short, long, late_score)
    assert [queue.take(9.0).batch for _ in range(3)] == [[long], [short], [score, late_score]]


def test_after_a_batch_of_several_an_unfilled_batch_waits_for_company_but_not_longer() -> None:
    queue = queue_of(job(at=0), job(at=0), wait_s=0.5)
    queue.finished(queue.take(0.0).batch, 1.0, 1.0, 1.0)
    late = job(at=1.1)
    queue.offer(late, 1.1)
    decision = queue.take(1.1)
    assert (decision.batch, decision.wake_at) == ([], 1.5)
    assert queue.take(1.5).batch == [late]


def test_a_full_batch_does_not_wait_for_company() -> None:
    queue = queue_of(job(at=0), job(at=0), batch_size=2, wait_s=0.5)
    queue.finished(queue.take(0.0).batch, 1.0, 1.0, 1.0)
    pair = [job(at=1.0), job(at=1.0)]
    for each in pair:
        queue.offer(each, 1.0)
    assert queue.take(1.0).batch == pair


def test_a_lone_job_long_after_a_big_batch_does_not_wait() -> None:
    queue = queue_of(job(at=0), job(at=0), wait_s=0.5)
    queue.finished(queue.take(0.0).batch, 1.0, 1.0, 1.0)
    late = job(at=60.0)
    queue.offer(late, 60.0)
    assert queue.take(60.0).batch == [late]


def test_a_job_past_its_deadline_never_enters_a_batch() -> None:
    dead, alive = job(at=0, deadline=1.0), job(at=0, deadline=3.0)
    decision = queue_of(dead, alive).take(1.0)
    assert decision.expired == [dead]
    assert decision.batch == [alive]


def test_only_expired_jobs_leave_the_queue_empty() -> None:
    dead = job(deadline=1.0)
    queue = queue_of(dead)
    decision = queue.take(2.0)
    assert (decision.expired, decision.batch, decision.wake_at, queue.depth) == ([dead], [], None, 0)


def test_a_cancelled_job_frees_its_place_at_once() -> None:
    first, second = job(at=0), job(at=1)
    queue = queue_of(first, second, size=2)
    with pytest.raises(QueueFullError):
        queue.offer(job(at=2), 2.0)
    queue.cancel(first)
    queue.cancel(first)
    assert queue.depth == 1
    queue.offer(third := job(at=2), 2.0)
    assert queue.take(3.0).batch == [second, third]


def test_cancelling_a_running_job_changes_no_count() -> None:
    running = job()
    queue = queue_of(running)
    queue.take(0.0)
    queue.cancel(running)
    assert queue.depth == 0


def test_retry_after_is_the_measured_time_to_drain() -> None:
    queue = queue_of(*(job() for _ in range(10)), size=10, batch_size=4)
    queue.finished(queue.take(0.0).batch, 2.0, 2.0, 2.0)  # half a second each; six of ten still wait
    for _ in range(4):
        queue.offer(job(at=2.0), 2.0)
    with pytest.raises(QueueFullError) as error:
        queue.offer(job(at=2.0), 2.0)
    assert error.value.retry_after_s == pytest.approx(5.0)


def test_a_lone_job_that_was_held_up_does_not_tell_how_long_full_batches_take() -> None:
    queue = BatchQueue(size=100, batch_size=16, wait_s=0.0)
    for _ in range(10):
        for _ in range(16):
            queue.offer(job(), 0.0)
        queue.finished(queue.take(0.0).batch, 0.032, 0.032, 0.0)  # 2 ms each
    queue.offer(job(), 0.0)
    queue.finished(queue.take(0.0).batch, 0.5, 0.5, 0.0)
    for _ in range(64):  # 128 ms of work
        queue.offer(job(deadline=1.0), 0.0)
    assert queue.seconds_ahead() < 0.5


def test_what_the_engine_has_counts_into_the_time_ahead() -> None:
    queue = queue_of(*(job() for _ in range(4)), batch_size=4)
    queue.finished(queue.take(0.0).batch, 2.0, 2.0, 2.0)
    for _ in range(4):
        queue.offer(job(at=2.0), 2.0)
    batch = queue.take(2.0).batch
    assert queue.seconds_ahead() == pytest.approx(2.0)
    queue.finished(batch, 2.0, 2.0, 4.0)
    assert queue.seconds_ahead() == 0.0


def test_a_busy_engine_is_given_full_batches_that_it_computes_soon() -> None:
    queue = queue_of(*(job() for _ in range(9)), batch_size=2)
    first = queue.take(0.0).batch
    assert len(first) == 2
    assert queue.take(0.0, engine_is_idle=False).batch == []  # nothing is known of its pace yet
    queue.finished(first, 0.1, 0.025, 0.01)  # 12.5 ms each in the engine, whatever they took on the way
    sent = [queue.take(0.1, engine_is_idle=n == 0).batch for n in range(4)]
    assert [len(batch) for batch in sent] == [2, 2, 0, 0]  # four jobs are 50 ms
    queue.finished(sent[0], 0.1, 0.025, 0.2)
    assert [len(queue.take(0.2, engine_is_idle=False).batch) for _ in range(2)] == [2, 0]
    queue.finished(sent[1], 0.1, 0.025, 0.3)
    assert queue.take(0.3, engine_is_idle=False).batch == []  # one is left, and waits for company or an idle engine
    assert len(queue.take(0.4).batch) == 1


def test_a_job_that_could_not_be_answered_in_time_is_turned_away_unless_nothing_waits() -> None:
    queue = queue_of(job())
    queue.finished(queue.take(0.0).batch, 2.0, 2.0, 2.0)
    queue.offer(job(at=2.0, deadline=3.0), 2.0)  # nothing waits: tried in spite of the estimate
    with pytest.raises(QueueFullError) as error:
        queue.offer(job(at=2.0, deadline=5.0), 2.0)
    assert error.value.retry_after_s == pytest.approx(1.0)
    queue.offer(job(at=2.0, deadline=6.5), 2.0)
    assert queue.depth == 2


def test_clear_returns_what_waits_and_forgets_it() -> None:
    first, second = job(), job(Kind.TEXT)
    queue = queue_of(first, second)
    queue.cancel(first)
    assert list(queue.clear()) == [second]
    queue.cancel(second)
    assert queue.depth == 0
    assert queue.take(1.0).batch == []


def paced(*, seconds_a_job: float = 0.01, **limits: Any) -> BatchQueue:
    """A queue that knows how long rankings and texts take."""
    queue = BatchQueue(size=100, wait_s=0.0, **limits)
    for kind in (Kind.RANK, Kind.TEXT):
        queue.offer(job(kind), 0.0)
        queue.finished(queue.take(0.0).batch, seconds_a_job, seconds_a_job, 0.0)
    return queue


def turns(queue: BatchQueue, n: int, *, now: float = 1.0) -> list[Line]:
    """Whose the next n batches are, each finished before the next is taken."""
    lines = []
    for _ in range(n):
        batch = queue.take(now).batch
        lines.append(batch[0].line)
        queue.finished(batch, 0.01 * len(batch), 0.01 * len(batch), now)
    return lines


def test_lines_that_wait_get_the_engine_by_their_shares() -> None:
    queue = paced(batch_size=1, shares={Line.INTERACTIVE: 3.0, Line.EXPLAIN: 1.0})
    for _ in range(50):
        queue.offer(job(Kind.TEXT, line=Line.EXPLAIN), 0.0)
        queue.offer(job(), 0.0)
    served = Counter(turns(queue, 40))
    assert served[Line.INTERACTIVE] == pytest.approx(30, abs=1)


def test_a_line_below_its_share_comes_next_however_many_others_wait_before_it() -> None:
    queue = paced(batch_size=1, shares={Line.INTERACTIVE: 8.0, Line.BATCH: 1.0})
    for _ in range(50):
        queue.offer(job(line=Line.BATCH), 0.0)
    turns(queue, 20)
    queue.offer(late := job(at=1.0), 1.0)
    assert queue.take(1.0).batch == [late]


def test_a_line_that_had_nothing_to_do_has_saved_nothing() -> None:
    queue = paced(batch_size=1, shares={Line.INTERACTIVE: 1.0, Line.EXPLAIN: 1.0})
    for _ in range(60):
        queue.offer(job(), 0.0)
    turns(queue, 40)
    for _ in range(20):
        queue.offer(job(Kind.TEXT, line=Line.EXPLAIN), 1.0)
    assert Counter(turns(queue, 10))[Line.INTERACTIVE] in (4, 5, 6)


def test_a_batch_of_the_background_is_as_short_as_others_may_wait() -> None:
    queue = paced(seconds_a_job=0.01, batch_size=16)
    for _ in range(16):
        queue.offer(job(Kind.TEXT, line=Line.EXPLAIN), 0.0)
    assert len(queue.take(0.0).batch) == int(BACKGROUND_S / 0.01) == 2
    slow = paced(seconds_a_job=10.0, batch_size=16)
    slow.offer(alone := job(Kind.TEXT, line=Line.EXPLAIN), 0.0)
    assert slow.take(0.0).batch == [alone]


def test_slow_jobs_that_cost_little_more_together_come_to_be_computed_together() -> None:
    queue = paced(seconds_a_job=0.1, batch_size=16)
    sizes = []
    for _ in range(100):
        for _ in range(16):
            queue.offer(job(Kind.TEXT, line=Line.EXPLAIN, deadline=1e9), 0.0)
        sizes.append(len(batch := queue.take(0.0).batch))
        queue.finished(batch, 0.0, 0.09 + 0.01 * len(batch), 0.0)
        queue.clear()
    assert sizes[0] == 2
    assert 9 <= sizes[-1] <= 11, "0.2 s, twice that of one, is a batch of eleven"


def test_places_and_waiting_are_counted_by_line() -> None:
    queue = paced(seconds_a_job=1.0, batch_size=1, shares={Line.INTERACTIVE: 4.0, Line.BATCH: 1.0})
    for _ in range(100):
        queue.offer(job(line=Line.BATCH, deadline=1e9), 0.0)
    with pytest.raises(QueueFullError):
        queue.offer(job(line=Line.BATCH, deadline=1e9), 0.0)
    assert queue.seconds_ahead(Line.INTERACTIVE) == 0.0, "a hundred that wait in another line are not ahead"
    for _ in range(8):
        queue.offer(job(deadline=11.5), 0.0)
    assert queue.seconds_ahead(Line.INTERACTIVE) == pytest.approx(8 + 2)
    assert queue.seconds_ahead(Line.BATCH) == pytest.approx(100 + 8)
    with pytest.raises(QueueFullError):
        queue.offer(job(deadline=10.5), 0.0)


def test_what_an_engine_lost_is_not_ahead_of_anybody() -> None:
    queue = paced(seconds_a_job=1.0, batch_size=4)
    for _ in range(4):
        queue.offer(job(), 0.0)
    batch = queue.take(0.0).batch
    assert queue.seconds_ahead() == pytest.approx(4.0)
    queue.lost(batch)
    assert queue.seconds_ahead() == 0.0


@given(st.integers(1, 100_000))
def test_a_band_spans_at_most_a_factor_of_four(length: int) -> None:
    assert length_band(4 * length) == length_band(length) + 1
    assert length_band(length) <= length_band(length + 1)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(Kind)),
            st.integers(1, 60),
            st.floats(0, 2),
            st.booleans(),
            st.sampled_from(list(Line)),
        ),
        max_size=40,
    ),
    st.integers(1, 5),
)
def test_every_job_leaves_exactly_once(rows: list[tuple[Kind, int, float, bool, Line]], batch_size: int) -> None:
    queue = BatchQueue(size=100, batch_size=batch_size, wait_s=0.0)
    jobs = []
    for kind, length, deadline, cancel, line in rows:
        queue.offer(each := job(kind, deadline=deadline, length=length, line=line), 0.0)
        jobs.append(each)
        if cancel:
            queue.cancel(each)
    left: list[Job] = []
    while True:
        decision = queue.take(1.0)
        assert len(decision.batch) <= batch_size
        assert len({(j.line, j.kind, length_band(j.length)) for j in decision.batch}) <= 1
        assert all(j.deadline <= 1.0 for j in decision.expired)
        assert all(j.deadline > 1.0 for j in decision.batch)
        left += [*decision.batch, *decision.expired]
        if not decision.batch:
            break
    kept = [each for each, row in zip(jobs, rows, strict=True) if not row[3]]
    assert sorted(map(id, left)) == sorted(map(id, kept))
    assert queue.depth == 0
