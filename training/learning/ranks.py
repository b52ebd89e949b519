"""Where a target stands among items, and what its place is worth: 1 is the best, infinite means that the list lacks it.

By these the trainer keeps an epoch, `rdrec fuse` its weights, and evaluation its tables. Knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
LIST_LENGTH = 10
"""The longest cutoff of any metric: what a list must hold so that all can be computed."""


def hits(ranks: Floats, k: int) -> Floats:
    """1 for each user whose item is among the first k, else 0."""
    return (ranks <= k).astype(np.float64)


def gains(ranks: Floats, k: int) -> Floats:
    """NDCG@k of each user; with one relevant item it is 1 / log2(1 + rank) within the first k, else 0."""
    return np.where(ranks <= k, 1.0 / np.log2(1.0 + ranks), 0.0)


def rank_in_list(target: int, items: Sequence[int] | npt.NDArray[np.int64]) -> float:
    """Place of the target in a ranked list, from 1; infinite where it is missing."""
    found = np.flatnonzero(np.asarray(items) == target)
    return float(found[0] + 1) if len(found) else np.inf


def rank_by_score(scores: npt.NDArray[np.floating], target: int | npt.NDArray[np.int64]) -> Floats:
    """Ranks (B,) of the targets' scores within rows of scores (B, N); -inf takes an item out.

    Equal scores share the middle of their places, so that no order of the items, least of all the one in which the
    data names them, decides a rank.
    """
    rows = np.arange(len(scores))
    own = scores[rows, target][:, None]
    above = (scores > own).sum(axis=1)
    equal = (scores == own).sum(axis=1) - 1
    ranks = 1.0 + above + equal / 2.0
    return np.where(np.isneginf(own[:, 0]), np.inf, ranks)
