"""How a table's figures divide by what was known of the item asked for: nothing, little, or enough.

A mean over all users hides whether a system ever recommends what is new. Knows questions and ranks, not systems.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from training.evaluation.measure import Answers
from training.evaluation.metrics import summary
from training.evaluation.protocol import Questions

RARE_BELOW = 5
"""Training purchases below which an item is rare."""


def by_purchases(
    asked: Questions, answers: Mapping[str, Answers], purchases: npt.NDArray[np.integer]
) -> dict[str, dict[str, Any]]:
    """`cold`, `rare` and `other` targets: how many questions ask for them, and every system's metrics over those.

    purchases (N,): training interactions of each item. cold: none; rare: fewer than RARE_BELOW; other: the rest.
    """
    of_target = purchases[asked.targets]
    masks = {
        "cold": of_target == 0,
        "rare": (of_target > 0) & (of_target < RARE_BELOW),
        "other": of_target >= RARE_BELOW,
    }
    return {
        name: {
            "n_questions": int(mask.sum()),
            "rows": {system: summary(each.ranks[mask]) for system, each in answers.items()},
        }
        for name, mask in masks.items()
    }
