"""From a log of purchases in any order to numbered histories: repeats, k-core where asked for, order in time, splits.

Vectorised and free of text. What a user's history is depends on that user's rows alone, so that runs of users are
sorted one after another; only the k-core and the numbers need counts of all. Knows codes, not files or ids' meaning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from rdrec_core.errors import DatasetError
from rdrec_core.runs import runs_of
from training.data.dataset import SPLITS

TRAIN, VAL, TEST = (SPLITS.index(name) for name in ("train", "val", "test"))
MIN_FOR_HOLDOUT = 3
"""Users with fewer interactions have nothing to hold out: all of theirs is training."""
ROWS_AT_ONCE = 4_000_000
"""Of the log, sorted or counted at a time."""

Numbering = Literal["neutral", "appearance"]
Repeats = Literal["keep", "first", "last"]


@dataclass(frozen=True)
class PurchaseLog:
    """R purchases in input order. Codes index `user_ids` and `item_ids`; they need not all occur."""

    user_code: npt.NDArray[np.uint32]
    item_code: npt.NDArray[np.uint32]
    timestamp: npt.NDArray[np.int64]
    """Unix seconds, -1 where unknown."""
    user_ids: pl.Series
    item_ids: pl.Series
    weight: npt.NDArray[np.float32] | None = None
    """Of the kind of event; of repeats the heaviest stays. None: all alike."""


@dataclass(frozen=True)
class Histories:
    """M interactions sorted by (user_index, position); every user and item occurs, unless numbers were kept."""

    user_index: npt.NDArray[np.int32]
    item_index: npt.NDArray[np.int32]
    position: npt.NDArray[np.int32]
    timestamp: npt.NDArray[np.int64]
    split: npt.NDArray[np.uint8]
    source_row: npt.NDArray[np.integer]
    """Which row of the log the interaction is."""
    user_ids: pl.Series
    """External ids by user_index."""
    item_ids: pl.Series
    item_codes: npt.NDArray[np.uint32]
    """The log's code by item_index."""
    n_repeats: int
    """Rows of the log that repeat a (user, item) pair, dropped or, with repeats="keep", kept."""
    n_outside_core: tuple[int, int, int]
    """Users, items and interactions that the k-core left out."""

    @property
    def n_users(self) -> int:
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        return len(self.item_ids)


def build(
    log: PurchaseLog,
    *,
    core: int = 1,
    numbering: Numbering = "neutral",
    repeats: Repeats = "first",
    in_order: bool = False,
    at_once: int = ROWS_AT_ONCE,
) -> Histories:
    """Settle repeated pairs, take the k-core, number users and items, order and split.

    Of repeated (user, item) pairs the heaviest event stays, of equal ones the earliest (repeats="last": the latest), of
    equal times the first in the input; "keep" keeps all. The k-core is iterated to its fixed point: every user and
    every item left has at least `core` interactions. Ties in time are broken by input order; in_order takes the
    input's order whatever the times. numbering="neutral" numbers users and items by their external ids, which says
    nothing of who bought what; "appearance" by code, that is by first appearance over the whole input, as the
    published data does. at_once: about how many rows are sorted together, which bounds the memory beside log and
    result; a user's rows always are.
    Raises DatasetError where nothing is left.
    """
    n = len(log.user_code)
    keep = np.zeros(n, dtype=np.bool_)
    for rows in _by_user(log.user_code, len(log.user_ids), at_once):
        keep[rows[_one_of_pairs(log, rows, latest=repeats == "last", in_order=in_order)]] = True
    n_repeats = n - int(np.count_nonzero(keep))
    if repeats == "keep":
        keep[:] = True
    before = _sizes(log, keep)
    keep = k_core(log.user_code, log.item_code, core, among=keep)
    n_users, n_items, n_kept = _sizes(log, keep)
    if not n_kept:
        raise DatasetError(f"no interaction is left of {n}: no users and items have --core {core} among each other")
    user_number, user_codes = _number(_counts(log.user_code, keep, len(log.user_ids)), log.user_ids, numbering)
    item_number, item_codes = _number(_counts(log.item_code, keep, len(log.item_ids)), log.item_ids, numbering)
    number = np.empty(n, dtype=np.int32)
    for start in range(0, n, at_once):
        some = slice(start, start + at_once)
        number[some] = np.where(keep[some], user_number[log.user_code[some]], -1)
    made = Histories(
        user_index=np.empty(n_kept, dtype=np.int32),
        item_index=np.empty(n_kept, dtype=np.int32),
        position=np.empty(n_kept, dtype=np.int32),
        timestamp=np.empty(n_kept, dtype=np.int64),
        split=np.empty(n_kept, dtype=np.uint8),
        source_row=np.empty(n_kept, dtype=np.int32 if n <= np.iinfo(np.int32).max else np.int64),
        user_ids=log.user_ids.gather(user_codes),
        item_ids=log.item_ids.gather(item_codes),
        item_codes=item_codes,
        n_repeats=n_repeats,
        n_outside_core=(before[0] - n_users, before[1] - n_items, before[2] - n_kept),
    )
    done = 0
    for rows in _by_user(number, n_users, at_once):
        user = number[rows]
        order = np.lexsort((rows, user) if in_order else (rows, log.timestamp[rows], user))
        rows, user = rows[order], user[order]
        new = np.flatnonzero(np.diff(user, prepend=-1))
        lengths = np.diff(new, append=len(user))
        position = np.arange(len(user)) - np.repeat(new, lengths)
        here = slice(done, done + len(rows))
        made.user_index[here] = user
        made.item_index[here] = item_number[log.item_code[rows]]
        made.position[here] = position
        made.timestamp[here] = log.timestamp[rows]
        made.split[here] = leave_one_out(position, np.repeat(lengths, lengths))
        made.source_row[here] = rows
        done += len(rows)
    return made


