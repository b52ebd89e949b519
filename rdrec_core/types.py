"""Value types that engines, ranking, training and service pass to each other. Plain data, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from rdrec_core.filters import Where

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]


class Task(IntEnum):
    """The five tasks of the paper; the value is the prompt id (P1 to P5, section 3.2)."""

    EXPLANATION = 0
    SEQUENTIAL = 1
    TOPN = 2
    USER_PREFERENCE = 3
    ITEM_ATTRIBUTES = 4


class ScoreMode(StrEnum):
    """How a label's log-probability is defined.

    `full`: log-softmax over the whole vocabulary at each token (Hugging Face's definition, the oracle).
    `trie`: log-softmax over the children that the catalogue's trie allows at each token.
    `trie-int8`: `trie` computed with dynamically quantized weights.
    """

    FULL = "full"
    TRIE = "trie"
    TRIE_INT8 = "trie-int8"


class Strategy(StrEnum):
    """How the best items are found: beam search, or every item scored in one decoder pass."""

    BEAM = "beam"
    EXACT = "exact"


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class ItemMask:
    """Which items may be answered, (N,) bool by item index. Never written to: what follows from it is kept with it."""

    items: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Wish:
    """Words that steer a ranking. The ranker weighs them in; no engine reads them."""

    text: str
    weight: float | None = None
    """How loud beside everything that the history says; None for what was fitted."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How unlike each other the items of a list are to be. The ranker sees to it; no engine reads it."""

    diversity: float = 0.0
    """0 to 1: how much being unlike what stands above counts beside the rank."""
    max_per_brand: int | None = None
    max_per_category: int | None = None
    """Of the category that stands last in an item's list: in a path the narrowest."""

    @property
    def has_limits(self) -> bool:
        """Whether items can be shut out by others."""
        return self.max_per_brand is not None or self.max_per_category is not None


@dataclass(frozen=True, slots=True)
class RankRequest:
    """One sequential request, in indices.

    user_index is None for a user whom the model never saw. `history` is oldest first and may be longer than the
    model reads (the encoder takes the last 20). `exclude` holds items that must not be returned; `include`, when
    given, the only items that may be, and so `among`. Eligible = available and (include is None or in include) and
    (among is None or in among) and not in exclude.
    """

    user_index: int | None
    history: tuple[int, ...]
    n_items: int = 10
    exclude: tuple[int, ...] = ()
    include: tuple[int, ...] | None = None
    beam_width: int = 20
    also: tuple[int, ...] = ()
    """Distinct items to score besides, eligible or not, wherever they rank."""
    wish: Wish | None = None
    where: Where | None = None
    """What the items must be like; the ranker turns it into `among`, which engines read."""
    among: ItemMask | None = None
    spread: Spread | None = None


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Score `candidates` (distinct item indices, at least one) for one user.

    `task` is TOPN (the source text lists the candidates) or SEQUENTIAL (the source text is `history`, the same
    distribution as `recommend`).
    """

    user_index: int | None
    candidates: tuple[int, ...]
    history: tuple[int, ...] = ()
    task: Task = Task.TOPN
    wish: Wish | None = None
    spread: Spread | None = None


@dataclass(frozen=True, slots=True)
class TextRequest:
    """One text to generate: task EXPLANATION needs both indices, USER_PREFERENCE a user, ITEM_ATTRIBUTES an item."""

    task: Task
    user_index: int | None = None
    item_index: int | None = None
    fast: bool = False
    """Greedy decoding instead of the paper's diverse beam search (21 beams, 3 groups)."""


@dataclass(frozen=True, slots=True)
class RankedItems:
    """Best first. item_indices (k,) int64; log_probs (k,) float32, sums over the label's tokens.

    also_log_probs: those of the request's `also`, in its order.
    """

    item_indices: IntArray
    log_probs: FloatArray
    also_log_probs: FloatArray = field(default_factory=lambda: np.empty(0, dtype=np.float32))
