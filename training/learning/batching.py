"""From examples to padded arrays: cached token ids only, no tokenizer. Knows examples and labels, not the model.

Stands between `examples.py`, which draws what a batch holds, and `losses.py`, which reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rdrec_core.encoding import RaggedTokens, SourceBatch, SourceEncoder, pad_sources
from training.learning.examples import TrainingExample
from training.learning.label_trie import LabelTrie


@dataclass(frozen=True)
class Choices:
    """The branching tokens of a batch under the trie loss: C choices, each made at a decoder slot of its own.

    slots (C,): flat indices into (B, G T); allowed (C, R): columns that each may choose among; rows (R,): vocabulary
    rows of the columns; columns (C,): the right column; owner (C,): flat index into (B, G).
    """

    slots: npt.NDArray[np.int64]
    allowed: npt.NDArray[np.bool_]
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    owner: npt.NDArray[np.int64]


@dataclass(frozen=True)
class SampledSoftmax:
    """At most `count` children of a node stand beside the right one, drawn by `rng`."""

    count: int
    rng: np.random.Generator


@dataclass(frozen=True)
class Batch:
    """B sources with up to G targets, each of up to T tokens; text and the full loss have G = 1.

    targets (B, G, T) int64 end in EOS (unless it is forced) and are padded; weights (B, G) float32, 0 where a target
    is absent. last_word (B, G): the whole-word id of the last source word that a target sees; None: all see all.
    total_weight: of the whole batch, of which this may be one process's share. choices: None under the full loss.
    """

    source: SourceBatch
    targets: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]
    total_weight: float
    last_word: npt.NDArray[np.int64] | None
    choices: Choices | None
    text_rows: int | None = None
    """Texts are normalised over the first so many vocabulary rows; None: over all."""

    def __len__(self) -> int:
        return len(self.targets)


class Batcher:
    """Pads examples into batches; holds the catalogue's tokens."""

    def __init__(
        self, encoder: SourceEncoder, labels: RaggedTokens, *, trie: LabelTrie | None,
        text_rows: int | None = None, rivals: npt.NDArray[np.bool_] | None = None,
        pad_token_id: int = 0, eos_token_id: int = 1,
    ) -> None:  # fmt: skip
        """trie and text_rows restrict what ranking and text targets are normalised over; None: the whole vocabulary.

        rivals (R,): the trie's columns that a target is told apart from; None: all of them.
        """
        self._encoder, self._trie, self._text_rows, self._rivals = encoder, trie, text_rows, rivals
        self._pad, self._eos = pad_token_id, eos_token_id
        lengths = np.diff(labels.indptr)
        self._labels = np.full((len(labels), int(lengths.max()) + 1), pad_token_id, dtype=np.int64)
        item = np.repeat(np.arange(len(labels)), lengths)
        self._labels[item, np.arange(len(item)) - labels.indptr[item]] = labels.tokens
        self._labels[np.arange(len(labels)), lengths] = eos_token_id

    def batch(
        self, examples: Sequence[TrainingExample], *, share: slice = slice(None), sample: SampledSoftmax | None = None
    ) -> Batch:
        """Collate. share: the rows that this process computes; weights are counted over all. sample: of the choices.

        Under the trie loss a batch holds ranking examples alone or text examples alone.
        """
        total = float(sum(max(1, len(example.targets)) for example in examples))
        # a process without rows computes one that weighs nothing, so that all take part in the step
        mine = examples[share] or examples[:1]
        source = pad_sources(
            [self._encoder.encode(e.task, e.user_index, e.items, e.template) for e in mine], pad_token_id=self._pad
        )
        items = self._target_items(mine)
        present = items >= 0
        targets = np.where(present[..., None], self._labels[items], self._pad)
        for row, example in enumerate(mine):
            if example.text is not None:
                length = len(example.text) + 1
                if length > targets.shape[-1]:
                    more = length - targets.shape[-1]
                    targets = np.pad(targets, ((0, 0), (0, 0), (0, more)), constant_values=self._pad)
                targets[row, 0, :length] = np.append(example.text, self._eos)
                present[row, 0] = True
        targets = targets[..., : int((targets != self._pad).any(axis=(0, 1)).sum())]
        weights = present.astype(np.float32)
        if not examples[share]:
            weights[:] = 0.0
        choices = None
        if self._trie is not None and mine[0].text is None:
            length, choices = _choices(self._trie, items, sample, self._rivals)
            targets = targets[..., :length]
        last_words = self._last_words(mine, items.shape[1])
        text_rows = None if mine[0].text is None else self._text_rows
        return Batch(source, targets, weights, total, last_words, choices, text_rows)

    @staticmethod
    def _target_items(examples: Sequence[TrainingExample]) -> npt.NDArray[np.int64]:
        """(B, G), -1 where there is none."""
        most = max((len(e.targets) for e in examples), default=0) or 1
        items = np.full((len(examples), most), -1, dtype=np.int64)
        for row, example in enumerate(examples):
            items[row, : len(example.targets)] = example.targets
        return items

    @staticmethod
    def _last_words(examples: Sequence[TrainingExample], most: int) -> npt.NDArray[np.int64] | None:
        """Word 1 of a sequential source is the user, so its first n items end with word n + 1."""
        if most == 1:
            return None
        last = np.ones((len(examples), most), dtype=np.int64)
        for row, example in enumerate(examples):
            last[row, : len(example.prefixes)] += example.prefixes
        return last


def _choices(
    trie: LabelTrie, items: npt.NDArray[np.int64], sample: SampledSoftmax | None, rivals: npt.NDArray[np.bool_] | None
) -> tuple[int, Choices]:
    """Target items (B, G) -> how many tokens must be decoded, and the choices among them."""
    nodes = np.where(items[..., None] >= 0, trie.nodes[items], -1)
    # tokens after the last choice, such as EOS after labels of one length, are forced and not decoded at all
    length = max(1, int((nodes >= 0).any(axis=(0, 1)).nonzero()[0].max(initial=0)) + 1)
    source, target, depth = np.nonzero(nodes[..., :length] >= 0)
    owner = source * items.shape[1] + target
    slots = owner * length + depth
    columns = trie.columns[items[source, target], depth].astype(np.int64)
    chosen, row = np.unique(nodes[source, target, depth], return_inverse=True)
    children = trie.allowed(chosen)
    if rivals is not None:
        children &= rivals
    if sample is None or len(trie.rows) <= sample.count:
        allowed = children[row]
        allowed[np.arange(len(slots)), columns] = True
        return length, Choices(slots, allowed, trie.rows, columns, owner)
    for node_children in children:
        wide = np.flatnonzero(node_children)
        if len(wide) > sample.count:
            node_children[sample.rng.choice(wide, len(wide) - sample.count, replace=False)] = False
    kept = children.any(axis=0)
    kept[columns] = True
    allowed = children[:, kept][row]
    columns = (np.cumsum(kept) - 1)[columns]
    allowed[np.arange(len(slots)), columns] = True
    return length, Choices(slots, allowed, trie.rows[kept], columns, owner)


def rank_share(rank: int, n_ranks: int) -> slice:
    """Rows of a global batch that one of several data-parallel processes computes."""
    return slice(rank, None, n_ranks)
