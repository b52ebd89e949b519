"""Which sentence of a review becomes the target of the explanation task, and which texts count as the same.

The rule: the catalogue's feature words are the nouns that reviews name most often; the explanation of a review is its
sentence with the most feature words, the first of equals, and the first sentence where no sentence has any. A noun is
told by its place, without a tagger: it stands between a determiner («the», «my», ...; one word may come between) and a
punctuation mark or function word. Under protocol `clean` the caller gives training reviews only.

Works on Polars series of texts; knows neither files nor splits.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import polars as pl

MAX_FEATURES = 500
MIN_REVIEWS = 3
"""A feature word is named by at least this many reviews."""
MIN_FINGERPRINT_WORDS = 5
"""Shorter texts («Five stars») are everybody's; that they recur tells nothing."""
MIN_FINGERPRINT_LETTERS = 8
"""The same for languages without blanks, whose words have one to three letters."""

_NOUN = re.compile(
    r"\b(?:the|an?|this|these|those|my|its|their|your|our|her|his|some|no)\s+(?:[a-z'-]+\s+)?([a-z]{3,})"
    r"(?=\s*(?:[.,;:!?)]|$)|\s+(?:is|are|was|were|and|or|of|in|on|to|for|with|that|which|has|have|had|from|at|as|but|so|"
    r"it|i|you|we|they|when|because|than|by|does|did|can|will)\b)"
)
_EMPTY_WORDS = """
thing things one ones way lot lots bit time times day days week weeks month months year years hour hours minute minutes
moment item items product products purchase something anything everything nothing someone anyone everyone person people
fact reason reasons kind sort type star stars review reviews problem problems issue issues amazon few same other others
first second last next best most more much very that this and but for with not all good great nice well just really only
also even ever too end rest while couple half whole point case order money buy deal need you them him her who what which
when where out here there then than now again
"""
_NOT_FEATURES = frozenset(_EMPTY_WORDS.split())
_NOT_A_NOUN = ("ed", "ly")
# A sentence ends at punctuation that space or the text's end follows («3.5 stars» stays whole), or at that of languages
# without blanks, which nothing need follow.
_SENTENCE = r"(?:[^.!?。！？｡]|[.!?][^\s.!?。！？｡])+[.!?。！？｡]*"
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
"""Letters of languages that put no blanks between words."""


def feature_words(texts: Iterable[str], limit: int = MAX_FEATURES) -> tuple[str, ...]:
    """The most named nouns over `texts`, by the number of reviews that name them (ties: alphabetical).

    A singular and its plural count as two words. Words in -ed and -ly are taken for verbs and adverbs.
    """
    named: Counter[str] = Counter()
    for text in texts:
        named.update(set(_NOUN.findall(text.lower())))
    ranked = sorted(
        (-count, word) for word, count in named.items() if word not in _NOT_FEATURES and not word.endswith(_NOT_A_NOUN)
    )
    return tuple(word for count, word in ranked[:limit] if -count >= MIN_REVIEWS)


def choose_sentences(texts: pl.Series, features: tuple[str, ...]) -> pl.Series:
    """The explanation of each text, (n,) String; null where a text is empty."""
    # \b in ASCII only: a Unicode boundary makes the regex engine many times slower
    pattern = r"(?i)(?-u:\b)(?:" + "|".join(map(re.escape, features)) + r")(?-u:\b)" if features else "$^"
    sentences = (
        texts.alias("text")
        .to_frame()
        .with_row_index("row")
        .with_columns(pl.col("text").str.extract_all(_SENTENCE).alias("sentence"))
        .explode("sentence")
        .with_columns(pl.col("sentence").str.strip_chars())
        .filter(pl.col("sentence").str.contains(r"\p{L}"))
        .with_columns(pl.col("sentence").str.count_matches(pattern).alias("n"))
        .group_by("row", maintain_order=True)
        .agg(pl.col("sentence").get(pl.col("n").arg_max()))
    )
    chosen = (
        texts.alias("text")
        .to_frame()
        .with_row_index("row")
        .join(sentences, on="row", how="left", maintain_order="left")
        .select(pl.when(pl.col("text").str.len_bytes() > 0).then(pl.coalesce("sentence", "text")).alias("explanation"))
    )
    return chosen["explanation"]


def fingerprint(text: pl.Expr) -> pl.Expr:
    """A hash of a text's words, UInt64, equal for texts that differ in case, space and punctuation only.

    0 for texts of fewer than MIN_FINGERPRINT_WORDS words, or MIN_FINGERPRINT_LETTERS letters where words have no
    blanks. Stable within one Polars version, so it is never stored.
    """
    words = text.str.to_lowercase().str.replace_all(r"[^\p{L}\p{N}]+", " ").str.strip_chars()
    enough_letters = words.str.count_matches(_UNSPACED) >= MIN_FINGERPRINT_LETTERS
    long_enough = (words.str.count_matches(" ", literal=True) >= MIN_FINGERPRINT_WORDS - 1) | enough_letters
    return pl.when(long_enough).then(words.hash(seed=0)).otherwise(0).cast(pl.UInt64)
