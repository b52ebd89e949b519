"""Graph initialisation on a shop with two kinds of customers who never buy the same things."""

import numpy as np
import pytest
import torch

from rdrec_core.encoding import RaggedTokens
from rdrec_core.model import ModelConfig, RDRecModel
from rdrec_core.t5 import T5Config
from training.learning.backbone import CatalogTokens
from training.learning.examples import TrainingHistories
from training.learning.graph_embedding import graph_places, initialise_from_graph

N_ITEMS = 21  # ten of each kind, and one that nobody bought
LABEL_PIECE = 30  # first pieces 30 (first kind), 31 (second kind)


@pytest.fixture(scope="module")
def histories() -> TrainingHistories:
    rng = np.random.default_rng(0)
    rows = [rng.permutation(10)[:5] + 10 * (user % 2) for user in range(60)]
    indptr = np.arange(0, 301, 5, dtype=np.int64)
    return TrainingHistories(indptr, np.concatenate(rows).astype(np.int32), np.full(60, -1, dtype=np.int32), N_ITEMS)


def cosines(places: np.ndarray) -> np.ndarray:
    unit = places / np.linalg.norm(places, axis=1, keepdims=True)
    return unit @ unit.T


def test_items_bought_together_stand_together(histories: TrainingHistories) -> None:
    near = cosines(graph_places(histories, 2, seed=0)[:20])
    assert near[:10, :10].min() > 0.9
    assert near[10:, 10:].min() > 0.9
    assert np.abs(near[:10, 10:]).max() < 0.5


def test_scale_and_unknown_items(histories: TrainingHistories) -> None:
    places = graph_places(histories, 8, seed=0)
    assert places.std() == pytest.approx(1.0, abs=1e-5)
    assert not places[20].any()
    assert np.array_equal(places, graph_places(histories, 8, seed=0))


def test_rows_of_item_words_and_first_pieces_are_replaced_and_no_others(histories: TrainingHistories) -> None:
    model = RDRecModel(ModelConfig(t5=T5Config(vocab_size=40, d_model=16, d_kv=4, d_ff=16, num_layers=1,
                                               num_decoder_layers=1, num_heads=4)))  # fmt: skip
    model.initialise(torch.Generator().manual_seed(0))
    before = model.t5.shared.weight.detach().clone()
    words = RaggedTokens(np.arange(N_ITEMS + 1, dtype=np.int64), np.arange(5, 5 + N_ITEMS, dtype=np.int32))
    pieces = np.stack([LABEL_PIECE + np.arange(N_ITEMS) // 10, np.full(N_ITEMS, 35)], axis=1).astype(np.int32).ravel()
    labels = RaggedTokens(np.arange(0, 2 * N_ITEMS + 1, 2, dtype=np.int64), pieces)
    initialise_from_graph(model, CatalogTokens(words, labels), graph_places(histories, 16, seed=0))
    after = model.t5.shared.weight.detach()
    changed = (before != after).any(dim=1).nonzero()[:, 0].tolist()
    assert changed == [*range(5, 25), 30, 31]
    table = after.numpy()
    assert cosines(table[[30, 5]])[0, 1] > cosines(table[[30, 15]])[0, 1] + 0.5


def test_a_shop_with_fewer_items_than_dimensions() -> None:
    few = TrainingHistories(
        np.array([0, 2, 4]), np.array([0, 1, 1, 2], dtype=np.int32), np.array([-1, -1], dtype=np.int32), 3
    )
    places = graph_places(few, 8, seed=0)
    assert places.shape == (3, 8)
    assert np.isfinite(places).all()
    assert not places[:, 3:].any()
