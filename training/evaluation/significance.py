"""Is one system better than another on the same users? Paired tests and intervals; knows per-user values only."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_CHUNK = 64


@dataclass(frozen=True)
class Difference:
    """Mean of (a - b) over users, its bootstrap interval, and the two-sided p-value of a paired t-test."""

    mean: float
    low: float
    high: float
    p_value: float

    @property
    def significant(self) -> bool:
        """Whether the 95 % interval leaves out zero."""
        return self.low > 0 or self.high < 0

    def record(self) -> dict[str, float | bool]:
        """For JSON."""
        return asdict(self) | {"significant": self.significant}


def by_user(values: Floats, users: npt.NDArray[np.int64]) -> Floats:
    """Values (Q,) of questions as one value a user, with the same mean; users (Q,) ascending.

    Questions of one user are no independent draws. A user's value is the linearised ratio of sums: how much the mean
    over questions is moved by having this user. Where everybody has one question it is that question's value.
    """
    _, owner, counts = np.unique(users, return_inverse=True, return_counts=True)
    if len(counts) == len(values):
        return values
    mean = values.mean()
    gaps = np.bincount(owner, weights=values - mean)
    return np.asarray(mean + gaps * len(counts) / len(values))


def bootstrap_means(values: Floats, rng: np.random.Generator, samples: int = 2000) -> Floats:
    """Means of `samples` resamples of the users, with replacement."""
    n = len(values)
    means = np.empty(samples)
    for start in range(0, samples, _CHUNK):
        stop = min(samples, start + _CHUNK)
        means[start:stop] = values[rng.integers(0, n, (stop - start, n))].mean(axis=1)
    return means


def interval(values: Floats, rng: np.random.Generator, samples: int = 2000) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean at 95 %."""
    low, high = np.quantile(bootstrap_means(values, rng, samples), [0.025, 0.975])
    return float(low), float(high)


def paired_difference(a: Floats, b: Floats, rng: np.random.Generator, samples: int = 2000) -> Difference:
    """Compare two systems on the same users, (U,) values each."""
    from scipy.stats import ttest_rel

    gap = a - b
    if not gap.any():
        return Difference(0.0, 0.0, 0.0, 1.0)
    low, high = interval(gap, rng, samples)
    return Difference(float(gap.mean()), low, high, float(ttest_rel(a, b).pvalue))
