"""The sample shop with time: items and customers arrive, tastes drift, and every day's events are written as logged.

New series are bought soon after they arrive, by those whose delights they share, and what their catalogue entry says
agrees with it. Fashion moves on every few days, popularity wanders and customers change their minds, so that a model
that is never trained again gets worse. Deterministic in the seed. Writes what the service logs (`event_log.py`) and
what `PUT /items` takes; knows nothing of datasets.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from training.data import sample_shop as words
from training.data.sample import DAY, described, new_item_id, new_series, new_user
from training.data.shoppers import Series, Shop, Shopper, pick

EVENTS_FILE = "events-{day}.jsonl"
ITEMS_FILE = "items-{day}.jsonl"
FOLDER = "days"

_ACTIVE = 0.2
"""How many of the customers buy something on a day."""
_FIRST_PURCHASES = (2, 4)
"""Of a new customer, on the day of arrival."""
_NOVELTY, _NOVELTY_DAYS = 25.0, 5.0
"""How much more a series appeals on the day of its arrival, and how soon that is over."""
_WANDER = 0.12
"""By how much a series' popularity, in logarithms, changes from a day to the next."""
_FASHION_DAYS, _FASHION = 4, 0.6
"""How long a kind is in fashion, and how many of those who want another kind go to it."""
_CHANGED_MIND = 0.03
"""Chance a day that a customer finds a new delight in place of an old one."""
_LOOKED_AT = 0.5
"""How many purchases were looked at before."""
_ADJECTIVES = (
    *(
        "Silver",
        "Crooked",
        "Winter",
        "Hidden",
        "Painted",
        "Velvet",
        "Paper",
        "Copper",
        "Wandering",
        "Drowsy",
        "Frosted",
    ),
    *("Golden", "Humming", "Patchwork", "Quiet", "Scarlet", "Windy", "Upside-Down", "Emerald", "Northern", "Tangled"),
)
_NOUNS = (
    *("Lantern", "Orchard", "Canal", "Meadow", "Comet", "Teapot", "Caravan", "Kingdom", "Parade", "Workshop", "Ferry"),
    *("Attic", "Bazaar", "Carousel", "Dragonfly", "Glacier", "Hedgehog", "Junction", "Keepsake", "Lagoon", "Compass"),
)
_PLACES = (
    *("an old harbour town", "a valley of mills", "a city under glass", "the far north", "a winter forest"),
    *("a floating market", "a garden of statues", "a desert of glass", "a house with a hundred doors"),
)


@dataclass(frozen=True)
class Growth:
    """How many days, and what arrives on each of them."""

    days: int
    new_items: int = 3
    new_users: int = 5


class Fashion:
    """What is liked today."""

    def __init__(self, catalogue: list[Series]) -> None:
        self._base = [float(np.log(series.popularity)) for series in catalogue]
        self._arrived = [-1_000] * len(catalogue)
        self._day, self._kind = 0, 0

    def add(self, series: Series) -> None:
        """A series that arrives today."""
        self._base.append(float(np.log(series.popularity)))
        self._arrived.append(self._day)

    def new_day(self, day: int, rng: np.random.Generator) -> None:
        """Popularity wanders; every few days another kind is in fashion."""
        self._day = day
        self._base = (np.asarray(self._base) + rng.normal(0.0, _WANDER, len(self._base))).tolist()
        if day % _FASHION_DAYS == 0:
            self._kind = int(rng.integers(len(words.KINDS)))

    def next_kind(self, kind: int, rng: np.random.Generator) -> int:
        """The one in fashion, or the next one on the ring."""
        return self._kind if rng.random() < _FASHION else (kind + 1) % len(words.KINDS)

    def appeal(self, series: int) -> float:
        """Popularity, and much more for what is new."""
        age = self._day - self._arrived[series]
        return float(np.exp(self._base[series])) * (1 + _NOVELTY * np.exp(-age / _NOVELTY_DAYS))


