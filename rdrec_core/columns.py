"""One column of item attributes: numbers, booleans, texts or lists of texts by item index, growing as items are added.

Arrays of a bundle stay memory-mapped until something is written to them. Knows neither which fields there are nor how
conditions are combined (`filters.py`).
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from rdrec_core.catalog import Arrays, StringTable
from rdrec_core.types import IntArray

ColumnType = Literal["number", "boolean", "text", "list"]
Value = float | bool | str
BoolArray = npt.NDArray[np.bool_]
_Scalar = TypeVar("_Scalar", bound=np.generic)
_NONE = -1
"""Code of what has no value."""


class _Growing(Generic[_Scalar]):
    """A 1-d array that is written to and grows; the one it began with is left as it is."""

    def __init__(self, array: npt.NDArray[_Scalar], missing: float) -> None:
        self._array, self._size, self._missing = array, len(array), missing
        self._is_own = False

    @property
    def values(self) -> npt.NDArray[_Scalar]:
        return self._array[: self._size]

    def set(self, index: int, value: Any) -> None:
        self.reserve(index + 1)
        self._array[index] = value

    def append(self, values: Sequence[Any]) -> int:
        """Where the first of them is."""
        first = self._size
        self.reserve(first + len(values))
        self._array[first : self._size] = values
        return first

    def reserve(self, size: int) -> None:
        if not self._is_own or size > len(self._array):
            grown = np.full(max(size, self._size + self._size // 4 + 16), self._missing, dtype=self._array.dtype)
            grown[: self._size] = self.values
            self._array, self._is_own = grown, True
        self._size = max(self._size, size)


class _Words:
    """Strings with a code each: those of the bundle, and behind them what came since."""

    def __init__(self, table: StringTable | None = None) -> None:
        self._table = table
        self._added: dict[str, int] = {}

    def __len__(self) -> int:
        return (0 if self._table is None else len(self._table)) + len(self._added)

    def __getitem__(self, code: int) -> str:
        known = 0 if self._table is None else len(self._table)
        if self._table is not None and code < known:
            return self._table[code]
        return next(itertools.islice(self._added, code - known, None))

    def find(self, word: str) -> int:
        code = None if self._table is None else self._table.find(word)
        return self._added.get(word, _NONE) if code is None else code

    def add(self, word: str) -> int:
        code = self.find(word)
        if code == _NONE:
            code = self._added[word] = len(self)
        return code

    def arrays(self, prefix: str) -> Arrays:
        known = [] if self._table is None else [self._table[code] for code in range(len(self._table))]
        return StringTable.from_strings([*known, *self._added]).arrays(prefix)


class Column(ABC):
    """See the module. `mask` says for each of n items whether its value meets one condition; none does without one."""

    type: ClassVar[ColumnType]
    operators: ClassVar[tuple[str, ...]]
    """What may be asked of it; the values' types are the caller's to check."""

    @abstractmethod
    def put(self, index: int, value: Any) -> None:
        """Replace an item's value; None takes it away."""

    @abstractmethod
    def value(self, index: int) -> Any:
        """An item's value; None where it has none."""

    @abstractmethod
    def mask(self, operator: str, values: Sequence[Any], n: int) -> BoolArray:
        """(n,), for items that the column does not reach False."""

    @abstractmethod
    def arrays(self, prefix: str) -> Arrays:
        """Everything, each under a name that begins with the prefix."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> Column:
        """Read what `arrays` wrote."""

    @classmethod
    def of(cls, values: Iterable[Any]) -> Column:
        """The column with these values, None where an item has none."""
        column = cls()
        for index, value in enumerate(values):
            if value is not None:
                column.put(index, value)
        return column


def _stretched(found: BoolArray, n: int) -> BoolArray:
    if len(found) == n:
        return found
    out = np.zeros(n, dtype=np.bool_)
    out[: min(len(found), n)] = found[:n]
    return out


class NumberColumn(Column):
    """Floats, NaN where there is none."""

    type: ClassVar[ColumnType] = "number"
    operators = ("eq", "in", "lt", "lte", "gt", "gte")

    def __init__(self, values: npt.NDArray[np.float64] | None = None) -> None:
        self._values = _Growing(np.empty(0) if values is None else values, np.nan)

    @property
    def values(self) -> npt.NDArray[np.float64]:
        """By item index; shorter than the catalogue where the last items have none."""
        return self._values.values

    def put(self, index: int, value: float | None) -> None:
        """See Column."""
        self._values.set(index, np.nan if value is None else value)

    def value(self, index: int) -> float | None:
        """See Column."""
        own = self.values
        return float(own[index]) if index < len(own) and not np.isnan(own[index]) else None

    def mask(self, operator: str, values: Sequence[float], n: int) -> BoolArray:
        """See Column."""
        own = self.values
        match operator:
            case "lt":
                found = own < values[0]
            case "lte":
                found = own <= values[0]
            case "gt":
                found = own > values[0]
            case "gte":
                found = own >= values[0]
            case _:
                found = own == values[0] if len(values) == 1 else np.isin(own, values)
        return _stretched(found, n)

    def arrays(self, prefix: str) -> Arrays:
        """See Column."""
        return {f"{prefix}.values": self.values}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> NumberColumn:
        """See Column."""
        return cls(arrays[f"{prefix}.values"])


class BooleanColumn(Column):
    """1, 0, or -1 where there is none."""

    type: ClassVar[ColumnType] = "boolean"
    operators = ("eq",)

    def __init__(self, flags: npt.NDArray[np.int8] | None = None) -> None:
        self._flags = _Growing(np.empty(0, dtype=np.int8) if flags is None else flags, _NONE)

    def put(self, index: int, value: bool | None) -> None:
        """See Column."""
        self._flags.set(index, _NONE if value is None else int(value))

    def value(self, index: int) -> bool | None:
        """See Column."""
        own = self._flags.values
        return bool(own[index]) if index < len(own) and own[index] != _NONE else None

    def mask(self, operator: str, values: Sequence[bool], n: int) -> BoolArray:
        """See Column."""
        return _stretched(self._flags.values == int(values[0]), n)

    def arrays(self, prefix: str) -> Arrays:
        """See Column."""
        return {f"{prefix}.flags": self._flags.values}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> BooleanColumn:
        """See Column."""
        return cls(arrays[f"{prefix}.flags"])


class TextColumn(Column):
    """One string an item, as a code."""

    type: ClassVar[ColumnType] = "text"
    operators = ("eq", "in", "any")

    def __init__(self, codes: npt.NDArray[np.int32] | None = None, words: _Words | None = None) -> None:
        self._codes = _Growing(np.empty(0, dtype=np.int32) if codes is None else codes, _NONE)
        self._words = words or _Words()

    def put(self, index: int, value: str | None) -> None:
        """See Column; an empty string is none."""
        self._codes.set(index, self._words.add(value) if value else _NONE)

    def value(self, index: int) -> str | None:
        """See Column."""
        own = self._codes.values
        return self._words[int(own[index])] if index < len(own) and own[index] != _NONE else None

    def mask(self, operator: str, values: Sequence[str], n: int) -> BoolArray:
        """See Column."""
        wanted = [code for code in map(self._words.find, values) if code != _NONE]
        return _stretched(np.isin(self._codes.values, wanted), n)

    def codes_of(self, items: IntArray) -> IntArray:
        """A number for each item that it shares with those of the same value, -1 for none."""
        own = self._codes.values
        if not len(own):
            return np.full(len(items), _NONE)
        return np.where(items < len(own), own[np.minimum(items, len(own) - 1)], _NONE).astype(np.int64)

    def arrays(self, prefix: str) -> Arrays:
        """See Column."""
        return {f"{prefix}.codes": self._codes.values, **self._words.arrays(f"{prefix}.words")}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> TextColumn:
        """See Column."""
        return cls(arrays[f"{prefix}.codes"], _Words(StringTable.from_arrays(arrays, f"{prefix}.words")))


class ListColumn(Column):
    """Several strings an item: (item, code) entries, those of one item side by side; -1 for what was replaced."""

    type: ClassVar[ColumnType] = "list"
    operators = ("eq", "in", "any", "all")

    def __init__(
        self,
        owners: npt.NDArray[np.int32] | None = None,
        codes: npt.NDArray[np.int32] | None = None,
        words: _Words | None = None,
    ) -> None:
        """owners ascending."""
        empty = np.empty(0, dtype=np.int32)
        self._owners = _Growing(empty if owners is None else owners, _NONE)
        self._codes = _Growing(empty if codes is None else codes, _NONE)
        self._words = words or _Words()
        self._moved: dict[int, tuple[int, int]] = {}
        """Where the entries of items are that were written since; the others' are found among the first `_n_sorted`."""
        self._n_sorted = len(self._owners.values)

    def put(self, index: int, value: Sequence[str] | None) -> None:
        """See Column; empty strings are none."""
        start, stop = self._place(index)
        if stop > start:
            self._codes.set(start, _NONE)  # which makes the array our own
            self._codes.values[start:stop] = _NONE
        codes = list(dict.fromkeys(self._words.add(word) for word in value or () if word))
        first = self._codes.append(codes)
        self._owners.append([index] * len(codes))
        self._moved[index] = (first, first + len(codes))

    def value(self, index: int) -> list[str] | None:
        """See Column."""
        return [self._words[code] for code in self._codes.values[slice(*self._place(index))].tolist()] or None

    def mask(self, operator: str, values: Sequence[str], n: int) -> BoolArray:
        """See Column."""
        wanted = [self._words.find(value) for value in values]
        if operator == "all":
            out = np.ones(n, dtype=np.bool_)
            for code in wanted:
                out &= self._having([code], n)
            return out
        return self._having(wanted, n)

    def _having(self, wanted: Sequence[int], n: int) -> BoolArray:
        is_wanted = np.zeros(len(self._words) + 1, dtype=np.bool_)  # the last place is that of -1
        is_wanted[wanted] = True
        is_wanted[_NONE] = False
        out = np.zeros(n, dtype=np.bool_)
        out[self._owners.values[is_wanted[self._codes.values]]] = True
        return out

    def codes_of(self, items: IntArray) -> list[tuple[int, ...]]:
        """The values of each item in their order, as numbers that say which are the same."""
        return [tuple(self._codes.values[slice(*self._place(int(item)))].tolist()) for item in items]

    def _place(self, index: int) -> tuple[int, int]:
        if index in self._moved:
            return self._moved[index]
        before = self._owners.values[: self._n_sorted]
        return int(np.searchsorted(before, index)), int(np.searchsorted(before, index, side="right"))

    def arrays(self, prefix: str) -> Arrays:
        """See Column."""
        kept = self._codes.values != _NONE
        owners, codes = self._owners.values[kept], self._codes.values[kept]
        order = np.argsort(owners, kind="stable")
        return {
            f"{prefix}.owners": owners[order], f"{prefix}.codes": codes[order],
            **self._words.arrays(f"{prefix}.words"),
        }  # fmt: skip

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> ListColumn:
        """See Column."""
        words = _Words(StringTable.from_arrays(arrays, f"{prefix}.words"))
        return cls(arrays[f"{prefix}.owners"], arrays[f"{prefix}.codes"], words)


COLUMNS: dict[ColumnType, type[Column]] = {
    each.type: each for each in (NumberColumn, BooleanColumn, TextColumn, ListColumn)
}  # fmt: skip
