"""What a shop would run otherwise, under the same protocol: popularity, counting, EASE, SASRec, text or graph alone.

Every baseline is fitted on the interactions that it is given, training ones unless a table says otherwise, and becomes
a `Scorer`. Knows sequences of indices, not datasets or tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, csr_matrix, diags_array
from sparse_dot_topn import sp_matmul_topn

from rdrec_core.cpus import available_cpus
from rdrec_core.errors import InputError
from rdrec_core.item_graph import Channel, ItemGraph, Mix
from training.evaluation.measure import Ints, Scorer
from training.evaluation.protocol import Questions
from training.evaluation.sasrec import SASRec, SASRecConfig, sasrec_scores, train_sasrec
from training.signals.graph import Sequences

EASE_MAX_ITEMS = 20_000
"""Dense EASE needs 8 x N^2 bytes and N^3 time."""
KNN_ALL_ITEMS = 50_000
"""Up to so many items item-KNN keeps every neighbour; a larger catalogue keeps the nearest KNN_NEAREST of each."""
KNN_NEAREST = 100
_LAST_ITEMS, _DECAY = 10, 0.8
_TIE_BREAK = 1e-6


def popularity(sequences: Sequences) -> Scorer:
    """Purchases of the item, the same for everybody."""
    counts = np.bincount(sequences.items, minlength=sequences.n_items).astype(np.float64)
    return lambda histories: np.tile(counts, (len(histories), 1))


def copurchase_counts(sequences: Sequences) -> Scorer:
    """The 30 lines of the design page, section 5, kept as they were measured there.

    Pairs up to three apart count 1 / distance forwards and half of it backwards, columns are divided by the square root
    of the item's purchases, the last ten items count 0.8 a step back. Popularity breaks ties, which matters for top-N.
    """
    counts = np.maximum(np.bincount(sequences.items, minlength=sequences.n_items), 1).astype(np.float64)
    pairs = _pairs(sequences, 3)
    matrix = csr_array((pairs + 0.5 * pairs.T) @ diags_array(counts**-0.5))
    return _over_history(matrix, sequences.n_items, counts)


def item_knn(sequences: Sequences) -> Scorer:
    """Cosine similarity of items over users; of the nearest alone above KNN_ALL_ITEMS items."""
    matrix = _user_items(sequences)
    lengths = np.sqrt(np.maximum(matrix.sum(axis=0), 1.0))
    normal = csr_array(matrix @ diags_array(1.0 / lengths))
    if sequences.n_items <= KNN_ALL_ITEMS:
        similar = csr_array(normal.T @ normal)
    else:
        by_item, by_user = csr_matrix(normal.T), csr_matrix(normal)
        for matrix in (by_item, by_user):
            matrix.indptr = matrix.indptr.astype(np.int32)  # as the product wants them
            matrix.indices = matrix.indices.astype(np.int32)
        nearest = sp_matmul_topn(by_item, by_user, top_n=KNN_NEAREST + 1, n_threads=available_cpus())
        similar = csr_array(nearest)
    similar.setdiag(0.0)
    return _over_history(similar, sequences.n_items, lengths)


def ease(sequences: Sequences, strength: float = 100.0) -> Scorer:
    """EASE (Steck, WWW 2019) over the last ten items. Raises InputError where the catalogue is too large to invert."""
    n = sequences.n_items
    if n > EASE_MAX_ITEMS:
        raise InputError(f"dense EASE takes up to {EASE_MAX_ITEMS:,} items, not {n:,}; leave it out", field="baselines")
    matrix = _user_items(sequences)
    gram = csr_array(matrix.T @ matrix).toarray().astype(np.float32)
    gram[np.diag_indices(n)] += strength
    inverse = np.linalg.inv(gram)
    weights = inverse / -np.diag(inverse)[None]
    weights[np.diag_indices(n)] = 0.0
    counts = np.bincount(sequences.items, minlength=n).astype(np.float64)
    return _over_history(weights, n, counts)


def ease_with_counts(sequences: Sequences, share: float = 0.9) -> Scorer:
    """EASE mixed 9:1 with the co-purchase counts, each divided by its standard deviation over the user's scores."""
    first, second = ease(sequences), copurchase_counts(sequences)

    def score(histories: list[Ints]) -> npt.NDArray[np.floating]:
        a, b = np.asarray(first(histories)), np.asarray(second(histories))
        return share * a / _spread(a) + (1 - share) * b / _spread(b)

    return score