class _Day:
    """One day of the shop."""

    def __init__(self, shop: Shop, fashion: Fashion, begin: int, rng: np.random.Generator) -> None:
        self._shop, self._fashion, self.begin, self._rng = shop, fashion, begin, rng
        self.items: list[dict[str, Any]] = []
        self._events: list[tuple[float, str, str, str]] = []

    def arrive(self, n_items: int) -> None:
        """Further products of the last series that is not complete, then new series."""
        shop, rng = self._shop, self._rng
        for _ in range(n_items):
            last = shop.catalogue[-1]
            if len(last.item_ids) < len(words.KINDS[last.kind].products):
                number = len(shop.catalogue) - 1
                shop.catalogue[-1] = replace(last, item_ids=(*last.item_ids, new_item_id(rng)))
                for shopper in shop.shoppers:
                    if shopper.owned.get(number) == len(last.item_ids):
                        shopper.begun.append(number)
            else:
                kind = int(rng.integers(len(words.KINDS)))
                shop.catalogue.append(new_series(kind, _named(shop.catalogue, rng), 1, rng))
                self._fashion.add(shop.catalogue[-1])
            self.items.append(live_item(list(described(shop.catalogue[-1]))[-1], self.begin))

    def buy(self, n_new: int) -> None:
        """What customers, old and new, do today."""
        rng = self._rng
        for shopper in self._shop.shoppers:
            if rng.random() < _CHANGED_MIND:
                shopper.likes = (*shopper.likes[1:], pick(rng, [k for k in words.DELIGHTS if k not in shopper.likes]))
            if rng.random() < _ACTIVE:
                self._purchase(shopper)
        for _ in range(n_new):
            shopper = Shopper(new_user(rng))
            self._shop.shoppers.append(shopper)
            for _ in range(int(rng.integers(*_FIRST_PURCHASES))):
                self._purchase(shopper)

    def _purchase(self, shopper: Shopper) -> None:
        series, product = shopper.choose(self._shop.catalogue, self._rng, self._fashion)
        user, item = shopper.user.user_id, self._shop.catalogue[series].item_ids[product]
        at = self.begin + round(float(self._rng.uniform(60.0, DAY - 60.0)), 3)
        self._events.append((at, user, item, "purchase"))
        if self._rng.random() < _LOOKED_AT:
            self._events.append((round(at - float(self._rng.uniform(1.0, 59.0)), 3), user, item, "view"))

    def events(self, first: int) -> list[dict[str, Any]]:
        """As the service logs them, in the order of time; ids count from `first`."""
        return [
            {
                "event_id": f"sample-{number:08d}", "user_id": user, "item_id": item, "event": kind, "timestamp": at,
                "received": at, "quantity": 1, "context": None, "known_to_model": True,
            }
            for number, (at, user, item, kind) in enumerate(sorted(self._events), start=first)
        ]  # fmt: skip


def _named(catalogue: list[Series], rng: np.random.Generator) -> words.Series:
    """A name that no series has, with a theme and a detail of its own."""
    taken = {series.words.name for series in catalogue}
    while True:
        adjective, noun = pick(rng, _ADJECTIVES), pick(rng, _NOUNS)
        if f"{adjective} {noun}" not in taken:
            break
    theme = f"a {adjective.lower()} {noun.lower()} in {pick(rng, _PLACES)}"
    return words.Series(f"{adjective} {noun}", theme, f"the {adjective.lower()} {noun.lower()}")


def live_item(record: dict[str, Any], arrived: int) -> dict[str, Any]:
    """A record of the metadata as `PUT /items` takes it."""
    return {
        "item_id": record["asin"],
        "title": record["title"],
        "brand": record["brand"],
        "categories": record["category"],
        "description": " ".join([*record["description"], ", ".join(record["feature"]) + "."]),
        "attributes": {"price": float(record["price"].removeprefix("$"))},
        "available": True,
        "arrived": arrived,
    }


def grow(shop: Shop, growth: Growth, seed: int) -> Iterator[tuple[str, list[dict[str, Any]], list[dict[str, Any]]]]:
    """(2022-05-01, items that arrive, events) of each day after the shop's last purchase. Changes `shop`."""
    rng = np.random.default_rng([seed, 2025])
    fashion, n_events = Fashion(shop.catalogue), 0
    start = (shop.now // DAY + 1) * DAY
    for number in range(growth.days):
        fashion.new_day(number, rng)
        day = _Day(shop, fashion, start + number * DAY, rng)
        day.arrive(growth.new_items)
        day.buy(growth.new_users)
        events = day.events(n_events + 1)
        n_events += len(events)
        yield f"{datetime.fromtimestamp(day.begin, UTC):%Y-%m-%d}", day.items, events


def write_days(folder: Path, shop: Shop, growth: Growth, seed: int) -> dict[str, int]:
    """Write `days/events-DAY.jsonl` and `days/items-DAY.jsonl`; returns how many days, items, users and events."""
    (folder / FOLDER).mkdir()
    before = len(shop.shoppers)
    n_items = n_events = 0
    for day, items, events in grow(shop, growth, seed):
        for name, records in ((ITEMS_FILE, items), (EVENTS_FILE, events)):
            lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
            (folder / FOLDER / name.format(day=day)).write_text(lines, encoding="utf-8")
        n_items, n_events = n_items + len(items), n_events + len(events)
    users = len(shop.shoppers) - before
    return {"days": growth.days, "new items": n_items, "new users": users, "events": n_events}
