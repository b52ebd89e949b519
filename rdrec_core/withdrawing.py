"""Whose reviews stand behind what is said of items, so that somebody's share can be taken out of a bundle being served.

A bundle cannot be changed for one user; counts can, when they are read. Knows indices, neither texts nor why a user
left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Sources:
    """By user, as CSR: the rows of items' statements that the user's reviews make, and the items of those reviews.

    said_indptr, reviewed_indptr (n_users + 1,) int64; said, a row once a user; reviewed, an item once a review; int32.
    """

    said_indptr: npt.NDArray[np.int64]
    said: npt.NDArray[np.int32]
    reviewed_indptr: npt.NDArray[np.int64]
    reviewed: npt.NDArray[np.int32]

    NAMES = ("said_indptr", "said", "reviewed_indptr", "reviewed")

    @classmethod
    def empty(cls) -> Sources:
        """Of nobody, as in bundles from before sources were kept."""
        start, none = np.zeros(1, dtype=np.int64), np.empty(0, dtype=np.int32)
        return cls(start, none, start, none)

    def __len__(self) -> int:
        return len(self.said_indptr) - 1

    def rows_of(self, user: int) -> list[int]:
        """Rows of items' statements that the user stands behind."""
        return self.said[self.said_indptr[user] : self.said_indptr[user + 1]].tolist()  # type: ignore[no-any-return]

    def items_of(self, user: int) -> list[int]:
        """Items that the user reviewed, repeated for each review."""
        return self.reviewed[self.reviewed_indptr[user] : self.reviewed_indptr[user + 1]].tolist()  # type: ignore[no-any-return]


@dataclass
class Withdrawn:
    """Reviews that no longer count. Grows; one thread adds, any may read."""

    sources: Sources
    users: set[int] = field(default_factory=set)
    rows: Counter[int] = field(default_factory=Counter)
    """Row of an item's statements -> how many who made it are gone."""
    reviews: Counter[int] = field(default_factory=Counter)
    """Item -> how many of its reviews are gone."""

    def add(self, users: Iterable[int]) -> None:
        """Take out these users' reviews; a user once."""
        for user in users:
            if user not in self.users and 0 <= user < len(self.sources):
                self.rows.update(self.sources.rows_of(user))
                self.reviews.update(self.sources.items_of(user))
            self.users.add(user)
