"""Batches taken as whole columns: what they make is what the rows would have made, or they are left alone."""

from datetime import datetime

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data import records as rc
from training.data import reviews as rv
from training.data.plain_columns import plain_records

IDS = st.one_of(
    st.lists(st.sampled_from(["A1", "u-9", "x_y", "a.b"]), min_size=3, max_size=3),
    st.lists(st.text(max_size=4), min_size=3, max_size=3),
    st.lists(st.sampled_from(["A1", " A1", "nan", "7.0", "1E+5", "+1", "x" * 129, None]), min_size=3, max_size=3),
    st.lists(st.integers(-5, 2**40), min_size=3, max_size=3),
    st.lists(st.floats(allow_nan=True), min_size=3, max_size=3),
    st.lists(st.booleans(), min_size=3, max_size=3),
)
TIMES = st.one_of(
    st.lists(st.integers(10**8, 10**11), min_size=3, max_size=3),
    st.lists(st.sampled_from([1_500_000_000, 0, 20191001, 10**11, 10**8, 10**8 - 1, None]), min_size=3, max_size=3),
    st.lists(st.sampled_from([datetime(2019, 10, 1, 12), datetime(1960, 1, 1)]), min_size=3, max_size=3),
    st.lists(st.sampled_from(["2019-10-01", "1500000000"]), min_size=3, max_size=3),
)
STARS = st.one_of(
    st.lists(st.floats(), min_size=3, max_size=3),
    st.lists(st.integers(0, 5), min_size=3, max_size=3),
    st.lists(st.sampled_from(["4", "nan", "great"]), min_size=3, max_size=3),
    st.lists(st.none(), min_size=3, max_size=3),
)


def by_rows(batch: pa.RecordBatch, names: rv.ReviewNames) -> rc.Block:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rc, "plain_records", lambda *_: None)
        return rc.read_batch(batch, 1, names)


@settings(max_examples=200, deadline=None)
@given(IDS, IDS, TIMES, STARS, st.sampled_from([None, 3.0]))
def test_columns_make_what_rows_make_and_leave_alone_what_needs_a_note(users, items, times, stars, min_rating):
    batch = pa.RecordBatch.from_pydict({"user": users, "item": items, "timestamp": times, "rating": stars})
    names = rv.match_names(batch.schema.names, {}, rv.Wanted(min_rating=min_rating), "f")
    table = plain_records(batch, names)
    if table is None:
        return
    rows = by_rows(batch, names)
    assert (rows.n_bad, rows.dropped.total, rows.notes.total) == (0, 0, 0)
    assert table.equals(rows.table(rv.RECORDS))


@pytest.mark.parametrize(
    "users",
    [["A1", "B2"], [3, 4], pa.array(["A1", "B2"]).dictionary_encode(), pa.array(["A1", "B2"], pa.large_string())],
)
def test_a_plain_batch_is_taken_whole(users) -> None:
    batch = pa.RecordBatch.from_pydict({"user": users, "item": ["x", "y"], "ts": [1_500_000_000] * 2})
    names = rv.match_names(batch.schema.names, {}, rv.Wanted(), "f")
    block = rc.read_batch(batch, 1, names)
    assert block.plain is not None
    assert block.table(rv.RECORDS).equals(by_rows(batch, names).table(rv.RECORDS))


@pytest.mark.parametrize("extra", ["text", "item_title", "event"])
def test_what_has_words_or_kinds_is_read_row_by_row(extra: str) -> None:
    batch = pa.RecordBatch.from_pydict({"user": ["a"], "item": ["b"], "ts": [1_500_000_000], extra: ["view"]})
    block = rc.read_batch(batch, 1, rv.match_names(batch.schema.names, {}, rv.Wanted(), "f"))
    assert block.plain is None
    assert block.table(rv.RECORDS).num_rows == 1
