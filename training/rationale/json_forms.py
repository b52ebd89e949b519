"""Pairs of sentences out of JSON as language models write it: sound, in Python's spelling, broken, nested, or a table.

Pure: text in, candidate pairs (user, item) out, in the order of the text. Whether they are sound sentences is for
`parse.py` to say. Broken JSON is mended by json-repair; what the token limit cut is not.
"""

from __future__ import annotations

import json
import re
from typing import Any

import json_repair

_USER_KEYS = frozenset(
    {
        "userpreference", "userpreferences", "preference", "preferences", "preferenceofuser", "preferenceoftheuser",
        "user", "usersentence", "userneeds", "buyerpreference", "customerpreference", "userexplanation", "line1",
        "sentence1", "firstsentence", "sentenceone", "first", "1", "a",
    }
)  # fmt: skip
_ITEM_KEYS = frozenset(
    {
        "itemattributes", "itemattribute", "attributes", "attribute", "attributesofitem", "attributesoftheitem",
        "item", "product", "itemsentence", "itemfeatures", "itemcharacteristics", "productattributes",
        "itemexplanation", "line2", "sentence2", "secondsentence", "sentencetwo", "second", "2", "b",
    }
)  # fmt: skip
_LIKE_AN_OBJECT = re.compile(r"\{\s*(?:[\"'“”‘’`*]|\w+\s*:|\{)")
_TABLE_ROW = re.compile(r"^\s*\|?(.+?\|.+?)\|?\s*$")
_MAX_DEPTH = 4
_QUOTES = "\"'“”‘’`"


def json_pairs(text: str, *, truncated: bool) -> list[tuple[str, str]]:
    """The pairs of all JSON values in the text that hold one; sound ones before any mending is tried."""
    decoder = json.JSONDecoder(strict=False)
    pairs: list[tuple[str, str]] = []
    place = 0
    while (start := _next_bracket(text, place)) >= 0:
        try:
            value, place = decoder.raw_decode(text, start)
        except (json.JSONDecodeError, RecursionError):
            place = start + 1
            continue
        if pair := _pair(value):
            pairs.append(pair)
    if text.startswith('"') and not pairs:  # a JSON string that holds JSON
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = None
        if isinstance(value, str) and value != text:
            return json_pairs(value, truncated=truncated)
    return pairs or _mended(text, truncated=truncated)


def _next_bracket(text: str, place: int) -> int:
    return min((i for i in (text.find("{", place), text.find("[", place)) if i >= 0), default=-1)


def _mended(text: str, *, truncated: bool) -> list[tuple[str, str]]:
    """What json-repair makes of text from the first brace on; nothing where the last string was cut."""
    first = _LIKE_AN_OBJECT.search(text)
    if first is None:
        return []
    broken = text[first.start() :]
    end = max(broken.rfind("}"), broken.rfind("]"))
    if end > 0:
        broken = broken[: end + 1]
    else:
        tail = broken.rstrip().rstrip(",").rstrip()
        whole = tail[-1:] in _QUOTES and tail[-2:-1] not in ":{,"
        if not whole and (truncated or not re.search(r"[.!?。！？]$", tail)):
            return []
    try:
        value: Any = json_repair.loads(broken, skip_json_loads=True)
    except (ValueError, RecursionError):
        return []
    pair = _pair(value, lists=False)
    return [pair] if pair else []


def _pair(value: object, depth: int = 0, *, lists: bool = True) -> tuple[str, str] | None:
    if depth > _MAX_DEPTH:
        return None
    if isinstance(value, dict):
        named = {re.sub(r"[\W_]+", "", str(key).lower().replace("'s", "")): entry for key, entry in value.items()}
        user = next((named[key] for key in named if key in _USER_KEYS), None)
        item = next((named[key] for key in named if key in _ITEM_KEYS), None)
        if user is not None and item is not None:
            return _joined(user), _joined(item)
        inner = [_pair(_opened(entry), depth + 1, lists=lists and len(value) == 1) for entry in value.values()]
        return next((pair for pair in reversed(inner) if pair), None)
    if isinstance(value, list):
        if lists and len(value) == 2 and all(isinstance(entry, str) for entry in value):
            return value[0], value[1]
        if len(value) >= 2 and all(isinstance(entry, dict) for entry in value):
            merged: dict[object, object] = {}
            for entry in value:
                merged |= entry
            if pair := _pair(merged, depth + 1):
                return pair
        inner = [_pair(entry, depth + 1, lists=False) for entry in value]
        return next((pair for pair in reversed(inner) if pair), None)
    return None


def _opened(value: object) -> object:
    """A string that is itself JSON, as in a function call's arguments, is opened."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            return json.loads(value, strict=False)
        except json.JSONDecodeError:
            return value
    return value


def _joined(value: object) -> str:
    """A string as it is; a list of strings as one; a dict's only string; anything else says nothing."""
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        return ", ".join(entry.rstrip(".") for entry in value)
    if isinstance(value, dict) and len(value) == 1:
        return _joined(next(iter(value.values())))
    return value if isinstance(value, str) else ""


def table_rows(text: str) -> list[list[str]]:
    """The cells of a Markdown table's rows, the ruling line left out; empty where there is none."""
    rows = []
    for line in text.splitlines():
        if line.count("|") >= 1 and (match := _TABLE_ROW.match(line)):
            cells = [cell.strip() for cell in match[1].split("|")]
            if any(re.search(r"[^\s:|-]", cell) for cell in cells):
                rows.append(cells)
    return rows
