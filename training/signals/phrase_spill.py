"""Training reviews and rationales into phrases on disk: the first half of the way to statements.

A phrase of a rationale counts only where the review that it was made from has all its words, so that what a teacher
made up is said to nobody. Runs of texts are read by whoever `blocks` says, each of whom holds one; what comes out is
the same. Knows phrases, not counts of them.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
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
from training.workers import Arrays, Blocks

BLOCK = 10_000
"""Rows of a run."""
MAX_WORDS = 200_000
SPILLED = {
    "user": pl.Int32, "item": pl.Int32, "key": pl.String, "text": pl.String, "kind": pl.Int8, "said": pl.Int8,
    "wish": pl.Boolean, "rating": pl.Float32, "place": pl.Int64, "quote": pl.String,
}  # fmt: skip
HEARD = {"user": pl.Int32, "item": pl.Int32, "stem": pl.UInt32}
"""A row each stem of a review, as `code_of` it."""
_MANNER = frozenset(("well", "fine", "perfectly", "nicely", "beautifully", "flawlessly", "poorly", "badly", "too"))


class Finder(Protocol):
    """What makes phrases of a text."""

    def phrases(self, text: str) -> list[Phrase]:
        """Each once."""
        ...


@dataclass(frozen=True)
class Reading:
    """What turns a dataset's texts into phrases; goes to whoever reads a run of them. quotes: keep sentences."""

    dataset: Dataset
    finder: Finder
    language: Language
    quotes: bool


@dataclass(frozen=True)
class Read:
    """What was counted in a run. n_unproven: phrases of rationales whose review does not have their words.

    words: reviews that hold a word, in the order in which words first stand there.
    """

    n_texts: int
    n_reviews: int
    n_unproven: int
    words: Counter[str]


def reviews_of(dataset: Dataset, start: int, stop: int) -> pl.DataFrame:
    """user_index, item_index, text, rating, evidence (null) of the training reviews among rows of the table."""
    rows = dataset.reviews().slice(start, stop - start).filter(pl.col("split") == "train")
    evidence = pl.lit(None, pl.String).alias("evidence")
    return rows.select("user_index", "item_index", "text", "rating", evidence).collect()


