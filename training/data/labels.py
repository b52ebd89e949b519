"""Which number stands for which item in the model's texts. The number decides what the model can learn, and what leaks.

| scheme | order of the items | made from |
|---|---|---|
| sequential | first appearance, walking through the users' training histories | training |
| random | shuffled | nothing |
| original | as published, or first appearance over everything (protocol `paper` only) | everything: leaks |
| collaborative | items bought together stand together | training |

Labels are decimal numbers. Under protocol `clean` all have the same number of digits (12,101 items: 10000 to 22100), so
that labels cut in digit pieces share the first ones with their neighbours; under `paper` they count from 1.
Items without training interactions come last, shuffled: there is nothing yet that may be known about them.
"""

from __future__ import annotations

import itertools
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.ndimage import convolve1d
from scipy.sparse.linalg import LinearOperator, eigsh

LabelScheme = Literal["sequential", "random", "original", "collaborative"]
SCHEMES: tuple[LabelScheme, ...] = get_args(LabelScheme)

IntArray = npt.NDArray[np.int64]

_DIMENSIONS = 48
_WINDOW = 5
_TOLERANCE = 0.1
"""Of the eigenvalues; 1e-6 gave no better order on Beauty and Toys."""
_ROWS_AT_ONCE = 1 << 18
"""Interactions that the co-purchase graph is applied to at a time."""
_LEAF = 4
"""Parts of at most this many items are ordered along one line instead of being halved further."""


def fixed_width_labels(order: IntArray) -> IntArray:
    """Labels (N,) by item of items in `order` (N,): consecutive numbers that all have equally many digits."""
    n = len(order)
    digits = 1
    while 10**digits - 10 ** (digits - 1) < n:
        digits += 1
    return _numbered(order, 10 ** (digits - 1))


def published_style_labels(order: IntArray) -> IntArray:
    """Labels (N,) by item: 1, 2, 3, ... in `order`."""
    return _numbered(order, 1)


def _numbered(order: IntArray, start: int) -> IntArray:
    labels = np.empty(len(order), dtype=np.int64)
    labels[order] = np.arange(start, start + len(order))
    return labels


def item_order(
    scheme: LabelScheme, users: npt.NDArray[np.int32], items: npt.NDArray[np.int32], n_items: int, seed: int
) -> IntArray:
    """All items (n_items,), in the order in which they are numbered.

    users, items (M,): the interactions that may be looked at, sorted by (user, position). Deterministic in the seed.
    """
    rng = np.random.default_rng([seed, 5])
    if scheme == "random":
        return rng.permutation(n_items)
    first = _first_places(items, n_items)
    if scheme == "collaborative":
        seen = collaborative_order(users, items, np.flatnonzero(first >= 0))
    else:
        seen = items[np.sort(first[first >= 0])].astype(np.int64)
    return np.concatenate([seen, rng.permutation(np.flatnonzero(first < 0))])


def _first_places(items: npt.NDArray[np.int32], n_items: int) -> IntArray:
    """(n_items,): where an item occurs first, -1 for those that do not."""
    first = np.full(n_items, -1, dtype=np.int64)
    for start in reversed(range(0, len(items), _ROWS_AT_ONCE)):  # of equal indices NumPy lets the last one stay
        some = items[start : start + _ROWS_AT_ONCE][::-1]
        first[some] = np.arange(start, start + len(some))[::-1]
    return first


def collaborative_order(users: npt.NDArray[np.int32], items: npt.NDArray[np.int32], occurring: IntArray) -> IntArray:
    """The items that occur, ascending in `occurring`, so ordered that items bought together stand together.

    Recursive halving at the median, along the leading direction of each part, of the spectral embedding of the
    co-purchase graph.
    """
    if len(occurring) <= _LEAF:
        return occurring
    number = np.zeros(occurring[-1] + 1, dtype=np.int32)
    number[occurring] = np.arange(len(occurring))
    starts = range(0, len(items), _ROWS_AT_ONCE)  # NumPy copies what it indexes by as wide integers
    compact = np.concatenate([number[items[start : start + _ROWS_AT_ONCE]] for start in starts])
    points = spectral_embedding(users, compact, len(occurring))
    return occurring[halving_order(points)]


