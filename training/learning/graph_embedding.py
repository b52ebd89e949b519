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
    graph = (pairs + pairs.T).astype(np.float64)
    scale = diags_array((graph.sum(axis=1) + _DEGREE_DAMPING) ** -0.5)
    directions, strengths, _ = randomized_svd(
        scale @ graph @ scale, n_components=min(width, histories.n_items), n_iter=6, random_state=seed
    )
    places = np.zeros((histories.n_items, width), dtype=np.float32)
    places[:, : len(strengths)] = directions * np.sqrt(strengths)
    deviation = places.std()
    return places / deviation if deviation > 0 else places


def initialise_from_graph(
    model: RDRecModel, catalog: CatalogTokens, histories: TrainingHistories, generator: torch.Generator
) -> None:
    """Overwrite the embedding rows of item words and first label pieces that the graph knows anything of."""
    table = model.t5.shared.weight
    places = graph_places(histories, table.shape[1], generator.initial_seed() % 2**32)
    known = np.abs(places).sum(axis=1) > 0
    single = np.flatnonzero((np.diff(catalog.item_words.indptr) == 1) & known)
    words = catalog.item_words.tokens[catalog.item_words.indptr[single]].astype(np.int64)
    first = catalog.labels.tokens[catalog.labels.indptr[:-1]].astype(np.int64)
    sums = np.zeros(table.shape, dtype=np.float64)
    np.add.at(sums, first[known], places[known])
    pieces = np.flatnonzero(sums.std(axis=1) > 0)
    means = sums[pieces] / sums[pieces].std(axis=1, keepdims=True)
    with torch.no_grad():
        table[torch.from_numpy(words)] = torch.from_numpy(places[single])
        table[torch.from_numpy(pieces)] = torch.from_numpy(means.astype(np.float32))
