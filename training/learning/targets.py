"""Which texts the model learns to write, and where they end: reviews that praise, whole sentences within the limit.

The paper learns every review's sentence and cuts it at 20 tokens, wherever that falls (recipe `paper` still does). A
model that was taught so complains about what it recommends and stops in the middle. Knows texts and a tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl

from rdrec_core.encoding import RaggedTokens
from training.learning.config import TrainConfig

Tokenise = Callable[[Iterable[str]], RaggedTokens]
_AT_ONCE = 50_000
"""Texts whose tokens are held before they are cut."""
MIN_WORDS = 4
"""A part of a sentence with fewer says nothing of its own."""
_SENTENCE_END = re.compile(r"[.!?…]+[\"'»”)]*(?=\s|$)|[。！？]")
_CLAUSE_END = re.compile(r"(?<=\w)\s*(?:[,;:]|\s[-–—])(?=\s)|[，、；：]")
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


@dataclass(frozen=True)
class TargetRule:
    """limit: tokens of a target. whole: end with a sentence or clause. min_rating: stars of an explanation."""

    limit: int
    whole: bool = False
    min_rating: float = 0.0

    @classmethod
    def of(cls, config: TrainConfig) -> Self:
        """As the configuration says."""
        return cls(config.max_target_tokens, config.cut_targets == "sentence", config.min_explained_rating)

    def explained(self) -> pl.Expr:
        """Reviews whose sentence is learned: rated well enough, or not at all."""
        return pl.col("rating").is_null() | (pl.col("rating") >= self.min_rating)

    def targets(self, texts: pl.Series, tokenise: Tokenise) -> tuple[np.ndarray, RaggedTokens]:
        """(rows that are kept, their tokens). A text that has no end within the limit is left out where `whole`."""
        starts = range(0, len(texts), _AT_ONCE) or (0,)
        blocks = [self._block(texts.slice(start, _AT_ONCE), tokenise) for start in starts]
        kept = np.concatenate([start + rows for start, (rows, _) in zip(starts, blocks, strict=True)])
        lengths = np.concatenate([np.diff(tokens.indptr) for _, tokens in blocks])
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return kept, RaggedTokens(indptr, np.concatenate([tokens.tokens for _, tokens in blocks]))

    def _block(self, texts: pl.Series, tokenise: Tokenise) -> tuple[np.ndarray, RaggedTokens]:
        tokens = tokenise(texts)
        lengths = np.diff(tokens.indptr)
        rows = np.arange(len(texts))
        if not self.whole:
            return rows, _gather(tokens, rows, np.minimum(lengths, self.limit))
        long = np.flatnonzero(lengths > self.limit)
        heads = [(int(row), head) for row in long for head in _heads(texts[int(row)])]
        cut = tokenise([head for _, head in heads])
        fits = np.diff(cut.indptr) <= self.limit
        best: dict[int, int] = {}
        for place, (row, _) in enumerate(heads):
            if fits[place] and row not in best:  # heads come longest first
                best[row] = place
        kept = np.flatnonzero((lengths <= self.limit) | np.isin(rows, list(best)))
        both = RaggedTokens(
            np.concatenate([tokens.indptr, tokens.indptr[-1] + cut.indptr[1:]]),
            np.concatenate([tokens.tokens, cut.tokens]),
        )
        source = np.asarray([len(texts) + best[row] if row in best else row for row in kept.tolist()], dtype=np.int64)
        return kept, _gather(both, source, np.diff(both.indptr)[source])


def _gather(texts: RaggedTokens, rows: np.ndarray, lengths: np.ndarray) -> RaggedTokens:
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    within = np.arange(int(indptr[-1])) - np.repeat(indptr[:-1], lengths)
    return RaggedTokens(indptr, texts.tokens[np.repeat(texts.indptr[rows], lengths) + within])


def _heads(text: str) -> list[str]:
    """Beginnings of a text that stand for themselves: up to a sentence's end, longest first, then up to a clause's."""
    sentences = [text[: match.end()] for match in _SENTENCE_END.finditer(text)]
    clauses = [text[: match.start()].rstrip() + _stop(text) for match in _CLAUSE_END.finditer(text)]
    return [*sentences[::-1], *(clause for clause in clauses[::-1] if _says_something(clause))]


def _stop(text: str) -> str:
    return "。" if _WIDE.search(text) else "."


def _says_something(clause: str) -> bool:
    return len(clause.split()) >= MIN_WORDS or len(_WIDE.findall(clause)) >= 2 * MIN_WORDS
