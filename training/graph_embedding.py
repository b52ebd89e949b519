"""Start a fresh model's item words and digit pieces from the co-purchase graph of the training interactions.

A truncated singular value decomposition of the normalised user-item matrix places items that the same users bought near
each other. Each item word that is one token starts at its item's place; a label's first piece starts at the mean place
of the items that have it. Knows counts, not the training loop.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from rdrec_core.model import RDRecModel
from training.backbone import CatalogTokens
from training.examples import Histories

Floats = npt.NDArray[np.float32]


def spectral_embedding(histories: Histories, width: int, seed: int) -> Floats:
    """Items (N, width) in the leading singular directions of the degree-normalised user-item matrix, unit rows.

    Items without training interactions get zeros.
    """
    from scipy.sparse import csr_array, diags_array
    from sklearn.utils.extmath import randomized_svd

    n_users = len(histories.indptr) - 1
    ones = np.ones(len(histories.items), dtype=np.float32)
    matrix = csr_array((ones, histories.items, histories.indptr), shape=(n_users, histories.n_items))
    per_user = np.maximum(matrix.sum(axis=1), 1.0)
    per_item = np.maximum(matrix.sum(axis=0), 1.0)
    normal = diags_array(per_user**-0.5) @ matrix @ diags_array(per_item**-0.5)
    width = min(width, min(normal.shape) - 1)
    _, singular, right = randomized_svd(normal, n_components=width, n_iter=4, random_state=seed)
    places = (right.T * singular).astype(np.float32)
    lengths = np.linalg.norm(places, axis=1, keepdims=True)
    return places / np.maximum(lengths, 1e-12)


def initialise_from_graph(
    model: RDRecModel, catalog: CatalogTokens, histories: Histories, generator: torch.Generator
) -> None:
    """Overwrite the embedding rows of item words and label pieces; their scale stays that of the random ones."""
    width = model.config.t5.d_model
    places = spectral_embedding(histories, width, int(generator.initial_seed()))
    if places.shape[1] < width:
        places = np.pad(places, ((0, 0), (0, width - places.shape[1])))
    table = model.t5.shared.weight
    with torch.no_grad():
        scale = table.std().item() * width**0.5
        noise = torch.empty(width).normal_(
            0.0, 1.0, generator=generator
        )  # a basis of random signs, so that no axis leads
        places = places * torch.sign(noise).numpy() * scale
        lengths = np.diff(catalog.item_words.indptr)
        single = np.flatnonzero((lengths == 1) & (np.abs(places).sum(axis=1) > 0))
        rows = catalog.item_words.tokens[catalog.item_words.indptr[single]]
        table[torch.from_numpy(rows.astype(np.int64))] = torch.from_numpy(places[single])
        first = catalog.labels.tokens[catalog.labels.indptr[:-1]].astype(np.int64)
        sums = np.zeros((len(table), width), dtype=np.float64)
        counts = np.bincount(first, minlength=len(table))
        np.add.at(sums, first, places)
        pieces = np.flatnonzero(counts > 1)
        means = sums[pieces] / np.linalg.norm(sums[pieces], axis=1, keepdims=True).clip(1e-12) * scale
        table[torch.from_numpy(pieces)] = torch.from_numpy(means.astype(np.float32))
