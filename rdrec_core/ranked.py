"""The list that answers a request: items best first, each with its score and the signals behind it.

Knows how a list is sorted and what its scores mean, not where the numbers come from (`ranking.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rdrec_core.item_graph import Floats
from rdrec_core.types import FloatArray, IntArray

UNKNOWN = np.nan
"""A signal that was not asked, or has nothing to say of an item."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Best first. item_indices (k,) int64; the others are (k,) float32.

    scores: an item's share of the probability of all items considered, 0 to 1, falling with the rank. log_scores: what
    the list is sorted by. log_probs: the model's. graph_scores, text_scores: logs of what purchases and what texts say
    (`Prior.signals`). The three signals are NaN where they were not asked or have nothing to say. fused: whether the
    graph had a say; steered: whether words that were asked for had one.
    """

    item_indices: IntArray
    scores: FloatArray
    log_scores: FloatArray
    log_probs: FloatArray
    graph_scores: FloatArray
    text_scores: FloatArray
    fused: bool
    steered: bool = False

    def first(self, n: int) -> Ranking:
        """The best n."""
        return self.at(slice(n))

    def at(self, places: slice | Sequence[int]) -> Ranking:
        """The items at these places, in their order."""
        where: slice | IntArray = places if isinstance(places, slice) else np.asarray(places, dtype=np.int64)
        return Ranking(
            self.item_indices[where], self.scores[where], self.log_scores[where], self.log_probs[where],
            self.graph_scores[where], self.text_scores[where], self.fused, self.steered,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Signals:
    """What a list is made of, (k,) each in the order of its items."""

    log_probs: npt.ArrayLike = UNKNOWN
    graph: npt.ArrayLike = UNKNOWN
    text: npt.ArrayLike = UNKNOWN


def ranked(
    items: IntArray, log_scores: Floats, signals: Signals, *, fused: bool, steered: bool = False,
    total: float | None = None,
) -> Ranking:  # fmt: skip
    """Sort by score, equal scores by item index.

    total: log of the probability mass of all items considered; where None, those are the items.
    """
    order = np.lexsort((items, -log_scores))
    if total is None:
        total = float(np.logaddexp.reduce(log_scores)) if len(items) else 0.0

    def column(values: npt.ArrayLike) -> FloatArray:
        return np.broadcast_to(np.asarray(values, dtype=np.float32), len(items))[order]

    return Ranking(
        items[order], column(np.exp(log_scores - total)), column(log_scores),
        column(signals.log_probs), column(signals.graph), column(signals.text), fused, steered,
    )  # fmt: skip


def log_or_nan(values: Floats) -> Floats:
    """Logarithms; NaN, which says nothing, for zero."""
    return np.log(values, out=np.full(len(values), UNKNOWN), where=values > 0)


NOTHING = ranked(np.empty(0, dtype=np.int64), np.empty(0), Signals(), fused=False)
"""No item."""
