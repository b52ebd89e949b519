"""Which items a request is about: one expression over one growable table of their attributes, giving a mask.

    {"category": "Board Games", "price": {"lte": 25}, "brand": {"in": ["Acme", "Zeta"]}, "not": {"tags": "used"}}

All conditions must hold. An item without a value meets no condition on it. Masks are kept until the table changes.
Knows item indices and values; what else makes an item eligible is `ranking.py`'s.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from rdrec_core.catalog import Arrays, StringTable
from rdrec_core.columns import COLUMNS, BoolArray, Column, ColumnType, ListColumn, NumberColumn, TextColumn, Value
from rdrec_core.errors import InputError
from rdrec_core.types import IntArray, ItemMask

GROUP = "columns"
"""The bundle's array group."""
BRAND, CATEGORY, ARRIVED = "brand", "category", "arrived"
_BUILT_IN: dict[str, ColumnType] = {BRAND: "text", CATEGORY: "list", ARRIVED: "number"}
"""Fields that are no attributes; `arrived` counts seconds since 1970."""
NOT = "not"
_ATTRIBUTE = "attribute."
"""Before the name of an attribute that is called like one of the above."""
_ONE_VALUE = ("eq", "lt", "lte", "gt", "gte")
_MANY_VALUES = ("in", "any", "all")
MAX_CONDITIONS = 100
MAX_VALUES = 1000
MAX_NUMBER = 1e300
MAX_DEPTH = 5
MAX_FIELDS = 256
MAX_NAME = 128
_KEPT, _KEPT_BYTES = 1000, 1 << 28
"""How many masks are kept at most, of small catalogues and of large ones."""
_TYPES: tuple[ColumnType, ...] = ("number", "boolean", "text", "list")


