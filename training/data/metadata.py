"""One metadata record of any origin as the catalogue's words: title, brand, categories, description, features, rest.

Knows the names under which Amazon 2014, 2018 and 2023, and shops' own tables, keep these things; not files or blocks.
What customers did after the purchase (also bought, sales rank, mean rating) is left out: under protocol `clean` it
would tell of held-out purchases.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa

from training.data.words import NOTHING, clean, clean_name, encodable

METADATA = pa.schema(
    [
        ("item_id", pa.string()),
        ("title", pa.string()),
        ("brand", pa.string()),
        ("categories", pa.list_(pa.string())),  # general to special
        ("description", pa.string()),
        ("features", pa.list_(pa.string())),
        ("attributes", pa.list_(pa.struct([("name", pa.string()), ("values", pa.list_(pa.string()))]))),
    ]
)
"""What every reader of metadata makes; nulls where a record says nothing."""

NAMES: Mapping[str, tuple[str, ...]] = {
    "item": (
        *("parent_asin", "asin", "item_id", "itemid", "item", "product_id", "productid", "article_id", "sku"),
        *("movieid", "isbn", "id"),
    ),
    "title": ("title", "item_title", "product_title", "product_name", "prod_name", "item_name", "name"),
    "brand": ("brand", "brand_name", "manufacturer", "store"),
    "categories": ("categories", "category", "category_path", "product_category", "genres", "genre", "product_type"),
    "main_category": ("main_category", "main_cat"),
    "description": ("description", "product_description", "detail_desc", "item_description"),
    "features": ("features", "feature", "bullet_points"),
}
"""Field names (lower case) that are understood without `--columns`, the best first."""
ROLES = tuple(role for role in NAMES if role != "main_category")
"""What `--columns` may name in metadata."""

_BEHAVIOUR = """
related also_buy also_bought also_view also_viewed bought_together buy_after_viewing salesrank sales_rank rank
average_rating rating_number rating_count reviews_count review_count
"""
_PAGE = "imurl image images imageurl imageurlhighres imageurls videos video url tech1 tech2 similar_item fit"
_NOT_KEPT = frozenset([*_BEHAVIOUR.split(), *_PAGE.split(), *NAMES["item"]])
"""Fields that are no attributes: what customers did, which leaks; the page's pictures and tables; further ids."""
_NESTED = ("details", "detail", "attributes", "specifications")
"""Mappings whose entries are attributes of their own."""
_PATH = re.compile(r"\s*(?:>|\||;|::)\s*")
_BRAND_PAGE = re.compile(r"^(?:Visit Amazon's (.+?) (?:Page|Store)|Visit the (.+?) Store|by\s+(.+))$", re.IGNORECASE)


@dataclass(frozen=True)
class MetadataNames:
    """Which field has which role: lower-case name -> (role, rank); the lowest rank with a value wins."""

    by_name: Mapping[str, tuple[str, int]]

    @staticmethod
    def of(columns: Mapping[str, str]) -> MetadataNames:
        """The known names; a column chosen by `--columns` goes before them."""
        by_name = {name: (role, rank) for role, names in NAMES.items() for rank, name in enumerate(names)}
        chosen = {column.lower(): (role, -1) for role, column in columns.items() if role in ROLES}
        return MetadataNames(by_name | chosen)


def metadata_row(row: Mapping[str, Any], names: MetadataNames, identifier: Any) -> tuple[Any, ...]:
    """A record in the order of METADATA. `identifier(value, name)` makes the item's id.

    ValueError where there is no item.
    """
    found: dict[str, tuple[int, str, Any]] = {}
    rest: dict[str, Any] = {}
    for name, value in row.items():
        if value is None or value == "" or value == []:
            continue
        role, rank = names.by_name.get(str(name).lower(), ("", 0))
        if not role:
            rest[name] = value
        elif role not in found or rank < found[role][0]:
            found[role] = (rank, name, value)
    if "item" not in found:
        raise ValueError(f"no {NAMES['item'][0]}")
    item = identifier(found["item"][2], found["item"][1])

    def field(role: str) -> Any:
        return found[role][2] if role in found else None

    attributes = _attributes(rest, item)
    brand = clean_name(field("brand")) or next(
        (values[0] for name, values in attributes.items() if name.lower() in ("brand", "manufacturer")), ""
    )
    path = categories_of(field("categories"))
    main = clean_name(field("main_category"))
    if main and main not in path and (not path or "main_category" in row):
        path = [main, *path]  # 2018's main_cat names another tree than its categories, 2023's main_category their root
    return (
        item,
        clean_name(field("title")) or None,
        _brand(brand),
        path or None,
        clean(_listed(field("description"))) or None,
        [text for text in map(clean, _parts(field("features"))) if text] or None,
        [{"name": name, "values": values} for name, values in attributes.items()] or None,
    )


def categories_of(value: Any) -> list[str]:
    """Category names, general to special, each once.

    Takes a path, a list of paths (2014), or text such as `Toys > Games` (also `|`, `;`, `::`, or a list as text).
    """
    names: dict[str, None] = {}
    for part in _parts(value):
        for name in part if isinstance(part, list) else _PATH.split(clean(part)):
            text = clean_name(name)
            if text:
                names[text] = None
    return list(names)


def _brand(brand: str) -> str | None:
    match = _BRAND_PAGE.match(brand)
    name = next(filter(None, match.groups()), "") if match else brand
    return None if name.lower() in ("", "unknown", "generic", "unbranded") else name


def _listed(value: Any) -> Any:
    """A list that a table kept as text becomes a list again."""
    if isinstance(value, str) and value[:1] in "[{" and value.rstrip()[-1:] in "]}":
        for parse in (orjson.loads, ast.literal_eval):
            try:
                parsed = parse(value)
            except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
                continue
            return parsed if isinstance(parsed, (list, dict)) else value
    return value


def _parts(value: Any) -> list[Any]:
    value = _listed(value)
    return value if isinstance(value, list) else [] if value is None else [value]


def _attributes(rest: Mapping[str, Any], item: str) -> dict[str, list[str]]:
    """Every further field as a list of strings; entries of `details` become fields unless their name is taken."""
    plain: dict[str, Any] = {}
    nested: dict[str, Any] = {}
    for name, value in rest.items():
        if str(name).lower() in _NOT_KEPT:
            continue
        value = _listed(value)
        if isinstance(value, dict):
            if str(name).lower() in _NESTED:
                nested |= value
        else:
            plain[name] = value
    attributes = {}
    for name, value in (nested | plain).items():
        key = encodable(" ".join(str(name).split()).rstrip(":").strip())
        values = [text for text in map(_text, value if isinstance(value, list) else [value]) if text]
        if key and key.lower() not in _NOT_KEPT and values and values != [item]:
            attributes[key] = values
    return attributes


def _text(value: Any) -> str:
    if isinstance(value, str):
        text = clean(value)
        return "" if text.lower() in NOTHING else text
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1 << 53 else repr(value) if value == value else ""
    return "" if value is None or isinstance(value, (dict, list, bytes)) else encodable(str(value))
