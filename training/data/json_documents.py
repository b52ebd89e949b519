"""JSON that is not one object a line: an array, objects over several lines. Objects come one by one, memory is bounded.

Knows JSON, not fields' meanings.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from rdrec_core.errors import DatasetError

CHUNK_BYTES = 8 << 20
MAX_OBJECT = 64 << 20
"""Characters of one object; a larger one is a whole table in one object."""
_FILLING = re.compile(r"[\s,]*")
_NEXT = re.compile(r"[\n,\[]\s*(?=\{)")


def objects(head: bytes, stream: BinaryIO, name: str) -> Iterator[Any]:
    """The objects of a document that begins with `head`; a text where one cannot be read.

    Raises DatasetError for a table in one object (pandas' column form), for nested records and for objects without end.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    parse = json.JSONDecoder().raw_decode
    text = decoder.decode(head)
    place = _after_filling(text, 0)
    if text[place : place + 1] == "[":
        place += 1
    ended = False
    while True:
        place = _after_filling(text, place)
        if place < len(text) and text[place] == "]":
            place = _after_filling(text, place + 1)
            if place < len(text):
                yield "something follows the array's end"
            return
        try:
            value, place = parse(text, place)
        except (ValueError, RecursionError):
            if not ended and len(text) - place < MAX_OBJECT:
                chunk = stream.read(CHUNK_BYTES)
                ended = not chunk
                text, place = text[place:] + decoder.decode(chunk, final=ended), 0
                continue
            if place >= len(text):
                return
            if not ended:
                raise DatasetError(
                    f"{name} holds an object of more than {MAX_OBJECT >> 20} MiB; one object a line is needed "
                    '(in pandas: to_json(..., orient="records", lines=True))'
                ) from None
            yield "no JSON from here on, up to the next object"
            following = _NEXT.search(text, place + 1)
            if following is None:
                return
            place = following.end()
        else:
            if isinstance(value, dict):
                refuse_tables(value, name)
            yield value


def refuse_tables(value: dict[str, Any], name: str) -> None:
    """Raise DatasetError where one object holds many records."""
    if len(value) > 1 and all(isinstance(column, dict) and len(column) > 1 for column in value.values()):
        keys = {frozenset(column) for column in value.values()}
        if len(keys) == 1:
            raise DatasetError(
                f"{name} is a table in pandas' column form; one object a line is needed: "
                'to_json(..., orient="records", lines=True)'
            )


def nested_field(value: Any) -> str | None:
    """The field of an object that holds a list of objects, as where the reviews of a user are nested; None without."""
    if not isinstance(value, dict):
        return None
    return next((k for k, v in value.items() if isinstance(v, list) and v and isinstance(v[0], dict)), None)


def _after_filling(text: str, place: int) -> int:
    match = _FILLING.match(text, place)
    return match.end() if match else place
