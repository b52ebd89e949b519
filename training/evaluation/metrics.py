"""Ranking metrics from ranks: 1 is the best place, infinite means that the list lacks the item. Knows no model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
HIT_CUTOFFS = (1, 5, 10)
NDCG_CUTOFFS = (5, 10)
LIST_LENGTH = 10
"""The longest cutoff: what a list must hold so that every metric can be computed."""


def hits(ranks: Floats, k: int) -> Floats:
    """1 for each user whose item is among the first k, else 0."""
    return (ranks <= k).astype(np.float64)


def gains(ranks: Floats, k: int) -> Floats:
    """NDCG@k of each user; with one relevant item it is 1 / log2(1 + rank) within the first k, else 0."""
    return np.where(ranks <= k, 1.0 / np.log2(1.0 + ranks), 0.0)


def per_user(ranks: Floats) -> dict[str, Floats]:
    """Every metric by its printed name, one value a user."""
    return {f"HR@{k}": hits(ranks, k) for k in HIT_CUTOFFS} | {f"NDCG@{k}": gains(ranks, k) for k in NDCG_CUTOFFS}


def summary(ranks: Floats) -> dict[str, float]:
    """Means over users; zeros where there are none."""
    return {name: float(values.mean()) if len(values) else 0.0 for name, values in per_user(ranks).items()}


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


def coverage(lists: npt.NDArray[np.int64], n_items: int) -> float:
    """Share of the catalogue that appears in any list."""
    return len(np.unique(lists[lists >= 0])) / n_items if n_items else 0.0


def novelty(lists: npt.NDArray[np.int64], popularity: Floats) -> float:
    """Mean of -log2(share of purchases) over all listed items: how unknown they are, in bits.

    An item that nobody bought counts as bought half a time as often as the least bought one.
    """
    shown = lists[lists >= 0]
    if not len(shown):
        return 0.0
    least = popularity[popularity > 0].min() if (popularity > 0).any() else 1.0
    return float(-np.log2(np.where(popularity > 0, popularity, least / 2.0))[shown].mean())
