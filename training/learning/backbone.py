"""The model before its first step: a preset drawn fresh with a vocabulary, or a pretrained T5 with its own.

Knows Hugging Face folders and presets, not tasks or training. transformers is imported only for a pretrained backbone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from rdrec_core.encoding import RaggedTokens, encode_item_words, encode_labels
from rdrec_core.errors import InputError
from rdrec_core.model import ModelConfig, RDRecModel
from rdrec_core.t5 import T5Config, from_hugging_face
from training.data.dataset import Dataset
from training.learning.config import TrainConfig
from training.learning.vocabulary import train_vocabulary, training_texts

PRESETS: dict[str, dict[str, int]] = {
    "tiny": {"d_model": 128, "d_kv": 32, "d_ff": 512, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4},
    "wide": {"d_model": 256, "d_kv": 32, "d_ff": 512, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4},
    "mini": {"d_model": 256, "d_kv": 32, "d_ff": 1024, "num_layers": 4, "num_decoder_layers": 4, "num_heads": 8},
    "small": {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_decoder_layers": 6, "num_heads": 8},
}
"""Shapes by name; `small` is T5-small's."""


@dataclass(frozen=True)
class CatalogTokens:
    """The catalogue as the tokenizer reads it: source words and target labels, one row an item."""

    item_words: RaggedTokens
    labels: RaggedTokens

    @property
    def writes_whole_items(self) -> bool:
        """Whether each label is one token, and the item's own: three digits are one piece, which names more than it."""
        return np.array_equal(self.labels.tokens, self.item_words.tokens) and len(self.labels.tokens) == len(
            self.labels
        )

    @classmethod
    def of(cls, tokenizer: Tokenizer, labels: list[str], *, whole_labels: bool = False) -> CatalogTokens:
        """Tokens of every item; whole_labels: an item is written by its word, where that is one token.

        Raises InputError where the vocabulary cannot tell two labels apart.
        """
        words = encode_item_words(tokenizer, labels)
        if whole_labels and len(words.tokens) == len(labels):
            return cls(words, words)
        tokens = encode_labels(tokenizer, labels)
        lengths = np.diff(tokens.indptr)
        unknown = tokenizer.token_to_id("<unk>")
        if (lengths == 0).any() or (unknown is not None and (tokens.tokens == unknown).any()):
            raise InputError(
                "the tokenizer has no pieces for some item labels; it should know all digits", field="tokenizer"
            )
        return cls(words, tokens)


def load_tokenizer(folder: Path) -> Tokenizer:
    """`tokenizer.json` of a folder. Raises InputError where it is missing."""
    file = folder / "tokenizer.json" if folder.is_dir() else folder
    if not file.is_file():
        raise InputError(f"{file} does not exist; --tokenizer names a folder with tokenizer.json", field="tokenizer")
    return Tokenizer.from_file(str(file))


def build(config: TrainConfig, dataset: Dataset, tokenizer_folder: Path | None) -> tuple[RDRecModel, Tokenizer]:
    """The untrained model in training mode and its tokenizer, by config.backbone and config.seed."""
    generator = torch.Generator().manual_seed(config.seed)
    if not config.from_scratch:
        return _pretrained(config, tokenizer_folder, generator)
    preset = config.backbone.removeprefix("scratch:")
    if preset not in PRESETS:
        raise InputError(
            f"backbone {config.backbone!r} is unknown; presets are {', '.join(f'scratch:{n}' for n in PRESETS)}",
            field="backbone",
        )
    if tokenizer_folder is not None:
        tokenizer = load_tokenizer(tokenizer_folder)
    else:
        as_one = config.item_words == "whole" and dataset.info.n_items <= config.whole_items_up_to
        whole = dataset.items["label"] if as_one else ()
        tokenizer = train_vocabulary(training_texts(dataset), size=config.vocabulary_size, whole_items=whole)
    shape: dict[str, Any] = dict(PRESETS[preset])
    if config.dropout is not None:
        shape["dropout_rate"] = config.dropout
    t5 = T5Config(vocab_size=tokenizer.get_vocab_size(), causal_encoder=config.causal_encoder, **shape)
    whole_items = len(encode_item_words(tokenizer, dataset.items["label"].to_list()).tokens) == dataset.info.n_items
    model = RDRecModel(_model_config(config, t5, starts_from_source=config.starts_from_source and whole_items))
    model.initialise(generator)
    return model, tokenizer


def _model_config(config: TrainConfig, t5: T5Config, *, starts_from_source: bool) -> ModelConfig:
    # the longest source names a user and the candidates; each of these words has a row, and plain words share one
    rows = max(config.whole_word_rows, config.negatives + 3)
    return ModelConfig(
        t5=t5, prompt_length=config.prompt_length, whole_word_rows=rows, starts_from_source=starts_from_source
    )


def _pretrained(
    config: TrainConfig, tokenizer_folder: Path | None, generator: torch.Generator
) -> tuple[RDRecModel, Tokenizer]:
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    try:
        source = T5ForConditionalGeneration.from_pretrained(config.backbone, dtype=torch.float32)
        if tokenizer_folder is not None:
            tokenizer = load_tokenizer(tokenizer_folder)
        elif (Path(config.backbone) / "tokenizer.json").is_file():
            tokenizer = load_tokenizer(Path(config.backbone))
        else:
            tokenizer = AutoTokenizer.from_pretrained(config.backbone).backend_tokenizer
    except (OSError, ValueError) as error:
        raise InputError(
            f"backbone {config.backbone!r} cannot be loaded; give a Hugging Face T5 id or folder, or scratch:tiny"
            f" ({error})",
            field="backbone",
        ) from error
    theirs = source.config
    if theirs.feed_forward_proj not in ("relu", "gated-gelu"):
        raise InputError(
            f"backbone {config.backbone!r} uses {theirs.feed_forward_proj}, which is not T5's", field="backbone"
        )
    fields = set(T5Config.model_fields) - {"is_gated_act", "tie_word_embeddings", "causal_encoder"}
    shape = {name: getattr(theirs, name) for name in fields}
    if config.dropout is not None:
        shape["dropout_rate"] = config.dropout
    state = from_hugging_face(source.state_dict())
    # transformers 5 always says tied; T5 1.0 and 1.1 differ in whether outputs are scaled (4 derived it from the tie)
    tied = getattr(theirs, "scale_decoder_outputs", theirs.tie_word_embeddings)
    if tied:
        state.pop("lm_head.weight", None)
    t5 = T5Config(**shape, is_gated_act=theirs.feed_forward_proj == "gated-gelu", tie_word_embeddings=tied)
    model = RDRecModel(_model_config(config, t5, starts_from_source=config.starts_from_source))
    model.initialise(generator, backbone=False)
    model.t5.load_state_dict(state)
    return model, tokenizer
