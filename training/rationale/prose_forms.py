"""Pairs of sentences out of answers that are no JSON: tags, tables, labelled lines, lists of two, running prose.

Pure: the final words of an answer in, a pair (user, item) or None out. Whether the halves are sound sentences is for
`parse.py` to say. English is always understood, the language that was asked for besides.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise

from training.rationale.json_forms import table_rows
from training.rationale.languages import ENGLISH, Language
from training.rationale.refusing import declines

_BULLET = re.compile(
    r"^\s*(?:(?:(?:sentence|line)\s*)?\(?\d{1,2}[.):、]|(?:first|second|1st|2nd) sentence\s*[:–-]"
    r"|[-*•–▪·]|\(?[ab][.)]|[①②])\s*",
    re.I,
)
_PERSON = r"user|buyer|customer|reviewer|purchaser|shopper|consumer|person"
_THING = r"item|product"
_LABEL = re.compile(
    rf"^[\"'“\[(【{{<]*\s*(?:the\s+)?(?:(?P<user>(?:{_PERSON})?(?:'s)?[\s_-]*(?:preferences?|needs?)|(?:{_PERSON}))"
    rf"|(?P<item>(?:{_THING})?(?:'s)?[\s_-]*(?:attributes?|features?|characteristics)|(?:{_THING})))"
    r"(?:\s+sentence|\s+explanation|\s*\([^)]*\))?\s*[\"'”\])】}>]*\s*[:：–—=-]+>?\s*(?P<rest>.*)$",
    re.I | re.S,
)
_INLINE_LABEL = re.compile(
    rf"(?<=[.!?;,\n])\s*(?:and\s+)?(?=(?:the\s+)?(?:(?:{_PERSON}|{_THING})(?:'s)?\s*)?(?:preferences?|attributes?)\s*:)",
    re.I,
)
_SENTENCE_END = re.compile(
    r"(?<=[.!?])[\"'”’»)]*\s+(?=[\"'“‘«„(¿¡]?[^\W_a-zß-öø-ÿа-яё])|(?<=[。！？])[」』”）]*\s*(?=\S)"
)
_FOREIGN_LABEL = re.compile(r"^[\[(【\"]*([^:：.。]{1,40}?)[\])】\"]*\s*[:：]\s*(.*)$")
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|approx|oz|ft|dr|mr|mrs|ms|st|no|jr|inc)|\b[A-Z])\.[\"'”’)]*$", re.I
)
# A user clause and an item clause joined into one sentence.
_JOINT = re.compile(
    rf",?\s*(?:;|\band\b|\bwhile\b|\bwhereas\b|\bbecause\b|\bsince\b|\bas\b)\s*(?=(?:the|this)\s+(?:[\w'-]+\s+)?(?:{_THING})\b)"
    rf"|,\s*(?:and|while|whereas)\s+(?=(?:it|its|this)\b)",
    re.I,
)
# «The user's preference is "...", and the item's attributes are "..."», whatever sentences the quotations hold.
_NAMED = re.compile(
    rf"(?P<user>the (?:{_PERSON})'s preferences? (?:is|are|was|were)\b.{{3,400}}?)"
    r"(?:[,;]?\s+(?:and|while)\s+|[,;]\s+|(?<=[.!?\"”])\s+)"
    rf"(?P<item>the (?:{_THING})'s attributes? (?:is|are|was|were)\b.*)",
    re.I | re.S,
)
_LEAD = (
    r"^(?:(?:based on|according to|from|in|judging by)\s+[^,]{1,60},\s*"
    r"|(?:firstly|first|secondly|second|additionally|also|overall|as for)\b,?\s*)*"
)
_ABOUT_USER = re.compile(
    rf"{_LEAD}(?:(?:the|this|a|our)\s+(?:\w+\s+)?(?:{_PERSON})s?\b|(?:users|buyers|customers)\b|they\b|he\b|she\b|someone\b)",
    re.I,
)
_ABOUT_ITEM = re.compile(
    rf"{_LEAD}(?:(?:the|this|these|its|both)\s+(?:[\w'-]+\s+)?(?:{_THING})s?\b|it\b|its\b|this\b|these\b|the\s+(?!(?:\w+\s+)?(?:{_PERSON})\b))",
    re.I,
)
_CHATTER = re.compile(
    r"^(?:sure|certainly|of course|okay|ok|absolutely|great|here (?:are|is)|here's|based on .{0,80}:$|note\b|\(?note:|"
    r"i hope|let me know|please let|feel free|these (?:two )?sentences|the (?:two )?sentences|is there anything|"
    r"explanation:?$|answer:?$|output:?$|response:?$|rationale:?$|sentence \w+:?$|a user bought an item|"
    r"use two sentences|user'?s? preference and item)",
    re.I,
)


_TAG = re.compile(r"<(user_?preferences?|item_?attributes?)>(.*?)</\1>", re.I | re.S)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def from_tags(text: str) -> tuple[str, str] | None:
    """`<user_preference>...</user_preference><item_attributes>...</item_attributes>`."""
    halves = {m[1].lower()[0]: m[2] for m in _TAG.finditer(text)}
    return (halves["u"], halves["i"]) if {"u", "i"} <= halves.keys() else None


def from_table(text: str, language: Language) -> tuple[str, str] | None:
    """A Markdown table, the labels in its first row or in its first column."""
    rows = [[_BULLET.sub("", cell) for cell in row] for row in table_rows(text)]
    halves: dict[str, str] = {}
    for row in rows:  # | User preference | The user ... |
        if len(row) >= 2 and (kind := _kind(row[0], language)) and not _kind(row[1], language):
            halves.setdefault(kind, row[1])
    if {"user", "item"} <= halves.keys():
        return halves["user"], halves["item"]
    for head, cells in pairwise(rows):
        kinds = [_kind(cell, language) for cell in head]
        if "user" in kinds and "item" in kinds and len(cells) == len(head):
            return cells[kinds.index("user")], cells[kinds.index("item")]
    return None


def _kind(cell: str, language: Language) -> str | None:
    """Whether a short label speaks of the user or of the item."""
    match = _LABEL.match(f"{cell}:")
    if match and not match["rest"]:
        return "user" if match["user"] else "item"
    if language is not ENGLISH and len(cell) <= 40:
        person, thing = _subjects(language)
        return "user" if person.match(cell) else "item" if thing.match(cell) else None
    return None


@cache
def _subjects(language: Language) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """A sentence about the user, a sentence about the item: the language's word for it stands among the first ones.

    The second is to be tried after the first."""
    lead = r"^[^.!?。！？,;，；]{0,30}?(?:\b|(?<=[^\x00-\u024f]))"
    end = "" if language.stemmer is None else r"\w{0,4}\b"
    return (
        re.compile(rf"{lead}(?:{language.person}){end}", re.I),
        re.compile(rf"{lead}(?:{language.thing}){end}", re.I),
    )


def _about_user(sentence: str, language: Language) -> bool:
    return bool(_ABOUT_USER.match(sentence)) or (
        language is not ENGLISH and bool(_subjects(language)[0].match(sentence))
    )


def _about_item(sentence: str, language: Language) -> bool:
    if language is ENGLISH:
        return bool(_ABOUT_ITEM.match(sentence))
    person, thing = _subjects(language)
    return bool(_ABOUT_ITEM.match(sentence)) or (bool(thing.match(sentence)) and not person.match(sentence))


def from_labels(text: str, language: Language) -> tuple[str, str] | None:
    """`User preference: ...` and `Item attributes: ...`, on lines of their own or in one line."""
    halves: dict[str, list[str]] = {}
    current = None
    for line in _lines(_INLINE_LABEL.sub("\n", text)):
        bare = _BULLET.sub("", line)
        kind, rest = _labelled(bare, language)
        if kind:
            current = kind
            halves.setdefault(current, [])
            if rest:
                halves[current].append(rest)
        elif current is not None and not _CHATTER.match(bare):
            halves[current].append(bare)
    if not halves.get("user") or not halves.get("item"):
        return None
    return _head(halves["user"]), _head(halves["item"])


def _labelled(line: str, language: Language) -> tuple[str | None, str]:
    if match := _LABEL.match(line):
        return "user" if match["user"] else "item", match["rest"].strip().strip(",")
    if language is not ENGLISH and (match := _FOREIGN_LABEL.match(line)):
        return _kind(match[1], language), match[2].strip()
    return None, ""


def _head(lines: list[str]) -> str:
    """The first sentence; of short bullets under one label, all of them."""
    if len(lines) > 1 and all(len(line.split()) <= 8 for line in lines):
        return ", ".join(line.rstrip(".,;") for line in lines)
    return _sentences(lines[0])[0]


def from_list(text: str, language: Language) -> tuple[str, str] | None:
    """Two numbered or bulleted entries."""
    numbered = re.sub(r"(?<=[.!?])\s+(?=\(?2[.)]\s)", "\n", text)
    entries = [_BULLET.sub("", line) for line in _lines(numbered) if _BULLET.match(line)]
    entries = [entry for entry in entries if entry and not _CHATTER.match(entry)]
    if len(entries) != 2:
        return None
    user, item = (_sentences(entry)[0] for entry in entries)
    return (item, user) if _about_item(user, language) and _about_user(item, language) else (user, item)


def from_prose(text: str, language: Language) -> tuple[str, str] | None:
    """The first sentence about the user and the first one after it about the item."""
    if named := _NAMED.match(text.strip()):
        return named["user"], _sentences(named["item"])[0]
    sentences: list[str] = []
    for line in _lines(text):
        for sentence in _sentences(
            re.sub(r"^[^.!?]{0,120}?(?:sentences|explanation|answer|response)[^.!?]{0,60}?:\s*", "", line, flags=re.I)
        ):
            bare = _BULLET.sub("", sentence).strip(" \"'“”„«»")
            if bare and not bare.endswith((":", "：")) and not _CHATTER.match(bare):
                sentences.append(bare)
    if any(declines(sentence) for sentence in sentences):
        return None
    users = [n for n, sentence in enumerate(sentences) if _about_user(sentence, language)]
    items = [n for n, sentence in enumerate(sentences) if _about_item(sentence, language)]
    if users and (after := [n for n in items if n > users[0]]):
        return sentences[users[0]], sentences[after[0]]
    if users and items:  # the other way round
        return sentences[users[0]], sentences[items[0]]
    for n in users:
        if cut := _JOINT.search(sentences[n], 10):
            return sentences[n][: cut.start()], sentences[n][cut.end() :]
    # Two sentences of which one names its subject: the other is taken at its place.
    if len(sentences) == 2 and (users == [0] or items == [1]):
        return sentences[0], sentences[1]
    return None


def _sentences(text: str) -> list[str]:
    """Split at sentence ends, not after abbreviations or initials."""
    parts: list[str] = []
    for part in _SENTENCE_END.split(text.strip()):
        if parts and _ABBREVIATION.search(parts[-1]):
            parts[-1] += f" {part}"
        else:
            parts.append(part)
    return parts
