"""Training reviews and rationales into phrases on disk: the first half of the way to statements.

A phrase of a rationale counts only where the review that it was made from has all its words, so that what a teacher
made up is said to nobody. Memory holds one block of texts. Knows phrases, not counts of them.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol
from zlib import crc32

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from rdrec_core.statements import names_in, pair_codes
from rdrec_core.words import words
from training.data.dataset import Dataset
from training.signals.english import GENERIC
from training.signals.languages import Language
from training.signals.phrase import Phrase

BLOCK = 20_000
MAX_WORDS = 200_000
SPILLED = {
    "user": pl.Int32, "item": pl.Int32, "key": pl.String, "text": pl.String, "kind": pl.Int8, "said": pl.Int8,
    "wish": pl.Boolean, "rating": pl.Float32, "place": pl.Int32, "quote": pl.String,
}  # fmt: skip
HEARD = {"user": pl.Int32, "item": pl.Int32, "stems": pl.List(pl.UInt32)}
"""What stems a review holds, as `code_of` them."""
_MANNER = frozenset(("well", "fine", "perfectly", "nicely", "beautifully", "flawlessly", "poorly", "badly", "too"))


class Finder(Protocol):
    """What makes phrases of a text."""

    def phrases(self, text: str) -> list[Phrase]:
        """Each once."""
        ...


def blocks_of_texts(dataset: Dataset) -> Iterator[pl.DataFrame]:
    """user_index, item_index, text, rating of training reviews, then of the rationales made from them, in blocks.

    evidence: the review that a rationale was made from; null for a review.
    """
    columns = ["user_index", "item_index", "text", "rating", "split"]
    with pq.ParquetFile(dataset.path / "reviews.parquet") as file:
        for batch in file.iter_batches(BLOCK, columns=columns):
            frame = pl.DataFrame(pl.from_arrow(batch)).filter(pl.col("split").cast(pl.String) == "train")
            yield frame.with_columns(pl.lit(None, pl.String).alias("evidence")).drop("split")
    if not dataset.rationales_path.is_file():
        return
    reviews = dataset.reviews().filter(pl.col("split") == "train")
    own = reviews.select("user_index", "item_index", "rating", pl.col("text").alias("evidence"))
    with pq.ParquetFile(dataset.rationales_path) as file:
        columns = ["user_index", "item_index", "item_attributes", "user_preference", "use"]
        for batch in file.iter_batches(BLOCK, columns=columns):
            kept = pl.DataFrame(pl.from_arrow(batch)).filter(pl.col("use")).lazy()
            both = kept.join(own, on=["user_index", "item_index"]).collect(engine="streaming")
            for column in ("item_attributes", "user_preference"):
                rows = both.select("user_index", "item_index", pl.col(column).alias("text"), "rating", "evidence")
                yield rows.drop_nulls("text")


def names_of_items(titles: pl.Series, language: Language) -> np.ndarray:
    """`pair_codes` that few titles have, ascending (M,) int64: what tells one item from the others.

    Not of function words and numbers alone: «of 4» names nothing.
    """
    codes = array("q")
    for title in titles.drop_nulls():
        named = [not word.isdigit() and language.claim(word) is not None for word in words(title)]
        pairs = zip(pair_codes(title), pairwise(named), strict=True)
        codes.extend({code for code, either in pairs if any(either)})
    distinct, counts = np.unique(np.frombuffer(codes, dtype=np.int64), return_counts=True)
    return distinct[counts <= max(8, len(titles) // 200)]


class PhraseSpill:
    """Phrases of every text, on disk."""

    def __init__(self, folder: Path, finder: Finder, language: Language, names: np.ndarray, *, quotes: bool) -> None:
        self._folder, self._finder, self._language, self._names, self._quotes = folder, finder, language, names, quotes
        self.n_read = self.n_reviews = 0
        self.n_unproven = 0
        """Phrases of rationales whose review does not have their words."""
        self.word_counts: Counter[str] = Counter()
        """Reviews that hold a word, of the commonest words."""
        self._codes: dict[str, int] = {}
        self._key = lru_cache(maxsize=500_000)(self._key_of)

    def add(self, texts: pl.DataFrame) -> None:
        """Write a block's phrases."""
        rows: dict[str, list[Any]] = {name: [] for name in SPILLED}
        heard: list[tuple[int, int, list[int]]] = []
        for user, item, text, rating, evidence in texts.select(
            "user_index", "item_index", "text", "rating", "evidence"
        ).iter_rows():
            if evidence is None:
                self.n_reviews += 1
                spoken = set(words(text))
                self.word_counts.update(spoken)
                stems = {stem for word in spoken if (stem := self._language.claim(word))}
                heard.append((user, item, [self._code(stem) for stem in stems]))
            proven = None if evidence is None else self._claims(evidence)
            for phrase in self._finder.phrases(text):
                key = self._key(phrase.text)
                if not key:
                    continue
                if proven is not None and not proven.issuperset(key.split(" ")):
                    self.n_unproven += 1
                    continue
                values = (
                    user, item, key, phrase.text, int(phrase.kind), phrase.polarity, phrase.is_wish, rating,
                    self.n_read, _quote(text, phrase.text) if self._quotes and evidence is None else None,
                )  # fmt: skip
                for name, value in zip(SPILLED, values, strict=True):
                    rows[name].append(value)
            self.n_read += 1
        if len(self.word_counts) > 3 * MAX_WORDS:
            self.word_counts = Counter(dict(self.word_counts.most_common(MAX_WORDS)))
        name = f"{self.n_read:012d}-{len(texts)}.parquet"
        pl.DataFrame(rows, schema=SPILLED).write_parquet(self._folder / f"phrases-{name}")
        pl.DataFrame(heard, schema=HEARD, orient="row").write_parquet(self._folder / f"heard-{name}")

    def common_words(self) -> list[str]:
        """Words of more than one review, or all of a few."""
        few = len(self.word_counts) < 1000
        return [word for word, n in self.word_counts.most_common(MAX_WORDS) if n > 1 or few]

    def close(self) -> tuple[pl.LazyFrame, pl.LazyFrame]:
        """SPILLED, a phrase a text once, and HEARD."""
        return pl.scan_parquet(self._folder / "phrases-*.parquet"), pl.scan_parquet(self._folder / "heard-*.parquet")

    def _code(self, stem: str) -> int:
        if stem not in self._codes and len(self._codes) > 5 * MAX_WORDS:
            self._codes.clear()
        return self._codes.setdefault(stem, code_of(stem))

    def _key_of(self, text: str) -> str:
        """What a phrase is about, as its stems; empty where that is nothing, or the name of an item."""
        if names_in(text, self._names):
            return ""
        return " ".join(claims_of(text, self._language))

    def _claims(self, text: str) -> set[str]:
        return {stem for word in words(text) if (stem := self._language.claim(word))}


def code_of(stem: str) -> int:
    """A number for a stem; two rare ones may share it."""
    return crc32(stem.encode())


def claims_of(phrase: str, language: Language) -> list[str]:
    """The stems that a phrase is about, each once, ascending; not how well or badly it is."""
    stems = {language.claim(word) for word in words(phrase) if word not in GENERIC and word not in _MANNER}
    return sorted(stem for stem in stems if stem)


def _quote(text: str, phrase: str) -> str | None:
    """The sentence that the phrase was found in, if it is short enough to be read."""
    first = phrase.split()[-1]
    for sentence in text.replace("\n", " ").split(". "):
        if first in sentence.lower() and 15 <= len(sentence) <= 200:
            return sentence.strip().rstrip(".") + "."
    return None
