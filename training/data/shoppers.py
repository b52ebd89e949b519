"""The customers of the sample shop: who they are, what they own, and what each of them takes next.

A customer goes on with the series that was begun last, begins another of the same kind, or moves on to another kind; of
new series those win that share delights with the customer. Some purchases are gifts, which nobody can foresee. Knows
series and draws, neither days (`growing_shop.py`) nor files (`sample.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from training.data import sample_shop as shop

Option = TypeVar("Option")

GIFT = 0.15
"""How many purchases are for somebody else: any product of a series that is not begun and that is not gone on with."""
_NEXT_OF_SERIES = 0.62
_SAME_KIND = 0.7
"""Of new series, how many are of the kind that the user is at; the others move one kind on in the ring."""


@dataclass(frozen=True)
class Series:
    """A series of the catalogue: where it stands, what it delights with, and the ids of its products."""

    kind: int
    words: shop.Series
    delights: tuple[str, ...]
    item_ids: tuple[str, ...]
    popularity: float


@dataclass(frozen=True)
class User:
    """A customer."""

    user_id: str
    name: str
    kind: int
    likes: tuple[str, ...]
    companion: tuple[str, str]
    occasion: str
    n_purchases: int


@dataclass(frozen=True)
class Purchase:
    """The `product`-th product of a series, bought at `timestamp`."""

    series: Series
    product: int
    timestamp: int


def pick(rng: np.random.Generator, options: Sequence[Option]) -> Option:
    """One of the options; `rng.choice` would turn them into an array first, which takes most of the time."""
    return options[int(rng.integers(len(options)))]


class Trend(Protocol):
    """What changes with time (`growing_shop.py`)."""

    def next_kind(self, kind: int, rng: np.random.Generator) -> int:
        """Where somebody goes who has had enough of a kind."""
        ...

    def appeal(self, series: int) -> float:
        """How popular a series is today."""
        ...


class Shopper:
    """A customer on the way through the catalogue: what is owned, what is begun, at which kind."""

    def __init__(self, user: User) -> None:
        self.user, self.kind, self.likes = user, user.kind, user.likes
        self.owned: dict[int, int] = {}
        """Series -> products bought, all of them where one was a gift."""
        self.begun: list[int] = []
        """Series that are not complete, the latest last."""

    def choose(
        self, catalogue: Sequence[Series], rng: np.random.Generator, trend: Trend | None = None
    ) -> tuple[int, int]:
        """The series and the product of the next purchase, which is then owned. trend None: nothing changes."""
        unknown = [number for number in range(len(catalogue)) if number not in self.owned]
        if unknown and rng.random() < GIFT:
            gift = pick(rng, unknown)
            product = int(rng.integers(len(catalogue[gift].item_ids)))
            self.owned[gift] = len(catalogue[gift].item_ids)
            return gift, product
        if self.begun and rng.random() < _NEXT_OF_SERIES:
            chosen = self.begun[-1]
        else:
            if rng.random() > _SAME_KIND:
                self.kind = (self.kind + 1) % len(shop.KINDS) if trend is None else trend.next_kind(self.kind, rng)
            while all(number in self.owned for number, series in enumerate(catalogue) if series.kind == self.kind):
                self.kind = (self.kind + 1) % len(shop.KINDS)
            chosen = self._new_series(catalogue, rng, trend)
        product = self.owned.get(chosen, 0)
        self.owned[chosen] = product + 1
        self.begun = [number for number in self.begun if number != chosen]
        if self.owned[chosen] < len(catalogue[chosen].item_ids):
            self.begun.append(chosen)
        return chosen, product

    def _new_series(self, catalogue: Sequence[Series], rng: np.random.Generator, trend: Trend | None) -> int:
        open_ = [number for number, s in enumerate(catalogue) if s.kind == self.kind and number not in self.owned]
        weight = np.array(
            [
                (catalogue[n].popularity if trend is None else trend.appeal(n))
                * 4.0 ** len(set(catalogue[n].delights) & set(self.likes))
                for n in open_
            ]
        )
        return int(rng.choice(open_, p=weight / weight.sum()))


@dataclass
class Shop:
    """Everything that a growing shop goes on from; `now` is the time of its last purchase."""

    catalogue: list[Series]
    shoppers: list[Shopper]
    now: int
