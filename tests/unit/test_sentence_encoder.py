"""Sentence encoders against transformers itself, in torch and as the ONNX graph that a bundle holds."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertModel, PreTrainedTokenizerFast

from rdrec_core import text_encoder
from rdrec_core.errors import BundleError, ExportCheckError, InputError
from rdrec_core.text_encoder import OnnxTextEncoder
from tests.tiny_language_models import SENTENCE_WIDTH, tiny_sentence_encoder
from training.signals import sentence_encoder
from training.signals.remembered import RememberedVectors
from training.signals.sentence_encoder import SentenceEncoder
from training.workers import blocks_by

TEXTS = ["Red soap", "", "a sturdy brush for the hair of a child " * 3, "   ", "soap", "RED SOAP", "手机壳 é"]


def by_transformers(folder: Path, texts: list[str], *, cls: bool) -> np.ndarray:
    """One text at a time, so that no padding is there to be masked."""
    tokenizer, model = PreTrainedTokenizerFast.from_pretrained(folder), BertModel.from_pretrained(folder).eval()
    out = np.zeros((len(texts), SENTENCE_WIDTH), dtype=np.float32)
    for i, text in enumerate(texts):
        if text.strip():
            tokens = tokenizer(text.lower(), truncation=True, max_length=24, return_tensors="pt")
            with torch.inference_mode():
                hidden = model(input_ids=tokens["input_ids"]).last_hidden_state[0]
            vector = hidden[0] if cls else hidden.mean(0)
            out[i] = (vector / vector.norm()).numpy()
    return out


@pytest.mark.parametrize("pooling", ["mean_tokens", "cls_token"])
def test_vectors_are_those_of_transformers_and_the_graph_gives_the_same(
    tmp_path: Path, pooling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_encoder, "_TOKENS_AT_ONCE", 40)  # so that several batches are made
    folder = tiny_sentence_encoder(tmp_path / "encoder", pooling=pooling)
    encoder = SentenceEncoder.open(str(folder))
    expected = by_transformers(folder, TEXTS, cls=pooling == "cls_token")
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=1e-5)
    encoder.export(tmp_path / "served")
    served = OnnxTextEncoder.of_folder(tmp_path / "served")
    np.testing.assert_allclose(served.encode(TEXTS), expected, atol=1e-4)
    assert served.encode([]).shape == (0, SENTENCE_WIDTH)
    assert not expected[1].any()
    assert np.linalg.norm(expected[0] - expected[4]) > 1e-3


def test_a_plain_transformers_folder_takes_the_mean(tmp_path: Path) -> None:
    folder = tiny_sentence_encoder(tmp_path / "encoder", pooling=None)
    tokenizer, model = PreTrainedTokenizerFast.from_pretrained(folder), BertModel.from_pretrained(folder).eval()
    tokens = tokenizer("red soap", return_tensors="pt")
    with torch.inference_mode():
        mean = model(input_ids=tokens["input_ids"]).last_hidden_state[0].mean(0).numpy()
    found = SentenceEncoder.open(str(folder)).encode(["red soap"])[0]
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean), atol=1e-5)


def test_a_graph_that_disagrees_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = SentenceEncoder.open(str(tiny_sentence_encoder(tmp_path / "encoder")))
    monkeypatch.setattr(sentence_encoder, "TOLERANCE", -1.0)
    with pytest.raises(ExportCheckError, match=r"encoder\.onnx differs from .*encoder"):
        encoder.export(tmp_path / "served")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"pooling": "max_tokens"}, "pools by max_tokens; mean and cls are read"),
        ({"module": "Dense"}, "has a module Dense; Transformer, Pooling and Normalize are read"),
    ],
)
def test_a_layout_that_is_not_read_is_named(tmp_path: Path, made: dict[str, str], message: str) -> None:
    folder = tiny_sentence_encoder(tmp_path / "encoder", **made)
    with pytest.raises(InputError, match=message) as caught:
        SentenceEncoder.open(str(folder))
    assert caught.value.field == "text_encoder"


def test_what_is_no_encoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        SentenceEncoder.open(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"has no config\.json"):
        SentenceEncoder.open(str(tmp_path))
    with pytest.raises(BundleError, match="cannot be read"):
        OnnxTextEncoder.of_folder(tmp_path)


class CountingEncoder:
    fingerprint = "counting"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, texts: list[str]) -> np.ndarray:
        self.asked += texts
        return np.asarray([[len(text), text.count("a")] for text in texts], dtype=np.float32).reshape(len(texts), 2)


def test_a_text_is_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.signals.remembered._SAVE_EVERY", 3)
    plain = CountingEncoder()
    texts = ["a", "bb", "a", "", "aaaa", "c", "banana"]
    found = RememberedVectors(plain, tmp_path / "kept").encode(texts)
    np.testing.assert_array_equal(found, CountingEncoder().encode(texts))
    assert sorted(plain.asked) == sorted(set(texts))
    again = CountingEncoder()
    remembered = RememberedVectors(again, tmp_path / "kept")
    np.testing.assert_array_equal(remembered.encode([*texts[::-1], "new"])[:-1], found[::-1])
    assert again.asked == ["new"]
    assert [file.name for file in (tmp_path / "kept").iterdir()] == ["counting.npz"]
    assert remembered.encode([]).shape == (0, 2)


def test_vectors_by_several_processes_are_those_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.signals.remembered._AT_ONCE", 5)
    encoder = SentenceEncoder.open(str(tiny_sentence_encoder(tmp_path / "encoder")))
    texts = ["", *("soap " * (1 + i % 7) + str(i) for i in range(23))]
    here = RememberedVectors(encoder, tmp_path / "here").encode(texts)
    np.testing.assert_allclose(here, encoder.encode(texts), atol=1e-6)
    idle = SentenceEncoder.open(str(tmp_path / "encoder"))
    with blocks_by(2, tmp_path) as blocks:
        there = RememberedVectors(idle, tmp_path / "there").by(blocks).encode(texts)
    np.testing.assert_allclose(there, here, atol=1e-6)
    assert "_model" not in vars(idle)  # the others' work
    assert not here[0].any()
    again = pickle.loads(pickle.dumps(encoder))
    assert again is pickle.loads(pickle.dumps(encoder))  # read once in a process
    assert again.fingerprint == encoder.fingerprint


def test_another_encoder_has_another_fingerprint(tmp_path: Path) -> None:
    first = SentenceEncoder.open(str(tiny_sentence_encoder(tmp_path / "a"))).fingerprint
    assert first == SentenceEncoder.open(str(tiny_sentence_encoder(tmp_path / "b"))).fingerprint
    assert first != SentenceEncoder.open(str(tiny_sentence_encoder(tmp_path / "c", pooling="cls_token"))).fingerprint


def test_a_folder_that_cannot_be_written_costs_time_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    plain = CountingEncoder()
    remembered = RememberedVectors(plain, tmp_path / "file" / "kept")
    for _ in range(2):
        np.testing.assert_array_equal(remembered.encode(["a", "bb"]), CountingEncoder().encode(["a", "bb"]))
    assert plain.asked == ["a", "bb"] * 2
