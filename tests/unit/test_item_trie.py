"""ItemTrie against a dictionary of prefixes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdrec_core.decoding.item_trie import ItemTrie, TrieStates
from rdrec_core.decoding.path_arrays import Availability, closed_edges, open_edges
from rdrec_core.errors import InputError
from tests import ranking_world as world

START = 0
Label = tuple[int, ...]
labels_lists = st.lists(st.lists(st.integers(2, 6), max_size=7).map(tuple), min_size=1, max_size=40, unique=True)


def children_of(labels: list[Label]) -> dict[Label, set[int]]:
    children: dict[Label, set[int]] = {}
    for label in labels:
        sequence = (*label, world.EOS)
        for depth, token in enumerate(sequence):
            children.setdefault(sequence[:depth], set()).add(token)
    return children


def walk(trie: ItemTrie, states: TrieStates) -> tuple[dict[int, Label], dict[int, tuple[Label, int]]]:
    """State -> its prefix, and item -> the prefix of the state it hangs on and the token of its edge."""
    prefixes: dict[int, Label] = {0: tuple(states.root_tokens[1:].tolist())}
    items = {}
    for state in range(states.n_states):
        edges = range(states.edge_start[state], states.edge_start[state + 1])
        targets = states.edge_target[edges.start : edges.stop]
        n_inner = states.inner_edges[state]
        assert (targets[:n_inner] >= 0).all()
        assert (targets[n_inner:] < 0).all()
        for edge in edges:
            target = states.edge_target[edge]
            token = int(trie.columns[states.edge_column[edge]])
            if target < 0:
                items[int(trie.order[-1 - target])] = (prefixes[state], token)
                assert states.leaf_edge[-1 - target] == edge
            else:
                tokens = states.tokens[target, : states.length[target]].tolist()
                assert tokens[0] == token
                assert states.position[target] == len(prefixes[state]) + 1
                assert states.parent[target] == state
                assert states.parent_edge[target] == edge
                prefixes[int(target)] = (*prefixes[state], *tokens)
    return prefixes, items


@settings(max_examples=150, deadline=None)
@given(labels_lists)
def test_states_are_the_nodes_they_should_be(labels: list[Label]) -> None:
    trie = ItemTrie.build(world.ragged(labels), eos_token_id=world.EOS, start_token_id=START)
    children = children_of(labels)
    for collapsed in (True, False):
        states = trie.states(collapsed=collapsed)
        assert states.root_tokens[0] == START
        prefixes, items = walk(trie, states)
        if collapsed:
            wanted = {prefix for prefix, tokens in children.items() if len(tokens) > 1}
            if len(labels) == 1:
                wanted = {()}
        else:
            wanted = set(children)
        assert set(prefixes.values()) == wanted
        assert len(prefixes) == len(wanted) == states.n_states
        for state, prefix in prefixes.items():
            below = {i for i, label in enumerate(labels) if (*label, world.EOS)[: len(prefix)] == prefix}
            leaves = range(states.leaves_from[state], states.leaves_to[state])
            assert {int(trie.order[leaf]) for leaf in leaves} == below
            edges = states.edge_column[states.edge_start[state] : states.edge_start[state + 1]]
            if len(labels) > 1 or not collapsed:
                assert set(trie.columns[edges].tolist()) == children[prefix]
        assert set(items) == set(range(len(labels)))
        for item, (prefix, token) in items.items():
            sequence = (*labels[item], world.EOS)
            assert sequence[: len(prefix) + 1] == (*prefix, token)
        assert (trie.order[trie.leaf] == np.arange(len(labels))).all()
        per_level = np.diff(states.level_start)
        assert per_level.sum() == states.n_states
        counts = np.diff(states.edge_start)
        for level in range(states.n_levels):
            here = slice(states.level_start[level], states.level_start[level + 1])
            assert counts[here].max() == states.fanout[level]
            assert states.inner_edges[here].max() == states.inner_fanout[level]


@settings(max_examples=100, deadline=None)
@given(labels_lists, st.data())
def test_edges_are_closed_exactly_where_no_eligible_item_is_left(labels: list[Label], data: st.DataObject) -> None:
    trie = ItemTrie.build(world.ragged(labels))
    flags = st.lists(st.booleans(), min_size=len(labels), max_size=len(labels))
    alive, taken = np.array(data.draw(flags)), np.array(data.draw(flags))
    for collapsed in (True, False):
        states = trie.states(collapsed=collapsed)
        availability = Availability(states, alive[trie.order])
        leaves = np.flatnonzero((alive & taken)[trie.order])
        eligible = (alive & ~taken)[trie.order]
        closed = np.zeros(len(states.edge_target), dtype=bool)
        closed[closed_edges(states, availability, leaves)] = True
        opened = np.zeros(len(states.edge_target), dtype=bool)
        opened[open_edges(states, leaves)] = True
        for edge, target in enumerate(states.edge_target):
            below = range(-1 - target, -target) if target < 0 else range(
                states.leaves_from[target], states.leaves_to[target]
            )  # fmt: skip
            usable = availability.edge_alive[edge] and not closed[edge]
            assert usable == eligible[list(below)].any()
            assert opened[edge] == np.isin(list(below), leaves).any()


def test_two_items_with_one_label_are_refused() -> None:
    with pytest.raises(InputError, match="items 0 and 2 have the same label"):
        ItemTrie.build(world.ragged([(5, 6), (5,), (5, 6)]))


def test_long_labels_take_the_other_way_of_sorting() -> None:
    rng = np.random.default_rng(0)
    labels = list({tuple(rng.integers(2, 5, rng.integers(30, 60)).tolist()) for _ in range(50)})
    trie = ItemTrie.build(world.ragged(labels))
    assert [labels[i] for i in trie.order] == sorted(labels, key=lambda label: (*label, world.EOS))


@pytest.mark.parametrize("collapsed", [True, False])
def test_arrays_survive_being_stored(collapsed: bool) -> None:
    trie = ItemTrie.build(world.ragged([(4, 5), (4, 6), (7,)]))
    again = ItemTrie.from_arrays(trie.arrays(collapsed=collapsed), collapsed=collapsed)
    assert (again.leaf == trie.leaf).all()
    for name, array in trie.arrays(collapsed=collapsed).items():
        assert (again.arrays(collapsed=collapsed)[name] == array).all()
    with pytest.raises(InputError, match="loaded as arrays"):
        again.states(collapsed=not collapsed)
