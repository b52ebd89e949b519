"""Start a fresh model's item words and first label pieces from the co-purchase graph of the training interactions.

The leading directions of the graph, in which purchases near each other in a history weigh more, place items that are
bought together near each other. Each item word that is one token starts at its item's place; a label's first piece
starts at the mean place of the items that have it. Knows counts, not the training loop.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from rdrec_core.model import RDRecModel
from training.learning.backbone import CatalogTokens
from training.learning.examples import TrainingHistories

Floats = npt.NDArray[np.float32]

_DEGREE_DAMPING = 5.0
"""Added to every item's degree, so that a handful of purchases does not make a direction of its own."""


def graph_places(histories: TrainingHistories, width: int, seed: int) -> Floats:
    """Items (N, width) along the leading directions of the normalised graph, each times the root of its strength.

    Standard deviation 1 over all entries; items without training interactions get zeros, and so do directions that a
    small graph does not have.
    """
    from scipy.sparse import diags_array
    from sklearn.utils.extmath import randomized_svd

    from training.signals.graph import GraphConfig, Sequences, ordered_pairs

    pairs = ordered_pairs(Sequences(histories.indptr, histories.items, histories.n_items), GraphConfig())
    graph = (pairs + pairs.T).tocsr()
    scale = diags_array(((graph.sum(axis=1) + _DEGREE_DAMPING) ** -0.5).astype(np.float32))
    graph = scale @ graph @ scale  # float32: N rows of width + 10 numbers are held several times over
    directions, strengths, _ = randomized_svd(
        graph, n_components=min(width, histories.n_items), n_iter=6, random_state=seed
    )
    places = np.zeros((histories.n_items, width), dtype=np.float32)
    places[:, : len(strengths)] = directions * np.sqrt(strengths)
    deviation = places.std()
    return places / deviation if deviation > 0 else places


def initialise_from_graph(model: RDRecModel, catalog: CatalogTokens, places: Floats) -> None:
    """Overwrite the rows of item words and first label pieces that `graph_places` (N, D) knows anything of."""
    from scipy.sparse import csr_array

    table = model.t5.shared.weight
    known = np.flatnonzero(places.any(axis=1))
    one_token = np.diff(catalog.item_words.indptr)[known] == 1
    words = catalog.item_words.tokens[catalog.item_words.indptr[known[one_token]]].astype(np.int64)
    pieces, piece = np.unique(catalog.labels.tokens[catalog.labels.indptr[known]], return_inverse=True)
    has = csr_array((np.ones(len(known), dtype=np.float32), (piece, known)), shape=(len(pieces), len(places)))
    means = has @ places
    spread = means.std(axis=1)
    with torch.no_grad():
        table[torch.from_numpy(words)] = torch.from_numpy(places[known[one_token]])
        means = means[spread > 0] / spread[spread > 0, None]
        table[torch.from_numpy(pieces[spread > 0].astype(np.int64))] = torch.from_numpy(means)
