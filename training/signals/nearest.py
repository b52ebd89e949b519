"""The nearest items of every item by cosine, at any size of catalogue, by sparse vectors and by dense ones.

Small catalogues are compared whole. In large ones an item's rarest terms lead to those it is compared with, and dense
vectors are compared within groups that lie near each other (benchmarks/text_neighbours.py measures what that loses).
Runs of items are compared by whoever `blocks` says, by default by all cores of this machine; what comes out is the same
to the byte. Knows vectors only.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, hstack, vstack
from threadpoolctl import ThreadpoolController

from rdrec_core.cpus import available_cpus
from rdrec_core.text_vectors import Rows
from training.signals.graph import matrix_of, parts, row_blocks, strongest
from training.workers import Arrays, Blocks

MOST_MET = 60_000
"""Up to so many items are all compared with all; in a larger catalogue an item's rarest terms lead to so many, and what
its other terms say is computed of the best of these alone."""
CANDIDATES = 4
"""Of them, for each neighbour that is wanted."""
WHOLE = 50_000
"""Up to so many dense vectors are all compared with all."""
GROUP = 500
"""Vectors in a group of a larger catalogue, on average."""
NEAR_GROUPS = 24
"""Groups whose members an item is compared with."""
_CELLS_AT_ONCE = 16_000_000
"""Cosines that a worker has at a time, with their order 12 bytes each."""
_SAMPLE = 100_000
_ROWS_AT_ONCE, _COLUMNS_AT_ONCE = 256, 1 << 17
"""Of a sparse product: so many sums stay in a core's cache."""

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


def nearest_sparse(
    rows: Rows, n_terms: int, n: int, *, most_met: int = MOST_MET, blocks: Blocks | None = None
) -> csr_array:
    """(N, N): the cosine of each item's n nearest others, by sparse vectors of length one."""
    size = len(rows)
    matrix = csr_array((rows.weights, rows.terms, rows.indptr), shape=(size, n_terms))
    if not matrix.nnz:
        return csr_array((size, size), dtype=np.float32)
    arrays = {**parts(matrix, "rows"), "counts": np.bincount(rows.terms, minlength=n_terms)}
    for first in range(0, size, _COLUMNS_AT_ONCE):
        arrays |= parts(csr_array(matrix[first : first + _COLUMNS_AT_ONCE].T), f"postings {first}")
    cpus = available_cpus()
    with ThreadPoolExecutor(cpus) as pool:
        near = (blocks or Blocks(pool, cpus)).map(
            _near_sparse, arrays, row_blocks(size), n_terms=n_terms, n=n, most_met=most_met
        )
        return csr_array(vstack(list(near), format="csr"))


def _near_sparse(arrays: Arrays, start: int, stop: int, *, n_terms: int, n: int, most_met: int) -> csr_array:
    matrix = matrix_of(arrays, "rows", n_terms)
    size = matrix.shape[0]
    postings = [
        matrix_of(arrays, f"postings {first}", min(_COLUMNS_AT_ONCE, size - first))
        for first in range(0, size, _COLUMNS_AT_ONCE)
    ]
    out = []
    for first in range(start, stop, _ROWS_AT_ONCE):
        rows = csr_array(matrix[first : min(stop, first + _ROWS_AT_ONCE)])
        leading = rows if size <= most_met else _rarest(rows, arrays["counts"], most_met)
        whole = leading.nnz == rows.nnz
        most = n + 1 if whole else CANDIDATES * n  # itself is one
        found = _largest(csr_array(hstack([_largest(leading @ part, most) for part in postings])), most)
        row = np.repeat(np.arange(len(rows.indptr) - 1), np.diff(found.indptr))
        if not whole:
            found.data = rows[row].multiply(matrix[found.indices]).sum(axis=1)
        found.data[found.indices == first + row] = 0.0
        out.append(strongest(found, n))
    return csr_array(vstack(out, format="csr"))


def _rarest(rows: csr_array, counts: Indices, most_met: int) -> csr_array:
    """The rows by their rarest terms alone, as many as lead to most_met items in all, and one at the least."""
    row = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    order = np.lexsort((counts[rows.indices], row))
    met = np.concatenate([[0], np.cumsum(counts[rows.indices[order]])])
    lead = met[1:] - met[rows.indptr[row]] <= most_met
    lead[rows.indptr[row]] = True
    kept = np.sort(order[lead])
    indptr = np.searchsorted(kept, rows.indptr)
    return csr_array((rows.data[kept], rows.indices[kept], indptr), shape=rows.shape)


def _largest(matrix: csr_array, n: int) -> csr_array:
    """The n largest entries of each row; of equal ones any, but always the same."""
    kept = [
        begin + (np.arange(end - begin) if end - begin <= n else np.argpartition(-matrix.data[begin:end], n)[:n])
        for begin, end in pairwise(matrix.indptr.tolist())
    ]
    indptr, among = np.cumsum([0, *map(len, kept)]), np.concatenate(kept)
    return csr_array((matrix.data[among], matrix.indices[among], indptr), shape=matrix.shape)


