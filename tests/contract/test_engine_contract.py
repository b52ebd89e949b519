"""What `Engine` promises, held against every implementation: torch, the exported graphs, and the services' fake."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rdrec_core.decoding.item_trie import ItemTrie
from rdrec_core.decoding.text_requests import text_rows
from rdrec_core.eager.torch_text import TorchTextGenerator
from rdrec_core.engines.base import Engine
from rdrec_core.engines.hardware import Device, Hardware
from rdrec_core.engines.onnx_engine import OnnxEngine
from rdrec_core.engines.torch_engine import TorchEngine
from rdrec_core.errors import InputError
from rdrec_core.exported.onnx_text import OnnxTextGenerator
from rdrec_core.exported.search_export import export_search_graphs
from rdrec_core.exported.text_export import export_text_graphs
from rdrec_core.types import ItemMask, RankRequest, ScoreMode, ScoreRequest, Strategy, Task, TextRequest
from tests import ranking_world as world
from tests.fake_service import N_ITEMS, FakeEngine

BATCH_MATES = 1e-4
LABELS = world.random_labels(np.random.default_rng(7), N_ITEMS, longest=4)
IMPLEMENTATIONS = [
    "fake",
    *(f"torch {mode} {strategy}" for mode in ("full", "trie") for strategy in Strategy),
    *(f"torch-fixed {mode} {strategy}" for mode in ("full", "trie") for strategy in Strategy),
    *(f"onnx {mode} {strategy}" for mode in ScoreMode for strategy in Strategy),
]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    model, encoder = world.model(3), world.encoder(LABELS)
    trie = ItemTrie.build(world.ragged(LABELS))
    export_search_graphs(model, encoder, trie, folder, score_modes=list(ScoreMode))
    export_text_graphs(model, folder, text_rows(world.tokenizer(), world.VOCABULARY))
    return folder


@pytest.fixture(scope="module", params=IMPLEMENTATIONS)
def engine(request: pytest.FixtureRequest, graphs: Path) -> Engine:
    name, *options = request.param.split(" ")
    if name == "fake":
        return FakeEngine()
    mode, strategy = ScoreMode(options[0]), Strategy(options[1])
    encoder, trie, tokenizer = world.encoder(LABELS), ItemTrie.build(world.ragged(LABELS)), world.tokenizer()
    if name.startswith("torch"):
        model = world.model(3).to("cuda" if torch.cuda.is_available() else "cpu")
        writer = TorchTextGenerator(model, encoder, tokenizer)
        fixed = name == "torch-fixed"
        return TorchEngine(model, encoder, trie, score_mode=mode, strategy=strategy, text=writer, fixed_shapes=fixed)
    text = OnnxTextGenerator(graphs, encoder, tokenizer)
    return OnnxEngine(graphs, encoder, trie, score_mode=mode, strategy=strategy, text=text, threads=1)


THIRD = ItemMask(np.arange(N_ITEMS) % 3 == 0)
REQUESTS = [
    RankRequest(user_index=3, history=(1, 2, 3)),
    RankRequest(user_index=None, history=tuple(range(30)), n_items=5, exclude=tuple(range(30)), beam_width=7),
    RankRequest(user_index=0, history=(), n_items=N_ITEMS, beam_width=1),
    RankRequest(user_index=5, history=(9,), n_items=10, include=(4, 5, 6, 7), exclude=(6, 39)),
    RankRequest(user_index=5, history=(9, 9), n_items=3, exclude=tuple(range(N_ITEMS - 2))),
    RankRequest(user_index=1, history=(8,), include=()),
    RankRequest(user_index=1, history=(8,), exclude=tuple(range(N_ITEMS))),
    RankRequest(user_index=4, history=(0, 7, 7, 2), n_items=2, exclude=(5, 5, 5)),
    RankRequest(user_index=4, history=(0, 7), n_items=7, exclude=(2, 3), among=THIRD),
    RankRequest(user_index=4, history=(0, 7), n_items=7, include=tuple(range(20)), exclude=(3,), among=THIRD),
    RankRequest(user_index=4, history=(0, 7), among=ItemMask(np.zeros(N_ITEMS, dtype=bool))),
]


def eligible(request: RankRequest) -> set[int]:
    among = set(range(N_ITEMS)) if request.among is None else set(np.flatnonzero(request.among.items).tolist())
    return (among if request.include is None else set(request.include) & among) - set(request.exclude)


def test_as_many_items_as_asked_for_whenever_so_many_are_eligible(engine: Engine) -> None:
    for request, answer in zip(REQUESTS, engine.recommend(REQUESTS), strict=True):
        items = answer.item_indices.tolist()
        assert len(items) == min(request.n_items, len(eligible(request)))
        assert len(items) == len(set(items))
        assert set(items) <= eligible(request)
        assert answer.item_indices.dtype == np.int64
        assert answer.log_probs.dtype == np.float32
        assert (np.diff(answer.log_probs) <= 0).all()
        assert np.isfinite(answer.log_probs).all()


def test_recommend_and_score_speak_of_one_distribution(engine: Engine) -> None:
    asked = [r for r in REQUESTS if eligible(r)]
    answers = engine.recommend(asked)
    scores = engine.score(
        [
            ScoreRequest(r.user_index, tuple(a.item_indices.tolist()), r.history, Task.SEQUENTIAL)
            for r, a in zip(asked, answers, strict=True)
        ]
    )
    for answer, found in zip(answers, scores, strict=True):
        np.testing.assert_allclose(found, answer.log_probs, atol=1e-4 if "int8" not in engine.score_mode else 5e-3)


def test_items_beside_the_list_are_scored_wherever_they_rank(engine: Engine) -> None:
    besides = [
        (5, 6, 0),
        (),
        tuple(range(N_ITEMS)),
        (39, 4),
        (1,),
        (2, 3),
        (),
        (5,),
        (1, 3),
        (9,),
        (),
    ]  # excluded ones too
    asked = [replace(request, also=also) for request, also in zip(REQUESTS, besides, strict=True)]
    answers = engine.recommend(asked)
    for request, plain, answer in zip(asked, engine.recommend(REQUESTS), answers, strict=True):
        assert answer.item_indices.tolist() == plain.item_indices.tolist()
        assert answer.also_log_probs.dtype == np.float32
        assert answer.also_log_probs.shape == (len(request.also),)
        if request.also:
            (scores,) = engine.score([ScoreRequest(request.user_index, request.also, request.history, Task.SEQUENTIAL)])
            np.testing.assert_allclose(
                answer.also_log_probs, scores, atol=1e-4 if "int8" not in engine.score_mode else 5e-3
            )


def test_batch_mates_change_nothing(engine: Engine) -> None:
    together = engine.recommend(REQUESTS)
    for request, shared in zip(REQUESTS, together, strict=True):
        (alone,) = engine.recommend([request])
        assert alone.item_indices.tolist() == shared.item_indices.tolist()
        np.testing.assert_allclose(alone.log_probs, shared.log_probs, atol=BATCH_MATES)
    candidates = [(3, 1), tuple(range(N_ITEMS)), (5,), tuple(range(N_ITEMS - 1, 10, -1))]
    wanted = [
        ScoreRequest(row or None, items, (1, 2) if task is Task.SEQUENTIAL else (), task)
        for task in (Task.TOPN, Task.SEQUENTIAL)
        for row, items in enumerate(candidates)
    ]
    for one, shared_scores in zip(wanted, engine.score(wanted), strict=True):
        (scores,) = engine.score([one])
        assert scores.shape == (len(one.candidates),)
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, shared_scores, atol=BATCH_MATES)


def test_scores_follow_the_order_of_the_candidates(engine: Engine) -> None:
    forth = ScoreRequest(2, (4, 9, 30, 11), (1,), Task.SEQUENTIAL)
    back = replace(forth, candidates=forth.candidates[::-1])
    one, other = engine.score([forth, back])
    np.testing.assert_allclose(one, other[::-1], atol=BATCH_MATES)
    assert len(set(np.round(one, 3))) == len(one)


def test_one_text_a_request_in_order(engine: Engine) -> None:
    requests = [
        TextRequest(Task.EXPLANATION, 1, 2, fast=True),
        TextRequest(Task.USER_PREFERENCE, 3),
        TextRequest(Task.ITEM_ATTRIBUTES, None, 7, fast=True),
    ]
    texts = engine.generate_text(requests)
    assert [text.strip() for text in texts] == texts
    assert [engine.generate_text([request])[0] for request in requests] == texts


def test_nothing_asked_nothing_answered(engine: Engine) -> None:
    assert engine.recommend([]) == []
    assert engine.score([]) == []
    assert engine.generate_text([]) == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"history": (N_ITEMS,)}, "history"),
        ({"exclude": (-1,)}, "exclude"),
        ({"include": (2, N_ITEMS + 5)}, "include"),
        ({"also": (N_ITEMS,)}, "also"),
        ({"n_items": 0}, "n_items"),
        ({"beam_width": 0}, "beam_width"),
        ({"user_index": -2}, "user_index"),
        ({"among": ItemMask(np.ones(N_ITEMS - 1, dtype=bool))}, "among"),
    ],
)
def test_a_wrong_index_is_an_input_error(engine: Engine, change: dict[str, object], field: str) -> None:
    if isinstance(engine, FakeEngine):
        pytest.skip("the fake trusts its caller")
    with pytest.raises(InputError) as caught:
        engine.recommend([REQUESTS[0], replace(REQUESTS[0], **change)])
    assert caught.value.field == field


@pytest.mark.parametrize("candidates", [(), (1, 2, 1), (N_ITEMS,)])
def test_wrong_candidates_are_an_input_error(engine: Engine, candidates: tuple[int, ...]) -> None:
    if isinstance(engine, FakeEngine):
        pytest.skip("the fake trusts its caller")
    with pytest.raises(InputError) as caught:
        engine.score([ScoreRequest(1, candidates)])
    assert caught.value.field == "candidates"


def test_engines_that_share_weights_map_one_copy_and_change_no_number(graphs: Path, tmp_path: Path) -> None:
    encoder, trie = world.encoder(LABELS), ItemTrie.build(world.ragged(LABELS))
    hardware = Hardware(Device.CPU, threads=1, shared_weights=tmp_path / "shared")
    first, alone = OnnxEngine(graphs, encoder, trie, hardware=hardware), OnnxEngine(graphs, encoder, trie, threads=1)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "shared").glob("*/*")}
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    mapped = {Path(line.split()[-1]).name for line in lines}
    assert mapped == {"trie.beam.onnx.weights", "trie.score.onnx.weights", "rows.npy"}
    second = OnnxEngine(graphs, encoder, trie, hardware=hardware)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "shared").glob("*/*")} == written
    shutil.rmtree(tmp_path / "shared")  # as after a swap: who has it mapped goes on
    for engine in (first, second):
        for answer, expected in zip(engine.recommend(REQUESTS), alone.recommend(REQUESTS), strict=True):
            assert answer.item_indices.tolist() == expected.item_indices.tolist()
            np.testing.assert_array_equal(answer.log_probs, expected.log_probs)
