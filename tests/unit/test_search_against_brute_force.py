"""Every mode, strategy and engine against scoring all labels one at a time, on tries of any shape (hypothesis)."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rdrec_core.decoding.item_trie import ItemTrie
from rdrec_core.encoding import SourceEncoder
from rdrec_core.engines.onnx_engine import OnnxEngine
from rdrec_core.engines.torch_engine import TorchEngine
from rdrec_core.engines.trie_engine import TrieEngine
from rdrec_core.exported.search_export import export_search_graphs
from rdrec_core.types import ItemMask, RankRequest, ScoreMode, ScoreRequest, Strategy, Task
from tests import ranking_world as world

COVERING = 64
"""More beams than any of these catalogues has states, so that nothing is pruned."""
MODES = (ScoreMode.FULL, ScoreMode.TRIE)
Label = tuple[int, ...]
MODEL = world.model(5)
_DEEP: list[Label] = [
    (10, 11, 12, 13, 14), (10, 11, 12, 13, 15), (10, 11, 12, 16), (10, 11, 17), (10, 18),
    (19, 11, 12, 13, 14), (19, 11, 12, 13, 15),
]  # fmt: skip
"""Branches at every depth and has an edge of four forced tokens, so its graphs take every trie below."""

catalogues = st.lists(st.lists(st.integers(10, 13), max_size=4).map(tuple), min_size=1, max_size=30, unique=True)


def masks(n: int) -> st.SearchStrategy[ItemMask]:
    return st.lists(st.booleans(), min_size=n, max_size=n).map(lambda items: ItemMask(np.array(items)))


@st.composite
def requests(draw: st.DrawFn, n: int) -> RankRequest:
    items = st.lists(st.integers(0, n - 1), max_size=n).map(tuple)
    return RankRequest(
        user_index=draw(st.none() | st.integers(0, 20)),
        history=draw(items),
        n_items=draw(st.integers(1, 12)),
        exclude=draw(items),
        include=draw(st.none() | items),
        among=draw(st.none() | masks(n)),
        beam_width=COVERING,
    )


def check(
    engine: TrieEngine, labels: list[Label], encoder: SourceEncoder, batch: list[RankRequest], available: np.ndarray
) -> None:
    answers = engine.recommend(batch)
    scored = engine.score(
        [ScoreRequest(r.user_index, tuple(range(len(labels))), r.history, Task.SEQUENTIAL) for r in batch]
    )
    for request, answer, scores in zip(batch, answers, scored, strict=True):
        exact = world.exact_scores(MODEL, encoder, labels, request, engine.score_mode)
        allowed = world.eligible(len(labels), request, available)
        world.assert_is_the_exact_answer(answer.item_indices, answer.log_probs, exact, allowed, request.n_items)
        np.testing.assert_allclose(scores, exact, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(catalogues, st.data(), st.sampled_from(MODES), st.sampled_from(list(Strategy)))
def test_torch(labels: list[Label], data: st.DataObject, mode: ScoreMode, strategy: Strategy) -> None:
    encoder = world.encoder(labels)
    available = np.array(data.draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels))))
    engine = TorchEngine(
        MODEL, encoder, ItemTrie.build(world.ragged(labels)), score_mode=mode, strategy=strategy, available=available
    )
    batch = data.draw(st.lists(requests(len(labels)), min_size=1, max_size=3))
    check(engine, labels, encoder, batch, available)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[ScoreMode, Strategy], OnnxEngine]:
    folder: Path = tmp_path_factory.mktemp("graphs")
    trie, encoder = ItemTrie.build(world.ragged(_DEEP)), world.encoder(_DEEP)
    export_search_graphs(MODEL, encoder, trie, folder, score_modes=list(ScoreMode))
    return {
        (mode, strategy): OnnxEngine(folder, encoder, trie, score_mode=mode, strategy=strategy, threads=1)
        for mode in ScoreMode
        for strategy in Strategy
    }


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(catalogues, st.data(), st.sampled_from(MODES), st.sampled_from(list(Strategy)))
def test_one_graph_serves_every_catalogue(
    engines: dict[tuple[ScoreMode, Strategy], OnnxEngine],
    labels: list[Label],
    data: st.DataObject,
    mode: ScoreMode,
    strategy: Strategy,
) -> None:
    encoder = world.encoder(labels)
    available = np.array(data.draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels))))
    engine = engines[mode, strategy]
    engine.set_catalogue(ItemTrie.build(world.ragged(labels)), world.item_words(labels), available)
    check(engine, labels, encoder, data.draw(st.lists(requests(len(labels)), min_size=1, max_size=3)), available)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(catalogues, st.data())
def test_int8_answers_what_int8_scores(
    engines: dict[tuple[ScoreMode, Strategy], OnnxEngine], labels: list[Label], data: st.DataObject
) -> None:
    """Both strategies and the candidate scores are one distribution, near the float32 one."""
    encoder = world.encoder(labels)
    available = np.ones(len(labels), dtype=bool)
    request = data.draw(requests(len(labels)))
    float_scores = world.exact_scores(MODEL, encoder, labels, request, ScoreMode.TRIE)
    for strategy in Strategy:
        engine = engines[ScoreMode.TRIE_INT8, strategy]
        engine.set_catalogue(ItemTrie.build(world.ragged(labels)), world.item_words(labels), available)
        wanted = ScoreRequest(request.user_index, tuple(range(len(labels))), request.history, Task.SEQUENTIAL)
        (scores,) = engine.score([wanted])
        (answer,) = engine.recommend([request])
        allowed = world.eligible(len(labels), request, available)
        world.assert_is_the_exact_answer(
            answer.item_indices, answer.log_probs, scores, allowed, request.n_items, tolerance=5e-3
        )
        assert np.abs(scores - float_scores).max() < 0.5