def nearest_dense(
    vectors: Floats, n: int, *, whole: int = WHOLE, seed: int = 0, blocks: Blocks | None = None
) -> csr_array:
    """(N, N): the positive cosine of each item's n nearest others, by vectors (N, D) of length one.

    A vector of zeros, which stands for a text that is not there, is near nobody.
    """
    size = len(vectors)
    filled = np.flatnonzero(vectors.any(axis=1))
    if not len(filled):
        return csr_array((size, size), dtype=np.float32)
    groups = _groups(vectors if len(filled) == size else vectors[filled], whole, seed)
    members = [filled[group] for group in groups]
    starts = np.cumsum([0, *map(len, members)])
    others = _near_groups(np.stack([vectors[own].mean(axis=0) for own in members]))
    arrays = {"vectors": vectors, "order": np.concatenate(members), "starts": starts, "near": others}
    cpus = available_cpus()
    with ThreadPoolExecutor(cpus) as pool, _one_blas_thread():
        near = (blocks or Blocks(pool, cpus)).map(_near_dense, arrays, _dense_runs(starts, others), n=n)
        found = csr_array(vstack(list(near), format="csr"))
    ascending = found[np.argsort(arrays["order"])]
    lengths = np.zeros(size + 1, dtype=np.int64)
    lengths[1 + filled] = np.diff(ascending.indptr)
    return csr_array((ascending.data, ascending.indices, np.cumsum(lengths)), shape=(size, size))


def _near_groups(centres: Floats) -> Indices:
    """(G, at most NEAR_GROUPS): each group itself and the groups whose centres its own is most like."""
    out = []
    for number, centre in enumerate(centres):
        like = centres @ centre
        like[number] = np.inf
        out.append(np.argsort(-like, kind="stable")[:NEAR_GROUPS])
    return np.stack(out)


def _dense_runs(starts: Indices, near: Indices) -> Iterator[tuple[int, int]]:
    """Places in the order by group: a group each, or a part of one where its cosines would be too many."""
    for group, others in enumerate(np.diff(starts)[near].sum(axis=1).tolist()):
        step = max(1, _CELLS_AT_ONCE // others)
        for start in range(starts[group], starts[group + 1], step):
            yield start, min(start + step, int(starts[group + 1]))


def _near_dense(arrays: Arrays, start: int, stop: int, *, n: int) -> csr_array:
    """The rows of the items at these places, all of one group."""
    vectors, order, starts = arrays["vectors"], arrays["order"], arrays["starts"]
    near = arrays["near"][np.searchsorted(starts, start, side="right") - 1]
    columns = np.sort(np.concatenate([order[starts[group] : starts[group + 1]] for group in near.tolist()]))
    rows = order[start:stop]
    with _one_blas_thread():
        cosine = vectors[rows] @ vectors[columns].T
    cosine[np.arange(len(rows)), np.searchsorted(columns, rows)] = 0.0
    return _top(cosine, columns, n, len(vectors))


def _top(cosine: Floats, columns: Indices, n: int, width: int) -> csr_array:
    """The n largest of each row of cosines, which are overwritten."""
    n = min(n, cosine.shape[1])
    np.negative(cosine, out=cosine)
    best = np.argpartition(cosine, n - 1, axis=1)[:, :n]
    values = np.maximum(-np.take_along_axis(cosine, best, axis=1), 0.0)
    indptr = np.arange(0, best.size + 1, n)
    return strongest(csr_array((values.ravel(), columns[best].ravel(), indptr), shape=(len(cosine), width)), n)


def _one_blas_thread() -> AbstractContextManager[Any]:
    """By how many threads BLAS divides a product shows in its last digits."""
    limit: AbstractContextManager[Any] = _blas().limit(limits=1, user_api="blas")
    return limit


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    return ThreadpoolController()  # looking for the loaded libraries takes longer than a small product


def _groups(vectors: Floats, whole: int, seed: int) -> list[Indices]:
    """Row numbers, ascending, of vectors that lie near each other; all in one group where they are few."""
    if len(vectors) <= whole:
        return [np.arange(len(vectors))]
    from sklearn.cluster import MiniBatchKMeans

    sample = vectors
    if len(vectors) > _SAMPLE:
        sample = vectors[np.sort(np.random.default_rng(seed).choice(len(vectors), _SAMPLE, replace=False))]
    means = MiniBatchKMeans(
        max(2, len(vectors) // GROUP), batch_size=8192, max_iter=8, n_init=1, random_state=seed, reassignment_ratio=0.0,
        init="random",
    ).fit(sample)  # fmt: skip
    centres = means.cluster_centers_.astype(np.float32)
    half_squares = 0.5 * (centres**2).sum(axis=1)
    step = max(1, _CELLS_AT_ONCE // len(centres))
    group = np.concatenate(
        [
            np.argmax(vectors[start : start + step] @ centres.T - half_squares, axis=1)
            for start in range(0, len(vectors), step)
        ]
    )
    order = np.argsort(group, kind="stable")
    split = np.split(order, np.cumsum(np.bincount(group, minlength=len(centres)))[:-1])
    return [part for part in split if len(part)]
