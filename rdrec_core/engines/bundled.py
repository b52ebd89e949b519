"""What both engines read of a bundle beside their network. Knows arrays, neither torch nor ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from tokenizers import Tokenizer

from rdrec_core.bundle import Bundle
from rdrec_core.decoding.item_trie import ItemTrie
from rdrec_core.decoding.path_arrays import BoolArray
from rdrec_core.encoding import SourceEncoder
from rdrec_core.types import ScoreMode, Strategy


class EngineOptions(TypedDict):
    """Arguments of an engine that the bundle has a default for."""

    score_mode: ScoreMode
    strategy: Strategy
    available: BoolArray


@dataclass(frozen=True, slots=True)
class BundledParts:
    """Tokenizer, sources and trie of a bundle, and how it wants to be searched."""

    tokenizer: Tokenizer
    encoder: SourceEncoder
    trie: ItemTrie
    options: EngineOptions

    @classmethod
    def read(
        cls, bundle: Bundle, mode: ScoreMode, strategy: Strategy | None, *, eos_token_id: int = 1, pad_token_id: int = 0
    ) -> BundledParts:
        """strategy None: the bundle's own. Raises BundleError naming what is missing."""
        tokenizer = Tokenizer.from_file(str(bundle.file("tokenizer.json")))
        encoder = SourceEncoder(tokenizer, bundle.tokens("item_words"), eos_token_id=eos_token_id)
        collapsed = mode is not ScoreMode.FULL
        arrays = bundle.arrays(trie_group(collapsed=collapsed))
        if arrays:  # memory-mapped
            trie = ItemTrie.from_arrays(arrays, collapsed=collapsed)
        else:
            trie = ItemTrie.build(bundle.tokens("labels"), eos_token_id=eos_token_id, start_token_id=pad_token_id)
        options = EngineOptions(
            score_mode=mode, strategy=strategy or bundle.manifest.strategy, available=bundle.catalog.available
        )
        return cls(tokenizer, encoder, trie, options)


def trie_group(*, collapsed: bool) -> str:
    """The bundle's array group of the trie at one granularity."""
    return "trie" if collapsed else "token_trie"
