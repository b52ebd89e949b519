"""What is written, what is refused, and what changes without a new graph."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from rdrec_core.decoding.item_trie import ItemTrie
from rdrec_core.engines.onnx_engine import SATURATION_FILE, SATURATION_WIDTH, TABLE_FILE, OnnxEngine
from rdrec_core.engines.torch_engine import TorchEngine
from rdrec_core.errors import BundleError, EngineError, ExportCheckError, InputError
from rdrec_core.exported import search_export
from rdrec_core.exported.search_export import WEIGHTS_FILE, export_search_graphs, teacher_forced
from rdrec_core.exported.search_graphs import GRAPHS
from rdrec_core.types import RankRequest, ScoreMode, ScoreRequest, Strategy, Task
from tests import ranking_world as world

LABELS = world.random_labels(np.random.default_rng(2), 50, longest=3)
REQUEST = RankRequest(4, (1, 2, 3), n_items=10)


@pytest.fixture
def trie() -> ItemTrie:
    return ItemTrie.build(world.ragged(LABELS))


def export(folder: Path, trie: ItemTrie, *modes: ScoreMode) -> search_export.SearchExport:
    return export_search_graphs(world.model(0), world.encoder(LABELS), trie, folder, score_modes=modes)


def engine(folder: Path, trie: ItemTrie, **options: object) -> OnnxEngine:
    return OnnxEngine(folder, world.encoder(LABELS), trie, threads=1, **options)


@pytest.mark.parametrize("kind", sorted(GRAPHS))
@pytest.mark.parametrize("mode", [ScoreMode.FULL, ScoreMode.TRIE, ScoreMode.TRIE_INT8])
def test_a_graph_of_other_weights_is_not_written(
    tmp_path: Path, trie: ItemTrie, monkeypatch: pytest.MonkeyPatch, kind: str, mode: ScoreMode
) -> None:
    if mode is ScoreMode.TRIE_INT8 and kind != "score":
        pytest.skip("in 8 bits the candidates' scores are compared, and the contract suite ties the searches to them")
    other = world.model(99)
    right = GRAPHS[kind]
    monkeypatch.setitem(GRAPHS, kind, lambda model, states, mode: right(other, states, mode))
    with pytest.raises(ExportCheckError, match=f"{mode}.{kind}.*nothing was written"):
        export(tmp_path, trie, mode)
    assert list(tmp_path.iterdir()) == []


def test_8_bits_are_refused_where_sums_are_lost(tmp_path: Path, trie: ItemTrie) -> None:
    export(tmp_path, trie, ScoreMode.TRIE, ScoreMode.TRIE_INT8)
    engine(tmp_path, trie, score_mode=ScoreMode.TRIE_INT8)  # this processor adds in 32 bits
    # what a processor without VNNI computes: pairs of products are added in 16 bits, with saturation
    graph = onnx.load(tmp_path / SATURATION_FILE)
    lossy = numpy_helper.from_array(np.full((SATURATION_WIDTH, 64), 32767 // 255 // 2, dtype=np.int8), "lossy")
    lossy.name = graph.graph.initializer[0].name
    graph.graph.initializer[0].CopyFrom(lossy)
    onnx.save(graph, tmp_path / SATURATION_FILE)
    with pytest.raises(EngineError, match=r"VNNI.*score mode trie"):
        engine(tmp_path, trie, score_mode=ScoreMode.TRIE_INT8)
    engine(tmp_path, trie, score_mode=ScoreMode.TRIE)


def test_the_files_and_the_measured_choice(tmp_path: Path, trie: ItemTrie) -> None:
    report = export(tmp_path, trie, *ScoreMode)
    assert {path.name for path in tmp_path.iterdir()} == {
        WEIGHTS_FILE, SATURATION_FILE, TABLE_FILE, *(f"{mode}.{kind}.onnx" for mode in ScoreMode for kind in GRAPHS),
    }  # fmt: skip
    beam, exact = (report.seconds_per_request[f"full.{strategy}"] for strategy in Strategy)
    chosen = Strategy.EXACT if exact <= search_export.EXACT_IS_WORTH * beam else Strategy.BEAM
    assert report.strategy is chosen
    assert report.largest_difference[ScoreMode.FULL] < 1e-5


@pytest.mark.parametrize(
    "changes",
    [
        {"causal_encoder": True},
        {"starts_from_source": True},
        {"causal_encoder": True, "starts_from_source": True},
        {"is_gated_act": True, "tie_word_embeddings": False},
        {"d_kv": 8, "num_heads": 3, "num_decoder_layers": 1},
    ],
)
def test_every_shape_of_model(tmp_path: Path, trie: ItemTrie, changes: dict[str, object]) -> None:
    """The check inside export compares each graph with torch and with teacher forcing."""
    model = world.model(4, **changes)
    report = export_search_graphs(model, world.encoder(LABELS), trie, tmp_path, score_modes=list(ScoreMode))
    assert report.largest_difference[ScoreMode.FULL] < 1e-4
    assert report.largest_difference[ScoreMode.TRIE] < 1e-4


def test_bfloat16_ranks_almost_alike(trie: ItemTrie) -> None:
    encoder = world.encoder(LABELS)
    everything = tuple(range(len(LABELS)))
    asked = [ScoreRequest(4, everything, (1, 2, 3), Task.SEQUENTIAL)]
    (exact,) = TorchEngine(world.model(0), encoder, trie).score(asked)
    half = TorchEngine(world.model(0).to(torch.bfloat16), encoder, trie)
    (rounded,) = half.score(asked)
    assert np.abs(exact - rounded).mean() < 0.1 * exact.std()
    (answer,) = half.recommend([REQUEST])
    assert len(answer.item_indices) == REQUEST.n_items


@pytest.mark.parametrize("starts_from_source", [False, True])
def test_teacher_forcing_is_the_definition(trie: ItemTrie, starts_from_source: bool) -> None:
    model, encoder = world.model(0, starts_from_source=starts_from_source), world.encoder(LABELS)
    for mode in (ScoreMode.FULL, ScoreMode.TRIE):
        expected = world.exact_scores(model, encoder, LABELS, REQUEST, mode)
        found = teacher_forced(model, encoder, trie, REQUEST, range(len(LABELS)), mode)
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("strategy", list(Strategy))
def test_an_item_goes_and_comes_back(tmp_path: Path, trie: ItemTrie, strategy: Strategy) -> None:
    export(tmp_path, trie, ScoreMode.TRIE)
    ranking = engine(tmp_path, trie, strategy=strategy)
    (before,) = ranking.recommend([REQUEST])
    first = before.item_indices[0]
    available = np.ones(len(LABELS), dtype=bool)
    available[first] = False
    ranking.set_available(available)
    (without,) = ranking.recommend([REQUEST])
    assert without.item_indices.tolist()[:9] == before.item_indices.tolist()[1:]
    np.testing.assert_allclose(without.log_probs[:9], before.log_probs[1:], atol=1e-5)
    ranking.set_available(np.ones(len(LABELS), dtype=bool))
    assert ranking.recommend([REQUEST])[0].item_indices.tolist() == before.item_indices.tolist()
    with pytest.raises(InputError, match="49 items"):
        ranking.set_available(available[1:])


def test_a_trie_that_the_graph_cannot_take_changes_nothing(tmp_path: Path, trie: ItemTrie) -> None:
    export(tmp_path, trie, ScoreMode.TRIE)
    ranking = engine(tmp_path, trie)
    (before,) = ranking.recommend([REQUEST])
    deep = [tuple([10] * depth + [11]) for depth in range(12)]
    with pytest.raises(InputError, match="export again"):
        ranking.set_catalogue(ItemTrie.build(world.ragged(deep)), world.item_words(deep))
    assert ranking.recommend([REQUEST])[0].item_indices.tolist() == before.item_indices.tolist()


def test_a_mode_that_was_not_exported_names_the_file(tmp_path: Path, trie: ItemTrie) -> None:
    export(tmp_path, trie, ScoreMode.TRIE)
    with pytest.raises(BundleError, match=r"full\.beam\.onnx is missing"):
        engine(tmp_path, trie, score_mode=ScoreMode.FULL)
