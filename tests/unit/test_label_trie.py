"""The choices of each label against a trie walked by hand in dictionaries."""

from collections import defaultdict

import numpy as np
import pytest

from rdrec_core.decoding.item_trie import ItemTrie
from rdrec_core.encoding import RaggedTokens
from training.learning.label_trie import LabelTrie


def ragged(rows: list[list[int]]) -> RaggedTokens:
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return RaggedTokens(indptr, np.concatenate(rows).astype(np.int32))


RANDOM = np.random.default_rng(0)
CATALOGUES = {
    "two levels": [[10, 20], [10, 21], [11, 20]],
    "one is a prefix of another": [[5], [5, 6], [5, 6, 7], [8]],
    "a forced run in the middle": [[5, 6, 7], [5, 6, 8], [9, 6, 7]],
    "all begin alike": [[4, 5], [4, 6], [4, 7]],
    "random": [list(row) for row in {tuple(RANDOM.integers(2, 6, size=RANDOM.integers(1, 5))) for _ in range(80)}],
}


@pytest.mark.parametrize("name", CATALOGUES)
def test_choices_are_the_branching_nodes_on_each_items_path(name: str) -> None:
    rows = CATALOGUES[name]
    children: dict[tuple[int, ...], set[int]] = defaultdict(set)
    for row in rows:
        for depth, token in enumerate([*row, 1]):
            children[tuple(row[:depth])].add(token)
    trie = LabelTrie.of(ItemTrie.build(ragged(rows)))
    for item, row in enumerate(rows):
        for depth in range(trie.nodes.shape[1]):
            node = trie.nodes[item, depth]
            prefix = tuple(row[:depth])
            if depth > len(row) or len(children[prefix]) == 1:
                assert node == -1
                continue
            allowed = trie.rows[trie.allowed(np.asarray([node]))[0]]
            assert set(allowed.tolist()) == children[prefix]
            assert trie.rows[trie.columns[item, depth]] == [*row, 1][depth]
        # nothing is left to choose past the last column
        assert all(len(children[tuple(row[:d])]) == 1 for d in range(trie.nodes.shape[1], len(row) + 1))
