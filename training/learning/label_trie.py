"""The item trie seen from each item: which of its label's tokens are a choice, and among what.

What the trie-restricted loss asks, in flat arrays, so that a batch is looked up without Python loops. Read off the trie
that decoding walks, so both speak of the same distribution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rdrec_core.decoding.item_trie import ItemTrie

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LabelTrie:
    """The choices of every item; N items, T tokens up to the deepest choice, M branching nodes.

    rows (R,): the distinct label tokens, the columns of restricted logits. nodes (N, T): the branching node from which
    an item's token is chosen, -1 where the token is forced or absent. columns (N, T): the chosen token's place in rows.
    child_indptr (M + 1,), child_columns: the columns that each branching node allows.
    """

    rows: Ints
    nodes: npt.NDArray[np.int32]
    columns: npt.NDArray[np.int32]
    child_indptr: Ints
    child_columns: npt.NDArray[np.int32]

    @classmethod
    def of(cls, trie: ItemTrie) -> LabelTrie:
        """Read off the collapsed states of the catalogue's trie, whose edges are the choices."""
        states = trie.states(collapsed=True)
        choice_at = states.position + states.length - 1
        nodes = np.full((len(trie), int(choice_at.max()) + 1), -1, dtype=np.int32)
        columns = np.full_like(nodes, -1)
        item, edge = trie.order.astype(np.int64), states.leaf_edge.astype(np.int64)
        while len(item):
            state = states.state_of_edge(edge)
            nodes[item, choice_at[state]] = state
            columns[item, choice_at[state]] = states.edge_column[edge]
            above = states.parent_edge[state]
            item, edge = item[above >= 0], above[above >= 0].astype(np.int64)
        return cls(
            trie.columns.astype(np.int64), nodes, columns, states.edge_start.astype(np.int64), states.edge_column
        )

    def allowed(self, nodes: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """Columns that each of the given branching nodes (K,) allows, as (K, R)."""
        degrees = self.child_indptr[nodes + 1] - self.child_indptr[nodes]
        ends = np.cumsum(degrees)
        within = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - degrees, degrees)
        mask = np.zeros((len(nodes), len(self.rows)), dtype=np.bool_)
        children = self.child_columns[np.repeat(self.child_indptr[nodes], degrees) + within]
        mask[np.repeat(np.arange(len(nodes)), degrees), children] = True
        return mask
