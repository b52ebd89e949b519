"""Fixed shapes give the answers of free ones; recorded graphs are found by shape, and replay what they recorded."""

import numpy as np
import pytest
import torch

from rdrec_core.decoding.item_trie import ItemTrie
from rdrec_core.eager import cuda_graphs
from rdrec_core.eager.cuda_graphs import GraphCache
from rdrec_core.engines.torch_engine import TorchEngine
from rdrec_core.types import RankRequest, ScoreMode, ScoreRequest, Strategy, Task
from tests import ranking_world as world

LABELS = world.random_labels(np.random.default_rng(11), 40)
RNG = np.random.default_rng(12)
REQUESTS = [
    RankRequest(
        user_index=None if row % 3 == 0 else row,
        history=tuple(RNG.integers(0, 40, row).tolist()),
        n_items=1 + row,
        exclude=tuple(RNG.integers(0, 40, row).tolist()),
        include=tuple(RNG.choice(40, 12, replace=False).tolist()) if row % 4 == 1 else None,
        beam_width=20,
        also=(1, 2 + row),
    )
    for row in range(11)
]
SCORES = [
    ScoreRequest(row, tuple(RNG.choice(40, 1 + row, replace=False).tolist()), (row, 2), Task.SEQUENTIAL)
    for row in range(11)
]


def engines(mode: ScoreMode, strategy: Strategy, device: str = "cpu") -> tuple[TorchEngine, TorchEngine]:
    encoder, trie = world.encoder(LABELS), ItemTrie.build(world.ragged(LABELS))
    free, fixed = (
        TorchEngine(
            world.model(2, starts_from_source=True).to(device), encoder, trie,
            score_mode=mode, strategy=strategy, max_batch=4, fixed_shapes=fixed,
        )
        for fixed in (False, True)
    )  # fmt: skip
    return free, fixed


def assert_answers_alike(free: TorchEngine, fixed: TorchEngine) -> None:
    for mine, theirs in zip(fixed.recommend(REQUESTS), free.recommend(REQUESTS), strict=True):
        assert mine.item_indices.tolist() == theirs.item_indices.tolist()
        np.testing.assert_allclose(mine.log_probs, theirs.log_probs, atol=1e-5)
        np.testing.assert_allclose(mine.also_log_probs, theirs.also_log_probs, atol=1e-5)
    for mine, theirs in zip(fixed.score(SCORES), free.score(SCORES), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


def assert_answers_alike_without_some_items(free: TorchEngine, fixed: TorchEngine) -> None:
    available = np.ones(len(LABELS), dtype=bool)
    available[::3] = False
    for engine in (free, fixed):
        engine.set_available(available)
    assert_answers_alike(free, fixed)


@pytest.mark.parametrize("mode", [ScoreMode.FULL, ScoreMode.TRIE])
@pytest.mark.parametrize("strategy", list(Strategy))
def test_fixed_shapes_change_no_answer(mode: ScoreMode, strategy: Strategy) -> None:
    free, fixed = engines(mode, strategy)
    assert_answers_alike(free, fixed)
    assert_answers_alike_without_some_items(free, fixed)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mode", [ScoreMode.FULL, ScoreMode.TRIE])
@pytest.mark.parametrize("strategy", list(Strategy))
def test_recorded_searches_give_what_unrecorded_ones_give(mode: ScoreMode, strategy: Strategy) -> None:
    free, fixed = engines(mode, strategy, "cuda")
    for _ in range(2):  # recorded, then replayed
        assert_answers_alike(free, fixed)
    assert_answers_alike_without_some_items(free, fixed)


def test_few_shapes_occur() -> None:
    _, fixed = engines(ScoreMode.TRIE, Strategy.BEAM)
    seen = set()
    inner = fixed._beam_search

    def watched(memory: object, eligibility: object, n_items: torch.Tensor, width: int) -> object:
        seen.add((len(n_items), memory[1].shape[1], eligibility.state.shape[1], width))
        return inner(memory, eligibility, n_items, width)

    fixed._beam_search = watched
    for n in range(1, 12):
        fixed.recommend(REQUESTS[:n])
    assert {shape[0] for shape in seen} <= {1, 2, 4}
    prompts = fixed._model.config.prompt_length
    assert {(source - prompts) % 16 for _, source, _, _ in seen} == {0}
    assert {closed % 16 for _, _, closed, _ in seen} == {0}


def test_a_graph_a_shape_and_the_longest_unused_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Recorded:
        def __init__(self, function: object, tensors: list[torch.Tensor], sizes: tuple[int, ...]) -> None:
            made.append((tuple(tensors[0].shape), sizes))
            self.result = function(tensors, *sizes)

        def __call__(self, tensors: list[torch.Tensor]) -> object:
            return self.result

    monkeypatch.setattr(cuda_graphs, "_Recorded", Recorded)
    monkeypatch.setattr(cuda_graphs, "_MOST_GRAPHS", 2)
    run = GraphCache(records=True)

    def total(tensors: list[torch.Tensor], size: int) -> tuple[torch.Tensor]:
        return (tensors[0].sum() + size,)

    def call(n: int, size: int) -> float:
        return run(total, [torch.ones(n)], size)[0].item()

    assert [call(3, 1), call(3, 1), call(3, 2), call(3, 1)] == [4, 4, 5, 4]
    assert made == [((3,), (1,)), ((3,), (2,))]
    call(5, 1)  # (3, 2) was used longest ago
    call(3, 1)
    assert len(made) == 3
    call(3, 2)
    assert len(made) == 4
