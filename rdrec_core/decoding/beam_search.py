"""Beam search over the item trie, batched, with eligibility inside. Written once for torch and for the ONNX graph.

All beams of a request are token slots of one decoder: a slot attends to its ancestors by a mask, so keys and values are
never reordered. Each step looks at all edges of the states that the beams stand on. Edges to leaves are finished items
and go to a pool; the best W edges to states go on. A beam that cannot beat the worst item that will be returned is
dropped, and the step shrinks to the beams that are left (scores only fall, so no answer changes).

Full scores: exactly the candidates that Hugging Face's beam search would finish (an item counts if it is among the
best W of its step) over token states. Trie scores: every leaf edge of an expanded state counts, over collapsed states.
Knows neither requests nor how tensors are computed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from rdrec_core.decoding.tensor_ops import Network, Size, Tensor, TensorOps, TrieTensors

NEVER = float("-inf")


@dataclass(frozen=True)
class Eligibility:
    """Which edges are closed to each request, beyond what the catalogue closes.

    Edges are allowed as `allowed_by_default` (B, 1) says (1.0 yes, 0.0 no), but for the listed exceptions: edge number
    `offset` (B, X) of state `state` (B, X), -1 where the list is shorter.
    """

    allowed_by_default: Tensor
    state: Tensor
    offset: Tensor


@dataclass(frozen=True)
class _Beams:
    """Beams of a step: state and score (B, W), hidden (B, W, D) after their last token, ancestors (B, W, P) bool."""

    state: Tensor
    score: Tensor
    hidden: Tensor
    ancestors: Tensor


@dataclass(frozen=True)
class _Slots:
    """The decoder so far: the encoded source, keys and values of all slots, and the slots' positions (B, P)."""

    memory: Any
    past: Any
    positions: Tensor
    root_hidden: Tensor
    """(B, 1, D) after the root."""


@dataclass(frozen=True)
class _Expanded:
    """All edges of all beams of a step, (B, W, F) flattened to (B, W * F); closed ones score -inf."""

    inner: Tensor
    """(B, W * F'), edges to states only."""
    leaf: Tensor
    inner_fanout: Size
    fanout: Size


