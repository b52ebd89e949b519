"""Rows of different sizes in runs that fit into a bound. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt


def runs_of(sizes: npt.NDArray[np.integer], at_once: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of one run of rows after another, of sizes that add up to at most `at_once`, or of one row."""
    before = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    start = 0
    while start < len(sizes):
        stop = max(start + 1, int(np.searchsorted(before, before[start] + at_once, side="right")) - 1)
        yield start, stop
        start = stop