def _by_user(users: npt.NDArray[np.integer], n_users: int, at_once: int) -> Iterator[npt.NDArray[np.int64]]:
    """Rows of one run of users after another, ascending: about `at_once` in each. Users below 0 are nobody's."""
    for first, after in runs_of(_counts(users, users >= 0, n_users), at_once):
        yield np.flatnonzero((users >= first) & (users < after))


def _counts(codes: npt.NDArray[np.integer], keep: npt.NDArray[np.bool_], n: int) -> npt.NDArray[np.int64]:
    """How many of the kept rows each code has, (n,)."""
    counts = np.zeros(n, dtype=np.int64)
    for start in range(0, len(codes), ROWS_AT_ONCE):  # bincount copies what it counts
        some = slice(start, start + ROWS_AT_ONCE)
        counts += np.bincount(codes[some][keep[some]], minlength=n)
    return counts


def _sizes(log: PurchaseLog, keep: npt.NDArray[np.bool_]) -> tuple[int, int, int]:
    """Users, items and rows among the kept."""
    users = np.count_nonzero(_counts(log.user_code, keep, len(log.user_ids)))
    items = np.count_nonzero(_counts(log.item_code, keep, len(log.item_ids)))
    return int(users), int(items), int(np.count_nonzero(keep))


def _one_of_pairs(
    log: PurchaseLog, rows: npt.NDArray[np.int64], *, latest: bool, in_order: bool
) -> npt.NDArray[np.int64]:
    """Which of these ascending rows stand for their (user, item) pair: the heaviest, then the earliest or latest."""
    pair = log.user_code[rows].astype(np.int64) * max(len(log.item_ids), 1) + log.item_code[rows]
    time = rows if in_order else log.timestamp[rows]
    keys = (-time if latest else time, *(() if log.weight is None else (-log.weight[rows],)), pair)
    order = np.lexsort(keys)  # stable: equal times stay in input order
    pair = pair[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = pair[1:] != pair[:-1]
    return order[first]


def k_core(
    users: npt.NDArray[np.uint32],
    items: npt.NDArray[np.uint32],
    minimum: int,
    among: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.bool_]:
    """Mask (M,) of the largest set of interactions in which every user and item occurs at least `minimum` times.

    among: the interactions that count, by default all.
    """
    keep = np.ones(len(users), dtype=bool) if among is None else among.copy()
    n_users, n_items = int(users.max(initial=0)) + 1, int(items.max(initial=0)) + 1
    left = np.count_nonzero(keep)
    while True:
        enough_u = _counts(users, keep, n_users) >= minimum
        enough_i = _counts(items, keep, n_items) >= minimum
        for start in range(0, len(users), ROWS_AT_ONCE):
            some = slice(start, start + ROWS_AT_ONCE)
            keep[some] &= enough_u[users[some]] & enough_i[items[some]]
        before, left = left, np.count_nonzero(keep)
        if left == before:
            return keep


def leave_one_out(position: npt.NDArray[np.int64], length: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Split of each interaction: a user's last is test, the one before validation; short histories are all training."""
    split = np.full(len(position), TRAIN, dtype=np.uint8)
    long_enough = length >= MIN_FOR_HOLDOUT
    split[long_enough & (position == length - 2)] = VAL
    split[long_enough & (position == length - 1)] = TEST
    return split


def _number(
    counts: npt.NDArray[np.int64], ids: pl.Series, numbering: Numbering
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint32]]:
    """(code -> number, number -> code) over the codes that occur."""
    kept = np.flatnonzero(counts).astype(np.uint32)
    if numbering == "neutral":
        kept = kept[ids.gather(kept).arg_sort().to_numpy()]
    number = np.full(len(ids), -1, dtype=np.int32)
    number[kept] = np.arange(len(kept), dtype=np.int32)
    return number, kept
