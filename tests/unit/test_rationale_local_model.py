"""The local teacher against a plain Hugging Face `generate` of one unpadded prompt."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from tests.tiny_language_models import tiny_causal, tiny_t5
from training.rationale.local_model import LocalModelTeacher
from training.rationale.prompt import question
from training.rationale.teacher import TeacherError

REVIEWS = [
    "Great gift.",
    "I love this puzzle, it is sturdy.",
    "My kids enjoy this game because it is easy to learn. " * 4,
]
LIMIT = 16


def teacher(path: Path) -> LocalModelTeacher:
    return LocalModelTeacher(str(path), batch_size=3, temperature=0.0, max_completion_tokens=LIMIT)


async def test_causal_batch_equals_single_prompts_through_the_chat_template(tmp_path: Path) -> None:
    folder = tiny_causal(tmp_path / "llama")
    answers = await teacher(folder).ask([question(r) for r in REVIEWS])
    assert len({a.text for a in answers}) > 1
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    for review, answer in zip(REVIEWS, answers, strict=True):
        asked = question(review)
        text = f"<s><<SYS>>{asked.system}<</SYS>>[INST]{asked.prompt}[/INST]"  # the template, written out by hand
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
        output = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=LIMIT, do_sample=False, pad_token_id=0
        )
        new = output[0, ids.shape[1] :]
        assert answer.text == tokenizer.decode(new, skip_special_tokens=True)
        assert (answer.prompt_tokens, answer.completion_tokens) == (ids.shape[1], len(new))
        assert answer.truncated == (int(new[-1]) != 1)


async def test_t5_batch_equals_single_prompts(tmp_path: Path) -> None:
    folder = tiny_t5(tmp_path / "t5")
    answers = await teacher(folder).ask([question(r) for r in REVIEWS])
    assert len({a.text for a in answers}) > 1
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    for review, answer in zip(REVIEWS, answers, strict=True):
        asked = question(review)
        ids = tokenizer(f"{asked.system}\n\n{asked.prompt}\n", return_tensors="pt").input_ids
        new = model.generate(ids, max_new_tokens=LIMIT, do_sample=False)[0, 1:]
        assert answer.text == tokenizer.decode(new, skip_special_tokens=True)
        assert (answer.prompt_tokens, answer.completion_tokens) == (ids.shape[1], len(new))


def test_a_folder_is_told_by_its_files_not_its_place(tmp_path: Path) -> None:
    folder = tiny_t5(tmp_path / "t5")
    shutil.copytree(folder, tmp_path / "moved")
    assert teacher(folder).settings == teacher(tmp_path / "moved").settings
    weights = tmp_path / "moved" / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(bytes(raw))
    assert teacher(folder).settings != teacher(tmp_path / "moved").settings


async def test_a_model_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TeacherError, match="empty"):
        await teacher(tmp_path / "empty").ask([question("Great gift.")])
