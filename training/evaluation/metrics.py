"""What evaluation reports of ranks (`learning/ranks.py`) and of lists: one value a user, means, coverage, novelty."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from training.learning.ranks import Floats, gains, hits

HIT_CUTOFFS = (1, 5, 10)
NDCG_CUTOFFS = (5, 10)


def per_user(ranks: Floats) -> dict[str, Floats]:
    """Every metric by its printed name, one value a user."""
    return {f"HR@{k}": hits(ranks, k) for k in HIT_CUTOFFS} | {f"NDCG@{k}": gains(ranks, k) for k in NDCG_CUTOFFS}


def summary(ranks: Floats) -> dict[str, float]:
    """Means over users; zeros where there are none."""
    return {name: float(values.mean()) if len(values) else 0.0 for name, values in per_user(ranks).items()}


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
