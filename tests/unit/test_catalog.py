"""String tables against plain Python dictionaries and lists."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rdrec_core.catalog import Catalog, StringTable, Users

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(st.lists(TEXT, unique=True, max_size=30), TEXT)
def test_a_string_table_is_a_dictionary_both_ways(strings: list[str], other: str) -> None:
    built = StringTable.from_strings(strings)
    table = StringTable.from_arrays(built.arrays("x"), "x")
    assert [table[i] for i in range(len(table))] == strings
    expected = {s: i for i, s in enumerate(strings) if s}
    for s in [*strings, other]:
        assert table.find(s) == expected.get(s)


def test_a_lone_surrogate_is_not_found_and_does_not_raise() -> None:
    assert StringTable.from_strings(["a"]).find("\ud800") is None


def test_a_catalogue_reads_what_it_wrote() -> None:
    catalog = Catalog(
        StringTable.from_strings(["B1", "B2"]),
        StringTable.from_strings(["Chess", ""]),
        np.asarray([10, 11]),
        np.ones(2, dtype=bool),
    )
    again = Catalog.from_arrays(catalog.arrays())
    assert (len(again), again.item_ids.find("B2"), again.title(0), again.title(1)) == (2, 1, "Chess", None)
    assert again.labels.tolist() == [10, 11]
    assert again.available.all()


def test_users_keep_their_histories() -> None:
    users = Users(StringTable.from_strings(["u", "v"]), np.asarray([0, 2, 2]), np.asarray([5, 3], dtype=np.int32))
    again = Users.from_arrays(users.arrays())
    assert again.history(0).tolist() == [5, 3]
    assert again.history(1).tolist() == []
