"""The learning rate as a function of how much of the run is done, by steps or by the clock. Knows nothing else."""

from __future__ import annotations

import math
from typing import Literal


def learning_rate_factor(progress: float, *, schedule: Literal["constant", "linear", "cosine"], warmup: float) -> float:
    """Share of the peak learning rate at progress in [0, 1]: up over `warmup`, then level or down to 0."""
    if progress < warmup:
        return max(progress, 1e-3) / warmup
    rest = (min(progress, 1.0) - warmup) / (1.0 - warmup)
    if schedule == "linear":
        return 1.0 - rest
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * rest))
    return 1.0
