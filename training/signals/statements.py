"""Statements from training reviews and rationales: read in blocks, spilled to disk, counted part by part.

A review says a thing once, however often. Phrases that are about the same stems with the same polarity are one
statement, in its most common wording. Memory holds one block, one part and the result, whose rows an owner are bounded.
"""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from rdrec_core.catalog import StringTable
from rdrec_core.errors import DatasetError
from rdrec_core.statements import FUNCTION_WORD, PERSONAL, Rows, Statements, pair_codes
from rdrec_core.words import words
from training.data.dataset import Dataset
from training.signals.languages import ENGLISH, Language, language_of
from training.signals.phrases import GENERIC, Lexicon, Phrase, PhraseFinder
from training.signals.recurring import RecurringFinder

MAX_ITEM_ROWS, MAX_USER_ROWS = 24, 16
LEARN_FROM = 100_000
"""Reviews that the lexicon is learned from."""
_BLOCK = 20_000
_PART_ROWS = 2_000_000
_MAX_WORDS = 200_000
_TONE_MIN = 5
_TONE_GAP = 0.5
"""Stars that a phrase's reviews lie from the mean before its words are taken to praise or blame."""
_PRAISES, _BLAMES = 4, 2
_SPILLED = {
    "user": pl.Int32, "item": pl.Int32, "key": pl.String, "text": pl.String, "kind": pl.Int8, "said": pl.Int8,
    "wish": pl.Boolean, "rating": pl.Float32, "place": pl.Int32, "quote": pl.String,
}  # fmt: skip

Say = Callable[[str], None]


class Finder(Protocol):
    """What makes phrases of a text."""

    def phrases(self, text: str) -> list[Phrase]:
        """Each once."""
        ...


@dataclass(frozen=True)
class StatementOptions:
    """quotes: keep a reviewer's sentence with an item's first statements; language: None finds it out."""

    quotes: bool = False
    language: Language | None = None


def build_statements(
    dataset: Dataset, options: StatementOptions | None = None, say: Say = lambda _: None
) -> Statements:
    """Of a dataset's training reviews (held-out ones are never read). Raises DatasetError where there are none."""
    options = options or StatementOptions()
    if not dataset.has_reviews:
        raise DatasetError(f"{dataset.path} has no reviews with text, so nothing is said of its items")
    say("learning how these reviews speak")
    sample = _sample(dataset)
    language = options.language or language_of(sample[:2000])
    finder: Finder = (
        PhraseFinder(Lexicon.learn(sample)) if language is ENGLISH else RecurringFinder.learn(sample, language)
    )
    names = _names(dataset.items["title"])
    with tempfile.TemporaryDirectory(prefix="rdrec-statements-") as folder:
        spill = _Spill(Path(folder), finder, language, names, quotes=options.quotes)
        for frame in _texts(dataset):
            spill.add(frame)
            say(f"{spill.n_read:,} texts read")
        spilled = spill.close()
        say("counting")
        tone = _tone(spilled)
        items = _count(spilled, tone, "item", _reviews_of(dataset, "item"), MAX_ITEM_ROWS)
        users = _count(spilled, tone, "user", _reviews_of(dataset, "user"), MAX_USER_ROWS)
    return _assemble(users, items, language, spill.word_counts, spill.n_read, tone, names)


def _sample(dataset: Dataset) -> list[str]:
    rows = dataset.reviews().filter(pl.col("split") == "train").select("text").head(LEARN_FROM).collect()
    return rows["text"].to_list()


def _texts(dataset: Dataset) -> Iterator[pl.DataFrame]:
    """user_index, item_index, text, rating of training reviews, then of the rationales made from them, in blocks."""
    columns = ["user_index", "item_index", "text", "rating", "split"]
    with pq.ParquetFile(dataset.path / "reviews.parquet") as file:
        for batch in file.iter_batches(_BLOCK, columns=columns):
            frame = pl.DataFrame(pl.from_arrow(batch))
            yield frame.filter(pl.col("split").cast(pl.String) == "train").drop("split")
    if not dataset.rationales_path.is_file():
        return
    own = dataset.reviews().filter(pl.col("split") == "train").select("user_index", "item_index", "rating")
    kept = pl.scan_parquet(dataset.rationales_path).filter(pl.col("use")).join(own, on=["user_index", "item_index"])
    for column in ("item_attributes", "user_preference"):
        rows = kept.select("user_index", "item_index", pl.col(column).alias("text"), "rating").collect(
            engine="streaming"
        )
        yield from rows.drop_nulls("text").iter_slices(_BLOCK)


