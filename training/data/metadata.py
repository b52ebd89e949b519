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

from training.data.reviews import plain_name
from training.data.values import Missing, Notes, identifier
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
        *("parentasin", "asin", "item", "itemid", "productid", "product", "articleid", "sku", "movieid", "bookid"),
        *("isbn", "gameid", "trackid", "businessid", "id"),
    ),
    "title": ("title", "itemtitle", "producttitle", "productname", "prodname", "itemname", "booktitle", "name"),
    "brand": ("brand", "brandname", "manufacturer", "store", "publisher"),
    "categories": (
        "categories",
        "category",
        "categorypath",
        "productcategory",
        "genres",
        "genre",
        "producttype",
        "class",
    ),
    "maincategory": ("maincategory", "maincat"),
    "description": ("description", "productdescription", "detaildesc", "itemdescription"),
    "features": ("features", "feature", "bulletpoints"),
}
"""What a field is called, in lower case without punctuation, the best first; understood without `--columns`."""
ROLES = tuple(role for role in NAMES if role != "maincategory")
"""What `--columns` may name in metadata."""

_BEHAVIOUR = """
related alsobuy alsobought alsoview alsoviewed boughttogether buyafterviewing salesrank rank averagerating ratingnumber
ratingcount reviewscount reviewcount
"""
_PAGE = "imurl image images imageurl imageurlhighres imageurls videos video url tech1 tech2 similaritem fit"
_NOT_KEPT = frozenset([*_BEHAVIOUR.split(), *_PAGE.split(), *NAMES["item"]])
"""Fields that are no attributes: what customers did, which leaks; the page's pictures and tables; further ids."""
_NESTED = ("details", "detail", "attributes", "specifications")
"""Mappings whose entries are attributes of their own."""
_RECBOLE = re.compile(r":(?:token|float)(?:_seq)?$")
_PATH = re.compile(r"\s*(?:>|\||;|::)\s*")
_BRAND_PAGE = re.compile(r"^(?:Visit Amazon's (.+?) (?:Page|Store)|Visit the (.+?) Store|by\s+(.+))$", re.IGNORECASE)


@dataclass(frozen=True)
class MetadataNames:
    """Which field has which role: plain name -> (role, rank); the lowest rank with a value wins."""

    by_name: Mapping[str, tuple[str, int]]
    chosen: Mapping[str, tuple[str, int]]
    """The same by exact name, for `--columns`."""

    @staticmethod
    def of(columns: Mapping[str, str]) -> MetadataNames:
        """The known names; a column chosen by `--columns` goes before them."""
        by_name = {name: (role, rank) for role, names in NAMES.items() for rank, name in enumerate(names)}
        return MetadataNames(by_name, {column: (role, -1) for role, column in columns.items() if role in ROLES})

    def role(self, name: str) -> tuple[str, int]:
        """The role and rank of a field; ("", 0) for one without."""
        return self.chosen.get(name) or self.by_name.get(plain_name(name), ("", 0))


def metadata_row(row: Mapping[str, Any], names: MetadataNames, notes: Notes) -> tuple[Any, ...]:
    """A record in the order of METADATA. Missing where there is no item, ValueError where its id is none."""
    found: dict[str, tuple[int, str, Any]] = {}
    rest: dict[str, Any] = {}
    for name, value in row.items():
        if value is None or value == "" or value == []:
            continue
        role, rank = names.role(str(name))
        if not role:
            rest[name] = value
        elif role not in found:
            found[role] = (rank, name, value)
        else:  # two names of one role: the better stays, the other is an attribute like any
            worse = max(found[role], (rank, name, value), key=lambda one: one[0])
            found[role] = min(found[role], (rank, name, value), key=lambda one: one[0])
            rest[worse[1]] = worse[2]
    if "item" not in found:
        raise Missing("no item id")
    item = identifier(found["item"][2], found["item"][1], notes)

    def field(role: str) -> Any:
        return found[role][2] if role in found else None

    attributes = _attributes(rest, item)
    brand = clean_name(field("brand")) or next(
        (values[0] for name, values in attributes.items() if name.lower() in ("brand", "manufacturer")), ""
    )
    path = categories_of(field("categories"))
    main = clean_name(field("maincategory"))
    if main and main not in path and (not path or plain_name(found["maincategory"][1]) == "maincategory"):
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
        if plain_name(name) in _NOT_KEPT:
            continue
        value = _listed(value)
        if isinstance(value, dict):
            if plain_name(name) in _NESTED:
                nested |= value
        else:
            plain[name] = value
    attributes = {}
    for name, value in (nested | plain).items():
        key = encodable(" ".join(_RECBOLE.sub("", str(name)).split()).rstrip(":").strip())
        values = [text for text in map(_text, value if isinstance(value, list) else [value]) if text]
        if key and plain_name(key) not in _NOT_KEPT and values and values != [item]:
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
