"""From a log of purchases in any order to numbered histories: repeats, k-core where asked for, order in time, splits.

Vectorised and free of text, so that tens of millions of rows fit in memory. Knows codes, not files or ids' meaning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from rdrec_core.errors import DatasetError
from training.data.dataset import SPLITS

TRAIN, VAL, TEST = (SPLITS.index(name) for name in ("train", "val", "test"))
MIN_FOR_HOLDOUT = 3
"""Users with fewer interactions have nothing to hold out: all of theirs is training."""

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
    source_row: npt.NDArray[np.int64]
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
) -> Histories:
    """Settle repeated pairs, take the k-core, number users and items, order and split.

    Of repeated (user, item) pairs the heaviest event stays, of equal ones the earliest (repeats="last": the latest), of
    equal times the first in the input; "keep" keeps all. The k-core is iterated to its fixed point: every user and
    every item left has at least `core` interactions. Ties in time are broken by input order; in_order takes the
    input's order whatever the times. numbering="neutral" numbers users and items by their external ids, which says
    nothing of who bought what; "appearance" by code, that is by first appearance over the whole input, as the
    published data does.
    Raises DatasetError where nothing is left.
    """
    chosen = one_of_pairs(log, latest=repeats == "last", in_order=in_order)
    n_repeats = len(log.user_code) - len(chosen)
    everything = np.arange(len(log.user_code)) if repeats == "keep" else chosen
    rows = everything[k_core(log.user_code[everything], log.item_code[everything], core)]
    if not len(rows):
        raise DatasetError(
            f"no interaction is left of {len(log.user_code)}: no users and items have --core {core} among each other"
        )
    user_number, user_codes = _number(log.user_code[rows], log.user_ids, numbering)
    item_number, item_codes = _number(log.item_code[rows], log.item_ids, numbering)
    user_index = user_number[log.user_code[rows]]
    order = np.lexsort((rows, user_index) if in_order else (rows, log.timestamp[rows], user_index))
    rows, user_index = rows[order], user_index[order]
    counts = np.bincount(user_index, minlength=len(user_codes))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    position = np.arange(len(rows)) - starts[user_index]
    return Histories(
        user_index=user_index,
        item_index=item_number[log.item_code[rows]],
        position=position.astype(np.int32),
        timestamp=log.timestamp[rows],
        split=leave_one_out(position, counts[user_index]),
        source_row=rows,
        user_ids=log.user_ids.gather(user_codes),
        item_ids=log.item_ids.gather(item_codes),
        item_codes=item_codes,
        n_repeats=n_repeats,
        n_outside_core=(
            _n_distinct(log.user_code[everything]) - len(user_codes),
            _n_distinct(log.item_code[everything]) - len(item_codes),
            len(everything) - len(rows),
        ),
    )


def _n_distinct(codes: npt.NDArray[np.uint32]) -> int:
    return int(np.count_nonzero(np.bincount(codes)))


def one_of_pairs(log: PurchaseLog, *, latest: bool = False, in_order: bool = False) -> npt.NDArray[np.int64]:
    """Rows that stand for their (user, item) pair, ascending: the heaviest, of equal ones the earliest or latest."""
    pair = log.user_code.astype(np.int64) * max(len(log.item_ids), 1) + log.item_code
    time = np.arange(len(pair)) if in_order else log.timestamp
    keys = (-time if latest else time, *(() if log.weight is None else (-log.weight,)), pair)
    order = np.lexsort(keys)  # stable: equal times stay in input order
    pair = pair[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = pair[1:] != pair[:-1]
    return np.sort(order[first])


def k_core(users: npt.NDArray[np.uint32], items: npt.NDArray[np.uint32], minimum: int) -> npt.NDArray[np.bool_]:
    """Mask (M,) of the largest set of interactions in which every user and item occurs at least `minimum` times."""
    keep = np.ones(len(users), dtype=bool)
    while True:
        enough_u = np.bincount(users[keep], minlength=1) >= minimum
        enough_i = np.bincount(items[keep], minlength=1) >= minimum
        # a code past the bincount's end belongs to a row that is gone already
        stay = keep.copy()
        stay[keep] = enough_u[users[keep]] & enough_i[items[keep]]
        if stay.sum() == keep.sum():
            return keep
        keep = stay


def leave_one_out(position: npt.NDArray[np.int64], length: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Split of each interaction: a user's last is test, the one before validation; short histories are all training."""
    split = np.full(len(position), TRAIN, dtype=np.uint8)
    long_enough = length >= MIN_FOR_HOLDOUT
    split[long_enough & (position == length - 2)] = VAL
    split[long_enough & (position == length - 1)] = TEST
    return split


def _number(
    codes: npt.NDArray[np.uint32], ids: pl.Series, numbering: Numbering
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint32]]:
    """(code -> number, number -> code) over the codes that occur."""
    occurs = np.bincount(codes, minlength=len(ids)) > 0
    kept = np.flatnonzero(occurs).astype(np.uint32)
    if numbering == "neutral":
        kept = kept[ids.gather(kept).arg_sort().to_numpy()]
    number = np.full(len(ids), -1, dtype=np.int32)
    number[kept] = np.arange(len(kept), dtype=np.int32)
    return number, kept
