"""The `reviews` table: splits, explanations, and the training reviews set aside because they repeat a held-out text.

Streams batches of text and writes row groups; what it holds of all rows is numbers. Knows neither formats nor commands.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol as Interface

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow.parquet as pq

from training.data.dataset import REVIEWS, SPLITS, Protocol
from training.data.explanations import choose_sentences, feature_words
from training.data.histories import ROWS_AT_ONCE, TEST, TRAIN, VAL, Histories

FEATURE_SAMPLE = 50_000
"""Reviews that the feature words are counted on, drawn by seed from those that may be used."""
_SHARES = (0.8, 0.1, 0.1)
"""Of train, val and test reviews under `paper` where the source brings no splits (P5 splits explanations 8:1:1)."""


class ReviewTexts(Interface):
    """The texts of a purchase log in batches.

    A batch has the columns `row` (place in the log), `text`, `rating`, and, where the source brings them,
    `explanation` and `split`.
    """

    @property
    def n_batches(self) -> int: ...
    def batch(self, number: int) -> pl.DataFrame: ...
    def fingerprints(self) -> npt.NDArray[np.uint64]:
        """By row of the log; 0 where there is no text or too short a one."""
        ...


@dataclass(frozen=True)
class ReviewCounts:
    """What became of the texts."""

    n_reviews: int
    n_set_aside: int
    """Training reviews left out under `clean` because their text is that of a held-out review."""
    features: tuple[str, ...]
    """Feature words of the catalogue, most named first; empty where the source brings explanations."""


@dataclass(frozen=True)
class _Places:
    """By row of the log: which interaction it is (-1: dropped), and the split of its review."""

    interaction: npt.NDArray[np.int32]
    split: npt.NDArray[np.uint8]

    def kept(self, batch: pl.DataFrame) -> pl.DataFrame:
        """Rows that stay and have text, with their `interaction` and `split`."""
        rows = batch["row"].to_numpy()
        placed = batch.with_columns(interaction=pl.Series(self.interaction[rows]))
        if "split" not in batch.columns:
            placed = placed.with_columns(_split_series(self.split[rows]))
        return placed.filter((pl.col("interaction") >= 0) & (pl.col("text").str.len_bytes() > 0))


def write_reviews(
    path: Path, histories: Histories, texts: ReviewTexts, *, n_rows: int, protocol: Protocol, seed: int, workers: int
) -> ReviewCounts:
    """Write REVIEWS, in input order.

    A review has the split of its interaction, feature words come from training reviews, and a training review whose
    text equals a held-out one's (5 words or more) is left out. Under `paper` splits are the source's or random over all
    reviews, and feature words come from all of them. n_rows: rows of the log.
    """
    rng = np.random.default_rng([seed, 7])
    places, n_set_aside = _places(histories, texts, n_rows, protocol, rng)
    has_explanations = texts.n_batches > 0 and "explanation" in texts.batch(0).columns
    features = () if has_explanations else feature_words(_sample(texts, places, protocol != "paper", rng))
    n_reviews = 0

    def finish(number: int) -> pl.DataFrame:
        kept = places.kept(texts.batch(number))
        where = kept["interaction"].to_numpy()
        explanation = kept["explanation"] if has_explanations else choose_sentences(kept["text"], features)
        return kept.with_columns(
            user_index=pl.Series(histories.user_index[where]),
            item_index=pl.Series(histories.item_index[where]),
            explanation=explanation,
        ).select(pl.col(name).cast(dtype) for name, dtype in REVIEWS.items())

    schema = pl.DataFrame(schema=REVIEWS).to_arrow().schema
    with pq.ParquetWriter(path, schema, compression="zstd", compression_level=1) as writer:
        for frame in _ordered(finish, texts.n_batches, workers):
            n_reviews += frame.height
            if frame.height:
                writer.write_table(frame.to_arrow().cast(schema))
    return ReviewCounts(n_reviews, n_set_aside, features)


def _places(
    histories: Histories, texts: ReviewTexts, n_rows: int, protocol: Protocol, rng: np.random.Generator
) -> tuple[_Places, int]:
    interaction = np.full(n_rows, -1, dtype=np.int32)
    for start in range(0, len(histories.split), ROWS_AT_ONCE):
        rows = histories.source_row[start : start + ROWS_AT_ONCE]
        interaction[rows] = np.arange(start, start + len(rows))
    split = np.zeros(n_rows, dtype=np.uint8)
    if protocol == "paper":
        split[histories.source_row] = rng.choice(len(SPLITS), size=len(histories.source_row), p=_SHARES)
        return _Places(interaction, split), 0
    split[histories.source_row] = histories.split
    prints, n_repeats = texts.fingerprints(), 0
    held_out = np.unique(prints[histories.source_row[(histories.split == VAL) | (histories.split == TEST)]])
    for start in range(0, len(histories.split), ROWS_AT_ONCE):
        some = slice(start, start + ROWS_AT_ONCE)
        rows = histories.source_row[some][histories.split[some] == TRAIN]
        mine = prints[rows]
        repeats = rows[(mine != 0) & _is_in(mine, held_out)]
        interaction[repeats] = -1
        n_repeats += len(repeats)
    return _Places(interaction, split), n_repeats


def _is_in(values: npt.NDArray[np.uint64], ascending: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Whether each value is among those; np.isin would sort both for every slice."""
    if not len(ascending):
        return np.zeros(len(values), dtype=np.bool_)
    places = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return ascending[places] == values


def _sample(texts: ReviewTexts, places: _Places, train_only: bool, rng: np.random.Generator) -> list[str]:
    sample: list[str] = []
    for number in rng.permutation(texts.n_batches):
        kept = places.kept(texts.batch(int(number)))
        if train_only:
            kept = kept.filter(pl.col("split") == "train")
        sample.extend(kept["text"].to_list())
        if len(sample) >= FEATURE_SAMPLE:
            break
    return sample[:FEATURE_SAMPLE]


def _split_series(split: npt.NDArray[np.uint8]) -> pl.Series:
    names = pl.Series(SPLITS, dtype=pl.Enum(SPLITS))
    return names.gather(split).alias("split")


def _ordered(make: Callable[[int], pl.DataFrame], n: int, workers: int) -> Iterator[pl.DataFrame]:
    """make(0), make(1), ... computed by `workers` threads, a few ahead of the consumer."""
    pending: deque[Future[pl.DataFrame]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for number in range(n):
            pending.append(pool.submit(make, number))
            if len(pending) > workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