def graph_alone(graph: ItemGraph, mix: Mix) -> Scorer:
    """The item graph without the model."""
    everything = np.arange(len(graph))
    return lambda histories: np.stack([graph.prior(h, mix).log_scores(everything) for h in histories])


def content_knn(sequences: Sequences, text: Channel) -> Scorer:
    """Items whose catalogue entry reads like those of the history, the last purchase counting most: no one's purchases.

    text: a channel of nearest items by TF-IDF. Popularity tells apart what no text reaches.
    """
    purchases = np.bincount(sequences.items, minlength=sequences.n_items)
    shares = (purchases / max(int(purchases.sum()), 1)).astype(np.float32)
    return graph_alone(ItemGraph(shares, {"text": text}), Mix(_TIE_BREAK, {"text": 1.0}))


def sasrec(
    training: Sequences, refitted: Sequences | None, validation: Questions, cache: Path,
    report: Callable[[int, float, float | None], None], config: SASRecConfig | None = None,
) -> Scorer:  # fmt: skip
    """SASRec trained to convergence, or taken from the cache.

    refitted: the histories with validation purchases, on which it is then trained anew, for as many epochs as did best.
    """
    config = config or SASRecConfig()

    def trained(sequences: Sequences, asked: Questions | None, config: SASRecConfig) -> tuple[SASRec, int]:
        histories = np.split(sequences.items.astype(np.int64), sequences.indptr[1:-1])
        return train_sasrec(histories, asked, sequences.n_items, config, cache, report)

    model, epochs = trained(training, validation, config)
    if refitted is not None:
        model, _ = trained(refitted, None, config.model_copy(update={"epochs": epochs}))
    return lambda histories: sasrec_scores(model, histories)


def _user_items(sequences: Sequences) -> csr_array:
    ones = np.ones(len(sequences.items), dtype=np.float64)
    shape = (len(sequences.indptr) - 1, sequences.n_items)
    matrix = csr_array((ones, sequences.items, sequences.indptr), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def _pairs(sequences: Sequences, window: int) -> csr_array:
    n = sequences.n_items
    ends = np.repeat(sequences.indptr[1:], np.diff(sequences.indptr))
    total = csr_array((n, n))
    for distance in range(1, window + 1):
        first = np.flatnonzero(np.arange(len(ends)) + distance < ends)
        earlier, later = sequences.items[first], sequences.items[first + distance]
        total = total + csr_array((np.full(len(first), 1.0 / distance), (earlier, later)), shape=(n, n))
    return csr_array(total)


def _over_history(
    weights: csr_array | npt.NDArray[np.floating], n_items: int, tie_break: npt.NDArray[np.floating]
) -> Scorer:
    """Score = sum of the rows of the last ten items, each 0.8 of the one after it; ties go by popularity."""
    small = _TIE_BREAK * tie_break / tie_break.max()

    def score(histories: list[Ints]) -> npt.NDArray[np.floating]:
        rows = _recent(histories, n_items)
        summed = rows @ weights
        dense = summed.toarray() if isinstance(summed, csr_array) else np.asarray(summed)
        return dense + small

    return score


def _recent(histories: Sequence[Ints], n_items: int) -> csr_array:
    recent = [history[-_LAST_ITEMS:] for history in histories]
    indptr = np.concatenate([[0], np.cumsum([len(h) for h in recent])])
    items = np.concatenate(recent) if recent else np.empty(0, dtype=np.int64)
    weights = np.concatenate([_DECAY ** np.arange(len(h) - 1, -1, -1.0) for h in recent]) if recent else np.empty(0)
    return csr_array((weights, items, indptr), shape=(len(recent), n_items))


def _spread(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    return np.maximum(scores.std(axis=1, keepdims=True), 1e-12)
