"""The item trie: all label token sequences of a catalogue, as flat arrays that can be memory-mapped.

Items are sorted by their label's tokens, so the leaves below any node are one range [lo, hi) and "how many items are
left below this node" is a difference of prefix sums. A *state* is a node that a search stops at. Collapsed states are
the branching nodes only: a run of forced tokens is part of the edge, for it adds nothing to a score that is
normalised over the allowed children. Token states are all inner nodes: a score over the whole vocabulary needs each
of them. Knows tokens and item indices, neither the model nor requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from rdrec_core.encoding import RaggedTokens
from rdrec_core.errors import InputError

Int32Array = npt.NDArray[np.int32]
Arrays = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, eq=False)
class TrieStates:
    """K states and E edges, breadth first; one state's edges are contiguous, those to states before those to leaves.

    A label with its EOS is the concatenation of `root_tokens[1:]`, the tokens of the states on its path, and the
    forced rest of its leaf edge.
    """

    edge_start: Int32Array
    """(K + 1,): state k has the edges [edge_start[k], edge_start[k + 1])."""
    inner_edges: Int32Array
    """(K,): how many of a state's edges lead to states; they come first."""
    edge_column: Int32Array
    """(E,): the edge's first token, as an index into `ItemTrie.columns`."""
    edge_target: Int32Array
    """(E,): the state it leads to, or -1 - leaf."""
    leaf_edge: Int32Array
    """(N,): the edge that ends in each leaf."""
    parent: Int32Array
    """(K,): the state above; -1 for the root."""
    parent_edge: Int32Array
    """(K,): the edge that leads here; -1 for the root."""
    leaves_from: Int32Array
    leaves_to: Int32Array
    """(K,): the leaves below each state are [leaves_from, leaves_to)."""
    position: Int32Array
    """(K,): decoder position of the state's first token."""
    length: Int32Array
    """(K,): tokens of the edge that leads here."""
    tokens: Int32Array
    """(K, M): those tokens as vocabulary ids, padded with 0; the root's row is unused."""
    root_tokens: Int32Array
    """(R,): the start token and what every label begins with."""
    level_start: Int32Array
    """(L + 1,): states of level l are [level_start[l], level_start[l + 1]); the root is level 0."""
    fanout: Int32Array
    """(L,): most edges of a state in each level."""
    inner_fanout: Int32Array
    """(L,): most edges to states of a state in each level."""

    @property
    def n_states(self) -> int:
        """K."""
        return len(self.parent)

    @property
    def n_levels(self) -> int:
        """L, the most states on one path."""
        return len(self.fanout)

    def state_of_edge(self, edges: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """The state that each edge leaves from."""
        return np.searchsorted(self.edge_start, edges, side="right") - 1


class ItemTrie:
    """All labels of N items. Arrays are never written to after construction."""

    def __init__(
        self,
        columns: Int32Array,
        order: Int32Array,
        states: Mapping[bool, TrieStates],
        rows: _SortedLabels | None = None,
    ) -> None:
        """columns (T,): vocabulary ids of labels; order (N,): item index of each leaf; states by `collapsed`."""
        self.columns = columns
        self.order = order
        self.leaf = np.empty(len(order), dtype=np.int32)
        self.leaf[order] = np.arange(len(order), dtype=np.int32)
        self._states = dict(states)
        self._rows = rows

    @classmethod
    def build(cls, labels: RaggedTokens, *, eos_token_id: int = 1, start_token_id: int = 0) -> ItemTrie:
        """Build from the label tokens (without EOS) of N >= 1 items. Raises InputError where two share a label."""
        if len(labels) == 0:
            raise InputError("a trie needs at least one item", field="labels")
        rows = _SortedLabels.sort(labels, eos_token_id, start_token_id)
        return cls(rows.columns, rows.order, {}, rows)

    def __len__(self) -> int:
        return len(self.order)

    def states(self, *, collapsed: bool) -> TrieStates:
        """The states at one granularity, built on first use. Raises InputError if loaded arrays lack it."""
        if collapsed not in self._states:
            self._states[collapsed] = _build_states(self._labels(), collapsed=collapsed)
        return self._states[collapsed]

    def label(self, item: int) -> list[int]:
        """Vocabulary ids of an item's label, EOS included. Only for a trie that was built from labels."""
        rows = self._labels()
        leaf = self.leaf[item]
        return [int(t) for t in rows.columns[rows.matrix[: rows.lengths[leaf], leaf]]]

    def next_tokens(self, prefix: list[int]) -> list[int]:
        """Vocabulary ids that may follow a prefix of labels; by a scan of all labels, for checks."""
        rows = self._labels()
        here = np.ones(len(self), dtype=np.bool_)
        for row, token in zip(rows.matrix, prefix, strict=False):
            here &= row == np.searchsorted(rows.columns, token)
        here &= rows.lengths > len(prefix)
        return [int(t) for t in rows.columns[np.unique(rows.matrix[len(prefix), here])]]

    def _labels(self) -> _SortedLabels:
        if self._rows is None:
            raise InputError(
                "this trie was loaded as arrays for one score mode, without its labels; build from labels", field="trie"
            )
        return self._rows

    def arrays(self, *, collapsed: bool) -> Arrays:
        """Everything that a search at one granularity needs, for `BundleWriter.add_arrays`."""
        states = self.states(collapsed=collapsed)
        named: Arrays = {field.name: getattr(states, field.name) for field in fields(states)}
        return {"columns": self.columns, "order": self.order, **named}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]], *, collapsed: bool) -> ItemTrie:
        """Read what `arrays` wrote; memory-mapped arrays stay mapped."""
        states = TrieStates(**{field.name: arrays[field.name] for field in fields(TrieStates)})  # type: ignore[arg-type]
        return cls(arrays["columns"], arrays["order"], {collapsed: states})  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class _SortedLabels:
    """Labels with EOS, sorted: matrix (L, N) of column numbers (-1 past the end), lengths (N,), shared (N + 1,).

    shared[i] is how many leading tokens labels i - 1 and i have in common; 0 at both ends.
    """

    columns: Int32Array
    order: Int32Array
    matrix: npt.NDArray[np.signedinteger]
    lengths: npt.NDArray[np.int16]
    shared: npt.NDArray[np.int16]
    start_token_id: int

    @classmethod
    def sort(cls, labels: RaggedTokens, eos_token_id: int, start_token_id: int) -> _SortedLabels:
        lengths = np.diff(labels.indptr)
        used = np.zeros(int(max(labels.tokens.max(initial=0), eos_token_id)) + 1, dtype=np.bool_)
        used[labels.tokens] = True
        used[eos_token_id] = True
        columns = np.flatnonzero(used).astype(np.int32)
        dtype = np.int16 if len(columns) < 2**15 else np.int32
        lookup = np.zeros(len(used), dtype=dtype)
        lookup[columns] = np.arange(len(columns), dtype=dtype)
        depth = int(lengths.max()) + 1
        matrix = np.full((depth, len(labels)), -1, dtype=dtype)
        for d in range(depth):
            longer = lengths > d
            matrix[d, longer] = lookup[labels.tokens[labels.indptr[:-1][longer] + d]]
            matrix[d, lengths == d] = lookup[eos_token_id]
        order = _sorted_order(matrix, len(columns))
        matrix = matrix[:, order]
        lengths = (lengths[order] + 1).astype(np.int16)
        shared = np.zeros(len(order) + 1, dtype=np.int16)
        same = np.ones(len(order) - 1, dtype=np.bool_)
        for row in matrix:
            same &= row[1:] == row[:-1]
            shared[1:-1] += same
        if same.any():
            first = int(np.flatnonzero(same)[0])
            raise InputError(
                f"items {order[first]} and {order[first + 1]} have the same label tokens; labels must differ",
                field="labels",
            )
        return cls(columns, order, matrix, lengths, shared, start_token_id)