@dataclass(frozen=True, slots=True)
class Condition:
    """`field` compared with one value, or several; a bare value is `eq`."""

    field: str
    operator: str
    values: tuple[Value, ...]
    kinds: tuple[type, ...] = dataclasses.field(init=False)
    """Of the values: 1 and true are equal in Python, and no filter may be taken for the other."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", tuple(type(value) for value in self.values))


@dataclass(frozen=True, slots=True)
class Where:
    """Every condition holds, and none of the refused expressions does. Hashable: it is the key of its mask."""

    conditions: tuple[Condition, ...]
    refused: tuple[Where, ...] = ()

    @classmethod
    def parse(cls, document: object, *, field: str = "where") -> Where:
        """The expression of a JSON object. Raises InputError naming the place and saying what would be right there."""
        where = _parsed(document, field, 1)
        if (n := sum(1 for _ in where.walk(field))) > MAX_CONDITIONS:
            raise InputError(f"{field} has {n} conditions, {MAX_CONDITIONS} at most", field=field)
        return where

    def walk(self, path: str) -> Iterator[tuple[Condition, str]]:
        """Every condition, with the path to its field."""
        for condition in self.conditions:
            yield condition, f"{path}.{condition.field}"
        for other in self.refused:
            yield from other.walk(f"{path}.{NOT}")


def _parsed(document: object, path: str, depth: int) -> Where:
    if not isinstance(document, Mapping):
        raise InputError(f"{path} is {_kind(document)}, it must be an object of fields and conditions", field=path)
    if depth > MAX_DEPTH:
        raise InputError(f"{path} is nested {depth} deep, {MAX_DEPTH} at most", field=path)
    conditions: list[Condition] = []
    refused: list[Where] = []
    for written, wanted in document.items():
        name = str(written)[:MAX_NAME].encode("utf-8", "replace").decode()  # it is quoted in answers
        if name == NOT:
            refused.append(_parsed(wanted, f"{path}.{NOT}", depth + 1))
        elif isinstance(wanted, Mapping):
            if not wanted:
                raise InputError(f"{path}.{name} names no condition", field=f"{path}.{name}")
            conditions += [_condition(name, operator, value, path) for operator, value in wanted.items()]
        else:
            conditions.append(Condition(name, "eq", (_value(wanted, f"{path}.{name}"),)))
    return Where(tuple(conditions), tuple(refused))


def _condition(name: str, operator: str, value: object, path: str) -> Condition:
    place = f"{path}.{name}.{operator}"
    if operator in _ONE_VALUE:
        return Condition(name, operator, (_value(value, place),))
    if operator not in _MANY_VALUES:
        known = ", ".join((*_ONE_VALUE, *_MANY_VALUES))
        raise InputError(f"{operator!r} is no condition; {known} are", field=f"{path}.{name}")
    if not isinstance(value, Sequence) or isinstance(value, str) or not 1 <= len(value) <= MAX_VALUES:
        raise InputError(f"{place} must be a list of 1 to {MAX_VALUES} values", field=place)
    return Condition(name, operator, tuple(_value(each, f"{place}[{n}]") for n, each in enumerate(value)))


def _value(value: object, place: str) -> Value:
    if isinstance(value, str | bool):
        return value
    if isinstance(value, int | float) and abs(value) <= MAX_NUMBER:
        return float(value)
    raise InputError(f"{place} is {_kind(value)}, it must be a string, a number, true or false", field=place)


def _kind(value: object) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", str: "text", type(None): "null", dict: "an object"}
    return names.get(type(value), "a list")


@dataclass(frozen=True, slots=True)
class ItemValues:
    """What filters can ask of one item."""

    brand: str | None = None
    categories: tuple[str, ...] = ()
    arrived: float | None = None
    attributes: Mapping[str, float | bool | str | list[str]] = field(default_factory=dict)


class ItemColumns:
    """The attributes of N items by item index; a field's type is that of the first value written to it.

    Any thread may ask and write. `version` counts what was written.
    """

    def __init__(self, n_items: int = 0, fields: Mapping[str, Column] | None = None) -> None:
        """fields: columns by the name that filters call them by."""
        self._n_items = n_items
        self._fields = dict(fields or {})
        self._lock = threading.RLock()
        self._masks: OrderedDict[Where, ItemMask] = OrderedDict()
        self._latest: IntArray | None = None
        self.version = 0

    def __len__(self) -> int:
        return self._n_items

    @property
    def fields(self) -> dict[str, ColumnType]:
        """Types of the fields by name."""
        return {name: self._fields[name].type for name in sorted(self._fields)}

    @classmethod
    def of(
        cls,
        n_items: int,
        *,
        brands: Iterable[str | None] = (),
        categories: Iterable[Sequence[str] | None] = (),
        arrived: Iterable[float | None] = (),
        attributes: Mapping[str, tuple[ColumnType, Iterable[Any]]] | None = None,
    ) -> ItemColumns:
        """The table of a catalogue, each field by item index; a field without a value at all is left out."""
        given: list[tuple[str, ColumnType, list[Any]]] = [
            (BRAND, "text", list(brands)), (CATEGORY, "list", list(categories)), (ARRIVED, "number", list(arrived)),
            *((_field_of(name), type_, list(values)) for name, (type_, values) in (attributes or {}).items()),
        ]  # fmt: skip
        known = [each for each in given if any(value is not None for value in each[2])]
        return cls(n_items, {name: COLUMNS[type_].of(values) for name, type_, values in known})

    def put(
        self,
        index: int,
        *,
        brand: str | None = None,
        categories: Sequence[str] = (),
        arrived: float | None = None,
        attributes: Mapping[str, float | bool | str | Sequence[str] | None] | None = None,
    ) -> None:
        """Replace everything that is known of an item, which may be a new one.

        Raises InputError naming the attribute, with nothing changed, for a value of another type than the field's.
        """
        with self._lock:
            values, new = self._checked(brand, categories, arrived, attributes)
            for name, type_ in new.items():
                self._fields[name] = COLUMNS[type_]()
            for name, column in self._fields.items():
                column.put(index, values.get(name))
            self._n_items = max(self._n_items, index + 1)
            self.version += 1
            self._masks.clear()
            self._latest = None

    def check_put(self, item: ItemValues) -> None:
        """Raises as `put` would; nothing is changed."""
        with self._lock:
            self._checked(item.brand, item.categories, item.arrived, item.attributes)

    def values_of(self, index: int) -> ItemValues:
        """Everything that is known of an item."""
        with self._lock:
            found = {name: column.value(index) for name, column in self._fields.items()}
        brand, categories, arrived = (found.pop(name, None) for name in (BRAND, CATEGORY, ARRIVED))
        attributes = {name.removeprefix(_ATTRIBUTE): value for name, value in found.items() if value is not None}
        return ItemValues(brand, tuple(categories or ()), arrived, attributes)

    def _checked(
        self,
        brand: str | None,
        categories: Sequence[str],
        arrived: float | None,
        attributes: Mapping[str, float | bool | str | Sequence[str] | None] | None,
    ) -> tuple[dict[str, Any], dict[str, ColumnType]]:
        """What is to be written by field, and the types of fields that are new."""
        values: dict[str, Any] = {BRAND: brand or None, CATEGORY: list(categories) or None, ARRIVED: arrived}
        types = dict(_BUILT_IN)
        for name, value in (attributes or {}).items():
            if value is not None:
                types[_field_of(name)] = _type_of(value, name)
                values[_field_of(name)] = value
        new = {name: types[name] for name, value in values.items() if value is not None and name not in self._fields}
        if len(self._fields) + len(new) > MAX_FIELDS:
            raise InputError(f"items have {MAX_FIELDS} fields already", field="attributes")
        for name, value in values.items():
            known = self._fields.get(name)
            if value is not None and known is not None and known.type != types[name]:
                place = f"attributes.{name.removeprefix(_ATTRIBUTE)}"
                raise InputError(f"{place} is of type {known.type} in this catalogue, not {types[name]}", field=place)
        return values, new

    def check(self, where: Where, *, field: str = "where") -> None:
        """Raises InputError for a field that is not there, naming those that are, and for values of another type."""
        for condition, path in where.walk(field):
            column = self._column(condition.field)
            if column is None:
                known = ", ".join(self.fields) or "none"
                raise InputError(f"{condition.field!r} is no field of this catalogue; known are: {known}", field=path)
            wanted = "text" if column.type == "list" else column.type
            if condition.operator not in column.operators:
                does = ", ".join(column.operators)
                raise InputError(f"{condition.field} is of type {column.type}, which takes {does}", field=path)
            for value in condition.values:
                if (given := _type_of(value, condition.field)) != wanted:
                    told = "list, of texts" if column.type == "list" else column.type
                    raise InputError(f"{condition.field} is of type {told}; {value!r} is of type {given}", field=path)

    def mask(self, where: Where) -> ItemMask:
        """The items that meet the expression, (N,); the same object until the table changes. Raises as `check`."""
        self.check(where)
        with self._lock:
            kept = self._masks.get(where)
            if kept is not None:
                self._masks.move_to_end(where)
                return kept
            mask = self._masks[where] = ItemMask(self._evaluated(where))
            while len(self._masks) > max(4, min(_KEPT, _KEPT_BYTES // max(1, self._n_items))):
                self._masks.popitem(last=False)
            return mask

    def is_kept(self, where: Where) -> bool:
        """Whether `mask` would answer at once."""
        return where in self._masks

    def latest(self) -> IntArray:
        """All items, those that arrived last first; of unknown arrival last, the higher index before the lower."""
        with self._lock:
            if self._latest is None:
                arrived = np.full(self._n_items, -np.inf)
                column = self._fields.get(ARRIVED)
                if isinstance(column, NumberColumn):
                    known = column.values[: self._n_items]
                    arrived[: len(known)] = np.where(np.isnan(known), -np.inf, known)
                self._latest = np.lexsort((-np.arange(self._n_items), -arrived))
            return self._latest

    def brands_of(self, items: IntArray) -> IntArray:
        """A number a brand, -1 for none."""
        column = self._fields.get(BRAND)
        return column.codes_of(items) if isinstance(column, TextColumn) else np.full(len(items), -1)

    def categories_of(self, items: IntArray) -> list[tuple[int, ...]]:
        """The categories of each item as numbers, in the order in which they were written."""
        column = self._fields.get(CATEGORY)
        return column.codes_of(items) if isinstance(column, ListColumn) else [()] * len(items)

    def _column(self, field: str) -> Column | None:
        return self._fields.get(field) or self._fields.get(_field_of(field.removeprefix(_ATTRIBUTE)))

    def _evaluated(self, where: Where) -> BoolArray:
        out = np.ones(self._n_items, dtype=np.bool_)
        for condition in where.conditions:
            column = self._column(condition.field)
            assert column is not None
            out &= column.mask(condition.operator, condition.values, self._n_items)
        for other in where.refused:
            out &= ~self._evaluated(other)
        return out

    def arrays(self) -> Arrays:
        """Everything, for `BundleWriter.add_arrays(GROUP, ...)`; columns are numbered, as names may hold anything."""
        names = list(self.fields)
        out: Arrays = {
            "n_items": np.asarray([self._n_items], dtype=np.int64),
            "types": np.asarray([_TYPES.index(self._fields[name].type) for name in names], dtype=np.uint8),
            **StringTable.from_strings(names).arrays("names"),
        }
        for number, name in enumerate(names):
            out |= self._fields[name].arrays(str(number))
        return out

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], n_items: int) -> ItemColumns:
        """Read what `arrays` wrote; a table without fields for a bundle that has no such arrays."""
        if not arrays:
            return cls(n_items)
        names = StringTable.from_arrays(arrays, "names")
        types = [_TYPES[number] for number in arrays["types"].tolist()]
        columns = {names[n]: COLUMNS[type_].from_arrays(arrays, str(n)) for n, type_ in enumerate(types)}
        return cls(int(arrays["n_items"][0]), columns)


def _field_of(attribute: str) -> str:
    """By which name filters know an attribute."""
    return f"{_ATTRIBUTE}{attribute}" if attribute in (*_BUILT_IN, NOT) else attribute


def _type_of(value: object, name: str) -> ColumnType:
    match value:
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "text"
        case _ if isinstance(value, Sequence) and all(isinstance(each, str) for each in value):
            return "list"
    field = f"attributes.{name}"
    raise InputError(f"{field} must be a number, text, true or false, or a list of texts", field=field)
