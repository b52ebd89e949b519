"""From prompts to token ids and whole-word ids, out of cached per-word tokens.

A source text is a concatenation of words and every word's tokens are known beforehand, so the tokenizer is never
called on the hot path: item words and labels are encoded once for the catalogue (flat CSR arrays that the bundle
stores), user and plain words on first sight. Knows the tokenizer only as "tokens of one word".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from rdrec_core.prompts import ITEMS, MAX_HISTORY, USER, Template, bare_template, user_number
from rdrec_core.types import Task

TokenArray = npt.NDArray[np.int32]
_CHUNK = 100_000


@dataclass(frozen=True, slots=True)
class RaggedTokens:
    """Token sequences of many words: row i is tokens[indptr[i]:indptr[i + 1]]."""

    indptr: npt.NDArray[np.int64]
    tokens: TokenArray

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def __getitem__(self, index: int) -> TokenArray:
        return self.tokens[self.indptr[index] : self.indptr[index + 1]]


@dataclass(frozen=True, slots=True)
class EncodedSource:
    """One source text: token_ids (S,) ending in EOS, whole_word_ids (S,); the model puts prompt vectors before it."""

    task: Task
    token_ids: TokenArray
    whole_word_ids: TokenArray


@dataclass(frozen=True, slots=True)
class SourceBatch:
    """Padded sources: token_ids, whole_word_ids (B, S) int64, mask (B, S) bool, tasks (B,) int64."""

    token_ids: npt.NDArray[np.int64]
    whole_word_ids: npt.NDArray[np.int64]
    mask: npt.NDArray[np.bool_]
    tasks: npt.NDArray[np.int64]


def encode_words(tokenizer: Tokenizer, words: Iterable[str], *, strip_bare_space: bool = False) -> RaggedTokens:
    """Tokens of each word, without EOS. strip_bare_space drops a leading token that stands for the space alone."""
    space = tokenizer.token_to_id("▁")
    lengths: list[int] = []
    parts: list[TokenArray] = []
    batch: list[str] = []

    def flush() -> None:
        for encoding in tokenizer.encode_batch(batch, add_special_tokens=False):
            ids = encoding.ids
            if strip_bare_space and len(ids) > 1 and ids[0] == space:
                ids = ids[1:]
            lengths.append(len(ids))
            parts.append(np.asarray(ids, dtype=np.int32))
        batch.clear()

    for word in words:
        batch.append(word)
        if len(batch) == _CHUNK:
            flush()
    flush()
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return RaggedTokens(indptr, np.concatenate(parts) if parts else np.empty(0, dtype=np.int32))


def encode_labels(tokenizer: Tokenizer, labels: Iterable[str]) -> RaggedTokens:
    """Target tokens of each item label, without EOS: what the decoder must write to name the item."""
    return encode_words(tokenizer, labels, strip_bare_space=True)


def encode_item_words(tokenizer: Tokenizer, labels: Iterable[str]) -> RaggedTokens:
    """Source tokens of each `item_<label>` word."""
    return encode_words(tokenizer, (f"item_{label}" for label in labels))


class SourceEncoder:
    """Encodes requests and training examples; safe to share between threads."""

    def __init__(self, tokenizer: Tokenizer, item_words: RaggedTokens, *, eos_token_id: int = 1) -> None:
        self.n_items = len(item_words)
        self.item_words = item_words
        self.eos_token_id = eos_token_id
        self._tokenizer = tokenizer
        self._word = lru_cache(maxsize=200_000)(self._encode_word)

    def with_item_words(self, item_words: RaggedTokens) -> SourceEncoder:
        """The same encoder for another catalogue."""
        return SourceEncoder(self._tokenizer, item_words, eos_token_id=self.eos_token_id)

    def _encode_word(self, word: str) -> TokenArray:
        return np.asarray(self._tokenizer.encode(word, add_special_tokens=False).ids, dtype=np.int32)

    def encode(
        self, task: Task, user_index: int | None, items: Sequence[int] = (), template: Template | None = None
    ) -> EncodedSource:
        """Encode one source. items: item indices in prompt order; the sequential task reads the last 20.

        Whole-word ids: 0 for plain words, 1, 2, ... for each user or item word, shared by all its tokens.
        """
        if task is Task.SEQUENTIAL:
            items = items[-MAX_HISTORY:]
        tokens: list[TokenArray] = []
        ids: list[int] = []
        lengths: list[int] = []
        whole_word = 0
        for word in template or bare_template(task):
            if word == USER:
                whole_word += 1
                tokens.append(self._word(f"user_{user_number(user_index)}"))
                ids.append(whole_word)
            elif word == ITEMS:
                for item in items:
                    whole_word += 1
                    tokens.append(self.item_words[item])
                    ids.append(whole_word)
            else:
                tokens.append(self._word(word))
                ids.append(0)
        lengths = [len(part) for part in tokens]
        tokens.append(np.asarray([self.eos_token_id], dtype=np.int32))
        whole = np.repeat(np.asarray([*ids, 0], dtype=np.int32), [*lengths, 1])
        return EncodedSource(task, np.concatenate(tokens), whole)


def rounded_up(size: int, multiple: int) -> int:
    """The smallest multiple that is at least `size`."""
    return -(-size // multiple) * multiple


def pad_sources(sources: Sequence[EncodedSource], *, pad_token_id: int = 0, multiple: int = 1) -> SourceBatch:
    """Pad to the longest source of the batch, rounded up to a multiple."""
    width = rounded_up(max(len(source.token_ids) for source in sources), multiple)
    token_ids = np.full((len(sources), width), pad_token_id, dtype=np.int64)
    whole_word_ids = np.zeros((len(sources), width), dtype=np.int64)
    mask = np.zeros((len(sources), width), dtype=np.bool_)
    for row, source in enumerate(sources):
        length = len(source.token_ids)
        token_ids[row, :length] = source.token_ids
        whole_word_ids[row, :length] = source.whole_word_ids
        mask[row, :length] = True
    return SourceBatch(token_ids, whole_word_ids, mask, np.asarray([s.task for s in sources], dtype=np.int64))
