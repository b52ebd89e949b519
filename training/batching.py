"""From examples to padded arrays: cached token ids only, no tokenizer. Knows examples and labels, not the model.

Stands between `examples.py`, which draws what a batch holds, and `losses.py`, which reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rdrec_core.encoding import RaggedTokens, SourceBatch, SourceEncoder, pad_sources
from training.examples import TEXT_TASKS, TrainingExample
from training.label_trie import LabelTrie


@dataclass(frozen=True)
class Choices:
    """The branching tokens of a batch under the trie loss; C of them among the B x K x T target slots.

    slots (C,): flat indices into (B, K, T); rows (R,): vocabulary rows of the columns; columns (C,): the right column;
    allowed (C, R).
    """

    slots: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    allowed: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Batch:
    """B sources with up to K targets each of up to T tokens.

    targets (B, K, T) int64 end in EOS and are padded; weights (B, K) float32, 0 where a source has fewer targets.
    total_weight: of the whole batch, of which this may be one process's share. choices: None under the full loss.
    """

    source: SourceBatch
    targets: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]
    total_weight: float
    choices: Choices | None

    def __len__(self) -> int:
        return len(self.targets)


class Batcher:
    """Pads examples into batches; holds the catalogue's tokens."""

    def __init__(
        self, encoder: SourceEncoder, labels: RaggedTokens, *, trie: LabelTrie | None, decay: float = 1.0,
        pad_token_id: int = 0, eos_token_id: int = 1,
    ) -> None:  # fmt: skip
        """trie: restricts the loss of ranking tasks; None reads every target over the whole vocabulary."""
        self._encoder, self._trie, self._decay = encoder, trie, decay
        self._pad, self._eos = pad_token_id, eos_token_id
        self._labels = [np.append(labels[i], eos_token_id).astype(np.int64) for i in range(len(labels))]

    def batch(self, examples: Sequence[TrainingExample], *, share: slice = slice(None)) -> Batch:
        """Collate. share: the rows that this process computes; weights are counted over all.

        Under the trie loss a batch holds ranking examples alone or text examples alone.
        """
        total = sum(self._decay**k for e in examples for k in range(max(1, len(e.target_items))))
        # a process without rows computes one that weighs nothing, so that all take part in the step
        mine = examples[share] or examples[:1]
        counted = 1.0 if examples[share] else 0.0
        source = pad_sources(
            [self._encoder.encode(e.task, e.user_index, e.items, e.template) for e in mine], pad_token_id=self._pad
        )
        tokens = [self._target_tokens(example) for example in mine]
        n_targets = max(len(t) for t in tokens)
        length = max(len(t) for row in tokens for t in row)
        targets = np.full((len(mine), n_targets, length), self._pad, dtype=np.int64)
        weights = np.zeros((len(mine), n_targets), dtype=np.float32)
        for row, its in enumerate(tokens):
            for k, target in enumerate(its):
                targets[row, k, : len(target)] = target
                weights[row, k] = counted * self._decay**k
        choices = None
        if self._trie is not None and mine[0].task not in TEXT_TASKS:
            targets, choices = self._choose(self._trie, mine, targets)
        return Batch(source, targets, weights, total, choices)

    def _target_tokens(self, example: TrainingExample) -> list[npt.NDArray[np.int64]]:
        if example.text is not None:
            return [np.append(example.text, self._eos)]
        return [self._labels[item] for item in example.target_items]

    @staticmethod
    def _choose(
        trie: LabelTrie, examples: Sequence[TrainingExample], targets: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], Choices]:
        items = np.full(targets.shape[:2], -1, dtype=np.int64)
        for row, example in enumerate(examples):
            items[row, : len(example.target_items)] = example.target_items
        nodes = np.where(items[..., None] >= 0, trie.nodes[items], -1)
        # tokens after the last choice, such as EOS after labels of one length, are forced and not decoded at all
        length = max(1, int((nodes >= 0).any(axis=(0, 1)).nonzero()[0].max(initial=0)) + 1)
        nodes = nodes[..., :length]
        slots = np.flatnonzero(nodes.reshape(-1) >= 0)
        columns = trie.columns[items, :length].reshape(-1)[slots].astype(np.int64)
        chosen, place = np.unique(nodes.reshape(-1)[slots], return_inverse=True)
        allowed = trie.allowed(chosen)[place]
        return targets[..., :length], Choices(slots, trie.rows, columns, allowed)


def rank_share(rank: int, n_ranks: int) -> slice:
    """Rows of a global batch that one of several data-parallel processes computes."""
    return slice(rank, None, n_ranks)