class BeamSearch:
    """A search over one trie with one network; `full` chooses the definition of scores."""

    def __init__(self, ops: TensorOps, network: Network, trie: TrieTensors, *, full: bool) -> None:
        self._ops, self._network, self._trie, self._full = ops, network, trie, full

    def __call__(
        self, memory: Any, eligibility: Eligibility, n_items: Tensor, beam_width: Size
    ) -> tuple[Tensor, Tensor]:
        """Scores and leaves (B, W), best first, -inf past the eligible items; the first n_items[b] (B, 1) are final."""
        ops, trie = self._ops, self._trie
        batch = ops.size(eligibility.state, 0)
        root_length = ops.size(trie.root_tokens, 0)
        root_positions = ops.arange(root_length)
        causal = ops.unsqueeze(root_positions, 0) <= ops.unsqueeze(root_positions, 1)
        hidden, past = self._network.decode(
            ops.unsqueeze(trie.root_tokens, 0), ops.unsqueeze(root_positions, 0), ops.unsqueeze(causal, 0),
            memory, None, None,
        )  # fmt: skip
        last = ops.full_index([batch, 1], 0) + (root_length - 1)
        beams = _Beams(
            state=ops.full_index([batch, 1], 0),
            score=ops.full([batch, 1], 0.0),
            hidden=ops.take_rows(hidden, last),
            ancestors=ops.full_index([batch, 1, root_length], 1) == 1,
        )
        past_positions = ops.expand(ops.unsqueeze(root_positions, 0), [batch, root_length])
        pool = (ops.full([batch, beam_width], NEVER), ops.full_index([batch, beam_width], 0))
        slots = _Slots(memory, past, past_positions, beams.hidden)
        return self._from(0, beams, slots, pool, eligibility, n_items, beam_width)

    def _from(
        self,
        level: int,
        beams: _Beams,
        slots: _Slots,
        pool: tuple[Tensor, Tensor],
        eligibility: Eligibility,
        n_items: Tensor,
        beam_width: Size,
    ) -> tuple[Tensor, Tensor]:
        """The final pool: scores and leaves (B, W), from beams that stand on states of `level`."""
        ops, trie = self._ops, self._trie
        total = None
        if self._full:
            total, beams, pool = self._vocabulary_total(level, beams, slots, pool)
        edges = self._expand(beams, total, eligibility, level)
        leaf_scores, leaf_chosen = self._best(edges.leaf, beam_width)
        inner_scores, inner_chosen = self._best(edges.inner, beam_width)
        if self._full:
            leaf_scores = self._among_best(leaf_scores, inner_scores, beam_width)
        _, target = self._edge_target(beams, leaf_chosen, edges.fanout)
        pool_scores, kept = ops.topk(ops.concat([pool[0], leaf_scores], 1), beam_width)
        pool = (pool_scores, ops.take_along(ops.concat([pool[1], -1 - target], 1), kept))
        if level == trie.n_levels - 1:
            return pool
        hopeful = inner_scores > ops.take_along(pool_scores, n_items - 1)
        width = ops.count_columns(hopeful)

        def go_on() -> tuple[Tensor, Tensor]:
            score = ops.head(ops.where(hopeful, inner_scores, NEVER), width, 1)
            parent, target = self._edge_target(beams, ops.head(inner_chosen, width, 1), edges.inner_fanout)
            state = ops.where(score > NEVER, target, 0)
            advanced, new_slots = self._advance(beams, score, parent, state, slots)
            return self._from(level + 1, advanced, new_slots, pool, eligibility, n_items, beam_width)

        def stop() -> tuple[Tensor, Tensor]:
            if not self._full or level > 0:
                return pool
            total = self._network.vocabulary_logsumexp(slots.root_hidden)
            return pool[0] - ops.reshape(total, [ops.size(pool[0], 0), 1]), pool[1]

        return ops.unless_zero(width, go_on, stop)

    def _vocabulary_total(
        self, level: int, beams: _Beams, slots: _Slots, pool: tuple[Tensor, Tensor]
    ) -> tuple[Tensor | None, _Beams, tuple[Tensor, Tensor]]:
        """Log-sum-exp over the vocabulary after each beam, (B, W, 1); None where it is owed.

        Whatever follows the root shares the root's, so it decides nothing on the way and is made up for a level later:
        one product with the vocabulary less, and for one row that costs nearly what it costs for twenty.
        """
        ops = self._ops
        if level > 1 or self._trie.n_levels == 1:
            return self._network.vocabulary_logsumexp(beams.hidden), beams, pool
        if level == 0:
            return None, beams, pool
        batch, width = ops.size(beams.state, 0), ops.size(beams.state, 1)
        both = self._network.vocabulary_logsumexp(ops.concat([beams.hidden, slots.root_hidden], 1))
        both = ops.reshape(both, [batch, width + 1])
        owed = ops.take_along(both, ops.full_index([batch, 1], 0) + width)
        beams = replace(beams, score=beams.score - owed)
        return ops.unsqueeze(ops.head(both, width, 1), 2), beams, (pool[0] - owed, pool[1])

    def _expand(self, beams: _Beams, total: Tensor | None, eligibility: Eligibility, level: int) -> _Expanded:
        """total (B, W, 1): what normalises each beam's edges in `full`, None if that is owed."""
        ops, trie = self._ops, self._trie
        fanout, inner_fanout = trie.fanout[level], trie.inner_fanout[level]
        batch, width = ops.size(beams.state, 0), ops.size(beams.state, 1)
        start = ops.take(trie.edge_start, beams.state)
        count = ops.take(trie.edge_start, beams.state + 1) - start
        n_inner = ops.unsqueeze(ops.take(trie.inner_edges, beams.state), 2)
        offset = ops.reshape(ops.arange(fanout), [1, 1, fanout])
        exists = offset < ops.unsqueeze(count, 2)
        edge = ops.minimum(ops.unsqueeze(start, 2) + offset, ops.size(trie.edge_column, 0) - 1)

        logits = ops.take_along(self._network.column_logits(beams.hidden), ops.take(trie.edge_column, edge))
        if not self._full:
            total = ops.logsumexp(ops.where(exists, logits, NEVER))
        score = logits + ops.unsqueeze(beams.score, 2)
        if total is not None:
            score = score - total
        open_here = exists & ops.take(trie.edge_alive, edge) & self._allowed(beams, eligibility, fanout)
        is_inner = offset < n_inner
        inner = ops.where(open_here & is_inner, score, NEVER)
        return _Expanded(
            inner=ops.reshape(ops.head(inner, inner_fanout, 2), [batch, width * inner_fanout]),
            leaf=ops.reshape(ops.where(open_here & ~is_inner, score, NEVER), [batch, width * fanout]),
            inner_fanout=inner_fanout,
            fanout=fanout,
        )

    def _allowed(self, beams: _Beams, eligibility: Eligibility, fanout: Size) -> Tensor:
        """(B, W, F) bool: the request's own list. A listed edge is found by the one beam that stands on its state."""
        ops = self._ops
        batch, width = ops.size(beams.state, 0), ops.size(beams.state, 1)
        state = ops.where(beams.score > NEVER, beams.state, -2)
        here = ops.unsqueeze(eligibility.state, 2) == ops.unsqueeze(state, 1)
        beam = ops.largest(ops.where(here, ops.reshape(ops.arange(width), [1, 1, width]), -1))
        flat = ops.where(beam >= 0, beam * fanout + eligibility.offset, width * fanout)
        table = ops.expand(eligibility.allowed_by_default, [batch, width * fanout + 1])
        exception = ops.expand(1.0 - eligibility.allowed_by_default, [batch, ops.size(eligibility.state, 1)])
        table = ops.head(ops.scatter(table, flat, exception), width * fanout, 1)
        return ops.reshape(table, [batch, width, fanout]) > 0.5

    def _edge_target(self, beams: _Beams, chosen: Tensor, fanout: Size) -> tuple[Tensor, Tensor]:
        """Positions in a flattened (B, W * F) -> the beam and the edge's target, both like `chosen`."""
        ops, trie = self._ops, self._trie
        parent = chosen // fanout
        edge = ops.take(trie.edge_start, ops.take_along(beams.state, parent)) + (chosen - parent * fanout)
        edge = ops.minimum(edge, ops.size(trie.edge_target, 0) - 1)  # a closed edge may point past the last one
        return parent, ops.take(trie.edge_target, edge)

    def _best(self, scores: Tensor, n: Size) -> tuple[Tensor, Tensor]:
        """The n best of (B, X), or all X where there are fewer."""
        return self._ops.topk(scores, self._ops.minimum(n, self._ops.size(scores, 1)))

    def _among_best(self, scores: Tensor, rivals: Tensor, n: Size) -> Tensor:
        """scores (B, X) where they are among the n best of both, -inf elsewhere."""
        ops = self._ops
        batch = ops.size(scores, 0)
        both, _ = ops.topk(ops.concat([scores, rivals, ops.full([batch, n], NEVER)], 1), n)
        least = ops.take_along(both, ops.full_index([batch, 1], 0) + (n - 1))
        return ops.where(scores >= least, scores, NEVER)

    def _advance(
        self, beams: _Beams, score: Tensor, parent: Tensor, state: Tensor, slots: _Slots
    ) -> tuple[_Beams, _Slots]:
        """Give every beam its new slots, M = trie.chain of them a beam, and run the decoder over them."""
        ops, trie = self._ops, self._trie
        batch, width, chain = ops.size(state, 0), ops.size(state, 1), trie.chain
        n_past = ops.size(slots.positions, 1)
        n_new = width * chain
        inherited = ops.take_rows(beams.ancestors, parent)
        step = ops.reshape(ops.arange(chain), [1, 1, chain])
        position = ops.reshape(ops.unsqueeze(ops.take(trie.position, state), 2) + step, [batch, n_new])
        token = ops.reshape(ops.take(trie.tokens, state), [batch, n_new])

        slot = ops.arange(n_new)
        row, column = ops.unsqueeze(slot, 1), ops.unsqueeze(slot, 0)
        chained = (row // chain == column // chain) & (column <= row)
        seen = ops.expand(ops.unsqueeze(inherited, 2), [batch, width, chain, n_past])
        slot_mask = ops.concat(
            [ops.reshape(seen, [batch, n_new, n_past]), ops.expand(ops.unsqueeze(chained, 0), [batch, n_new, n_new])], 2
        )
        hidden, past = self._network.decode(token, position, slot_mask, slots.memory, slots.past, slots.positions)

        length = ops.take(trie.length, state)
        own = ops.unsqueeze(ops.unsqueeze(ops.arange(width), 1) == column // chain, 0)
        own = own & (ops.reshape(column % chain, [1, 1, n_new]) < ops.unsqueeze(length, 2))
        if chain > 1:
            hidden = ops.take_rows(hidden, ops.unsqueeze(ops.arange(width), 0) * chain + length - 1)
        advanced = _Beams(state, score, hidden, ops.concat([inherited, own], 2))
        return advanced, _Slots(slots.memory, past, ops.concat([slots.positions, position], 1), slots.root_hidden)