class _Spill:
    """Phrases of every text, on disk."""

    def __init__(self, folder: Path, finder: Finder, language: Language, names: np.ndarray, *, quotes: bool) -> None:
        self._folder, self._finder, self._language, self._names, self._quotes = folder, finder, language, names, quotes
        self.n_read = 0
        self.word_counts: Counter[str] = Counter()
        self._key = lru_cache(maxsize=500_000)(self._key_of)

    def add(self, texts: pl.DataFrame) -> None:
        """Write a block's phrases."""
        rows: dict[str, list[Any]] = {name: [] for name in _SPILLED}
        for user, item, text, rating in texts.select("user_index", "item_index", "text", "rating").iter_rows():
            self.word_counts.update(set(words(text)))
            for phrase in self._finder.phrases(text):
                key = self._key(phrase.text)
                if not key:
                    continue
                values = (
                    user, item, key, phrase.text, int(phrase.kind), phrase.polarity, phrase.is_wish, rating,
                    self.n_read,
                    _quote(text, phrase.text) if self._quotes else None,
                )  # fmt: skip
                for name, value in zip(_SPILLED, values, strict=True):
                    rows[name].append(value)
            self.n_read += 1
        if len(self.word_counts) > 3 * _MAX_WORDS:
            self.word_counts = Counter(dict(self.word_counts.most_common(_MAX_WORDS)))
        frame = pl.DataFrame(rows, schema=_SPILLED)
        frame.write_parquet(self._folder / f"{self.n_read:012d}-{len(texts)}.parquet")

    def close(self) -> pl.LazyFrame:
        """Everything, a phrase a review once."""
        return pl.scan_parquet(self._folder / "*.parquet")

    def _key_of(self, text: str) -> str:
        """What a phrase is about, as its stems; empty where that is nothing, or the name of an item."""
        if len(self._names) and np.isin(pair_codes(text), self._names).any():
            return ""
        stems = {self._language.claim(word) for word in words(text) if word not in GENERIC and word not in _MANNER}
        return " ".join(sorted(stem for stem in stems if stem))


_MANNER = frozenset(("well", "fine", "perfectly", "nicely", "beautifully", "flawlessly", "poorly", "badly", "too"))


def _quote(text: str, phrase: str) -> str | None:
    """The sentence that the phrase was found in, if it is short enough to be read."""
    first = phrase.split()[-1]
    for sentence in text.replace("\n", " ").split(". "):
        if first in sentence.lower() and 15 <= len(sentence) <= 200:
            return sentence.strip().rstrip(".") + "."
    return None


