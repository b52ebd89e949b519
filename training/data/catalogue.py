"""The `items` table: ids and labels, the catalogue's words, and every further column of the metadata with a type.

Reads metadata parts in the form of METADATA. Items are described in batches, so that memory holds one batch's words,
whatever the catalogue's size. Knows neither formats nor who bought what.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl
import pyarrow.parquet as pq

from training.data.dataset import ATTRIBUTE, CATALOGUE, ITEMS

ITEMS_PER_BATCH = 100_000
MAX_ATTRIBUTES = 64
"""Of the further columns the most often filled; the names of the rest are counted in the summary."""
NEARLY_ALL = 0.95
"""A column is numeric, or boolean, where at least this share of its values is."""

ENOUGH_DESCRIBED = 0.5
"""With less than this share of the items in the metadata, the ids of both are shown."""

AttributeType = Literal["number", "boolean", "text", "list"]
_TYPES: dict[AttributeType, pl.DataType] = {
    "number": pl.Float64(), "boolean": pl.Boolean(), "text": pl.String(), "list": pl.List(pl.String()),
}  # fmt: skip
_CURRENCY = r"(?:US\$|[$€£¥₹]|USD|EUR|GBP|CHF|JPY|INR|Rs\.?)"
_NUMBER = (
    rf"^(?:{_CURRENCY})?\s*[+-]?(?:\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?|\d+(?:[.,]\d+)?(?:[eE][+-]?\d{{1,3}})?|\.\d+)"
    rf"\s*(?:{_CURRENCY}|%)?$"
)
_DECIMAL_COMMA = r"^[^.]*\d,\d{1,2}\D*$"
_CODE_LIKE = r"^0\d"
"""A number that begins with a nought and a digit is a code, and no quantity."""


@dataclass(frozen=True)
class Attribute:
    """A further column: its type, how many items have it, how many values were no numbers (or booleans)."""

    name: str
    type: AttributeType
    n_items: int
    n_unreadable: int


@dataclass(frozen=True)
class CatalogueCounts:
    """How many items have what."""

    n_titles: int
    n_brands: int
    n_categories: int
    n_descriptions: int
    n_features: int
    attributes: tuple[Attribute, ...]
    n_rare_attributes: int
    """Further columns left out, being rarer than MAX_ATTRIBUTES others."""
    warnings: tuple[str, ...] = ()
    """Where the ids of items and metadata do not meet."""


def catalogue_text(items: pl.DataFrame) -> list[str]:
    """The catalogue's words of each item: title, brand, categories, features, description, a line each; "" where none.

    items: rows with the columns of CATALOGUE and `title` (`Dataset.catalogue`).
    """
    lines = items.select(
        "title",
        "brand",
        pl.col("categories").list.join("\n"),
        pl.col("features").list.join("\n"),
        "description",
    )
    text = lines.select(pl.concat_str(pl.all(), separator="\n", ignore_nulls=True).str.strip_chars("\n"))
    return text.to_series().str.replace_all(r"\n{2,}", "\n").to_list()


def write_items(
    path: Path, items: pl.DataFrame, metadata: Sequence[Path], titles: pl.DataFrame, *, batch: int = ITEMS_PER_BATCH
) -> CatalogueCounts:
    """Write ITEMS, CATALOGUE and the attributes of `items` (item_index, item_id, label), in their order.

    Of several records of an item each field has the first real value. titles (item_id, title), from elsewhere, fill in
    where the metadata has none.
    """
    parts = [str(part) for part in metadata]
    attributes, n_rare = _attribute_types(parts, items.lazy().select("item_id"))
    schema = ITEMS | CATALOGUE | {f"{ATTRIBUTE}{a.name}": _TYPES[a.type] for a in attributes}
    empty = pl.DataFrame(schema=schema).to_arrow()
    counts = dict.fromkeys(("title", *CATALOGUE), 0)
    with pq.ParquetWriter(path, empty.schema, compression="zstd", compression_level=1) as writer:
        for start in range(0, items.height, batch):
            rows = items.slice(start, batch)
            frame = _described(rows, parts, titles, attributes)
            for name in counts:
                counts[name] += frame.height - frame[name].null_count()
            writer.write_table(
                frame.select(pl.col(name).cast(dtype) for name, dtype in schema.items()).to_arrow().cast(empty.schema)
            )
    return CatalogueCounts(
        n_titles=counts["title"],
        n_brands=counts["brand"],
        n_categories=counts["categories"],
        n_descriptions=counts["description"],
        n_features=counts["features"],
        attributes=attributes,
        n_rare_attributes=n_rare,
        warnings=tuple(_id_warnings(parts, items)) if parts else (),
    )


def _id_warnings(parts: list[str], items: pl.DataFrame) -> Iterator[str]:
    """Whether the metadata speaks of other ids than the interactions, with an example of each side."""
    bare = pl.col("item_id").str.strip_chars_start("0").alias("bare")
    described = pl.scan_parquet(parts).select("item_id").unique(maintain_order=True)
    missing = items.lazy().select("item_id").join(described, on="item_id", how="anti", maintain_order="left")
    unmet = missing.with_columns(bare).collect()
    if not unmet.height:
        return
    zeros = unmet.join(
        described.with_columns(bare, pl.col("item_id").alias("in_metadata")).collect(), on="bare", how="inner"
    ).filter(pl.col("bare").str.len_bytes() > 0)
    if zeros.height:
        mine, theirs = zeros.row(0, named=True)["item_id"], zeros.row(0, named=True)["in_metadata"]
        yield (
            f"{zeros.height:,} items have lost, or won, leading zeros beside the metadata, so that nothing is known of "
            f"them: {mine} in the interactions, {theirs} in the metadata (read the column as text where it was written)"
        )
    if unmet.height > (1 - ENOUGH_DESCRIBED) * items.height:
        other = described.head(1).collect()["item_id"].item()
        yield (
            f"{items.height - unmet.height:,} of {items.height:,} items are in the metadata: {unmet['item_id'][0]} is "
            f"not; the metadata's ids look like {other} (--metadata-columns item=...)"
        )


def _described(
    rows: pl.DataFrame, parts: list[str], titles: pl.DataFrame, attributes: tuple[Attribute, ...]
) -> pl.DataFrame:
    known = rows.lazy().select("item_id")
    fields = ("title", *CATALOGUE)
    if parts:
        found = pl.scan_parquet(parts).join(known, on="item_id", how="semi", maintain_order="left").collect()
        words = found.group_by("item_id", maintain_order=True).agg(pl.col(name).drop_nulls().first() for name in fields)
        values = _entries(found.lazy()).unique(["item_id", "name"], keep="first", maintain_order=True).collect()
    else:
        words = pl.DataFrame(schema={"item_id": pl.String, "title": pl.String, **CATALOGUE})
        values = pl.DataFrame(schema={"item_id": pl.String, "name": pl.String, "values": pl.List(pl.String)})
    frame = rows.join(words, on="item_id", how="left", maintain_order="left").join(
        titles.rename({"title": "title_elsewhere"}), on="item_id", how="left", maintain_order="left"
    )
    frame = frame.with_columns(pl.coalesce("title", "title_elsewhere").alias("title"))
    for attribute in attributes:
        own = values.filter(pl.col("name") == attribute.name).select(
            "item_id", _typed(pl.col("values"), attribute.type).alias(f"{ATTRIBUTE}{attribute.name}")
        )
        frame = frame.join(own, on="item_id", how="left", maintain_order="left")
    return frame


def _entries(found: pl.LazyFrame) -> pl.LazyFrame:
    """(item_id, name, values), a row for each attribute of each record."""
    return (
        found.select("item_id", "attributes").drop_nulls("attributes").explode("attributes").unnest("attributes")
    )  # fmt: skip


def _typed(values: pl.Expr, type_: AttributeType) -> pl.Expr:
    if type_ == "list":
        return values
    if type_ == "number":
        return _number(values.list.first())
    if type_ == "boolean":
        word = values.list.first().str.to_lowercase()
        return pl.when(word.is_in(["true", "yes"])).then(True).when(word.is_in(["false", "no"])).then(False)
    return values.list.join(", ")


def _number(text: pl.Expr) -> pl.Expr:
    """`$1,299.00`, `12,99 EUR`, `-3`: the number; null for anything else."""
    digits = text.str.replace_all(r"[^0-9eE.,+-]|E?U?SD|EUR|Rs\.?", "")
    plain = pl.when(text.str.contains(_DECIMAL_COMMA)).then(digits.str.replace(",", ".")).otherwise(
        digits.str.replace_all(",", "")
    )  # fmt: skip
    return pl.when(text.str.contains(_NUMBER)).then(plain.cast(pl.Float64, strict=False))


def _attribute_types(parts: list[str], known: pl.LazyFrame) -> tuple[tuple[Attribute, ...], int]:
    """The attributes to keep, most often filled first (ties: by name), and how many names are left out."""
    if not parts:
        return (), 0
    first = pl.col("values").list.first()
    single = pl.col("values").list.len() == 1
    number = single & first.str.contains(_NUMBER) & ~first.str.contains(_CODE_LIKE)
    stats = (
        _entries(pl.scan_parquet(parts).join(known, on="item_id", how="semi"))
        .group_by("name")
        .agg(
            n=pl.col("item_id").n_unique(),
            rows=pl.len(),
            numbers=number.sum(),
            codes=first.str.contains(_CODE_LIKE).any(),
            booleans=(single & first.str.to_lowercase().is_in(["true", "false", "yes", "no"])).sum(),
            lists=(~single).sum(),
        )
        .sort("n", "name", descending=[True, False])
        .collect(engine="streaming")
    )
    kept = []
    for name, n, rows, numbers, codes, booleans, lists in stats.head(MAX_ATTRIBUTES).iter_rows():
        if numbers >= NEARLY_ALL * rows and not codes:
            kept.append(Attribute(name, "number", n, rows - numbers))
        elif booleans >= NEARLY_ALL * rows:
            kept.append(Attribute(name, "boolean", n, rows - booleans))
        else:
            kept.append(Attribute(name, "list" if lists else "text", n, 0))
    return tuple(kept), max(0, stats.height - MAX_ATTRIBUTES)
