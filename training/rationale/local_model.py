"""The teacher that is a local Hugging Face model, causal or sequence-to-sequence, in batches.

Loaded at the first question, on CUDA in bfloat16 when there is one, else in float32 unless told otherwise. Uses the
tokenizer's chat template where it has one (the paper's Llama-2-7b-chat), plain text otherwise. Generation runs in a
thread, so that progress and Ctrl-C stay alive.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError

from training.rationale.teacher import Answer, Question, TeacherError

_HEAD_BYTES = 1 << 20


class LocalModelTeacher:
    """See the module's docstring."""

    concurrency = 1

    def __init__(
        self, source: str, *, batch_size: int, temperature: float, max_completion_tokens: int, dtype: str = "auto"
    ) -> None:
        self.source = source
        self.batch_size = batch_size
        self._temperature = temperature
        self._max_tokens = max_completion_tokens
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if dtype == "auto":
            dtype = "bfloat16" if self._device.type == "cuda" else "float32"
        self._dtype: torch.dtype = getattr(torch, dtype)

    @property
    def name(self) -> str:
        """`transformers:` and the folder's name or the hub id."""
        folder = Path(self.source)
        return f"transformers:{folder.name if folder.is_dir() else self.source}"

    @cached_property
    def settings(self) -> Mapping[str, object]:
        """Model and generation settings; a folder is told by its files, so that it may move and may not change."""
        return {
            "model": _fingerprint(Path(self.source)) or self.source,
            "dtype": str(self._dtype),
            "temperature": self._temperature,
            "max_completion_tokens": self._max_tokens,
        }

    async def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """One batched generation."""
        return await asyncio.to_thread(self._generate, questions)

    async def aclose(self) -> None:
        """Free the model."""
        self.__dict__.pop("_loaded", None)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

        try:
            config = AutoConfig.from_pretrained(self.source)
            kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
            model: Any = kind.from_pretrained(self.source, dtype=self._dtype)
            model.to(self._device).eval()
            tokenizer = AutoTokenizer.from_pretrained(self.source)
        except (OSError, ValueError) as error:
            raise TeacherError(f"cannot load the teacher {self.source}: {error}") from error
        tokenizer.padding_side = "right" if config.is_encoder_decoder else "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return model, tokenizer

    @torch.inference_mode()
    def _generate(self, questions: Sequence[Question]) -> list[Answer]:
        model, tokenizer = self._loaded
        chat = tokenizer.chat_template is not None
        # A chat template writes its own special tokens.
        batch = tokenizer(
            [_render(tokenizer, question) for question in questions],
            return_tensors="pt",
            padding=True,
            add_special_tokens=not chat,
        ).to(self._device)
        sampling: dict[str, object] = {"do_sample": False}
        if self._temperature > 0:
            sampling = {"do_sample": True, "temperature": self._temperature}
        try:
            output = model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=self._max_tokens,
                pad_token_id=tokenizer.pad_token_id,
                **sampling,
            )
        except torch.OutOfMemoryError as error:
            raise TeacherError("the GPU's memory does not hold this batch; use a smaller --batch-size") from error
        start = 1 if model.config.is_encoder_decoder else batch["input_ids"].shape[1]
        stops = model.generation_config.eos_token_id
        ends = {stops} if isinstance(stops, int) else set(stops or ())
        answers = []
        for prompt_tokens, row in zip(batch["attention_mask"].sum(1).tolist(), output[:, start:].tolist(), strict=True):
            length = next((n + 1 for n, token in enumerate(row) if token in ends), len(row))
            text = tokenizer.decode(row[:length], skip_special_tokens=True)
            answers.append(Answer(text, prompt_tokens, length, truncated=not (length and row[length - 1] in ends)))
        return answers


def _render(tokenizer: Any, question: Question) -> str:
    if tokenizer.chat_template is None:
        return f"{question.system}\n\n{question.prompt}\n"
    turns = [{"role": "system", "content": question.system}, {"role": "user", "content": question.prompt}]
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    except TemplateError:  # some chats know no system turn
        turns = [{"role": "user", "content": f"{question.system}\n\n{question.prompt}"}]
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


def _fingerprint(folder: Path) -> str | None:
    """Names, sizes and first mebibyte of a folder's files; None for what is no folder (a hub id)."""
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        with path.open("rb") as file:
            digest.update(f"{path.name}:{path.stat().st_size}:".encode() + file.read(_HEAD_BYTES))
    return digest.hexdigest()[:32]
