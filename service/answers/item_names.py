"""Item ids of one request -> indices of one arm. What the arm's model does not know is left out and told, not an error.

A catalogue changes between two bundles; a basket with one new product is still a basket. Callers who would rather
know ask with `strict`.
"""

from __future__ import annotations

from collections.abc import Sequence

from rdrec_core.errors import UnknownItemError
from service.engine.arm import Arm


class ItemNames:
    """Collects in `ignored` what was left out, each id once, in the order in which it was met."""

    def __init__(self, arm: Arm, *, strict: bool) -> None:
        self._arm = arm
        self._strict = strict
        self._ignored: dict[str, None] = {}
        self.unavailable: list[str] = []
        """Ids of candidates that are out of stock."""

    def available(self, items: tuple[int, ...]) -> tuple[int, ...]:
        """Those that may be answered; `unavailable` collects the others."""
        mask = self._arm.items.available[list(items)]
        if mask.all():
            return items
        self.unavailable += [self._arm.name_of(item)[0] for item, may in zip(items, mask, strict=True) if not may]
        return tuple(item for item, may in zip(items, mask, strict=True) if may)

    @property
    def ignored(self) -> list[str]:
        """Ids that the model does not know."""
        return list(self._ignored)

    def history(self, item_ids: Sequence[str] | None) -> tuple[int, ...] | None:
        """The request's own history, repetitions kept; None where it has none. Raises as `distinct`."""
        return None if item_ids is None else tuple(self._known(item_ids, "history"))

    def distinct(self, item_ids: Sequence[str] | None, field: str) -> tuple[int, ...] | None:
        """Candidates or a filter, each item once. Raises UnknownItemError naming the field where `strict` is set."""
        return None if item_ids is None else tuple(dict.fromkeys(self._known(item_ids, field)))

    def one(self, item_id: str, field: str) -> int:
        """The item that the request is about. Raises UnknownItemError: there is nothing to say of another."""
        index = self._arm.find_item(item_id)
        if index is None:
            shown = item_id.encode("utf-8", "replace").decode()
            n_items = len(self._arm.items)
            raise UnknownItemError(f"item {shown!r} is not in the catalogue of {n_items} items", field=field)
        return index

    def _known(self, item_ids: Sequence[str], field: str) -> list[int]:
        found = [self._arm.find_item(item_id) for item_id in item_ids]
        for position, index in enumerate(found):
            if index is None:
                if self._strict:
                    self.one(item_ids[position], f"{field}[{position}]")
                self._ignored[item_ids[position]] = None
        return [index for index in found if index is not None]