def _sorted_order(matrix: npt.NDArray[np.signedinteger], n_columns: int) -> Int32Array:
    """Lexicographic order of the columns of (L, N); by one packed 64-bit key where it fits, several times faster."""
    bits = int(n_columns).bit_length()
    if bits * len(matrix) <= 64:
        key = np.zeros(matrix.shape[1], dtype=np.uint64)
        for row in matrix:
            key <<= np.uint64(bits)
            key |= (row + 1).astype(np.uint64)
        return np.argsort(key).astype(np.int32)
    return np.lexsort(matrix[::-1]).astype(np.int32)


def _build_states(rows: _SortedLabels, *, collapsed: bool) -> TrieStates:
    """Breadth first over levels of states; each level is a handful of array operations over the leaves below it."""
    n = len(rows.order)
    depth0 = int(rows.shared[1:-1].min()) if collapsed and n > 1 else 0
    lo, hi, depth = np.array([0]), np.array([n]), np.array([depth0])
    parent, parent_edge = np.array([-1]), np.array([-1])
    position, length = np.array([0]), np.array([depth0 + 1])
    parts: dict[str, list[npt.NDArray[np.integer]]] = {name: [] for name in _PER_STATE_OR_EDGE}
    starts: list[npt.NDArray[np.int32]] = []
    level_start, fanout, inner_fanout = [0], [], []
    leaf_edge = np.empty(n, dtype=np.int32)
    n_edges = 0
    while len(lo):
        child, owner = _children(rows.shared, lo, hi, depth)
        last = np.append(owner[1:] != owner[:-1], True)
        child_hi = np.where(last, hi[owner], np.append(child[1:], 0))
        is_leaf = child_hi - child == 1 if collapsed else rows.lengths[child] == depth[owner] + 1
        rank = np.argsort(owner * 2 + is_leaf, kind="stable")
        child, child_hi, owner, is_leaf = child[rank], child_hi[rank], owner[rank], is_leaf[rank]
        column = rows.matrix[depth[owner], child]
        edges = n_edges + np.arange(len(child))
        inner = ~is_leaf
        target = np.empty(len(child), dtype=np.int32)
        next_state = level_start[-1] + len(lo)
        target[inner] = next_state + np.arange(inner.sum())
        target[is_leaf] = -1 - child[is_leaf]
        leaf_edge[child[is_leaf]] = edges[is_leaf]

        counts = np.bincount(owner, minlength=len(lo))
        inner_counts = np.bincount(owner[inner], minlength=len(lo))
        level = {
            "inner_edges": inner_counts, "edge_column": column, "edge_target": target, "parent": parent,
            "parent_edge": parent_edge, "leaves_from": lo, "leaves_to": hi, "position": position, "length": length,
        }  # fmt: skip
        for name, values in level.items():
            parts[name].append(values.astype(np.int32))
        starts.append((n_edges + np.cumsum(counts) - counts).astype(np.int32))
        level_start.append(next_state)
        fanout.append(int(counts.max()))
        inner_fanout.append(int(inner_counts.max()))
        n_edges += len(child)

        lo, hi = child[inner], child_hi[inner]
        parent, parent_edge = level_start[-2] + owner[inner], edges[inner]
        above = depth[owner[inner]]
        depth = _branching_depth(rows.shared, lo, hi) if collapsed else above + 1
        position, length = above + 1, depth - above
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    return TrieStates(
        edge_start=np.concatenate([*starts, np.array([n_edges], dtype=np.int32)]),
        leaf_edge=leaf_edge,
        tokens=_state_tokens(rows, joined["leaves_from"], joined["position"], joined["length"]),
        root_tokens=np.append(rows.start_token_id, rows.columns[rows.matrix[:depth0, 0]]).astype(np.int32),
        level_start=np.array(level_start, dtype=np.int32),
        fanout=np.array(fanout, dtype=np.int32),
        inner_fanout=np.array(inner_fanout, dtype=np.int32),
        **joined,
    )


