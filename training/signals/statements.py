"""Statements from training reviews and rationales, as the arrays of a bundle.

Texts become phrases on disk (`phrase_spill.py`), phrases become rows on disk (`statement_rows.py`), and rows become
arrays here. Memory holds one run of texts, one range of owners, and the result, whose rows an owner are bounded.
"""

from __future__ import annotations

import tempfile
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from rdrec_core.catalog import StringTable
from rdrec_core.errors import DatasetError
from rdrec_core.statements import FUNCTION_WORD, PERSONAL, Rows, Statements
from rdrec_core.withdrawing import Sources
from rdrec_core.words import words
from training.data.dataset import Dataset
from training.signals.english import Lexicon
from training.signals.languages import ENGLISH, Language, language_of
from training.signals.phrase_spill import Finder, PhraseSpill, Reading, claims_of, names_of_items
from training.signals.phrases import PhraseFinder
from training.signals.recurring import RecurringFinder
from training.signals.statement_rows import frequencies, tone_of, write_rows
from training.workers import Blocks

MAX_ITEM_ROWS, MAX_USER_ROWS = 24, 16
LEARN_FROM = 100_000
"""Reviews that the lexicon is learned from."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class StatementOptions:
    """quotes: keep a reviewer's sentence with an item's first statements; language: None finds it out."""

    quotes: bool = False
    language: Language | None = None


def build_statements(
    dataset: Dataset,
    options: StatementOptions | None = None,
    say: Say = lambda _: None,
    note: Say = lambda _: None,
    blocks: Blocks | None = None,
) -> Statements:
    """Of a dataset's training reviews (held-out ones are never read). Raises DatasetError where there are none.

    say: hears of progress; note: of what was left out. blocks: who finds phrases, by default this process; the arrays
    are the same.
    """
    options, blocks = options or StatementOptions(), blocks or Blocks()
    if not dataset.has_reviews:
        raise DatasetError(f"{dataset.path} has no reviews with text, so nothing is said of its items")
    say("learning how these reviews speak")
    finder, language = finder_for(dataset, options.language)
    names = names_of_items(dataset.items["title"], language)
    info = dataset.info
    with tempfile.TemporaryDirectory(prefix="rdrec-statements-", dir=blocks.folder) as temporary:
        folder = Path(temporary).resolve()
        bare = type(dataset)(dataset.path.resolve())  # without the tables that this one has read
        spill = PhraseSpill(folder)
        spill.read(Reading(bare, finder, language, options.quotes), names, blocks, say)
        if spill.n_unproven:
            note(
                f"{spill.n_unproven:,} phrases of rationales are left out: the review that they were made from does not"
                " have their words"
            )
        say("counting")
        spilled, heard = spill.close()
        tone, frequency = tone_of(spilled), frequencies(spilled)
        items = write_rows(spilled, heard, tone, frequency, "item", info.n_items, MAX_ITEM_ROWS, folder)
        users = write_rows(spilled, heard, tone, frequency, "user", info.n_users, MAX_USER_ROWS, folder)
        say("putting together")
        return _assemble(dataset, _Files(items), _Files(users), spill, language, tone, names)


def finder_for(dataset: Dataset, language: Language | None = None) -> tuple[Finder, Language]:
    """What finds phrases in a dataset's training reviews, and their language."""
    rows = dataset.reviews().filter(pl.col("split") == "train").select("text").head(LEARN_FROM).collect()
    sample = rows["text"].to_list()
    language = language or language_of(sample[:2000])
    if language is ENGLISH:
        return PhraseFinder(Lexicon.learn(sample)), language
    return RecurringFinder.learn(sample, language), language


@dataclass(frozen=True)
class _Files:
    """Rows on disk."""

    paths: Sequence[Path]

    def distinct(self, column: str) -> pl.LazyFrame:
        return pl.scan_parquet(self.paths).select(pl.col(column).drop_nulls().unique().alias("text"))


def _distinct(*parts: pl.LazyFrame) -> pl.Series:
    return pl.concat(parts).unique().sort("text").collect(engine="streaming")["text"]


def _assemble(
    dataset: Dataset,
    items: _Files,
    users: _Files,
    spill: PhraseSpill,
    language: Language,
    tone: dict[str, int],
    names: np.ndarray,
) -> Statements:
    texts = _distinct(items.distinct("text"), users.distinct("text"))
    quotes = _distinct(items.distinct("quote"))
    codes: dict[str, int] = defaultdict(lambda: len(codes))
    indptr, stems, spoken = array("q", [0]), array("i"), dict.fromkeys(spill.common_words())
    for text in texts:
        stems.extend(sorted(codes[stem] for stem in claims_of(text, language)))
        indptr.append(len(stems))
        spoken.update(dict.fromkeys(words(text)))
    lexicon = list(spoken)
    lexicon_stems = _lexicon_stems(lexicon, language, codes)
    documents = np.ones(len(codes))
    np.add.at(documents, *_documents(lexicon, lexicon_stems, spill.word_counts))
    tones = np.zeros(len(codes), dtype=np.int8)
    for key, sign in tone.items():
        if key in codes:
            tones[codes[key]] = sign
    item_total, user_total, (reviewed_indptr, reviewed) = _reviews(dataset)
    item_rows, (said_indptr, said) = _rows(items, item_total, texts, quotes, n_users=dataset.info.n_users)
    user_rows, _ = _rows(users, user_total, texts, quotes, n_users=dataset.info.n_users)
    return Statements(
        user_rows, item_rows, StringTable.from_strings(texts),
        (np.frombuffer(indptr, dtype=np.int64), np.frombuffer(stems, dtype=np.int32) if stems else _NO_INDEX),
        np.log((1 + spill.n_reviews) / documents).clip(0.1).astype(np.float32), StringTable.from_strings(lexicon),
        lexicon_stems, tones, names, StringTable.from_strings(quotes), language.code,
        Sources(said_indptr, said, reviewed_indptr, reviewed),
    )  # fmt: skip


