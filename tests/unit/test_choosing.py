"""What a list may hold and how unlike its items are: filters and spreading in every list that the ranker makes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdrec_core.filters import ItemColumns, Where
from rdrec_core.item_texts import FieldTexts, ItemTexts
from rdrec_core.ranking import Ranker
from rdrec_core.spreading import CONSIDERED, likeness, spread_out
from rdrec_core.text_vectors import Rows, SparseVectors, TextIndex
from rdrec_core.types import IntArray, RankRequest, ScoreRequest, Spread, Task
from tests.unit.test_item_graph import World
from tests.unit.test_ranking import UNAVAILABLE, WEIGHTS, OneWord, TableEngine

N = 25
PRICES = [float(n % 7) for n in range(N)]
BRANDS = [None if n % 6 == 0 else f"brand {n % 4}" for n in range(N)]
CATEGORIES = [["shop", f"shelf {n % 5}"] for n in range(N)]
TEXTS = [f"{'red' if n % 2 else 'blue'} thing {n % 3}" for n in range(N)]


VECTORS, ROWS = SparseVectors.from_texts(TEXTS)
INDEX = TextIndex.of(ROWS, len(VECTORS))


class Worded(OneWord):
    """Knows a text of every item, and the word "blue"."""

    def rows_of(self, items: IntArray) -> Rows:
        return INDEX.rows_of(items)

    def alike(self, items: IntArray) -> tuple[IntArray, np.ndarray]:
        return ItemTexts({"catalogue": FieldTexts(VECTORS, INDEX)}, N).alike(items)


WORLD, ENGINE = World(2), TableEngine(N, 2)


def ranker() -> Ranker:
    available = np.ones(N, dtype=bool)
    available[list(UNAVAILABLE)] = False
    columns = ItemColumns.of(
        N, brands=BRANDS, categories=CATEGORIES, attributes={"price": ("number", PRICES)}
    )  # fmt: skip
    return Ranker(ENGINE, WORLD.graph, WEIGHTS, texts=Worded(), columns=columns, available=available)  # type: ignore[arg-type]


RANKER = ranker()


def allowed(most: float, exclude: tuple[int, ...]) -> list[int]:
    return [i for i in range(N) if PRICES[i] <= most and i not in exclude and i not in UNAVAILABLE]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(-1, 7), st.integers(1, 12), st.lists(st.integers(0, N - 1), max_size=5).map(tuple), st.booleans(),
    st.booleans(),
)  # fmt: skip
def test_every_list_holds_as_many_items_as_are_eligible_and_no_others(
    most: int, n: int, history: tuple[int, ...], fusion: bool, known: bool
) -> None:
    where = Where.parse({"price": {"lte": most}})
    request = RankRequest(1 if known else None, history, n, exclude=history, beam_width=3, where=where)
    eligible = allowed(most, history)
    lists = [
        RANKER.recommend([replace(request, where=None), request], fusion=[fusion, fusion])[1],
        RANKER.without_model(request),
    ]
    for found in lists:
        items = found.item_indices.tolist()
        assert len(items) == len(set(items)) == min(n, len(eligible))
        assert set(items) <= set(eligible)
    assert set(RANKER.candidates(history, n, exclude=history, where=where).tolist()) <= set(eligible)
    assert len(RANKER.candidates(history, n, exclude=history, where=where)) == min(n, len(eligible))
    plain = RANKER.similar([4, 9], N).item_indices
    nearest = [i for i in plain if PRICES[i] <= most]
    assert RANKER.similar([4, 9], n, where=where).item_indices.tolist()[: len(nearest)] == nearest[:n]


def test_where_a_filter_leaves_few_similar_items_those_that_share_words_come_behind() -> None:
    where = Where.parse({"price": {"gte": 3}})
    near = [i for i in RANKER.similar([4, 9], N).item_indices.tolist() if PRICES[i] >= 3 and i != 24]
    found = RANKER.similar([4, 9], N, exclude=[24], where=where)
    items = found.item_indices.tolist()
    assert items[: len(near)] == near
    dense = np.zeros((N, len(VECTORS)))
    for item in range(N):
        terms, weights = ROWS.row(item)
        dense[item, terms] = weights
    cosine = dense @ (dense[4] + dense[9])
    more = [i for i in range(N) if i not in (4, 9, 24, *near) and PRICES[i] >= 3 and i not in UNAVAILABLE]
    assert items[len(near) :] == sorted((i for i in more if cosine[i] > 0), key=lambda i: (-round(cosine[i], 6), i))
    assert len(items) > len(near) > 0
    assert (np.diff(found.scores) <= 0).all()
    assert np.isnan(found.graph_scores[len(near) :]).all()
    assert RANKER.similar([4, 9], len(near), exclude=[24], where=where).item_indices.tolist() == near
    assert RANKER.similar([4, 9], N, include=items[3:], where=where).item_indices.tolist() == items[3:]
    assert not len(RANKER.similar([4, 9], N, include=(), where=where).item_indices)


def test_a_filter_is_as_good_as_naming_the_items() -> None:
    where = Where.parse({"price": {"lte": 3}, "not": {"brand": "brand 1"}})
    named = tuple(i for i in range(N) if PRICES[i] <= 3 and BRANDS[i] != "brand 1")
    for history in ((), (3, 8)):
        filtered = RankRequest(None, history, 6, where=where)
        by_filter, by_name = RANKER.recommend([filtered, replace(filtered, where=None, include=named)])
        assert by_filter.item_indices.tolist() == by_name.item_indices.tolist()


def test_availability_goes_on_to_hold_and_a_mask_follows_it() -> None:
    own = ranker()
    where = Where.parse({"price": {"lte": 3}})
    first = own.open_to(where)
    assert own.open_to(where) is first
    assert first is not None
    assert np.flatnonzero(first.items).tolist() == allowed(3, ())
    own = own.with_available(np.arange(N) == 8)
    again = own.open_to(where)
    assert again is not None
    assert np.flatnonzero(again.items).tolist() == [8]
    own.columns.put(8, attributes={"price": 99})
    changed = own.open_to(where)
    assert changed is not None
    assert not changed.items.any()


def relevance_and_likeness(items: list[int], diversity: float, n: int) -> list[int]:
    """Maximal marginal relevance as plainly as it goes."""
    dense = np.zeros((N, len(VECTORS)))
    for item in range(N):
        terms, weights = ROWS.row(item)
        dense[item, terms] = weights

    def alike(a: int, b: int) -> float:
        one, other = set(CATEGORIES[a]), set(CATEGORIES[b])
        return (float(dense[a] @ dense[b]) + len(one & other) / len(one | other)) / 2

    chosen: list[int] = []
    while len(chosen) < min(n, len(items)):
        left = [i for i in items if i not in chosen]
        chosen.append(
            max(
                left,
                key=lambda i: (
                    round((1 - diversity) * (1 - items.index(i) / CONSIDERED)
                    - diversity * max((alike(i, c) for c in chosen), default=0.0), 9),
                    -items.index(i),
                ),
            )
        )  # fmt: skip
    return chosen


@pytest.mark.parametrize("diversity", [0.0, 0.2, 0.6, 1.0])
def test_diversity_is_maximal_marginal_relevance_over_text_and_category(diversity: float) -> None:
    spread = Spread(diversity)
    request = RankRequest(1, (3, 8), 6, exclude=(3, 8))
    whole = RANKER.recommend([replace(request, n_items=N, beam_width=6)])[0].item_indices.tolist()
    pool = RANKER.recommend([replace(request, beam_width=N)])[0]
    found = RANKER.recommend([replace(request, beam_width=N, spread=spread)])[0]
    assert found.item_indices.tolist() == relevance_and_likeness(whole, diversity, 6)
    if not diversity:
        assert found.item_indices.tolist() == pool.item_indices.tolist()
    cold = RANKER.without_model(replace(request, n_items=N)).item_indices.tolist()
    spread_cold = RANKER.without_model(replace(request, spread=spread))
    assert spread_cold.item_indices.tolist() == relevance_and_likeness(cold, diversity, 6)
    candidates = (1, 4, 5, 9, 20, 21)
    scored = RANKER.topn([ScoreRequest(1, candidates, (3,))])[0]
    spread_topn = RANKER.topn([ScoreRequest(1, candidates, (3,), spread=spread)])[0]
    expected = relevance_and_likeness(scored.item_indices.tolist(), diversity, 6)
    assert spread_topn.item_indices.tolist() == expected
    of = dict(zip(scored.item_indices.tolist(), scored.scores.tolist(), strict=True))
    assert spread_topn.scores.tolist() == [of[i] for i in expected], "an item keeps its own score"
    alike = RANKER.similar([4, 9], N).item_indices.tolist()
    assert RANKER.similar([4, 9], 5, spread=spread).item_indices.tolist() == relevance_and_likeness(alike, diversity, 5)


LIMITS = st.none() | st.integers(1, 3)


@settings(max_examples=25, deadline=None)
@given(
    LIMITS, LIMITS, st.integers(1, 15), st.booleans(), st.booleans(),
    st.sampled_from([0.0, 0.5]),
)  # fmt: skip
def test_no_more_of_a_brand_or_category_than_asked_for_and_the_list_is_filled_all_the_same(
    per_brand: int | None, per_category: int | None, n: int, known: bool, fusion: bool, diversity: float
) -> None:
    spread = Spread(diversity, per_brand, per_category)
    request = RankRequest(1 if known else None, (3,) if known else (), n, beam_width=2, spread=spread)
    for found in (RANKER.recommend([request], fusion=[fusion])[0], RANKER.without_model(request, Task.SEQUENTIAL)):
        items = found.item_indices.tolist()
        brands = Counter(BRANDS[i] for i in items if BRANDS[i] is not None)
        shelves = Counter(CATEGORIES[i][-1] for i in items)
        assert per_brand is None or max(brands.values(), default=0) <= per_brand
        assert per_category is None or max(shelves.values()) <= per_category
        if per_brand is not None and per_category is not None:
            continue  # an item that both limits count may have taken the place of two
        more = [
            i
            for i in set(range(N)) - set(items) - UNAVAILABLE
            if (per_brand is None or BRANDS[i] is None or brands[BRANDS[i]] < per_brand)
            and (per_category is None or shelves[CATEGORIES[i][-1]] < per_category)
        ]
        assert len(items) == n or not more


def test_what_is_not_known_of_an_item_makes_it_like_none() -> None:
    rows = Rows(np.asarray([0, 1, 1, 2]), np.asarray([5, 5], dtype=np.int32), np.ones(2, dtype=np.float32))
    alike = likeness(rows, [(1, 2), (1,), ()])
    np.testing.assert_allclose(alike(0), [1.0, 0.5, 1.0])
    np.testing.assert_allclose(alike(1), [0.5, 1.0, 0.0])
    np.testing.assert_allclose(alike(2), [1.0, 0.0, 1.0])
    assert likeness(None, [(), ()])(0).tolist() == [0.0, 0.0]
    assert spread_out(Spread(0.5), 3, np.asarray([-1, -1]), [(), ()], likeness(None, [(), ()])) == [0, 1]


def test_vectors_of_items_are_those_that_the_index_was_made_of() -> None:
    found = INDEX.rows_of(np.asarray([7, N + 3, 0, 7]))
    assert len(found) == 4
    for place, item in ((0, 7), (2, 0), (3, 7)):
        for got, expected in zip(found.row(place), ROWS.row(item), strict=True):
            np.testing.assert_array_equal(got, expected)
    assert not len(found.row(1)[0])
