"""Which texts are learned and where they end, with a tokenizer of one token a word (or wide character)."""

import re

import numpy as np
import polars as pl
import pytest

from rdrec_core.encoding import RaggedTokens
from training.learning import targets
from training.learning.config import load_config
from training.learning.targets import TargetRule


def by_word(texts):
    numbers = [[hash(word) % 10_000 for word in re.findall(r"[\w']+|[。、]", text)] for text in texts]
    lengths = [len(row) for row in numbers]
    return RaggedTokens(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.asarray([n for row in numbers for n in row], dtype=np.int32),
    )


def cut(text: str, limit: int = 6) -> str | None:
    rows, tokens = TargetRule(limit, whole=True).targets(pl.Series([text]), by_word)
    if not len(rows):
        return None
    words = re.findall(r"[\w']+|[。、]", text)
    assert tokens[0].tolist() == by_word([text])[0].tolist()[: len(tokens[0])]
    return " ".join(words[: len(tokens[0])])


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("It is a fine lid", "It is a fine lid"),
        ("One two three. Four five six. Seven.", "One two three Four five six"),
        ("It fits my old pot, although the handle gets hot soon.", "It fits my old pot"),
        ("Well, it fits every one of my old pots.", None),  # «Well.» says nothing
        ("It fits every one of my old pots and pans", None),
    ],
)
def test_a_text_ends_where_a_sentence_or_clause_does(text: str, kept: str | None) -> None:
    assert cut(text) == kept


def test_rows_keep_their_own_texts() -> None:
    texts = pl.Series(["a b c d e f g", "one two", "first second third fourth, fifth sixth seventh", "three"])
    rows, tokens = TargetRule(4, whole=True).targets(texts, by_word)
    assert rows.tolist() == [1, 2, 3]
    assert [len(tokens[n]) for n in range(3)] == [2, 4, 1]
    rows, tokens = TargetRule(4).targets(texts, by_word)  # as published
    assert rows.tolist() == [0, 1, 2, 3]
    assert [len(tokens[n]) for n in range(4)] == [4, 2, 4, 1]


@pytest.mark.parametrize("whole", [True, False])
def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, whole: bool) -> None:
    words = pl.Series([f"One {'more ' * (n % 7)}word. And {n} again, with words." for n in range(20)])
    rows, tokens = TargetRule(8, whole=whole).targets(words, by_word)
    monkeypatch.setattr(targets, "_AT_ONCE", 3)
    in_blocks, cut_in_blocks = TargetRule(8, whole=whole).targets(words, by_word)
    assert in_blocks.tolist() == rows.tolist()
    assert cut_in_blocks.indptr.tolist() == tokens.indptr.tolist()
    assert cut_in_blocks.tokens.tolist() == tokens.tokens.tolist()
    none, empty = TargetRule(8, whole=whole).targets(pl.Series([], dtype=pl.String), by_word)
    assert (len(none), len(empty)) == (0, 0)


def test_what_is_rated_too_low_is_not_explained_and_what_is_not_rated_is() -> None:
    ratings = pl.DataFrame({"rating": [1.0, 4.0, None, 3.9, 5.0]}).filter(TargetRule(20, min_rating=4).explained())
    assert ratings["rating"].to_list() == [4.0, None, 5.0]


def test_the_papers_recipe_learns_everything_and_cuts_at_tokens() -> None:
    assert TargetRule.of(load_config("paper")) == TargetRule(20)
    assert TargetRule.of(load_config("scratch")) == TargetRule(20, whole=True, min_rating=4.0)
    assert TargetRule.of(load_config("scratch", None, {"min_explained_rating": 2})).min_rating == 2
