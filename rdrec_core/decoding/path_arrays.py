"""From item lists to the index arrays that a search takes: closed edges of a request, slots of a set of items.

NumPy only; runs for every request before the network does. Cost grows with the request's lists, not with the catalogue.
Knows the trie and leaves, neither the model nor item indices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rdrec_core.decoding.item_trie import TrieStates
from rdrec_core.encoding import rounded_up
from rdrec_core.types import IntArray

BoolArray = npt.NDArray[np.bool_]


class Availability:
    """Which leaves may be answered, and from that which edges and how many leaves below each state."""

    def __init__(self, states: TrieStates, leaf_alive: BoolArray) -> None:
        """leaf_alive (N,)."""
        self.leaf_alive = leaf_alive
        self.count_before = np.concatenate([[0], np.cumsum(leaf_alive, dtype=np.int32)])
        below = self.count_before[states.leaves_to] - self.count_before[states.leaves_from]
        target = np.asarray(states.edge_target)
        inner = target >= 0
        self.edge_alive = np.empty(len(target), dtype=np.bool_)
        self.edge_alive[inner] = below[target[inner]] > 0
        self.edge_alive[~inner] = leaf_alive[-1 - target[~inner]]

    @property
    def count(self) -> int:
        """Leaves that may be answered."""
        return int(self.count_before[-1])


def closed_edges(states: TrieStates, availability: Availability, leaves: IntArray) -> IntArray:
    """Edges below which nothing is left once `leaves` (sorted, distinct, available) are taken out."""
    edges = np.asarray(states.leaf_edge[leaves], dtype=np.int64)
    found = [edges]
    state = np.unique(states.state_of_edge(edges))
    before = availability.count_before
    while True:
        lo, hi = states.leaves_from[state], states.leaves_to[state]
        taken = np.searchsorted(leaves, hi) - np.searchsorted(leaves, lo)
        state = state[(taken == before[hi] - before[lo]) & (state > 0)]
        if len(state) == 0:
            return np.concatenate(found)
        found.append(states.parent_edge[state].astype(np.int64))
        state = np.unique(states.parent[state]).astype(np.int64)


def open_edges(states: TrieStates, leaves: IntArray) -> IntArray:
    """Edges on the paths of `leaves` (sorted, distinct)."""
    edges = np.asarray(states.leaf_edge[leaves], dtype=np.int64)
    found = []
    while len(edges):
        found.append(edges)
        state = np.unique(states.state_of_edge(edges))
        edges = states.parent_edge[state[state > 0]].astype(np.int64)
    return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


def stacked(rows: Sequence[npt.NDArray[np.integer]], fill: int, multiple: int = 1) -> IntArray:
    """1-d arrays of different lengths as (B, X), X at least 1 and rounded up to a multiple, padded with `fill`."""
    width = rounded_up(max(1, *(len(row) for row in rows)), multiple)
    table = np.full((len(rows), width), fill, dtype=np.int64)
    for index, row in enumerate(rows):
        table[index, : len(row)] = row
    return table


@dataclass(frozen=True, eq=False)
class Paths:
    """The states on the paths of C items as decoder slots, of one request or a batch; see `PathTensors`."""

    tokens: IntArray
    positions: IntArray
    slot_mask: BoolArray
    state: IntArray
    state_slot: IntArray
    steps: IntArray


def paths_of(states: TrieStates, leaves: IntArray, n_columns: int) -> Paths:
    """Arrays without a batch axis: tokens (Q,), ..., steps (C, L)."""
    edge = np.asarray(states.leaf_edge[leaves], dtype=np.int64)
    levels_state, levels_column = [], []
    while (edge >= 0).any():
        here = np.where(edge >= 0, states.state_of_edge(edge), -1)
        levels_state.append(here)
        levels_column.append(states.edge_column[edge].astype(np.int64))
        edge = np.where(here > 0, states.parent_edge[here], -1).astype(np.int64)
    path_state = np.stack(levels_state, axis=1)
    state = np.unique(path_state[path_state >= 0])
    steps = np.searchsorted(state, path_state) * n_columns + np.stack(levels_column, axis=1)
    steps = np.where(path_state >= 0, steps, len(state) * n_columns)

    length = states.length[state].astype(np.int64)
    first = np.cumsum(length) - length
    owner = np.repeat(np.arange(len(state)), length)
    within = np.arange(len(owner)) - first[owner]
    is_root = state[owner] == 0
    tokens = states.tokens[state[owner], np.where(is_root, 0, within)].astype(np.int64)
    tokens[is_root] = states.root_tokens[within[is_root]]

    above = np.eye(len(state), dtype=np.bool_)
    ancestor = state
    rows = np.arange(len(state))
    while (ancestor > 0).any():
        rows = rows[ancestor > 0]
        ancestor = states.parent[ancestor[ancestor > 0]].astype(np.int64)
        above[rows, np.searchsorted(state, ancestor)] = True
    order = np.arange(len(owner))
    return Paths(
        tokens=tokens,
        positions=states.position[state[owner]] + within,
        slot_mask=above[owner][:, owner] & (order[None, :] <= order[:, None]),
        state=state,
        state_slot=first + length - 1,
        steps=steps,
    )


def stacked_paths(parts: Sequence[Paths], n_columns: int, multiple: int = 1) -> Paths:
    """Pad several requests' paths to one batch. Padded slots see only themselves; padded items score 0.

    Slots, states and items are padded to a multiple each.
    """
    tokens = stacked([part.tokens for part in parts], 0, multiple)
    state = stacked([part.state for part in parts], 0, multiple)
    n_slots, n_states = tokens.shape[1], state.shape[1]
    n_items, n_levels = (max(part.steps.shape[axis] for part in parts) for axis in (0, 1))
    n_items = rounded_up(n_items, multiple)
    slot_mask = np.zeros((len(parts), n_slots, n_slots), dtype=np.bool_)
    slot_mask[:, np.arange(n_slots), np.arange(n_slots)] = True
    steps = np.full((len(parts), n_items, n_levels), n_states * n_columns, dtype=np.int64)
    for row, part in enumerate(parts):
        size = len(part.tokens)
        slot_mask[row, :size, :size] = part.slot_mask
        past_end = part.steps == len(part.state) * n_columns
        steps[row, : part.steps.shape[0], : part.steps.shape[1]] = np.where(past_end, n_states * n_columns, part.steps)
    return Paths(
        tokens=tokens,
        positions=stacked([part.positions for part in parts], 0, multiple),
        slot_mask=slot_mask,
        state=state,
        state_slot=stacked([part.state_slot for part in parts], 0, multiple),
        steps=steps,
    )
