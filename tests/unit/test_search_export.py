"""What is written, what is refused, and what changes without a new graph."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper

from rdrec_core.decoding.item_trie import ItemTrie
from rdrec_core.engines.hardware import Hardware, Precision
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


def engine(folder: Path, trie: ItemTrie, precision: Precision = Precision.AUTO, **options: object) -> OnnxEngine:
    hardware = Hardware(threads=1, precision=precision)
    return OnnxEngine(folder, world.encoder(LABELS), trie, hardware=hardware, **options)


@pytest.mark.parametrize("kind", sorted(GRAPHS))
@pytest.mark.parametrize("mode", [ScoreMode.FULL, ScoreMode.TRIE, ScoreMode.TRIE_INT8])
def test_a_graph_of_other_weights_is_not_written(
    tmp_path: Path, trie: ItemTrie, monkeypatch: pytest.MonkeyPatch, kind: str, mode: ScoreMode
) -> None:
    if mode is ScoreMode.TRIE_INT8 and kind != "score":
        pytest.skip("in 8 bits the candidates' scores are compared, and the contract suite ties the searches to them")
    other = world.model(99)
    right = GRAPHS[kind]
    monkeypatch.setitem(GRAPHS, kind, lambda model, states, mode, half: right(other, states, mode, half=half))
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


def test_float16_is_written_close_to_float32(tmp_path: Path, trie: ItemTrie) -> None:
    changes = {"causal_encoder": True, "is_gated_act": True, "tie_word_embeddings": False}
    model, modes = world.model(4, starts_from_source=True, **changes), [ScoreMode.FULL, ScoreMode.TRIE]
    report = export_search_graphs(model, world.encoder(LABELS), trie, tmp_path, score_modes=modes, float16=True)
    assert 0 < report.largest_difference["trie.float16"] < search_export.HALF_TOLERANCE
    graph = onnx.load(tmp_path / "trie.beam.float16.onnx", load_external_data=False)
    kinds = {tensor.data_type for tensor in graph.graph.initializer if len(tensor.dims) == 2 and min(tensor.dims) > 1}
    assert kinds == {onnx.TensorProto.FLOAT16}
    everything = [ScoreRequest(4, tuple(range(len(LABELS))), (1, 2, 3), Task.SEQUENTIAL)]
    for mode in modes:
        (exact,) = engine(tmp_path, trie, score_mode=mode).score(everything)
        for strategy in Strategy:
            half = engine(tmp_path, trie, score_mode=mode, strategy=strategy, precision=Precision.FLOAT16)
            assert half.device == "cpu float16"
            (rounded,) = half.score(everything)
            assert 0 < np.abs(exact - rounded).max() < 0.05 * exact.std()
            (answer,) = half.recommend([REQUEST])
            assert len(answer.item_indices) == REQUEST.n_items
            np.testing.assert_allclose(answer.log_probs, rounded[answer.item_indices], atol=0.02)


def test_float16_that_overflows_is_not_written(tmp_path: Path, trie: ItemTrie) -> None:
    model = world.model(0)
    with torch.no_grad():
        model.t5.encoder[0].ff.wi.weight.mul_(1e4)
        model.t5.encoder[0].ff.wo.weight.mul_(1e4)
    with pytest.raises(ExportCheckError, match=r"trie\.score\.float16.*nothing was written"):
        export_search_graphs(model, world.encoder(LABELS), trie, tmp_path, score_modes=[ScoreMode.TRIE], float16=True)
    assert list(tmp_path.iterdir()) == []


def test_float16_is_for_gpus_and_a_demand_names_what_is_missing(
    tmp_path: Path, trie: ItemTrie, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in ("trie.beam.float16.onnx", "trie.score.float16.onnx"):
        (tmp_path / file).touch()
    with pytest.raises(BundleError, match=r"trie\.beam\.onnx is missing"):  # a processor takes the other one
        engine(tmp_path, trie)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    with pytest.raises(BundleError, match=r"trie\.beam\.onnx is missing"):
        engine(tmp_path, trie, precision=Precision.FLOAT32)
    (tmp_path / "trie.beam.float16.onnx").write_bytes(b"no graph")
    with pytest.raises(Exception, match=r"trie\.beam\.float16\.onnx"):
        engine(tmp_path, trie)
    (tmp_path / "trie.beam.float16.onnx").unlink()
    with pytest.raises(BundleError, match=r"trie\.beam\.float16\.onnx is missing.*--float16"):
        engine(tmp_path, trie, precision=Precision.FLOAT16)


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
