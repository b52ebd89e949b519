from collections import Counter
from dataclasses import fields, replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdrec_core.errors import DatasetError
from training.data import histories as h

PURCHASES = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7), st.integers(0, 4)), min_size=1, max_size=70)


def make_log(purchases):
    """(user, item, time) in input order; the ids sort against the codes, so that the two numberings differ."""
    users, items, times = (np.array(column) for column in zip(*purchases, strict=True))
    ids = [chr(ord("z") - n) for n in range(8)]
    return h.PurchaseLog(
        user_code=users.astype(np.uint32),
        item_code=items.astype(np.uint32),
        timestamp=times.astype(np.int64),
        user_ids=pl.Series([f"u{c}" for c in ids]),
        item_ids=pl.Series([f"i{c}" for c in ids]),
    )


def slowly(purchases, minimum):
    """The specification in plain Python: {user code: [item codes in order]}."""
    earliest = {}
    for row, (user, item, time) in enumerate(purchases):
        earliest[user, item] = min(earliest.get((user, item), (time, row)), (time, row))
    left = dict(earliest)
    while True:
        n_user, n_item = Counter(u for u, _ in left), Counter(i for _, i in left)
        stay = {p: t for p, t in left.items() if n_user[p[0]] >= minimum and n_item[p[1]] >= minimum}
        if len(stay) == len(left):
            break
        left = stay
    histories = {}
    for (user, item), _ in sorted(left.items(), key=lambda entry: entry[1]):
        histories.setdefault(user, []).append(item)
    return histories, len(purchases) - len(earliest)


def as_dict(made):
    return {
        user: made.item_ids.gather(made.item_index[made.user_index == n]).to_list()
        for n, user in enumerate(made.user_ids.to_list())
    }


@settings(max_examples=150, deadline=None)
@given(PURCHASES, st.integers(1, 4), st.sampled_from(["neutral", "appearance"]))
def test_histories_are_what_the_specification_says(purchases, minimum, numbering):
    log = make_log(purchases)
    expected, n_duplicates = slowly(purchases, minimum)
    if not expected:
        with pytest.raises(DatasetError, match=f"--core {minimum}"):
            h.build(log, core=minimum, numbering=numbering)
        return
    made = h.build(log, core=minimum, numbering=numbering)
    assert as_dict(made) == {log.user_ids[u]: [log.item_ids[i] for i in items] for u, items in expected.items()}
    assert made.n_repeats == n_duplicates
    assert set(made.item_index.tolist()) == set(range(made.n_items))
    buyers = log.user_ids.gather(log.user_code[made.source_row])
    assert buyers.to_list() == made.user_ids.gather(made.user_index).to_list()
    in_order = made.user_ids.to_list() == sorted(made.user_ids.to_list(), reverse=numbering == "appearance")
    assert in_order, "neutral numbers follow the ids, the others the codes (which run against the ids here)"


@settings(max_examples=60, deadline=None)
@given(PURCHASES, st.integers(1, 3), st.integers(1, 9), st.sampled_from(["first", "last", "keep"]), st.booleans())
def test_runs_of_users_one_after_another_make_what_all_at_once_make(purchases, core, at_once, repeats, in_order):
    log = make_log(purchases)
    options = {"core": core, "repeats": repeats, "in_order": in_order}
    try:
        whole = h.build(log, **options)
    except DatasetError:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(h, "ROWS_AT_ONCE", at_once)
        parts = h.build(log, **options, at_once=at_once)
    for field in fields(whole):
        one, other = getattr(whole, field.name), getattr(parts, field.name)
        assert one.tolist() == other.tolist() if isinstance(one, np.ndarray) else list_of(one) == list_of(other)


def list_of(value):
    return value.to_list() if isinstance(value, pl.Series) else value


def test_k_core_iterates_to_the_fixed_point():
    # a chain in which each removal makes the next one necessary, beside a 2-core of two users and two items
    users = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4], dtype=np.uint32)
    items = np.array([0, 1, 1, 2, 2, 3, 4, 5, 4, 5], dtype=np.uint32)
    assert h.k_core(users, items, 2).tolist() == [False] * 6 + [True] * 4


def test_duplicates_keep_the_earliest_and_ties_keep_the_input_order():
    log = make_log([(0, 5, 9), (0, 3, 4), (0, 2, 4), (0, 5, 1), (0, 5, 1)])
    assert h.build(log, core=1, numbering="appearance").source_row.tolist() == [3, 1, 2]
    made = h.build(log, core=1, numbering="appearance")
    assert made.source_row.tolist() == [3, 1, 2]


def test_repeats_may_keep_the_latest_or_all():
    log = make_log([(0, 5, 9), (0, 3, 4), (0, 5, 1), (0, 5, 9)])
    last = h.build(log, repeats="last", numbering="appearance")
    assert (last.source_row.tolist(), last.n_repeats) == ([1, 0], 2)
    kept = h.build(log, repeats="keep", numbering="appearance")
    assert (kept.source_row.tolist(), kept.n_repeats) == ([2, 1, 0, 3], 2)
    assert kept.split.tolist() == [0, 0, 1, 2]


def test_the_heaviest_event_of_a_pair_stands_for_it():
    log = replace(make_log([(0, 5, 1), (0, 5, 7), (0, 5, 9), (0, 3, 4)]), weight=np.array([1, 5, 5, 1], np.float32))
    assert h.build(log, numbering="appearance").source_row.tolist() == [3, 1]
    assert h.build(log, repeats="last", numbering="appearance").source_row.tolist() == [3, 2]


def test_a_file_in_order_is_taken_in_its_order():
    log = make_log([(0, 5, 9), (0, 3, 4), (0, 5, 1), (0, 2, 0)])
    assert h.build(log, in_order=True, numbering="appearance").source_row.tolist() == [0, 1, 3]


def test_what_the_core_leaves_out_is_counted():
    users = [0, 0, 1, 1, 2]
    log = make_log(list(zip(users, [0, 1, 0, 1, 7], range(5), strict=True)))
    assert h.build(log, core=2, numbering="appearance").n_outside_core == (1, 1, 1)
    assert h.build(log, numbering="appearance").n_outside_core == (0, 0, 0)


@pytest.mark.parametrize(("length", "splits"), [(1, [0]), (2, [0, 0]), (3, [0, 1, 2]), (5, [0, 0, 0, 1, 2])])
def test_leave_one_out(length, splits):
    assert h.leave_one_out(np.arange(length), np.full(length, length)).tolist() == splits