def spectral_embedding(
    users: npt.NDArray[np.int32], items: npt.NDArray[np.int32], n_items: int
) -> npt.NDArray[np.float64]:
    """Unit rows (n_items, d): leading eigenvectors, each times its eigenvalue, of the normalised co-purchase graph.

    Two purchases of a user that are k <= _WINDOW steps apart join their items with weight 1 / k; the graph is
    normalised by the degrees of both ends, and the trivial first eigenvector is left out. The graph is applied and
    never formed: memory is 8 bytes an interaction. Interactions are sorted by (user, position).
    """
    at = np.arange(0, len(users), _ROWS_AT_ONCE)
    starts = np.unique(np.searchsorted(users, users[at]))  # whole users, a block of which stays in the cache
    blocks = [slice(*ends) for ends in itertools.pairwise([*starts.tolist(), len(users)])]
    places = np.empty(len(items), dtype=np.int32)
    for block in blocks:
        # a gap of _WINDOW places between users keeps the sliding weights from reaching over
        rank = np.cumsum(np.diff(users[block], prepend=users[block.start]) != 0)
        places[block] = np.arange(len(rank)) + _WINDOW * rank
    steps = np.abs(np.arange(-_WINDOW, _WINDOW + 1))
    weights = np.divide(1.0, steps, out=np.zeros(len(steps)), where=steps > 0)

    def neighbours(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        total = np.zeros(n_items)
        for block in blocks:
            some, mine = items[block].astype(np.intp), places[block].astype(np.intp)
            line = np.zeros(mine[-1] + 1)
            line[mine] = values[some]
            np.add.at(total, some, convolve1d(line, weights, mode="constant")[mine])
        return total

    degree = np.maximum(neighbours(np.ones(n_items)), 1e-9)
    scale = 1 / np.sqrt(degree)
    graph = LinearOperator((n_items, n_items), matvec=lambda v: v + scale * neighbours(scale * v), dtype=np.float64)
    # the identity shifts all eigenvalues by 1, so that a graph of few edges or none is no zero matrix; both draws are
    # fixed, so that the same graph gives the same labels
    start = np.random.default_rng(0).standard_normal(n_items)
    d = min(_DIMENSIONS, n_items - 2)
    values, vectors = eigsh(graph, k=d + 1, which="LA", v0=start, tol=_TOLERANCE, rng=np.random.default_rng(0))
    keep = np.argsort(values)[::-1][1:]
    points = vectors[:, keep] * np.maximum(values[keep] - 1, 0)
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    return points / np.maximum(lengths, 1e-12)


def halving_order(points: npt.NDArray[np.float64]) -> IntArray:
    """Order (N,) of points (N, d): halves at the median along the leading direction, each half ordered likewise."""
    order = np.arange(len(points))
    parts = [(0, len(points))]
    while parts:
        low, high = parts.pop()
        part = order[low:high]
        centred = points[part] - points[part].mean(axis=0)
        along = centred @ _leading_direction(centred)
        order[low:high] = part[np.argsort(along, kind="stable")]
        if high - low > _LEAF:
            middle = (low + high) // 2
            parts += [(low, middle), (middle, high)]
    return order


def _leading_direction(centred: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The unit direction (d,) of most variance, its largest coordinate positive so that it is the same everywhere."""
    direction = np.linalg.eigh(centred.T @ centred)[1][:, -1]
    return direction * np.sign(direction[np.argmax(np.abs(direction))])


def digit_trie(labels: IntArray) -> str:
    """Distinct prefixes of 1, 2, ... digits with the mean number of children, as text for people."""
    words = [str(label) for label in labels.tolist()]
    depth = max(map(len, words))
    nodes = [1] + [len({word[:n] for word in words if len(word) >= n}) for n in range(1, depth + 1)]
    return ", ".join(f"{b:,} (x{b / a:.1f})" for a, b in itertools.pairwise(nodes))
