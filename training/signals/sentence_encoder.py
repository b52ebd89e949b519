"""Sentence encoders of the sentence-transformers layout, run by torch and written as an ONNX graph for the bundle.

Reads a folder, or a model of the Hugging Face hub: the transformer, how its token vectors become one (mean, first
token), longest input, prompt. Knows texts, not what they describe.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from rdrec_core.errors import ExportCheckError, InputError
from rdrec_core.text_encoder import (
    GRAPH_FILE,
    SETTINGS_FILE,
    TOKENIZER_FILE,
    EncoderSettings,
    OnnxTextEncoder,
    encode_by_length,
    prepared,
)
from rdrec_core.types import IntArray

Floats = npt.NDArray[np.float32]
Pooling = Literal["mean", "cls"]
TOLERANCE = 1e-4
"""Largest difference of a number in a vector of length one that float32 in another order of addition explains."""
_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
_FIELD = "text_encoder"
_PROBES = ("a", "Blue, waterproof watch for a small child", "été 手机壳 ม้า 0.5 fl oz " * 12)


class SentenceEncoder:
    """A transformer with its pooling, on a GPU where there is one."""

    def __init__(self, folder: Path, name: str) -> None:
        """Raises InputError naming what of the layout is not read."""
        self.name = name
        self._folder = folder
        self._pooling = _pooling(folder)

    @classmethod
    def open(cls, source: str) -> SentenceEncoder:
        """source: a folder, or an id of the Hugging Face hub, whose files come from there or from its cache."""
        folder = Path(source).expanduser()
        if not folder.is_dir():
            if source.count("/") > 1 or source.startswith((".", "/", "~")):
                raise InputError(f"--text-encoder {source!r} is no folder", field=_FIELD)
            from huggingface_hub import snapshot_download

            try:
                folder = Path(snapshot_download(source, allow_patterns=_FILES))
            except Exception as error:  # the hub's client raises its own, httpx's and the system's
                raise InputError(
                    f"--text-encoder {source!r} is no folder, and the Hugging Face hub did not give it: {error}",
                    field=_FIELD,
                ) from error
        if not (folder / "config.json").is_file():
            raise InputError(f"--text-encoder {folder} has no config.json: it is no transformers model", field=_FIELD)
        return cls(folder, source)

    def __reduce__(self) -> tuple[Any, ...]:
        """By its files: a process that is sent it again and again reads them once."""
        return _read_once, (self._folder, self.name)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that decides a vector."""
        total = hashlib.sha256(self._pooling.encode() + self.settings.model_dump_json().encode())
        for file in [*sorted(self._folder.glob("*.safetensors")), self._folder / "config.json"]:
            with file.open("rb") as opened:
                total.update(hashlib.file_digest(opened, "sha256").digest())
        return total.hexdigest()[:16]

    def encode(self, texts: Sequence[str]) -> Floats:
        """(M, D) of length one, zeros for a text without anything in it."""
        return encode_by_length(texts, self._tokenizer, self.settings, self._run)

    def export(self, folder: Path) -> None:
        """Write graph, tokenizer and settings into a folder, compared with torch on texts of several scripts.

        Raises ExportCheckError where they differ.
        """
        import torch

        folder.mkdir(parents=True, exist_ok=True)
        self._tokenizer.save(str(folder / TOKENIZER_FILE))
        (folder / SETTINGS_FILE).write_text(self.settings.model_dump_json(indent=2), encoding="utf-8")
        model = self._model.cpu()
        ids = torch.ones(2, 7, dtype=torch.long)
        inputs = ["input_ids", "attention_mask"]
        with warnings.catch_warnings():  # what tracing may have frozen shows in the comparison
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model, (ids, ids), str(folder / GRAPH_FILE), input_names=inputs, output_names=["vectors"],
                dynamic_axes={name: {0: "B", 1: "S"} for name in inputs}, dynamo=False,
            )  # fmt: skip
        served = OnnxTextEncoder.of_folder(folder).encode(_PROBES)
        ours = encode_by_length(_PROBES, self._tokenizer, self.settings, self._run_on(model))
        largest = float(np.abs(served - ours).max())
        if not largest <= TOLERANCE:
            raise ExportCheckError(f"{GRAPH_FILE} differs from {self.name} in torch by {largest:.2e}")

    @cached_property
    def settings(self) -> EncoderSettings:
        """What is done with a text before its tokens are read."""
        config = _json(self._folder / "config.json")
        sentence = _json(self._folder / "sentence_bert_config.json")
        own = _json(self._folder / "config_sentence_transformers.json")
        prompts = own.get("prompts") or {}
        longest = sentence.get("max_seq_length") or config.get("max_position_embeddings") or 512
        return EncoderSettings(
            max_tokens=min(int(longest), int(config.get("max_position_embeddings") or longest)),
            lower_case=bool(sentence.get("do_lower_case")),
            prompt=prompts.get(own.get("default_prompt_name")) or "",
            width=int(config.get("hidden_size") or config.get("dim") or config.get("d_model") or 0) or 1,
        )

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        from transformers import AutoTokenizer

        backend = getattr(AutoTokenizer.from_pretrained(self._folder), "backend_tokenizer", None)
        if backend is None:
            raise InputError(f"{self.name} has no fast tokenizer, which the service needs", field=_FIELD)
        return prepared(Tokenizer.from_str(backend.to_str()), self.settings)

    @cached_property
    def _model(self) -> Any:
        import torch
        from transformers import AutoModel

        class Pooled(torch.nn.Module):
            def __init__(self, inner: torch.nn.Module, pooling: Pooling) -> None:
                super().__init__()
                self.inner, self.pooling = inner, pooling

            def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
                hidden = self.inner(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
                if self.pooling == "cls":
                    pooled = hidden[:, 0]
                else:
                    seen = attention_mask.unsqueeze(-1).to(hidden.dtype)
                    pooled = (hidden * seen).sum(1) / seen.sum(1).clamp(min=1.0)
                return torch.nn.functional.normalize(pooled, dim=-1)

        try:
            inner = AutoModel.from_pretrained(self._folder, use_safetensors=True, dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise InputError(f"--text-encoder {self.name} cannot be loaded: {error}", field=_FIELD) from error
        model = Pooled(inner, self._pooling).eval()
        return model.to("cuda" if torch.cuda.is_available() else "cpu")

    def _run(self, ids: IntArray, mask: IntArray) -> Floats:
        return self._run_on(self._model)(ids, mask)

    def _run_on(self, model: Any) -> Any:
        import torch

        device = next(model.parameters()).device

        def run(ids: IntArray, mask: IntArray) -> Floats:
            with torch.inference_mode():
                return model(torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)).cpu().numpy()

        return run


@lru_cache(maxsize=1)
def _read_once(folder: Path, name: str) -> SentenceEncoder:
    return SentenceEncoder(folder, name)


def _pooling(folder: Path) -> Pooling:
    """How the layout makes one vector of a text's; a plain transformers folder takes the mean."""
    modules = folder / "modules.json"
    if not modules.is_file():
        return "mean"
    pooling: Pooling = "mean"
    for module in json.loads(modules.read_text(encoding="utf-8")):
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind == "Pooling":
            config = _json(folder / module["path"] / "config.json")
            chosen = [name.removeprefix("pooling_mode_") for name, on in config.items() if on is True]
            chosen = [name for name in chosen if name not in ("include_prompt",)]
            chosen = [str(config["pooling_mode"])] if isinstance(config.get("pooling_mode"), str) else chosen
            names: dict[str, Pooling] = {"mean_tokens": "mean", "mean": "mean", "cls_token": "cls", "cls": "cls"}
            if len(chosen) != 1 or chosen[0] not in names:
                raise InputError(
                    f"--text-encoder {folder} pools by {', '.join(chosen) or 'nothing'}; mean and cls are read",
                    field=_FIELD,
                )
            pooling = names[chosen[0]]
        elif kind not in ("Transformer", "Normalize"):
            raise InputError(
                f"--text-encoder {folder} has a module {kind}; Transformer, Pooling and Normalize are read",
                field=_FIELD,
            )
    return pooling


def _json(file: Path) -> dict[str, Any]:
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found if isinstance(found, dict) else {}
