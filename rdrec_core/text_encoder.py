"""A sentence encoder as it is served: an ONNX graph with its tokenizer, texts in, dense vectors out.

What both ways to run an encoder share is here: settings, and texts batched by length. Needs onnxruntime only where a
graph is opened; `training/signals/sentence_encoder.py` has the torch side and writes the graph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Tokenizer

from rdrec_core.errors import BundleError
from rdrec_core.types import IntArray

GRAPH_FILE, TOKENIZER_FILE, SETTINGS_FILE = "encoder.onnx", "tokenizer.json", "encoder.json"
Floats = npt.NDArray[np.float32]
Run = Callable[[IntArray, IntArray], Floats]
"""(token ids, mask), both (B, S) int64 -> (B, D) of length one."""
_TOKENS_AT_ONCE = 8192


class EncoderSettings(BaseModel):
    """What an encoder does with a text before its tokens are read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens: int = Field(ge=1)
    """Of one text; the rest is cut off."""
    lower_case: bool = False
    prompt: str = ""
    """Put before every text."""
    width: int = Field(ge=1)
    """D, numbers in a vector."""


def encode_by_length(texts: Sequence[str], tokenizer: Tokenizer, settings: EncoderSettings, run: Run) -> Floats:
    """(M, D) vectors of texts, zeros for one that is empty or blank. Batches hold texts of nearly one length."""
    out = np.zeros((len(texts), settings.width), dtype=np.float32)
    filled = [i for i, text in enumerate(texts) if text.strip()]
    written = [settings.prompt + (texts[i].lower() if settings.lower_case else texts[i]) for i in filled]
    tokens = [encoding.ids for encoding in tokenizer.encode_batch(written)]
    by_length = sorted(range(len(filled)), key=lambda i: len(tokens[i]))
    start = 0
    while start < len(by_length):
        stop = start + 1
        while stop < len(by_length) and (stop + 1 - start) * len(tokens[by_length[stop]]) <= _TOKENS_AT_ONCE:
            stop += 1
        batch = by_length[start:stop]
        longest = len(tokens[batch[-1]])
        ids = np.zeros((len(batch), longest), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, i in enumerate(batch):
            ids[row, : len(tokens[i])] = tokens[i]
            mask[row, : len(tokens[i])] = 1
        out[[filled[i] for i in batch]] = run(ids, mask)
        start = stop
    return out


def prepared(tokenizer: Tokenizer, settings: EncoderSettings) -> Tokenizer:
    """The tokenizer set to cut texts as the settings say and to leave padding to us."""
    tokenizer.enable_truncation(settings.max_tokens)
    tokenizer.no_padding()
    return tokenizer


class OnnxTextEncoder:
    """The encoder of a bundle. As thread-safe as an ONNX Runtime session, which several threads may run."""

    def __init__(self, graph: Path, tokenizer: Path, settings: Path, *, threads: int = 1) -> None:
        """Raises BundleError where a file cannot be read."""
        import onnxruntime as ort

        try:
            self.settings = EncoderSettings.model_validate_json(settings.read_text(encoding="utf-8"))
            self._tokenizer = prepared(Tokenizer.from_file(str(tokenizer)), self.settings)
            options = ort.SessionOptions()
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
            hashes = [hashlib.sha256(file.read_bytes()).digest() for file in (graph, tokenizer, settings)]
            self._fingerprint = hashlib.sha256(b"".join(hashes)).hexdigest()[:16]
            self._session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # tokenizers and ONNX Runtime raise bare ones
            raise BundleError(f"{graph.parent}: the text encoder cannot be read: {error}") from error

    @classmethod
    def of_folder(cls, folder: Path, *, threads: int = 1) -> OnnxTextEncoder:
        """The encoder whose three files are in a folder."""
        return cls(folder / GRAPH_FILE, folder / TOKENIZER_FILE, folder / SETTINGS_FILE, threads=threads)

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides a vector."""
        return self._fingerprint

    def encode(self, texts: Sequence[str]) -> Floats:
        """(M, D) of length one, zeros for a text without anything in it."""
        return encode_by_length(texts, self._tokenizer, self.settings, self._run)

    def _run(self, ids: IntArray, mask: IntArray) -> Floats:
        vectors: Floats = self._session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        return vectors
