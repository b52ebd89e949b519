import numpy as np
import pytest

from training.data import labels as la

SCHEMES = ("sequential", "random", "collaborative")


def communities(n_communities=8, size=30, n_users=600, seed=0):
    """Users who buy within one community of items; items are numbered so that nothing of it shows in their order."""
    rng = np.random.default_rng(seed)
    members = rng.permutation(n_communities * size).reshape(n_communities, size)
    histories = [rng.choice(members[rng.integers(n_communities)], size=10, replace=False) for _ in range(n_users)]
    users = np.repeat(np.arange(n_users, dtype=np.int32), 10)
    return users, np.concatenate(histories).astype(np.int32), members


@pytest.mark.parametrize(
    ("n", "low", "high"), [(1, 1, 1), (9, 1, 9), (10, 10, 19), (90, 10, 99), (91, 100, 190), (12101, 10000, 22100)]
)
def test_labels_have_one_number_of_digits(n, low, high):
    labels = la.fixed_width_labels(np.random.default_rng(0).permutation(n))
    assert (labels.min(), labels.max()) == (low, high)
    assert len(set(labels.tolist())) == n


def test_labels_count_in_the_given_order():
    order = np.array([2, 0, 1])
    assert la.published_style_labels(order).tolist() == [2, 3, 1]
    assert la.fixed_width_labels(order).tolist() == [2, 3, 1]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_order_holds_every_item_once_and_is_the_same_again(scheme):
    users, items, _ = communities()
    order = la.item_order(scheme, users, items, 245, seed=3)
    assert sorted(order.tolist()) == list(range(245))
    assert (order == la.item_order(scheme, users, items, 245, seed=3)).all()


@pytest.mark.parametrize("scheme", ["sequential", "collaborative"])
def test_items_unseen_in_training_come_last_and_shuffled(scheme):
    users, items, _ = communities()
    tails = [la.item_order(scheme, users, items, 260, seed)[240:].tolist() for seed in range(3)]
    assert all(sorted(tail) == list(range(240, 260)) for tail in tails)
    assert tails[0] != tails[1] != tails[2]


def test_sequential_is_first_appearance():
    users, items = np.array([0, 0, 1, 1], dtype=np.int32), np.array([3, 1, 3, 0], dtype=np.int32)
    assert la.item_order("sequential", users, items, 4, seed=0).tolist() == [3, 1, 0, 2]


def test_collaborative_labels_put_a_community_side_by_side():
    users, items, members = communities()
    order = la.item_order("collaborative", users, items, 240, seed=0)
    community = np.empty(240, dtype=int)
    for number, of in enumerate(members):
        community[of] = number
    changes = int((np.diff(community[order]) != 0).sum())
    # 8 communities in 8 runs would be 7 changes; a random order has about 210
    assert changes <= 12


@pytest.mark.parametrize("n_items", [1, 2, 3, 5, 6, 9])
def test_tiny_catalogues_have_collaborative_labels_too(n_items):
    rng = np.random.default_rng(n_items)
    users = np.repeat(np.arange(20, dtype=np.int32), n_items)
    items = np.concatenate([rng.permutation(n_items) for _ in range(20)]).astype(np.int32)
    assert sorted(la.item_order("collaborative", users, items, n_items, seed=0).tolist()) == list(range(n_items))


def test_an_item_bought_alone_gets_a_place():
    users = np.array([0, 1, 1, 2, 2, 3, 3, 3], dtype=np.int32)
    items = np.array([0, 1, 2, 3, 4, 5, 6, 1], dtype=np.int32)
    assert sorted(la.collaborative_order(users, items, np.arange(7)).tolist()) == list(range(7))


def test_blocks_of_users_do_not_show_in_the_labels(monkeypatch):
    rng = np.random.default_rng(0)
    users = np.sort(rng.integers(0, 300, 2000)).astype(np.int32)
    items = (60 * rng.random(2000) ** 2).astype(np.int32)
    whole = [la.item_order(scheme, users, items, 70, seed=1).tolist() for scheme in ("sequential", "collaborative")]
    monkeypatch.setattr(la, "_ROWS_AT_ONCE", 37)
    assert whole == [
        la.item_order(scheme, users, items, 70, seed=1).tolist() for scheme in ("sequential", "collaborative")
    ]


def test_a_graph_without_any_edge_has_an_order_and_always_the_same():
    users, items = np.arange(30, dtype=np.int32), np.arange(30, dtype=np.int32)
    orders = {tuple(la.collaborative_order(users, items, np.arange(30)).tolist()) for _ in range(3)}
    assert [sorted(order) for order in orders] == [list(range(30))]


def test_the_embedding_is_that_of_the_dense_graph(monkeypatch):
    monkeypatch.setattr(la, "_TOLERANCE", 1e-10)
    rng = np.random.default_rng(1)
    n = 60
    users, items = np.sort(rng.integers(0, 50, 600)).astype(np.int32), rng.integers(0, n, 600)
    graph = np.zeros((n, n))
    for later in range(600):
        for earlier in range(max(0, later - 5), later):
            if users[later] == users[earlier]:
                graph[items[later], items[earlier]] += 1 / (later - earlier)
                graph[items[earlier], items[later]] += 1 / (later - earlier)
    scale = np.diag(graph.sum(axis=1) ** -0.5)
    values, vectors = np.linalg.eigh(scale @ graph @ scale)
    expected = (vectors * np.maximum(values, 0))[:, ::-1][:, 1:49]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    points = la.spectral_embedding(users, items, n)
    # eigenvectors have no sign: compare the angles between items
    np.testing.assert_allclose(points @ points.T, expected @ expected.T, atol=1e-8)


def test_halving_puts_points_of_a_line_in_their_order():
    points = np.random.default_rng(0).permutation(50)
    along = points[la.halving_order(points[:, None].astype(float))]
    assert along.tolist() == list(range(50))


def test_digit_trie_counts_prefixes():
    assert la.digit_trie(np.array([10, 11, 12, 20])) == "2 (x2.0), 4 (x2.0)"
