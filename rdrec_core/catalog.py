"""External ids <-> indices, labels and titles, as flat arrays that can be memory-mapped.

A catalogue of ten million items must open at once, so strings are one UTF-8 blob with offsets and look-ups are a binary
search. Knows nothing of where the arrays are stored (`bundle.py`) or came from (`training/`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[np.generic]]


class StringTable:
    """n strings with index -> string and string -> index; an empty string stands for "none" and is never found."""

    def __init__(
        self, blob: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], order: npt.NDArray[np.int64]
    ) -> None:
        """blob: UTF-8 bytes of all strings; offsets (n + 1,); order (n,): indices sorted by the strings' bytes."""
        self._blob, self._offsets, self._order = blob, offsets, order

    @classmethod
    def from_strings(cls, strings: Iterable[str]) -> StringTable:
        """Build from strings in index order."""
        encoded = [s.encode("utf-8") for s in strings]
        offsets = np.concatenate([[0], np.cumsum([len(s) for s in encoded])]).astype(np.int64)
        order = np.asarray(sorted(range(len(encoded)), key=encoded.__getitem__), dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets, order)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]], prefix: str) -> StringTable:
        """Read what `arrays` wrote."""
        return cls(arrays[f"{prefix}.blob"], arrays[f"{prefix}.offsets"], arrays[f"{prefix}.order"])  # type: ignore[arg-type]

    def arrays(self, prefix: str) -> Arrays:
        """The three arrays, named `<prefix>.blob`, `.offsets`, `.order`."""
        return {f"{prefix}.blob": self._blob, f"{prefix}.offsets": self._offsets, f"{prefix}.order": self._order}

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @property
    def blob(self) -> npt.NDArray[np.uint8]:
        """UTF-8 bytes of all strings, one after another."""
        return self._blob

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Where each string begins in the blob, and the end, (n + 1,)."""
        return self._offsets

    def _bytes(self, index: int) -> bytes:
        return self._blob[self._offsets[index] : self._offsets[index + 1]].tobytes()

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._bytes(index).decode("utf-8")

    def find(self, string: str) -> int | None:
        """Index of the string, or None."""
        try:
            wanted = string.encode("utf-8")
        except UnicodeEncodeError:  # a lone surrogate from JSON: no stored string holds one
            return None
        low = self._first_at_least(wanted)
        if wanted and low < len(self) and self._bytes(int(self._order[low])) == wanted:
            return int(self._order[low])
        return None

    def starting_with(self, prefix: str, limit: int) -> list[int]:
        """Indices of at most `limit` strings that begin with the prefix, in the order of their bytes."""
        wanted = prefix.encode("utf-8", "replace")
        found: list[int] = []
        for place in range(self._first_at_least(wanted), len(self)):
            index = int(self._order[place])
            if len(found) == limit or not self._bytes(index).startswith(wanted):
                break
            found.append(index)
        return found

    def _first_at_least(self, wanted: bytes) -> int:
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self._bytes(int(self._order[middle])) < wanted:
                low = middle + 1
            else:
                high = middle
        return low


@dataclass(frozen=True)
class Catalog:
    """The items that a model can name. N items; available (N,) bool: False takes an item out of every answer."""

    item_ids: StringTable
    titles: StringTable
    labels: npt.NDArray[np.int64]
    available: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.labels)

    def title(self, index: int) -> str | None:
        """Title, or None where unknown."""
        return self.titles[index] or None

    def arrays(self) -> Arrays:
        """Everything, for `BundleWriter.add_arrays("items", ...)`."""
        return {
            **self.item_ids.arrays("ids"), **self.titles.arrays("titles"),
            "labels": self.labels, "available": self.available,
        }  # fmt: skip

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> Catalog:
        """Read what `arrays` wrote."""
        return cls(
            StringTable.from_arrays(arrays, "ids"),
            StringTable.from_arrays(arrays, "titles"),
            arrays["labels"],  # type: ignore[arg-type]
            arrays["available"],  # type: ignore[arg-type]
        )


@dataclass(frozen=True)
class Users:
    """The users whom the model knows, with their base histories as CSR (oldest first)."""

    user_ids: StringTable
    indptr: npt.NDArray[np.int64]
    items: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.user_ids)

    def history(self, user_index: int) -> npt.NDArray[np.int32]:
        """Item indices of the user's base history, oldest first."""
        return self.items[self.indptr[user_index] : self.indptr[user_index + 1]]

    def arrays(self) -> Arrays:
        """Everything, for `BundleWriter.add_arrays("users", ...)`."""
        return {**self.user_ids.arrays("ids"), "indptr": self.indptr, "items": self.items}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> Users:
        """Read what `arrays` wrote."""
        return cls(StringTable.from_arrays(arrays, "ids"), arrays["indptr"], arrays["items"])  # type: ignore[arg-type]
