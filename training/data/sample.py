"""The made-up shop of the demo: hidden tastes and traits that show in what is bought, when, and in the reviews.

A user likes three delights and starts at one kind of product. The next purchase is mostly the next product of a
series that the user has begun, else a new series of the same kind, else one of a neighbouring kind; among series
those that share delights with the user win. Some purchases are gifts, which nobody can foresee. So a model that
learns the series, the kinds and the users beats popularity by far. Deterministic in the seed. Writes the Amazon 2018
formats that `rdrec prepare` reads; knows nothing of datasets.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from training.data import sample_shop as shop
from training.data.shoppers import Purchase, Series, Shop, Shopper, User, pick

N_USERS = 600
REVIEWS_FILE = "reviews.json.gz"
METADATA_FILE = "metadata.json.gz"

_WITHOUT_TEXT = 0.02
_START = 1_420_070_400  # 2015-01-01
DAY = 86_400
_IDENTIFIER = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"))


def write_sample(folder: Path, seed: int) -> tuple[dict[str, int], Shop]:
    """Write reviews, metadata and a README into an existing folder.

    Returns the numbers of users, items and reviews, and the shop as its first customers leave it.
    """
    rng = np.random.default_rng([seed, 2024])
    catalogue = first_catalogue(rng)
    shoppers = [Shopper(new_user(rng)) for _ in range(N_USERS)]
    records = [
        _review(shopper.user, purchase, rng) for shopper in shoppers for purchase in _purchases(shopper, catalogue, rng)
    ]
    records.sort(key=lambda record: (record["unixReviewTime"], record["reviewerID"]))
    _write_lines(folder / REVIEWS_FILE, records)
    _write_lines(folder / METADATA_FILE, (line for series in catalogue for line in described(series)))
    counts = {"users": N_USERS, "items": sum(len(s.item_ids) for s in catalogue), "reviews": len(records)}
    (folder / "README.md").write_text(_readme(seed, counts), encoding="utf-8")
    return counts, Shop(catalogue, shoppers, records[-1]["unixReviewTime"])


def first_catalogue(rng: np.random.Generator) -> list[Series]:
    """The series of `sample_shop.py`, all their products."""
    return [
        new_series(number, words, len(kind.products), rng)
        for number, kind in enumerate(shop.KINDS)
        for words in kind.series
    ]


def new_series(kind: int, words: shop.Series, n_products: int, rng: np.random.Generator) -> Series:
    """A series of a kind: two delights of the kind's own, one of its neighbours'."""
    own = shop.KINDS[kind].delights
    beside = shop.KINDS[kind - 1].delights + shop.KINDS[(kind + 1) % len(shop.KINDS)].delights
    others = [key for key in dict.fromkeys(beside) if key not in own]
    delights = [*rng.choice(own, size=2, replace=False), pick(rng, others)]
    return Series(
        kind=kind,
        words=words,
        delights=tuple(map(str, delights)),
        item_ids=tuple(new_item_id(rng) for _ in range(n_products)),
        popularity=float(rng.lognormal(0.0, 0.5)),
    )


def new_item_id(rng: np.random.Generator) -> str:
    """Such as `B0K3XQ81ZP`."""
    return "B0" + _identifier(rng, 8)


def _identifier(rng: np.random.Generator, length: int) -> str:
    return "".join(rng.choice(_IDENTIFIER, size=length))


def new_user(rng: np.random.Generator) -> User:
    """Somebody who has bought nothing yet."""
    kind = int(rng.integers(len(shop.KINDS)))
    own = [str(key) for key in rng.choice(shop.KINDS[kind].delights, size=2, replace=False)]
    other = pick(rng, [key for key in shop.DELIGHTS if key not in own])
    return User(
        user_id="A" + _identifier(rng, 13),
        name=pick(rng, shop.FIRST_NAMES),
        kind=kind,
        likes=(*own, other),
        companion=pick(rng, shop.COMPANIONS),
        occasion=pick(rng, shop.OCCASIONS),
        n_purchases=int(np.clip(8 + rng.geometric(0.12), 8, 30)),
    )


def _purchases(shopper: Shopper, catalogue: list[Series], rng: np.random.Generator) -> Iterator[Purchase]:
    time = _START + int(rng.integers(0, 900)) * DAY
    for _ in range(shopper.user.n_purchases):
        series, product = shopper.choose(catalogue, rng)
        yield Purchase(catalogue[series], product, time)
        time += int(rng.integers(2, 60)) * DAY


def _review(user: User, purchase: Purchase, rng: np.random.Generator) -> dict[str, Any]:
    shared = [key for key in user.likes if key in purchase.series.delights]
    stars = int(rng.choice((4, 5), p=(0.35, 0.65)) if shared else rng.choice((2, 3, 4), p=(0.3, 0.45, 0.25)))
    text = "" if rng.random() < _WITHOUT_TEXT else _text(user, purchase, shared, rng)
    when = datetime.fromtimestamp(purchase.timestamp, UTC)
    return {
        "overall": float(stars),
        "verified": True,
        "reviewTime": f"{when:%m} {when.day}, {when.year}",
        "reviewerID": user.user_id,
        "asin": purchase.series.item_ids[purchase.product],
        "reviewerName": user.name,
        "reviewText": text,
        "summary": pick(rng, shop.SUMMARIES[stars]),
        "unixReviewTime": purchase.timestamp,
    }


def _text(user: User, purchase: Purchase, shared: list[str], rng: np.random.Generator) -> str:
    """One to three sentences; the first speaks of what this user finds, or misses, in this item."""
    words = _words(user, purchase, shared, rng)
    templates = [pick(rng, shop.MATCH if shared else shop.MISMATCH)]
    more = int(rng.choice((0, 1, 2), p=(0.3, 0.45, 0.25)))
    about = shop.FOLLOW_UP if purchase.product and rng.random() < 0.5 else shop.ITEM
    pools = (about, shop.USER) if shared else (about,)
    templates += [pick(rng, pool) for pool in pools[:more]]
    return " ".join(template.format(**words) for template in templates)


def _words(user: User, purchase: Purchase, shared: list[str], rng: np.random.Generator) -> dict[str, str]:
    kind = shop.KINDS[purchase.series.kind]
    taste = shared[0] if shared else user.likes[0]
    seen_key = taste if shared else purchase.series.delights[0]
    other_key = next(key for key in purchase.series.delights if key != seen_key)
    name = purchase.series.words.name
    words = {
        "spoken": kind.spoken[purchase.product].format(n=name),
        "base": kind.spoken[0].format(n=name),
        "seen": pick(rng, shop.DELIGHTS[seen_key].seen),
        "other": pick(rng, shop.DELIGHTS[other_key].seen),
        "seen_elsewhere": pick(rng, shop.DELIGHTS[taste].seen),
        "detail": purchase.series.words.detail,
    }
    return (
        words
        | {_capital(key): _capital(value) for key, value in words.items()}
        | {
            "sought": pick(rng, shop.DELIGHTS[taste].sought),
            "theme": purchase.series.words.theme,
            "noun": kind.noun,
            "verb": kind.verb,
            "companion": user.companion[0],
            "Companion": user.companion[1],
            "occasion": user.occasion,
        }
    )


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def described(series: Series) -> Iterator[dict[str, Any]]:
    """What the shop says of a series' items; it agrees with what is bought: kinds, series and delights are named."""
    kind, words = shop.KINDS[series.kind], series.words
    delights = [shop.DELIGHTS[key] for key in series.delights]
    phrases = {
        "Noun": _capital(kind.noun),
        "theme": words.theme,
        "detail": words.detail,
        "base": kind.products[0].format(n=words.name),
    }
    fair = shop.FAIR_PRICE if "value" in series.delights else 1.0
    for product, item_id in enumerate(series.item_ids):
        seen = [delight.seen[product % len(delight.seen)] for delight in delights]
        yield {
            "asin": item_id,
            "title": kind.products[product].format(n=words.name),
            "brand": delights[0].maker,
            "category": ["Toys & Games", *kind.shelf],
            "description": [
                shop.PRODUCT_WORDS[product].format(**phrases),
                f"With {words.detail} and {seen[0]}. For those who look for {delights[1].sought[0]}.",
            ],
            "feature": [_capital(phrase) for phrase in seen],
            "price": f"${kind.price * shop.PRICE_STEPS[product] * fair:.2f}",
        }


def _write_lines(path: Path, records: Any) -> None:
    lines = b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)
    path.write_bytes(gzip.compress(lines, mtime=0))  # no clock in the bytes: the same seed gives the same file


def _readme(seed: int, counts: dict[str, int]) -> str:
    return f"""# Sample shop

Made up by `rdrec sample --seed {seed}`: {counts["users"]} users, {counts["items"]} board games and toys,
{counts["reviews"]} reviews.
No person, product or review in it is real.

- `{REVIEWS_FILE}`: reviews in the format of the Amazon review data (2018), in time order
- `{METADATA_FILE}`: titles, brands, categories, descriptions, features and prices

    rdrec prepare --reviews {REVIEWS_FILE} --metadata {METADATA_FILE} --out dataset
"""