_NO_INDEX = np.empty(0, dtype=np.int32)
Csr = tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]


def _lexicon_stems(lexicon: Sequence[str], language: Language, codes: dict[str, int]) -> npt.NDArray[np.int32]:
    personal = {part for word in language.personal for part in words(word) if len(part) > 1 or word == part}
    stems = (language.claim(word) for word in lexicon)
    return np.asarray(
        [
            (PERSONAL if word in personal else FUNCTION_WORD) if stem is None else codes[stem]
            for word, stem in zip(lexicon, stems, strict=True)
        ],
        dtype=np.int32,
    )


def _documents(
    lexicon: Sequence[str], stems: npt.NDArray[np.int32], counts: Counter[str]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """(stem, reviews) of the words that have a stem."""
    kept = np.flatnonzero(stems >= 0)
    return stems[kept], np.asarray([counts[lexicon[place]] for place in kept.tolist()], dtype=np.int64)


def _reviews(dataset: Dataset) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16], Csr]:
    """Training reviews with text: how many of each item, of each user, and the items of each user's."""
    reviews = dataset.reviews().filter(pl.col("split") == "train")
    rows = reviews.select("user_index", "item_index").sort("user_index").collect(engine="streaming")
    user, item = rows["user_index"].to_numpy(), rows["item_index"].to_numpy().astype(np.int32)
    by_item = np.bincount(item, minlength=dataset.info.n_items)
    by_user = np.bincount(user, minlength=dataset.info.n_users)
    return (
        by_item.clip(0, 65_535).astype(np.uint16),
        by_user.clip(0, 65_535).astype(np.uint16),
        (_indptr(by_user), item),
    )


def _indptr(counts: np.ndarray) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _rows(
    files: _Files, total: npt.NDArray[np.uint16], texts: pl.Series, quotes: pl.Series, *, n_users: int
) -> tuple[Rows, Csr]:
    """One side's arrays, and by user the rows that the user stands behind."""
    columns: dict[str, list[np.ndarray]] = {name: [_EMPTY[name]] for name in _EMPTY}
    behind, rows_behind, n_rows = [_NO_INDEX], [_NO_INDEX], 0
    counts = np.zeros(len(total), dtype=np.int64)
    for path in files.paths:
        part = pl.read_parquet(path)
        counts += np.bincount(part["owner"].to_numpy(), minlength=len(total))
        columns["text"].append(_places(part["text"], texts))
        columns["quote"].append(_places(part["quote"], quotes))
        columns["count"].append(part["count"].clip(0, 65_535).to_numpy().astype(np.uint16))
        columns["rating"].append(part["rating"].fill_null(float("nan")).to_numpy().astype(np.float32))
        for name in ("kind", "polarity", "item", "heard"):
            columns[name].append(part[name].to_numpy())
        behind.append(part["by"].explode().drop_nulls().to_numpy().astype(np.int32))
        lengths = part["by"].list.len().to_numpy()
        rows_behind.append(np.repeat(np.arange(n_rows, n_rows + len(part), dtype=np.int32), lengths))
        n_rows += len(part)
    user, row = np.concatenate(behind), np.concatenate(rows_behind)
    rows = Rows(indptr=_indptr(counts), total=total, **{name: np.concatenate(parts) for name, parts in columns.items()})
    return rows, (_indptr(np.bincount(user, minlength=n_users)), row[np.argsort(user, kind="stable")])


_EMPTY = {
    "text": _NO_INDEX, "kind": np.empty(0, np.int8), "polarity": np.empty(0, np.int8), "count": np.empty(0, np.uint16),
    "heard": np.empty(0, np.float32), "rating": np.empty(0, np.float32), "item": _NO_INDEX, "quote": _NO_INDEX,
}  # fmt: skip


def _places(values: pl.Series, among: pl.Series) -> npt.NDArray[np.int32]:
    """Where each value stands among sorted distinct ones; -1 for null."""
    table = pl.DataFrame({"value": among, "at": np.arange(len(among), dtype=np.int32)})
    found = values.alias("value").to_frame().join(table, on="value", how="left", maintain_order="left")["at"]
    return found.fill_null(-1).to_numpy().astype(np.int32)
