"""One text an item and field: what its catalogue entry, its reviews and the rationales distilled from them say.

    title         its title and brand, which say what a thing is without what its whole shelf shares
    catalogue     all of the catalogue's words
    reviews       the reviews of the item
    attributes    what rationales say of the item
    preferences   what rationales say that those who took it want

Reviews and rationales count up to and with a split and never beyond, so that nothing is known of a purchase that is
asked for. Knows the dataset's tables, not how texts are compared.
"""

from __future__ import annotations

from collections.abc import Collection

import polars as pl

from rdrec_core.growth import MAX_CHARACTERS
from training.data.catalogue import catalogue_text
from training.data.dataset import SPLITS, Dataset, Split

FIELDS = ("title", "catalogue", "reviews", "attributes", "preferences")
TABLES = dict(zip(FIELDS, ("items", "items", "reviews", "rationales", "rationales"), strict=True))
"""The table of the dataset that a field is read from, beside the interactions."""
_ITEMS_AT_ONCE = 100_000


def item_profiles(dataset: Dataset, upto: Split, *, only: Collection[str] = FIELDS) -> dict[str, list[str]]:
    """Field -> the text of each item, "" where there is none; of these fields, and no other is read.

    A field without any text is left out.
    """
    wanted = set(only)
    found = _catalogue(dataset) if wanted & {"title", "catalogue"} else {}
    seen = _seen_pairs(dataset, upto)
    if "reviews" in wanted and dataset.has_reviews:
        # by the split of the text, and by that of the purchase: under protocol `paper` the two differ
        reviews = dataset.reviews().filter(pl.col("split").is_in(SPLITS[: SPLITS.index(upto) + 1]))
        found["reviews"] = _joined(reviews.join(seen, on=["user_index", "item_index"], how="semi"), "text", dataset)
    distilled = {"attributes": "item_attributes", "preferences": "user_preference"}
    if wanted & distilled.keys() and dataset.rationales_path.is_file():
        rationales = pl.scan_parquet(dataset.rationales_path).filter(pl.col("use"))
        rationales = rationales.join(seen, on=["user_index", "item_index"], how="semi")
        for field in distilled.keys() & wanted:
            found[field] = _joined(rationales, distilled[field], dataset)
    return {field: found[field] for field in FIELDS if field in wanted and any(found.get(field, ()))}


def _catalogue(dataset: Dataset) -> dict[str, list[str]]:
    """`title` and `catalogue`; the first is left out where the catalogue has nothing more to say."""
    table, titles, texts = dataset.catalogue(), list[str](), list[str]()
    for start in range(0, dataset.info.n_items, _ITEMS_AT_ONCE):
        items = table.slice(start, _ITEMS_AT_ONCE).collect()
        short = items.select(pl.concat_str("title", "brand", separator="\n", ignore_nulls=True)).to_series()
        titles += short.str.strip_chars("\n").str.slice(0, MAX_CHARACTERS).to_list()
        texts += (text[:MAX_CHARACTERS] for text in catalogue_text(items))
    return {"catalogue": texts} if titles == texts else {"title": titles, "catalogue": texts}


def _seen_pairs(dataset: Dataset, upto: Split) -> pl.LazyFrame:
    """Every user and item whose purchases are all within the splits."""
    rows = dataset.interactions
    pairs = pl.LazyFrame({"user_index": rows.user_index, "item_index": rows.item_index, "split": rows.split})
    latest = pairs.group_by("user_index", "item_index").agg(pl.col("split").max())
    return latest.filter(pl.col("split") <= SPLITS.index(upto)).select("user_index", "item_index")


def _joined(rows: pl.LazyFrame, column: str, dataset: Dataset) -> list[str]:
    """The texts of each item, one after another, equal ones once."""
    texts = (
        rows.select("item_index", "user_index", pl.col(column).alias("text"))
        .drop_nulls("text")
        .sort("item_index", "user_index", "text")
        .group_by("item_index", maintain_order=True)
        .agg(pl.col("text").unique(maintain_order=True).str.join("\n").str.slice(0, MAX_CHARACTERS))
        .collect()
    )
    out = [""] * dataset.info.n_items
    for item, text in zip(texts["item_index"].to_list(), texts["text"].to_list(), strict=True):
        out[item] = text
    return out
