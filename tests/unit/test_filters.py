"""Filters: every expression against brute force over plain records, columns that grow, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdrec_core.errors import InputError
from rdrec_core.filters import ItemColumns, Where

WORDS = ("red", "blue", "Ünï", "a b")
RECORDS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "brand": st.sampled_from(WORDS),
            "category": st.lists(st.sampled_from(WORDS), max_size=3),
            "price": st.sampled_from([0.0, 1.5, 2.0, -3.0]),
            "sealed": st.booleans(),
            "tags": st.lists(st.sampled_from(WORDS), max_size=3),
            "colour": st.sampled_from(WORDS),
        },
    ),
    min_size=1,
    max_size=12,
)
NUMBERS, LISTS = ("price",), ("category", "tags")
TEXTS = ("brand", "colour")


def _conditions() -> st.SearchStrategy[dict[str, Any]]:
    word, number = st.sampled_from((*WORDS, "absent")), st.sampled_from([0, 1.5, 2, 7])
    words, numbers = st.lists(word, min_size=1, max_size=3), st.lists(number, min_size=1, max_size=3)
    several = st.fixed_dictionaries({}, optional={"in": words, "any": words}).filter(bool)
    return st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(TEXTS, word | several),
            **{
                name: word | st.fixed_dictionaries({}, optional={"any": words, "all": words, "eq": word}).filter(bool)
                for name in LISTS
            },
            "price": number
            | st.fixed_dictionaries(
                {}, optional={"lt": number, "lte": number, "gt": number, "gte": number, "in": numbers}
            ).filter(bool),
            "sealed": st.booleans(),
        },
    )


EXPRESSIONS = st.recursive(
    _conditions(),
    lambda inner: st.builds(lambda own, other: {**own, "not": other}, _conditions(), inner),
    max_leaves=3,
)


def meets(record: Mapping[str, Any], expression: Mapping[str, Any]) -> bool:
    """The definition, written as plainly as it goes."""
    for name, wanted in expression.items():
        if name == "not":
            if meets(record, wanted):
                return False
            continue
        value = record.get(name)
        for operator, operand in (wanted if isinstance(wanted, Mapping) else {"eq": wanted}).items():
            if value is None:
                return False
            held = value if isinstance(value, list) else [value]
            operands = operand if isinstance(operand, list) else [operand]
            if not {
                "eq": lambda h, o: o[0] in h,
                "in": lambda h, o: any(x in h for x in o),
                "any": lambda h, o: any(x in h for x in o),
                "all": lambda h, o: all(x in h for x in o),
                "lt": lambda h, o: h[0] < o[0],
                "lte": lambda h, o: h[0] <= o[0],
                "gt": lambda h, o: h[0] > o[0],
                "gte": lambda h, o: h[0] >= o[0],
            }[operator](held, operands):
                return False
    return True


def typed() -> ItemColumns:
    """One item more than the records, that has every field and is replaced by one that has none."""
    columns = ItemColumns()
    attributes = {"price": 1, "sealed": True, "tags": ["x"], "colour": "x"}
    columns.put(0, brand="x", categories=["x"], attributes=attributes)
    columns.put(0)
    return columns


def put(columns: ItemColumns, index: int, record: Mapping[str, Any]) -> None:
    columns.put(
        index,
        brand=record.get("brand"),
        categories=record.get("category", ()),
        attributes={name: value for name, value in record.items() if name not in ("brand", "category")},
    )


@settings(max_examples=60, deadline=None)
@given(records=RECORDS, expression=EXPRESSIONS, again=st.lists(st.integers(0, 11), max_size=4))
def test_a_mask_is_what_brute_force_finds_also_after_items_changed(
    records: list[dict[str, Any]], expression: dict[str, Any], again: list[int]
) -> None:
    columns = typed()
    for index, record in enumerate(records):
        put(columns, index, record)
    where = Where.parse(expression)
    assert columns.mask(where).items.tolist() == [meets(record, expression) for record in records]
    for place in again:  # an item takes over what another one has
        records[place % len(records)] = records[(place + 1) % len(records)]
        put(columns, place % len(records), records[place % len(records)])
    expected = [meets(record, expression) for record in records]
    assert columns.mask(where).items.tolist() == expected
    read = ItemColumns.from_arrays(columns.arrays(), len(records))
    assert read.mask(where).items.tolist() == expected
    put(read, len(records), records[0])  # arrays of a bundle are read-only, and grow all the same
    put(read, 0, {})
    assert read.mask(where).items.tolist() == [meets({}, expression), *expected[1:], expected[0]]


def shop() -> ItemColumns:
    return ItemColumns.of(
        3,
        brands=["Acme", None, "Zeta"],
        categories=[["Toys", "Games"], None, ["Games"]],
        arrived=[5.0, None, 9.0],
        attributes={
            "price": ("number", [1.0, 2.0, None]),
            "brand": ("text", ["other", None, None]),
            "new": ("boolean", [True, False, None]),
            "tags": ("list", [None, ["used"], None]),
            "nothing": ("text", [None, None, None]),
        },
    )


def test_the_table_of_a_catalogue() -> None:
    columns = shop()
    assert columns.fields == {
        "arrived": "number", "attribute.brand": "text", "brand": "text", "category": "list", "new": "boolean",
        "price": "number", "tags": "list",
    }  # fmt: skip
    assert columns.mask(Where.parse({"attribute.brand": "other", "attribute.price": {"lt": 2}})).items.tolist() == [
        True, False, False,
    ]  # fmt: skip
    assert columns.mask(Where.parse({})).items.all()
    assert columns.latest().tolist() == [2, 0, 1]
    assert columns.brands_of(np.asarray([0, 1, 2])).tolist() == [0, -1, 1]
    assert columns.categories_of(np.asarray([0, 1, 2])) == [(0, 1), (), (1,)]


def test_a_mask_is_computed_once_and_anew_when_an_item_changes() -> None:
    columns = shop()
    where = Where.parse({"price": {"lte": 1}})
    assert not columns.is_kept(where)
    first = columns.mask(where)
    assert columns.mask(Where.parse({"price": {"lte": 1}})) is first
    assert columns.is_kept(where)
    columns.put(3, attributes={"price": 0.5}, arrived=7.0)
    assert columns.mask(where).items.tolist() == [True, False, False, True]
    assert columns.latest().tolist() == [2, 3, 0, 1]
    assert len(columns) == 4


@pytest.mark.parametrize(
    ("expression", "field", "message"),
    [
        ([], "where", "must be an object"),
        ({"prise": 1}, "where.prise", "known are: arrived, attribute.brand, brand, category, new, price, tags"),
        ({"not": {"prise": 1}}, "where.not.prise", "'prise' is no field"),
        ({"price": "cheap"}, "where.price", "price is of type number; 'cheap' is of type text"),
        ({"price": True}, "where.price", "of type number; True is of type boolean"),
        ({"brand": 1}, "where.brand", "brand is of type text; 1.0 is of type number"),
        ({"brand": {"lt": "B"}}, "where.brand", "brand is of type text, which takes eq, in, any"),
        ({"new": {"in": [True]}}, "where.new", "new is of type boolean, which takes eq"),
        ({"tags": {"any": [1]}}, "where.tags", "tags is of type list, of texts; 1.0 is of type number"),
        ({"price": {"less": 1}}, "where.price", "'less' is no condition; eq, lt"),
        ({"price": {}}, "where.price", "names no condition"),
        ({"price": None}, "where.price", "is null, it must be"),
        ({"price": [1, 2]}, "where.price", "is a list, it must be a string, a number"),
        ({"price": {"in": []}}, "where.price.in", "a list of 1 to 1000 values"),
        ({"price": {"in": "ab"}}, "where.price.in", "a list of 1 to 1000 values"),
        ({"price": {"in": [1, {}]}}, "where.price.in[1]", "an object"),
        ({"price": float("nan")}, "where.price", "must be a string, a number"),
        ({"price": 10**400}, "where.price", "must be a string, a number"),
        ({"brand": {"in": ["a"] * 1001}}, "where.brand.in", "a list of 1 to 1000 values"),
        ({str(n): n for n in range(101)}, "where", "101 conditions, 100 at most"),
        ({"not": {"not": {"not": {"not": {"not": {}}}}}}, "where.not.not.not.not.not", "nested 6 deep"),
    ],
)
def test_what_is_wrong_is_said_at_its_place(expression: Any, field: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        shop().check(Where.parse(expression))
    assert caught.value.field == field
    assert message in str(caught.value)


def test_one_and_true_are_different_filters() -> None:
    columns = shop()
    columns.mask(Where.parse({"new": True}))
    assert not columns.is_kept(Where.parse({"new": 1}))
    assert columns.is_kept(Where.parse({"new": True}))


def test_a_catalogue_without_attributes_says_that_it_has_none() -> None:
    with pytest.raises(InputError, match="known are: none"):
        ItemColumns.from_arrays({}, 5).check(Where.parse({"price": 1}))


def test_a_field_keeps_the_type_of_its_first_value_and_nothing_changes_on_a_refusal() -> None:
    columns = ItemColumns()
    columns.put(0, brand="Acme", attributes={"price": 3})
    version = columns.version
    for attributes, message in (
        ({"price": "3"}, "attributes.price is of type number in this catalogue, not text"),
        ({"new": True, "price": [""]}, "attributes.price is of type number in this catalogue, not list"),
        ({"odd": {"a": 1}}, "attributes.odd must be a number, text, true or false, or a list of texts"),
    ):
        with pytest.raises(InputError, match=message):
            columns.put(0, brand="Zeta", attributes=attributes)
    assert columns.version == version
    assert columns.fields == {"brand": "text", "price": "number"}
    assert columns.mask(Where.parse({"brand": "Acme", "price": 3})).items.tolist() == [True]
