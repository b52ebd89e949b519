"""Exact scores of given items in one decoder pass over the trie states on their paths. Written once for torch and ONNX.

Each state's tokens are slots of one decoder and attend to the slots of the states above, so a prefix that many items
share is computed once. With the states of a few candidates this scores a top-N request; with all states it scores the
whole catalogue, and the best eligible items of that are the exact answer that a beam search approximates.
Knows neither requests nor how tensors are computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rdrec_core.decoding.tensor_ops import Network, Size, Tensor, TensorOps, TrieTensors

NEVER = float("-inf")


@dataclass(frozen=True)
class PathTensors:
    """`path_arrays.Paths`, shared (leading size 1) or of each request (B); Q slots, K states, C items, L levels."""

    tokens: Tensor
    """(B, Q)"""
    positions: Tensor
    """(B, Q)"""
    slot_mask: Tensor
    """(B, Q, Q) bool"""
    state: Tensor
    """(B, K) states of the trie"""
    state_slot: Tensor
    """(B, K) the slot after which a state's edges are predicted"""
    steps: Tensor
    """(B, C, L): row * T + column, the edges of each item's path; rows count in `state`; K * T where it is shorter"""


class CandidateScoring:
    """Scores over one trie with one network; `full` chooses the definition."""

    def __init__(self, ops: TensorOps, network: Network, trie: TrieTensors, *, widest: Size, full: bool) -> None:
        """widest: most edges of any state."""
        self._ops, self._network, self._trie, self._widest, self._full = ops, network, trie, widest, full

    def __call__(self, memory: Any, batch: Size, paths: PathTensors) -> Tensor:
        """Log-probability of each item, (B, C)."""
        ops = self._ops
        n_states, n_items, n_steps = ops.size(paths.state, 1), ops.size(paths.steps, 1), ops.size(paths.steps, 2)
        hidden, _ = self._network.decode(paths.tokens, paths.positions, paths.slot_mask, memory, None, None)
        hidden = ops.take_rows(hidden, ops.expand(paths.state_slot, [batch, n_states]))
        logits = self._network.column_logits(hidden)
        if self._full:
            total = self._network.vocabulary_logsumexp(hidden)
        else:
            total = self._allowed_logsumexp(logits, paths.state, batch)
        n_columns = ops.size(logits, 2)
        flat = ops.reshape(logits - total, [batch, n_states * n_columns])
        flat = ops.concat([flat, ops.full([batch, 1], 0.0)], 1)
        steps = ops.expand(ops.reshape(paths.steps, [-1, n_items * n_steps]), [batch, n_items * n_steps])
        return ops.sum(ops.reshape(ops.take_along(flat, steps), [batch, n_items, n_steps]))

    def best(
        self, memory: Any, batch: Size, paths: PathTensors, allowed_by_default: Tensor, exceptions: Tensor,
        leaf_alive: Tensor, n_items: Size, also: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Scores and positions (B, n) of the best items of `paths`, -inf past the eligible ones; scores of also (B, A).

        An item is eligible if it is alive (C,) and allowed: by default as allowed_by_default (B, 1) says, the other way
        round for the positions in exceptions (B, X), which are C where the list is shorter.
        """
        ops = self._ops
        scores = self(memory, batch, paths)
        besides = ops.take_along(scores, also)
        count = ops.size(scores, 1)
        table = ops.expand(allowed_by_default, [batch, count + 1])
        changed = ops.expand(1.0 - allowed_by_default, [batch, ops.size(exceptions, 1)])
        allowed = ops.head(ops.scatter(table, exceptions, changed), count, 1) > 0.5
        scores = ops.where(allowed & ops.unsqueeze(leaf_alive, 0), scores, NEVER)
        return *ops.topk(scores, ops.minimum(n_items, count)), besides

    def _allowed_logsumexp(self, logits: Tensor, state: Tensor, batch: Size) -> Tensor:
        """Over the edges of each state: logits (B, K, T), state (1 or B, K) -> (B, K, 1)."""
        ops, trie = self._ops, self._trie
        n_states = ops.size(state, 1)
        start = ops.take(trie.edge_start, state)
        count = ops.take(trie.edge_start, state + 1) - start
        offset = ops.reshape(ops.arange(self._widest), [1, 1, self._widest])
        exists = offset < ops.unsqueeze(count, 2)
        edge = ops.minimum(ops.unsqueeze(start, 2) + offset, ops.size(trie.edge_column, 0) - 1)
        column = ops.expand(ops.take(trie.edge_column, edge), [batch, n_states, self._widest])
        return ops.logsumexp(ops.where(exists, ops.take_along(logits, column), NEVER))
