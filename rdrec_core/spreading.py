"""Lists whose items are unlike each other: maximal marginal relevance over texts and categories, and limits by brand.

The next item is the one with the greatest (1 - diversity) x relevance - diversity x likeness (Carbonell and Goldstein
1998). Relevance falls evenly with the place in the list, as log scores of different requests have different scales;
likeness is that to the most alike item above it. Knows places in a list, not where the list came from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from rdrec_core.text_vectors import Rows
from rdrec_core.types import IntArray, Spread

CONSIDERED = 200
"""So many of the first items are weighed against each other; those behind them only fill up."""
Floats = npt.NDArray[np.float64]
Categories = Sequence[tuple[int, ...]]


def likeness(rows: Rows | None, categories: Categories) -> Callable[[int], Floats]:
    """How like each item is to the one at a place, (K,) from 0 to 1.

    The mean of the texts' cosine and of the share of their categories that both have, or the one of them that is known.
    """
    sets = [frozenset(own) for own in categories]
    has_category = np.asarray([bool(own) for own in sets])
    has_text = np.diff(rows.indptr) > 0 if rows is not None else np.zeros(len(sets), dtype=np.bool_)
    terms, local = np.unique(rows.terms, return_inverse=True) if rows is not None else (np.empty(0), np.empty(0))
    owners = np.repeat(np.arange(len(sets)), np.diff(rows.indptr)) if rows is not None else np.empty(0)

    def to(place: int) -> Floats:
        total, known = np.zeros(len(sets)), np.zeros(len(sets))
        if rows is not None and has_text[place]:
            own = slice(rows.indptr[place], rows.indptr[place + 1])
            wanted = np.zeros(len(terms))
            wanted[local[own]] = rows.weights[own]
            total += np.bincount(owners, weights=wanted[local] * rows.weights, minlength=len(sets))
            known += has_text
        if sets[place]:
            shared = [len(sets[place] & other) / len(sets[place] | other) if other else 0.0 for other in sets]
            total += shared
            known += has_category
        return np.divide(total, known, out=np.zeros(len(sets)), where=known > 0)

    return to


def spread_out(
    spread: Spread, n: int, brands: IntArray, categories: Categories, alike: Callable[[int], Floats] | None
) -> list[int]:
    """Places of at most n items of a list, the next one first; fewer where the limits leave no more.

    brands (K,), -1 for none; categories: of each item, the narrowest last; alike: of the first min(K, CONSIDERED).
    """
    size = len(brands)
    first = min(size, CONSIDERED)
    value = -2.0 - np.arange(size)
    relevance, closest = 1 - np.arange(first) / CONSIDERED, np.zeros(first)
    narrowest = np.asarray([own[-1] if own else -1 for own in categories], dtype=np.int64)
    limits = [
        (of, limit, Counter[int]())
        for of, limit in ((brands, spread.max_per_brand), (narrowest, spread.max_per_category))
        if limit is not None
    ]
    is_open = np.ones(size, dtype=np.bool_)
    chosen: list[int] = []
    while len(chosen) < n and is_open.any():
        value[:first] = (1 - spread.diversity) * relevance - spread.diversity * closest
        place = int(np.argmax(np.where(is_open, value, -np.inf)))
        chosen.append(place)
        is_open[place] = False
        for of, limit, taken in limits:
            taken[int(of[place])] += 1
            if of[place] >= 0 and taken[int(of[place])] >= limit:
                is_open &= of != of[place]
        if spread.diversity and alike is not None and place < first:
            closest = np.maximum(closest, alike(place))
    return chosen
