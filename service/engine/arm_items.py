"""Which items an arm can name: those of its bundle and, behind them, those that came since; who may be answered.

Indices are only ever added. An item whose words change gets a new one, and the old one is not answered any more, which
costs a place of the room that the settings leave. Knows what was said of items, not where it is kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from rdrec_core.catalog import Catalog
from rdrec_core.filters import ItemValues
from rdrec_core.growth import ItemWords
from service.stores.catalogue.base import LiveItem, Stored

_SEARCHED_TITLE_BYTES = 8_000_000


def words_of(item: LiveItem) -> ItemWords:
    """What places an item that no bundle knows."""
    return ItemWords(item.title, item.brand, item.categories, item.description)


class ArmItems:
    """See the module. Changed on the event loop only, by `Arm.take`."""

    def __init__(self, catalog: Catalog, *, room: int) -> None:
        """room: items that may come behind the bundle's."""
        self._catalog = catalog
        self._n_bundle = len(catalog)
        self.in_bundle: Callable[[str], int | None] = lru_cache(maxsize=200_000)(catalog.item_ids.find)
        """Index in the bundle, gone or not; remembered, because a request may name a thousand."""
        self._bundle_name: Callable[[int], tuple[str, str | None]] = lru_cache(maxsize=200_000)(self._read_name)
        """Remembered, because popular items are in every answer."""
        self._room = room
        self._late: list[str] = []
        self._said: dict[str, Stored] = {}
        """The last that was said of each item, by id."""
        self._index: dict[str, int | None] = {}
        """Where it differs from the bundle: the index of an id that came since, None of one that is gone."""
        self._titles: dict[int, str | None] = {}
        self._waiting: set[str] = set()
        self.available: npt.NDArray[np.bool_] = np.array(catalog.available)
        """(N,) by item index; replaced, never written to."""
        self.version = 0
        """One more after each change; answers of another version are not to be reused."""

    def __len__(self) -> int:
        """Indices, those that are no longer answered included."""
        return self._n_bundle + len(self._late)

    @property
    def n_bundle(self) -> int:
        """Items that the bundle knows."""
        return self._n_bundle

    @property
    def n_late(self) -> int:
        """Places that are taken behind the bundle's."""
        return len(self._late)

    @property
    def room_left(self) -> int:
        """Further items that can be placed."""
        return max(0, self._room - len(self._late))

    @property
    def waiting(self) -> int:
        """Items that were accepted, here or elsewhere, and for which there is no place."""
        return len(self._waiting)

    def find(self, item_id: str) -> int | None:
        """Index of an external id; None where it is unknown, or gone."""
        if item_id in self._index:
            return self._index[item_id]
        return self.in_bundle(item_id)

    def knows(self, item_id: str) -> bool:
        """Whether the bundle has the item, gone or not."""
        return self.in_bundle(item_id) is not None

    def said_of(self, item_id: str) -> Stored | None:
        """The last that was said of an item since the bundle was made."""
        return self._said.get(item_id)

    def name_of(self, index: int) -> tuple[str, str | None]:
        """External id and title of an index."""
        if index >= self._n_bundle:
            return self._late[index - self._n_bundle], self._titles.get(index)
        item_id, title = self._bundle_name(index)
        return item_id, self._titles.get(index, title) if self._titles else title

    def title(self, index: int) -> str | None:
        """Title, or None where unknown."""
        return self.name_of(index)[1]

    def search(self, text: str, limit: int) -> list[int]:
        """Items whose id begins with the text, then those whose title holds it, those that came since first."""
        folded = text.casefold()
        found: dict[int, None] = {}
        for index in range(len(self) - 1, self._n_bundle - 1, -1):
            item_id, title = self.name_of(index)
            if self._index.get(item_id) == index and (item_id.startswith(text) or folded in (title or "").casefold()):
                found[index] = None
        found |= dict.fromkeys(self._catalog.item_ids.starting_with(text, limit))
        if text:
            offsets = self._catalog.titles.offsets
            for match in re.finditer(re.escape(text.encode("utf-8", "replace")), self._titles_text, re.IGNORECASE):
                if len(found) >= limit:
                    break
                found[int(np.searchsorted(offsets, match.start(), side="right")) - 1] = None
        return [index for index in found if self.find(self.name_of(index)[0]) == index][:limit]

    def news(self, changes: Sequence[Stored]) -> list[Stored]:
        """The last change of each item, without those that are known already."""
        latest = {stored.item_id: stored for stored in changes}
        return [
            stored for stored in latest.values()
            if (said := self._said.get(stored.item_id)) is None or said.version < stored.version
        ]  # fmt: skip

    def needs_a_place(self, item_id: str, item: LiveItem) -> bool:
        """Whether an item must get an index: it has none, or one by other words."""
        if self.knows(item_id):
            return False
        said = self._said.get(item_id)
        return self.find(item_id) is None or said is None or said.item is None or words_of(said.item) != words_of(item)

    def add_names(self, items: Sequence[LiveItem]) -> None:
        """Name the next indices, which nobody finds by their ids yet."""
        for item in items:
            self._titles[len(self)] = item.title
            self._late.append(item.item_id)

    def settle(self, changes: Sequence[Stored], placed: Mapping[str, int]) -> dict[int, ItemValues]:
        """Take over what was said; placed: the new indices by id. What filters can ask from now on, by index."""
        values: dict[int, ItemValues] = {}
        available = np.append(self.available, np.zeros(len(self) - len(self.available), dtype=np.bool_))
        for stored in changes:
            self._said[stored.item_id] = stored
            before, own = self.find(stored.item_id), self.in_bundle(stored.item_id)
            index = placed.get(stored.item_id, before if own is None else own)
            if before is not None and before != index:
                available[before] = False
            if stored.item is None:
                self._index[stored.item_id] = None
            elif own is None:
                self._index[stored.item_id] = index
            else:
                self._index.pop(stored.item_id, None)
            self._waiting.discard(stored.item_id)
            if index is None:
                if stored.item is not None:
                    self._waiting.add(stored.item_id)
                continue
            available[index] = stored.item is not None and stored.item.available
            if stored.item is not None and (own is None or stored.item.title is not None):
                self._titles[index] = stored.item.title
            if (item := stored.item) is not None:
                values[index] = ItemValues(item.brand, item.categories, item.arrived, item.attributes)
        self.available = available
        self.version += 1
        return values

    def forget_versions(self) -> None:
        """The store counts anew: whatever it says of an item is news."""
        self._said = {item_id: replace(stored, version=0) for item_id, stored in self._said.items()}

    def unsay(self, kept: Collection[str]) -> None:
        """Forget what was said of every item but these: the store lost it. What came since the bundle is gone then."""
        available = self.available.copy()
        for item_id in [item_id for item_id in self._said if item_id not in kept]:
            del self._said[item_id]
            self._waiting.discard(item_id)
            own = self.in_bundle(item_id)
            if own is None:
                if (index := self._index.get(item_id)) is not None:
                    available[index] = False
                self._index[item_id] = None
            else:
                self._index.pop(item_id, None)
                self._titles.pop(own, None)
                available[own] = self._catalog.available[own]
        self.available = available
        self.version += 1

    def _read_name(self, index: int) -> tuple[str, str | None]:
        return self._catalog.item_ids[index], self._catalog.title(index)

    @cached_property
    def _titles_text(self) -> bytes:
        return self._catalog.titles.blob[:_SEARCHED_TITLE_BYTES].tobytes()