_PER_STATE_OR_EDGE = (
    "inner_edges", "edge_column", "edge_target", "parent", "parent_edge", "leaves_from", "leaves_to", "position",
    "length",
)  # fmt: skip


def _children(
    shared: npt.NDArray[np.int16],
    lo: npt.NDArray[np.int64],
    hi: npt.NDArray[np.int64],
    depth: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First leaf of every child of the states (lo, hi, depth), and which state it belongs to."""
    sizes = hi - lo
    owner = np.repeat(np.arange(len(lo), dtype=np.int32), sizes)
    first = np.cumsum(sizes) - sizes
    leaves = np.arange(int(sizes.sum()), dtype=np.int32) + (lo - first).astype(np.int32)[owner]
    begins = shared[leaves] <= depth.astype(np.int16)[owner]
    begins[first] = True
    return leaves[begins].astype(np.int64), owner[begins].astype(np.int64)


def _branching_depth(
    shared: npt.NDArray[np.int16], lo: npt.NDArray[np.int64], hi: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """How many tokens all labels of each range [lo, hi) of at least two have in common."""
    if len(lo) == 0:
        return np.empty(0, dtype=np.int64)
    return np.minimum.reduceat(shared, np.stack([lo + 1, hi], axis=1).ravel())[::2].astype(np.int64)


def _state_tokens(rows: _SortedLabels, leaf: Int32Array, position: Int32Array, length: Int32Array) -> Int32Array:
    width = int(length[1:].max(initial=1))
    tokens = np.zeros((len(leaf), width), dtype=np.int32)
    for m in range(width):
        has = np.flatnonzero(length > m)
        has = has[has > 0]
        tokens[has, m] = rows.columns[rows.matrix[position[has] - 1 + m, leaf[has]]]
    return tokens
