"""Cached words against the tokenizer run over the whole text."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from rdrec_core.encoding import SourceEncoder, encode_item_words, encode_labels, pad_sources
from rdrec_core.prompts import training_templates
from rdrec_core.types import Task
from tests.data import real_data


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(real_data("t5-tokenizer") / "tokenizer.json"))


@pytest.fixture(scope="module")
def encoder(tokenizer: Tokenizer) -> SourceEncoder:
    return SourceEncoder(tokenizer, encode_item_words(tokenizer, map(str, range(1, 501))))


def test_cached_words_equal_the_tokenizer_on_the_whole_text(tokenizer: Tokenizer, encoder: SourceEncoder) -> None:
    encoded = encoder.encode(Task.SEQUENTIAL, 122, [99, 233, 0])
    assert encoded.token_ids.tolist() == tokenizer.encode("user_123 item_100 item_234 item_1").ids


@pytest.mark.parametrize("task", list(Task))
def test_templates_too(tokenizer: Tokenizer, encoder: SourceEncoder, task: Task) -> None:
    for template in training_templates(task):
        text = " ".join(template).replace("{user}", "user_7").replace("{items}", "item_12 item_13")
        assert encoder.encode(task, 6, [11, 12], template).token_ids.tolist() == tokenizer.encode(text).ids


def test_whole_word_ids_count_user_and_item_words_and_are_0_elsewhere() -> None:
    tiny = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "user_8": 2, "item_5": 3, "Describe": 4}, "<pad>"))
    tiny.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = encode_item_words(tiny, ["5"])
    encoder = SourceEncoder(tiny, words)
    encoded = encoder.encode(Task.EXPLANATION, 7, [0], ("Describe", "{user}", "{items}", "{items}"))
    assert encoded.token_ids.tolist() == [4, 2, 3, 3, 1]
    assert encoded.whole_word_ids.tolist() == [0, 1, 2, 3, 0]


def test_the_sequential_task_reads_the_last_twenty_and_unknown_users_are_number_0(
    tokenizer: Tokenizer, encoder: SourceEncoder
) -> None:
    encoded = encoder.encode(Task.SEQUENTIAL, None, list(range(30)))
    text = "user_0 " + " ".join(f"item_{i + 1}" for i in range(10, 30))
    assert encoded.token_ids.tolist() == tokenizer.encode(text).ids
    assert encoded.whole_word_ids.max() == 21


def test_padding(encoder: SourceEncoder) -> None:
    short, long = encoder.encode(Task.TOPN, 0, [1]), encoder.encode(Task.TOPN, 0, [1, 2, 3])
    batch = pad_sources([short, long])
    assert batch.mask.sum(axis=1).tolist() == [len(short.token_ids), len(long.token_ids)]
    assert (batch.token_ids[0, len(short.token_ids) :] == 0).all()
    assert np.array_equal(batch.token_ids[1], long.token_ids)


def test_a_bare_space_token_before_a_label_is_dropped(tokenizer: Tokenizer) -> None:
    labels = [str(n) for n in range(1, 13_000)]
    tokens = encode_labels(tokenizer, labels)
    space = tokenizer.token_to_id("▁")
    first = tokens.tokens[tokens.indptr[:-1]]
    assert (first != space).all()
    assert len({tuple(tokens[i].tolist()) for i in range(len(tokens))}) == len(labels)
