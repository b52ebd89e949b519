"""Pieces of numbers and words, by hand."""

import pytest
from tokenizers import Tokenizer

from rdrec_core.encoding import encode_item_words, encode_labels
from training.learning.vocabulary import train_vocabulary

TEXTS = ["The dice are great, really great.", "great dice for 4 players", "I paid 19.99!"] * 3


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    return tokenizer.encode(text, add_special_tokens=False).tokens


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_vocabulary(TEXTS, size=300)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("item_10012", ["▁item_", "100", "12"]),
        ("user_7", ["▁user_", "7"]),
        ("item_123456", ["▁item_", "123", "456"]),
        ("Describe", ["▁Describe"]),
    ],
)
def test_numbers_are_cut_from_the_left_in_threes(tokenizer: Tokenizer, word: str, expected: list[str]) -> None:
    assert pieces(tokenizer, word) == expected


def test_labels_and_item_words_share_the_ids_of_their_pieces(tokenizer: Tokenizer) -> None:
    labels, words = encode_labels(tokenizer, ["10012", "7"]), encode_item_words(tokenizer, ["10012", "7"])
    for row in range(2):
        assert labels[row].tolist() == words[row].tolist()[1:]
    assert tokenizer.decode(labels[0].tolist()).strip() == "10012"


def test_every_number_is_read_without_unknown_pieces(tokenizer: Tokenizer) -> None:
    unknown = tokenizer.token_to_id("<unk>")
    for number in [*range(0, 1000), 12101, 9_999_999]:
        assert unknown not in tokenizer.encode(f"user_{number}").ids


def test_special_ids_are_those_of_t5(tokenizer: Tokenizer) -> None:
    assert [tokenizer.token_to_id(token) for token in ("<pad>", "</s>", "<unk>")] == [0, 1, 2]


@pytest.mark.parametrize("text", ["great dice for 4 players", "I paid 19.99!", "The dice are great, really great."])
def test_text_decodes_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids).strip() == text


def test_whole_item_words_are_one_token_and_labels_stay_pieces() -> None:
    tokenizer = train_vocabulary(TEXTS, size=300, whole_items=["10012", "10013"])
    assert pieces(tokenizer, "item_10013") == ["▁item_10013"]
    assert pieces(tokenizer, "10013") == ["▁", "100", "13"]
    assert pieces(tokenizer, "user_10013") == ["▁user_", "100", "13"]


def test_without_text_the_vocabulary_is_small_and_knows_the_templates() -> None:
    tokenizer = train_vocabulary([], size=4000)
    assert tokenizer.get_vocab_size() < 1300
    assert pieces(tokenizer, "Candidates") == ["▁Candidates"]


def test_the_same_texts_give_the_same_vocabulary(tokenizer: Tokenizer) -> None:
    assert train_vocabulary(TEXTS, size=300).to_str() == tokenizer.to_str()
