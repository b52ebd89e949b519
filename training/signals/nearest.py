"""The nearest items of every item by cosine, at any size of catalogue, by sparse vectors and by dense ones.

Small catalogues are compared whole. In large ones a frequent term's postings are cut to its heaviest, and dense vectors
are compared within groups that lie near each other (benchmarks/text_neighbours.py measures what that loses). Knows
vectors only.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, csr_matrix, vstack

from rdrec_core.cpus import available_cpus
from rdrec_core.text_vectors import Rows
from training.signals.graph import strongest

MOST_PRODUCTS = 150_000_000_000
"""Multiplications of a sparse comparison: what bounds its time."""
WHOLE = 50_000
"""Up to so many dense vectors are all compared with all."""
GROUP = 500
"""Vectors in a group of a larger catalogue, on average."""
NEAR_GROUPS = 24
"""Groups whose members an item is compared with."""
_CELLS_AT_ONCE = 60_000_000
_SAMPLE = 100_000

Floats = npt.NDArray[np.float32]


def nearest_sparse(rows: Rows, n_terms: int, n: int, *, most_products: int = MOST_PRODUCTS) -> csr_array:
    """(N, N): the cosine of each item's n nearest others, by sparse vectors of length one."""
    from sparse_dot_topn import sp_matmul_topn

    size = len(rows)
    matrix = csr_matrix((rows.weights, rows.terms, rows.indptr), shape=(size, n_terms))
    if not matrix.nnz:
        return csr_array((size, size), dtype=np.float32)
    matrix.indptr = matrix.indptr.astype(np.int32)  # as the product wants them
    postings = heaviest(matrix.T.tocsr(), most_products)
    found = sp_matmul_topn(matrix, postings, top_n=min(n + 1, size), n_threads=available_cpus())
    return _without_self(csr_array(found), n)


def heaviest(postings: csr_matrix, most_products: int) -> csr_matrix:
    """Postings (terms, N) cut to the heaviest of each term, as many as multiplying them by themselves allows."""
    counts = np.diff(postings.indptr).astype(np.float64)
    low, high = 1, int(counts.max())
    while low < high:  # the largest bound whose work is allowed
        middle = (low + high + 1) // 2
        low, high = (
            (middle, high) if (counts * np.minimum(counts, middle)).sum() <= most_products else (low, middle - 1)
        )
    return postings if low >= counts.max() else csr_matrix(strongest(csr_array(postings), low))


def nearest_dense(vectors: Floats, n: int, *, whole: int = WHOLE, seed: int = 0) -> csr_array:
    """(N, N): the positive cosine of each item's n nearest others, by vectors (N, D) of length one.

    A vector of zeros, which stands for a text that is not there, is near nobody.
    """
    filled = np.flatnonzero(vectors.any(axis=1))
    groups = _groups(vectors[filled], whole, seed)
    centres = np.stack([vectors[filled[group]].mean(axis=0) for group in groups]) if groups else np.empty((0, 0))
    parts, owners = [], []
    for number, group in enumerate(groups):
        near = np.argsort(-(centres @ centres[number]), kind="stable")[:NEAR_GROUPS]
        others = np.sort(np.concatenate([groups[g] for g in near]))
        columns = filled[others]
        step = max(1, _CELLS_AT_ONCE // len(others))
        for start in range(0, len(group), step):
            some = group[start : start + step]
            cosine = vectors[filled[some]] @ vectors[columns].T
            cosine[np.arange(len(some)), np.searchsorted(others, some)] = 0.0
            parts.append(_top(cosine, columns, n, len(vectors)))
            owners.append(filled[some])
    if not parts:
        return csr_array((len(vectors), len(vectors)), dtype=np.float32)
    order = np.concatenate(owners)
    found = csr_array(vstack(parts, format="csr"))
    back = np.full(len(vectors), len(order))
    back[order] = np.arange(len(order))
    empty = csr_array((1, len(vectors)), dtype=np.float32)
    return csr_array(csr_array(vstack([found, empty], format="csr"))[back])


def _top(cosine: Floats, columns: npt.NDArray[np.int64], n: int, width: int) -> csr_array:
    n = min(n, cosine.shape[1])
    best = np.argpartition(-cosine, n - 1, axis=1)[:, :n]
    values = np.maximum(np.take_along_axis(cosine, best, axis=1), 0.0)
    indptr = np.arange(0, best.size + 1, n)
    return strongest(csr_array((values.ravel(), columns[best].ravel(), indptr), shape=(len(cosine), width)), n)


def _groups(vectors: Floats, whole: int, seed: int) -> list[npt.NDArray[np.int64]]:
    """Row numbers, ascending, of vectors that lie near each other; all in one group where they are few."""
    if len(vectors) <= whole:
        return [np.arange(len(vectors))] if len(vectors) else []
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
    parts = np.split(order, np.cumsum(np.bincount(group, minlength=len(centres)))[:-1])
    return [part for part in parts if len(part)]


def _without_self(matrix: csr_array, n: int) -> csr_array:
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    matrix.data[matrix.indices == rows] = 0.0
    return strongest(matrix, n)