def rationales_of(dataset: Dataset, start: int, stop: int) -> pl.DataFrame:
    """As `reviews_of`, of what rationales say of items and then of users. evidence: the review they were made from."""
    pair = ["user_index", "item_index"]
    made = pl.scan_parquet(dataset.rationales_path).slice(start, stop - start).filter(pl.col("use")).collect()
    reviews = dataset.reviews().with_row_index("row").filter(pl.col("split") == "train")
    meant = reviews.join(made.lazy().select(pair), on=pair, how="semi")
    # rationales stand in the order of their reviews: few texts are read where the rows are known first
    span = pl.col("row").is_between(*meant.select(pl.min("row"), last=pl.max("row")).collect(engine="streaming").row(0))
    own = meant.filter(span).select(*pair, "row", "rating", evidence="text").collect(engine="streaming").sort("row")
    both = made.join(own, on=pair, maintain_order="left_right")
    return pl.concat(
        both.select(*pair, pl.col(column).alias("text"), "rating", "evidence").drop_nulls("text")
        for column in ("item_attributes", "user_preference")
    )


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
    """Phrases of every text, on disk in a folder that all who read see, and what is counted over all of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.n_read = self.n_reviews = self.n_unproven = 0
        self.word_counts: Counter[str] = Counter()
        """Reviews that hold a word, of the commonest words."""

    def read(self, reading: Reading, names: np.ndarray, blocks: Blocks, say: Callable[[str], None]) -> None:
        """Write the phrases of all reviews, then of the rationales made from them."""
        dataset, first = reading.dataset, 0
        for table, texts in (("reviews", reviews_of), ("rationales", rationales_of)):
            file = dataset.path / f"{table}.parquet"
            n_rows = pq.read_metadata(file).num_rows if file.is_file() else 0
            runs = [(start, min(n_rows, start + BLOCK)) for start in range(0, n_rows, BLOCK)]
            settings = {"reading": reading, "texts": texts, "first": first, "folder": self._folder}
            by = blocks if len(runs) > 1 else Blocks()  # a single run is read before a process has started
            for part in by.map(spill_run, {"names": names}, runs, **settings):
                self._count(part)
                say(f"{self.n_read:,} texts read")
            first += n_rows

    def _count(self, part: Read) -> None:
        self.n_read += part.n_texts
        self.n_reviews += part.n_reviews
        self.n_unproven += part.n_unproven
        self.word_counts.update(part.words)
        if len(self.word_counts) > 3 * MAX_WORDS:
            self.word_counts = Counter(dict(self.word_counts.most_common(MAX_WORDS)))

    def common_words(self) -> list[str]:
        """Words of more than one review, or all of a few."""
        few = len(self.word_counts) < 1000
        return [word for word, n in self.word_counts.most_common(MAX_WORDS) if n > 1 or few]

    def close(self) -> tuple[pl.LazyFrame, pl.LazyFrame]:
        """SPILLED, a phrase a text once, and HEARD."""
        return pl.scan_parquet(self._folder / "phrases-*.parquet"), pl.scan_parquet(self._folder / "heard-*.parquet")


def spill_run(
    arrays: Arrays,
    start: int,
    stop: int,
    *,
    reading: Reading,
    texts: Callable[[Dataset, int, int], pl.DataFrame],
    first: int,
    folder: Path,
) -> Read:
    """Write the phrases of a run of rows of a table, before which are `first` rows of another."""
    language = reading.language
    key_of = lru_cache(maxsize=None)(partial(_key, names=arrays["names"], language=language))
    rows: list[tuple[Any, ...]] = []
    stems, n_stems = array("I"), array("q")
    spoken_in: Counter[str] = Counter()
    n_unproven, place = 0, (first + start) << 32
    frame = texts(reading.dataset, start, stop)
    for user, item, text, rating, evidence in frame.iter_rows():
        place += 1
        said = len(stems)
        if evidence is None:
            spoken = dict.fromkeys(words(text))
            spoken_in.update(spoken.keys())
            stems.extend(map(code_of, _claims(spoken, language)))
        n_stems.append(len(stems) - said)
        proven = None if evidence is None else _claims(words(evidence), language)
        for phrase in reading.finder.phrases(text):
            key = key_of(phrase.text)
            if not key:
                continue
            if proven is not None and not proven.issuperset(key.split(" ")):
                n_unproven += 1
                continue
            quote = _quote(text, phrase.text) if reading.quotes and evidence is None else None
            kind, polarity = int(phrase.kind), phrase.polarity
            rows.append((user, item, key, phrase.text, kind, polarity, phrase.is_wish, rating, place, quote))
    owners = {owner: np.repeat(frame[f"{owner}_index"].to_numpy(), n_stems) for owner in ("user", "item")}
    heard = pl.DataFrame({**owners, "stem": np.asarray(stems, dtype=np.uint32)}, schema=HEARD)
    name = f"{first + start:012d}.parquet"
    pl.DataFrame(rows, schema=SPILLED, orient="row").write_parquet(folder / f"phrases-{name}")
    heard.write_parquet(folder / f"heard-{name}")
    return Read(len(frame), frame["evidence"].null_count(), n_unproven, spoken_in)


def _key(text: str, *, names: np.ndarray, language: Language) -> str:
    """What a phrase is about, as its stems; empty where that is nothing, or the name of an item."""
    return "" if names_in(text, names) else " ".join(claims_of(text, language))


def _claims(spoken: Iterable[str], language: Language) -> set[str]:
    return {stem for word in spoken if (stem := language.claim(word))}


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
