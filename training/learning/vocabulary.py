"""A vocabulary for a model trained from scratch: BPE pieces of the training texts, and numbers in short pieces.

A run of digits is cut from the left into pieces of three, so that `10012` is `100` `12` and `item_10012` is `▁item_`
`100` `12` with the same ids: labels share prefixes, and what the model reads and writes shares rows. Three digits bound
the fan-out of a trie node to 1000 children and the depth to a third of the digits: two pieces name up to 10^6 items,
against one softmax over all items (one piece) or five decoder steps (single digits). Knows texts and labels, not the
model.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterable, Iterator

import polars as pl
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from rdrec_core.prompts import ITEMS, USER, training_templates
from rdrec_core.types import Task
from training.data.dataset import Dataset

PAD, EOS, UNK = "<pad>", "</s>", "<unk>"
"""Ids 0, 1, 2, as in T5."""
DIGITS_A_PIECE = 3
_SPACE = "▁"
_CUT_PIECES = f'[0-9]{{1,{DIGITS_A_PIECE}}}|[.,:;!?"()]'
_CUT = f"{_SPACE}item_[0-9]+|{_CUT_PIECES}"
"""An item word stays in one part, so that it can be a token of its own."""


def digit_pieces() -> list[str]:
    """Every run of one to three digits."""
    return [f"{n:0{width}d}" for width in range(1, DIGITS_A_PIECE + 1) for n in range(10**width)]


def _template_words() -> list[str]:
    words = {word for task in Task for template in training_templates(task) for word in template}
    return sorted(words - {USER, ITEMS})


def _pre_tokenizer(cut: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always"),
            pre_tokenizers.Split(Regex(cut), behavior="isolated"),
        ]
    )


def _learn_pieces(texts: Iterable[str], size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """BPE pieces of the texts (digits aside) and the merges that make them."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNK))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [_pre_tokenizer(_CUT_PIECES), pre_tokenizers.Digits(individual_digits=True)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size, min_frequency=2, limit_alphabet=max(500, size // 2), show_progress=False,
        special_tokens=[PAD, EOS, UNK],
        initial_alphabet=[_SPACE, "_", *string.ascii_letters, *string.digits, *".,:;!?'\"-()"],
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def train_vocabulary(texts: Iterable[str], *, size: int, whole_items: Iterable[str] = ()) -> Tokenizer:
    """Learn at most `size` text pieces and add digit pieces, template words and, for the given labels, item words.

    The result holds pad 0, EOS 1, UNK 2; the same input gives the same vocabulary.
    """
    vocab, merges = _learn_pieces(texts, size)
    whole = [f"{_SPACE}item_{label}" for label in whole_items]
    extra = [
        f"{_SPACE}item_", f"{_SPACE}user_", *(f"{_SPACE}{word}" for word in _template_words()), *digit_pieces(), *whole,
    ]  # fmt: skip
    for piece in extra:
        vocab.setdefault(piece, len(vocab))
    # ignore_merges: a part that is a piece as it stands needs no merges to be found
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token=UNK, ignore_merges=True))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = _pre_tokenizer(_CUT if whole else _CUT_PIECES)
    tokenizer.decoder = decoders.Metaspace(replacement=_SPACE, prepend_scheme="always")
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in (PAD, EOS, UNK)])
    return tokenizer


def with_item_words(tokenizer: Tokenizer, labels: Iterable[str]) -> Tokenizer:
    """The tokenizer with a token for each of these items behind all that it has, in their order."""
    content = json.loads(tokenizer.to_str())
    vocab = content["model"]["vocab"]
    for label in labels:
        vocab.setdefault(f"{_SPACE}item_{label}", len(vocab))
    return Tokenizer.from_str(json.dumps(content))


def training_texts(dataset: Dataset) -> Iterator[str]:
    """What the model may learn words from: explanations, rationales of training reviews, and titles."""
    if dataset.has_reviews:
        train = dataset.reviews().filter(pl.col("split") == "train")
        yield from _strings(train, "explanation")
        if dataset.rationales_path.is_file():
            kept = pl.scan_parquet(dataset.rationales_path).filter(pl.col("use"))
            own = kept.join(train.select("user_index", "item_index"), on=["user_index", "item_index"], how="semi")
            for column in ("user_preference", "item_attributes"):
                yield from _strings(own, column)
        yield from (title for title in dataset.items["title"] if title)


def _strings(frame: pl.LazyFrame, column: str) -> Iterator[str]:
    yield from frame.select(column).drop_nulls().collect(engine="streaming")[column]
