"""Texts of the torch and the ONNX road against Hugging Face's greedy and beam search, and against each other."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import ModelProto, TensorProto
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import T5Config as HFConfig
from transformers import T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from rdrec_core.decoding.text_requests import text_rows
from rdrec_core.decoding.text_search import GREEDY, PAPER_SEARCH, TextDecoder, TextSearch, search_text
from rdrec_core.eager.torch_text import TorchTextDecoder, TorchTextGenerator
from rdrec_core.encoding import SourceBatch, SourceEncoder, encode_item_words
from rdrec_core.errors import BundleError, ExportCheckError, InputError
from rdrec_core.exported import text_export
from rdrec_core.exported.onnx_text import STEP_GRAPH_INT8, OnnxTextDecoder, OnnxTextGenerator, OnnxTextGraphs
from rdrec_core.exported.text_export import compare_with_torch, export_text_graphs
from rdrec_core.model import ModelConfig, RDRecModel
from rdrec_core.t5 import T5Config, from_hugging_face
from rdrec_core.types import Task, TextRequest

VOCABULARY = 60
SHAPE = {
    "vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 48,
    "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4,
}  # fmt: skip
EVERYTHING = np.arange(VOCABULARY)


def pair(gated: bool, seed: int = 3) -> tuple[T5ForConditionalGeneration, RDRecModel]:
    torch.manual_seed(seed)
    hf = T5ForConditionalGeneration(
        HFConfig(
            **SHAPE,
            feed_forward_proj="gated-gelu" if gated else "relu",
            tie_word_embeddings=not gated,
            decoder_start_token_id=0,
        )
    ).eval()
    with torch.no_grad():  # random T5s repeat one token for ever: make the state depend on the past, and EOS likely
        for name, parameter in hf.named_parameters():
            if name.startswith("decoder.block") and parameter.dim() == 2:
                parameter *= 3
        hf.shared.weight *= 0.1
        hf.lm_head.weight[1] *= 2.5 if gated else 6.0
    ours = RDRecModel(ModelConfig(t5=T5Config(**SHAPE, is_gated_act=gated, tie_word_embeddings=not gated)))
    ours.initialise(torch.Generator().manual_seed(1))
    state = from_hugging_face(hf.state_dict())
    if not gated:
        state.pop("lm_head.weight", None)
    ours.t5.load_state_dict(state)
    return hf, ours.eval()


def sources(seed: int = 0, lengths: tuple[int, ...] = (9, 2, 6, 4)) -> SourceBatch:
    rng = np.random.default_rng(seed)
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    return SourceBatch(
        rng.integers(2, VOCABULARY, mask.shape) * mask,
        rng.integers(0, 3, mask.shape) * mask,
        mask,
        rng.choice([Task.EXPLANATION, Task.USER_PREFERENCE, Task.ITEM_ATTRIBUTES], len(lengths)).astype(np.int64),
    )


def torch_decoder(model: RDRecModel, batch: SourceBatch, rows: np.ndarray = EVERYTHING) -> TextDecoder:
    tensor = torch.from_numpy(rows)
    with torch.inference_mode():
        return TorchTextDecoder(model, batch, tensor, model.t5.output_rows(tensor))


def hugging_face(hf: T5ForConditionalGeneration, ours: RDRecModel, batch: SourceBatch, **options: object):  # type: ignore[no-untyped-def]
    with torch.inference_mode():
        tensors = (torch.from_numpy(x) for x in (batch.token_ids, batch.whole_word_ids, batch.mask, batch.tasks))
        encoded, mask = ours.encode(*tensors)
    return hf.generate(
        encoder_outputs=BaseModelOutput(encoded), attention_mask=mask.long(),
        do_sample=False, return_dict_in_generate=True, output_scores=True, **options,
    )  # fmt: skip


def read(sequence: torch.Tensor) -> tuple[int, ...]:
    """Tokens after the start, up to EOS; Hugging Face pads behind EOS."""
    tokens = sequence.tolist()[1:]
    return tuple(tokens[: tokens.index(1)] if 1 in tokens else tokens)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_plain_beam_search_equals_hugging_face(gated: bool, early_stopping: bool, seed: int) -> None:
    hf, ours = pair(gated, seed)
    batch = sources(seed)
    expected = hugging_face(
        hf, ours, batch, num_beams=6, num_return_sequences=6, max_new_tokens=9, early_stopping=early_stopping,
    )  # fmt: skip
    search = TextSearch(beam_width=6, groups=1, max_tokens=9, early_stopping=early_stopping)
    found = search_text(torch_decoder(ours, batch), 4, search)
    for request in range(4):
        rows = slice(6 * request, 6 * request + 6)
        assert [h.tokens for h in found[request]] == [read(s) for s in expected.sequences[rows]]
        assert [h.score for h in found[request]] == pytest.approx(expected.sequences_scores[rows].tolist(), abs=1e-4)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("no_repeat", [0, 1, 3])
def test_greedy_search_equals_hugging_face(gated: bool, no_repeat: int) -> None:
    hf, ours = pair(gated)
    batch = sources(7)
    expected = hugging_face(hf, ours, batch, num_beams=1, max_new_tokens=20, no_repeat_ngram_size=no_repeat)
    found = search_text(torch_decoder(ours, batch), 4, replace(GREEDY, no_repeat=no_repeat))
    assert [h[0].tokens for h in found] == [read(s) for s in expected.sequences]
    assert len({len(h[0].tokens) for h in found}) > 1, "all texts have the same length: EOS is never tried"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    words = ["<pad>", "</s>", "<unk>", "▁user_", "▁item_", *"0123456789"]
    words += [f"▁w{i}" for i in range(VOCABULARY - len(words) - 4)]
    tokenizer = Tokenizer(models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([AddedToken(w, special=True) for w in words[:3]])
    return tokenizer


@pytest.fixture(scope="module")
def encoder(tokenizer: Tokenizer) -> SourceEncoder:
    return SourceEncoder(tokenizer, encode_item_words(tokenizer, map(str, range(1, 13))))


REQUESTS = [
    TextRequest(Task.EXPLANATION, 3, 11),
    TextRequest(Task.USER_PREFERENCE, 123456),
    TextRequest(Task.ITEM_ATTRIBUTES, item_index=4, fast=True),
    TextRequest(Task.ITEM_ATTRIBUTES, item_index=4),
    TextRequest(Task.EXPLANATION, 0, 0, fast=True),
]


def rows_of(tokenizer: Tokenizer) -> np.ndarray:
    return text_rows(tokenizer, VOCABULARY, seen=range(0, VOCABULARY, 2))


@pytest.mark.parametrize("gated", [False, True])
def test_onnx_writes_what_torch_writes_and_batch_mates_change_nothing(
    gated: bool, tmp_path: Path, tokenizer: Tokenizer, encoder: SourceEncoder
) -> None:
    _, model = pair(gated)
    rows = rows_of(tokenizer)
    export_text_graphs(model, tmp_path, rows, int8=True)
    roads = [TorchTextGenerator(model, encoder, tokenizer, rows=rows), OnnxTextGenerator(tmp_path, encoder, tokenizer)]
    texts = [road.generate(REQUESTS) for road in roads]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 2
    quantized = OnnxTextGenerator(tmp_path, encoder, tokenizer, int8=True)
    for road, together in zip([*roads, quantized], [*texts, quantized.generate(REQUESTS)], strict=True):
        assert [road.generate([request])[0] for request in REQUESTS] == together
    assert roads[1].generate([]) == []


def test_every_hypothesis_and_score_is_the_same_on_both_roads(tmp_path: Path, tokenizer: Tokenizer) -> None:
    _, model = pair(False)
    rows = rows_of(tokenizer)
    export_text_graphs(model, tmp_path, rows)
    batch = sources(11)
    by_torch = search_text(torch_decoder(model, batch, rows), 4, PAPER_SEARCH)
    by_onnx = search_text(
        OnnxTextDecoder(OnnxTextGraphs(tmp_path), batch), 4, PAPER_SEARCH,
        start_token_id=len(rows), eos_token_id=int(np.flatnonzero(rows == 1)[0]),
    )  # fmt: skip
    for ours, theirs in zip(by_torch, by_onnx, strict=True):
        assert [h.tokens for h in ours] == [tuple(rows[list(h.tokens)]) for h in theirs]
        assert [h.score for h in ours] == pytest.approx([h.score for h in theirs], abs=1e-4)


def test_int8_rows_do_not_depend_on_their_batch_mates(tmp_path: Path) -> None:
    _, model = pair(False)
    export_text_graphs(model, tmp_path, EVERYTHING, int8=True)
    graphs = OnnxTextGraphs(tmp_path, int8=True)
    batch = sources(2)
    start = np.full((4, 1), len(EVERYTHING))
    together, _ = OnnxTextDecoder(graphs, batch).step(start, np.zeros((4, 1), dtype=np.int64), 20)
    for row in range(4):
        alone = SourceBatch(
            *(getattr(batch, f)[row : row + 1] for f in ("token_ids", "whole_word_ids", "mask", "tasks"))
        )
        one, _ = OnnxTextDecoder(graphs, alone).step(start[:1], np.zeros((1, 1), dtype=np.int64), 20)
        assert np.abs(one[0] - together[row]).max() < 1e-4
    assert compare_with_torch(model, tmp_path, EVERYTHING, int8=True).relative > 1e-6, "this graph is not quantized"


def test_the_text_vocabulary_leaves_out_what_is_no_text(tokenizer: Tokenizer) -> None:
    everything = text_rows(tokenizer, VOCABULARY)
    assert everything.tolist() == [1, *range(3, VOCABULARY - 4)]
    assert text_rows(tokenizer, VOCABULARY, seen=[0, 2, 7, 9, VOCABULARY - 1]).tolist() == [1, 7, 9]
    with pytest.raises(InputError, match="empty"):
        text_rows(tokenizer, VOCABULARY, seen=[0, 2])


def test_only_tokens_of_the_text_vocabulary_are_written(tokenizer: Tokenizer, encoder: SourceEncoder) -> None:
    _, model = pair(False)
    few = text_rows(tokenizer, VOCABULARY, seen=[20, 21, 22])
    allowed = {tokenizer.id_to_token(i)[1:] for i in few if i != 1}
    for text in TorchTextGenerator(model, encoder, tokenizer, rows=few).generate(REQUESTS):
        assert set(text.split()) <= allowed


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (TextRequest(Task.EXPLANATION, 1), "item_index"),
        (TextRequest(Task.EXPLANATION, item_index=1), "user_index"),
        (TextRequest(Task.USER_PREFERENCE, item_index=1), "user_index"),
        (TextRequest(Task.ITEM_ATTRIBUTES, item_index=12), "item_index"),
        (TextRequest(Task.ITEM_ATTRIBUTES, item_index=-1), "item_index"),
        (TextRequest(Task.SEQUENTIAL, 1, 1), "task"),
    ],
)
def test_a_wrong_request_is_named(
    request_: TextRequest, field: str, tokenizer: Tokenizer, encoder: SourceEncoder
) -> None:
    _, model = pair(False)
    with pytest.raises(InputError) as error:
        TorchTextGenerator(model, encoder, tokenizer).generate([REQUESTS[0], request_])
    assert error.value.field == field


@pytest.mark.parametrize("int8", [False, True])
def test_an_export_whose_check_fails_writes_nothing(
    int8: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, model = pair(False)
    good = text_export.step_graph

    def spoiled(model: RDRecModel, rows: np.ndarray, **options: bool) -> ModelProto:
        graph = good(model, rows, **options)
        if options.get("int8", False) is int8:
            kind = TensorProto.INT8 if int8 else TensorProto.FLOAT
            output_layer = [weight for weight in graph.graph.initializer if weight.data_type == kind and weight.dims][
                -1
            ]
            output_layer.raw_data = bytes(len(output_layer.raw_data))
        return graph

    monkeypatch.setattr(text_export, "step_graph", spoiled)
    folder = tmp_path / "onnx"
    with pytest.raises(ExportCheckError, match="differs from the torch model"):
        export_text_graphs(model, folder, EVERYTHING, int8=True)
    assert list(folder.iterdir()) == []


def test_a_missing_graph_is_named(tmp_path: Path, tokenizer: Tokenizer, encoder: SourceEncoder) -> None:
    with pytest.raises(BundleError, match=r"text_rows\.npy"):
        OnnxTextGenerator(tmp_path, encoder, tokenizer)
    _, model = pair(False)
    export_text_graphs(model, tmp_path, EVERYTHING)
    with pytest.raises(BundleError, match=STEP_GRAPH_INT8):
        OnnxTextGenerator(tmp_path, encoder, tokenizer, int8=True)
