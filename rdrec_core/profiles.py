"""Profiles: the preference of every user and the attributes of every item, written offline by the model's own decoder.

They are texts of the model, kept as they came. A user or item that came later, or about whom the model said nothing,
has none; whoever asks then writes one online (`Engine.generate_text`). Knows arrays, not the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from rdrec_core.bundle import Bundle
from rdrec_core.catalog import Arrays, StringTable
from rdrec_core.types import Task, TextRequest

GROUP = "profiles"
"""The bundle's array group."""
_USERS, _ITEMS = "users", "items"


class Profiles:
    """Texts by user index and by item index; either table may be empty."""

    def __init__(self, users: StringTable, items: StringTable) -> None:
        self._users, self._items = users, items

    @classmethod
    def from_texts(cls, users: Iterable[str], items: Iterable[str]) -> Profiles:
        """Texts in index order; an empty one stands for none."""
        return cls(StringTable.from_strings(users), StringTable.from_strings(items))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> Profiles:
        """Read what `arrays` wrote; no arrays are no profiles."""
        if not arrays:
            return cls.from_texts((), ())
        return cls(StringTable.from_arrays(arrays, _USERS), StringTable.from_arrays(arrays, _ITEMS))

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> Profiles:
        """The bundle's profiles, none where it has none."""
        return cls.from_arrays(bundle.arrays(GROUP))

    def arrays(self) -> Arrays:
        """Everything, for `BundleWriter.add_arrays(GROUP, ...)`."""
        return {**self._users.arrays(_USERS), **self._items.arrays(_ITEMS)}

    def user_preference(self, user_index: int) -> str | None:
        """The user's preference, or None."""
        return _text(self._users, user_index)

    def item_attributes(self, item_index: int) -> str | None:
        """The item's attributes, or None."""
        return _text(self._items, item_index)

    def find(self, request: TextRequest) -> str | None:
        """The profile that answers a request, or None; explanations are of a pair and have none."""
        if request.task is Task.USER_PREFERENCE and request.user_index is not None:
            return self.user_preference(request.user_index)
        if request.task is Task.ITEM_ATTRIBUTES and request.item_index is not None:
            return self.item_attributes(request.item_index)
        return None


def _text(table: StringTable, index: int) -> str | None:
    return (table[index] or None) if 0 <= index < len(table) else None