def _names(titles: pl.Series) -> np.ndarray:
    """Pairs of words that few titles have: what tells one item from the others."""
    counts: Counter[int] = Counter()
    for title in titles.drop_nulls():
        counts.update(set(pair_codes(title)))
    rare = max(8, len(titles) // 200)
    return np.sort(np.asarray([code for code, n in counts.items() if n <= rare], dtype=np.int64))


def _tone(spilled: pl.LazyFrame) -> dict[str, int]:
    """Keys that go with more, or fewer, stars than usual: 1, or -1."""
    rated = spilled.filter(pl.col("rating").is_not_null() & (pl.col("said") == 0))
    mean = rated.select(pl.col("rating").mean()).collect(engine="streaming").item()
    if mean is None:
        return {}
    # shrunk towards the mean, so that a few reviews do not decide
    by_key = (
        rated.group_by("key")
        .agg(pl.len().alias("n"), (pl.col("rating") - mean).sum().alias("gap"))
        .filter(pl.col("n") >= _TONE_MIN)
        .with_columns((pl.col("gap") / (pl.col("n") + _TONE_MIN)).alias("gap"))
        .filter(pl.col("gap").abs() >= _TONE_GAP)
        .collect(engine="streaming")
    )
    return {key: 1 if gap > 0 else -1 for key, gap in by_key.select("key", "gap").iter_rows()}


def _polarity(tone: dict[str, int]) -> pl.Expr:
    """Of the words; where they are silent, of what goes with such words; else of the stars. 0 is neither."""
    rating, said = pl.col("rating"), pl.col("said")
    usual = pl.col("key").replace_strict(tone, default=0, return_dtype=pl.Int8) if tone else pl.lit(0, pl.Int8)
    stars = (
        pl.when(rating.is_null() | (rating >= _PRAISES))
        .then(1)
        .when(rating <= _BLAMES)
        .then(pl.when(usual > 0).then(0).otherwise(-1))
        .otherwise(pl.when(usual != 0).then(usual).otherwise(0))
    )
    return pl.when(said != 0).then(said).when(usual < 0).then(usual).otherwise(stars).cast(pl.Int8)


@dataclass(frozen=True)
class _Counted:
    rows: pl.DataFrame
    """owner, text, kind, polarity, count, rating, item, quote; by owner, the most telling first."""
    total: np.ndarray


def _reviews_of(dataset: Dataset, owner: str) -> np.ndarray:
    """Training reviews with text, of each item or user."""
    n = dataset.info.n_items if owner == "item" else dataset.info.n_users
    column = f"{owner}_index"
    counts = dataset.reviews().filter(pl.col("split") == "train").group_by(column).len().collect(engine="streaming")
    total = np.zeros(n, dtype=np.uint16)
    total[counts[column].to_numpy()] = counts["len"].clip(0, 65_535).to_numpy()
    return total


def _count(spilled: pl.LazyFrame, tone: dict[str, int], owner: str, total: np.ndarray, limit: int) -> _Counted:
    n_rows = int(spilled.select(pl.len()).collect(engine="streaming").item())
    n_parts = max(1, -(-n_rows // _PART_ROWS))
    often = spilled.group_by("key").len().filter(pl.col("len") > 1).sort("len", "key", descending=[True, False])
    frequency = dict(often.head(_MAX_WORDS).collect(engine="streaming").iter_rows())
    parts = []
    for part in range(n_parts):
        frame = spilled.filter(pl.col(owner) % n_parts == part).collect(engine="streaming")
        frame = frame.with_columns(_polarity(tone).alias("polarity")).filter(pl.col("polarity") != 0)
        if owner == "item":
            frame = frame.filter(~pl.col("wish"))
        if frame.is_empty():
            continue
        other = "user" if owner == "item" else "item"
        parts.append(_merged(frame, owner, other, limit, frequency))
    rows = pl.concat(parts).sort("owner", "place") if parts else _no_rows()
    return _Counted(rows, total)


def _merged(frame: pl.DataFrame, owner: str, other: str, limit: int, frequency: dict[str, int]) -> pl.DataFrame:
    """Alike phrases as one row in their most common wording, the first `limit` of each owner."""
    if owner == "user":  # what somebody misses in one item is what they look for in all
        blamed = pl.col("polarity") < 0
        frame = frame.with_columns(
            pl.when(blamed & (pl.col("kind") == 0) & (pl.col("said") < 0))
            .then(1)
            .otherwise("polarity")
            .alias("polarity")
        )
    group = [owner, "key", "polarity"]
    wording = (
        frame.group_by(*group, "text", "kind")
        .agg(pl.len().alias("n"), pl.col("quote").drop_nulls().first())
        .sort(*group, "n", "text", descending=[False, False, False, True, False])
        .group_by(group, maintain_order=True)
        .agg(pl.col("text", "kind", "quote").first())
    )
    counted = (
        frame.sort("place")
        .unique([*group, other], keep="last", maintain_order=True)
        .group_by(group, maintain_order=True)
        .agg(pl.len().alias("count"), pl.col("rating").mean(), pl.col("item").last().alias("on"))
    )
    # of statements made as often, the one that is made of many owners is the likelier to be made again
    everywhere = pl.col("key").replace_strict(frequency, default=0, return_dtype=pl.Int64)
    rows = counted.join(wording, on=group).with_columns(everywhere.alias("everywhere"))
    rows = rows.sort(owner, "count", "everywhere", "text", descending=[False, True, True, False])
    rows = rows.with_columns(pl.int_range(pl.len()).over(owner).alias("place")).filter(pl.col("place") < limit)
    return rows.select(
        pl.col(owner).alias("owner"), "place", "text", "kind", "polarity", "count", "rating",
        (pl.lit(-1, pl.Int32) if owner == "item" else pl.col("on")).alias("item"),
        (pl.when(pl.col("place") < 3).then("quote") if owner == "item" else pl.lit(None, pl.String)).alias("quote"),
    )  # fmt: skip


def _no_rows() -> pl.DataFrame:
    return pl.DataFrame(
        schema={
            "owner": pl.Int32, "place": pl.Int64, "text": pl.String, "kind": pl.Int8, "polarity": pl.Int8,
            "count": pl.UInt32, "rating": pl.Float32, "item": pl.Int32, "quote": pl.String,
        }
    )  # fmt: skip


def _assemble(
    users: _Counted,
    items: _Counted,
    language: Language,
    word_counts: Counter[str],
    n_texts: int,
    tone: dict[str, int],
    names: np.ndarray,
) -> Statements:
    texts = pl.concat([users.rows["text"], items.rows["text"]]).unique().sort()
    quotes = items.rows["quote"].drop_nulls().unique().sort()
    codes: dict[str, int] = defaultdict(lambda: len(codes))
    about = [
        sorted({codes[s] for w in words(text) if w not in GENERIC and w not in _MANNER and (s := language.claim(w))})
        for text in texts
    ]
    kept = [word for word, n in word_counts.most_common(_MAX_WORDS) if n > 1 or len(word_counts) < 1000]
    kept = list(dict.fromkeys([*kept, *(word for text in texts for word in words(text))]))
    stems = [language.claim(word) for word in kept]
    personal = {part for word in language.personal for part in words(word) if len(part) > 1 or word == part}
    lexicon_stems = np.asarray(
        [
            (PERSONAL if word in personal else FUNCTION_WORD) if stem is None else codes[stem]
            for word, stem in zip(kept, stems, strict=True)
        ],
        dtype=np.int32,
    )
    documents = np.ones(len(codes))
    for word, code in zip(kept, lexicon_stems.tolist(), strict=True):
        if code >= 0:
            documents[code] += word_counts[word]
    idf = np.log((1 + n_texts) / documents).clip(0.1).astype(np.float32)
    tones = np.zeros(len(codes), dtype=np.int8)
    for key, sign in tone.items():
        if key in codes:
            tones[codes[key]] = sign
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in about])]).astype(np.int64)
    return Statements(
        _rows(users, texts, quotes), _rows(items, texts, quotes), StringTable.from_strings(texts),
        (indptr, np.asarray([stem for row in about for stem in row], dtype=np.int32)),
        idf, StringTable.from_strings(kept), lexicon_stems, tones, names, StringTable.from_strings(quotes),
        language.code,
    )  # fmt: skip


def _rows(counted: _Counted, texts: pl.Series, quotes: pl.Series) -> Rows:
    rows = counted.rows
    counts = np.bincount(rows["owner"].to_numpy(), minlength=len(counted.total))
    return Rows(
        indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        text=_places(rows["text"], texts),
        kind=rows["kind"].to_numpy().astype(np.int8),
        polarity=rows["polarity"].to_numpy().astype(np.int8),
        count=rows["count"].clip(0, 65_535).to_numpy().astype(np.uint16),
        rating=rows["rating"].fill_null(float("nan")).to_numpy().astype(np.float32),
        item=rows["item"].to_numpy().astype(np.int32),
        quote=_places(rows["quote"], quotes),
        total=counted.total,
    )


def _places(values: pl.Series, among: pl.Series) -> np.ndarray:
    """Where each value stands among sorted distinct ones; -1 for null."""
    table = pl.DataFrame({"value": among, "at": np.arange(len(among), dtype=np.int32)})
    found = values.alias("value").to_frame().join(table, on="value", how="left", maintain_order="left")["at"]
    return found.fill_null(-1).to_numpy().astype(np.int32)
