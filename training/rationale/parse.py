"""Two sentences out of what language models really write; or nothing.

Pure: text in, Rationale or None out. None means that the caller asks again or drops the review; the review's own text
is never put in place of a rationale. Tried in this order: JSON, labelled lines, a list of two, prose.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass

MIN_WORDS = 3
MAX_WORDS = 60
"""A "sentence" outside these bounds is a fragment or a lecture, not what was asked for."""


@dataclass(frozen=True)
class Rationale:
    """Two sentences, white space collapsed, each ending in punctuation."""

    user_preference: str
    item_attributes: str


_THINKING = re.compile(r"<(think|thinking|reasoning)>.*?(?:</\1>|\Z)|^.*?</(?:think|thinking|reasoning)>", re.S | re.I)
_MARKUP = re.compile(
    r"```\w*|\[/?INST\]|<</?SYS>>|</?s>|<pad>|<unk>|<\|[^|>]{1,40}\|>(?:assistant\b)?|<(?:end|start)_of_turn>(?:model\b)?|\*\*|__"
    r"|^#+\s+|^>\s+",
    re.M,
)
_REFUSAL = re.compile(
    r"\bas an ai\b|\blanguage model\b|\bi(?:'m| am) (?:sorry|unable|not able)\b|\bi apologi[sz]e\b"
    r"|\bi (?:can(?:no|')t|do(?: not|n't) have|won't|would need)\b"
    r"|\b(?:could|can|would) you (?:please )?(?:provide|share|clarify|give)\b|\bplease provide\b"
    r"|\bnot (?:enough|sufficient) (?:information|detail|context)|\binsufficient (?:information|detail|context)",
    re.I,
)
# Said of either half: the teacher reports that the review says nothing, which is no preference and no attribute.
_NOTHING_SAID = re.compile(
    r"\b(?:not|n't|no|nothing|unclear|unknown|without)\b.{0,40}\b(?:mention(?:ed)?|specif(?:y|ied|ic)|stat(?:e|ed)|"
    r"clear|provid(?:e|ed)|given|information|details?|describ(?:e|ed)|indicat(?:e|ed))\b"
    r"|\b(?:unclear|unknown|unspecified|not applicable)\b|^n/?a\b|^none\b|<[^>]*>|\[[^\]]*\]|^string$",
    re.I,
)
_USER_KEYS = (
    "user_preference",
    "user_preferences",
    "userpreference",
    "preference",
    "preferences",
    "user",
    "line1",
    "1",
)
_ITEM_KEYS = (
    "item_attributes",
    "item_attribute",
    "itemattributes",
    "attributes",
    "attribute",
    "item",
    "product",
    "line2",
    "2",
)
_BULLET = re.compile(r"^\s*(?:(?:sentence|line)\s*)?(?:\(?\d{1,2}[.):]|[-*•–▪]|\(?[ab][.)])\s*", re.I)
_PERSON = r"user|buyer|customer|reviewer|purchaser|shopper|consumer|person"
_THING = r"item|product"
_LABEL = re.compile(
    rf"^(?:the\s+)?(?:(?P<user>(?:{_PERSON})?(?:'s)?\s*preferences?|(?:{_PERSON}))"
    rf"|(?P<item>(?:{_THING})?(?:'s)?\s*(?:attributes?|features?|characteristics)|(?:{_THING})))"
    r"(?:\s+sentence|\s+explanation|\s*\([^)]*\))?\s*[:–—=-]+\s*(?P<rest>.*)$",
    re.I | re.S,
)
_INLINE_LABEL = re.compile(
    rf"(?<=[.!?;,\n])\s*(?:and\s+)?(?=(?:the\s+)?(?:(?:{_PERSON}|{_THING})(?:'s)?\s*)?(?:preferences?|attributes?)\s*:)",
    re.I,
)
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)]*\s+(?=[\"'“‘(]?[A-Z0-9])")
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|approx|oz|ft|dr|mr|mrs|ms|st|no|jr|inc)|\b[A-Z])\.[\"'”’)]*$", re.I
)
# A user clause and an item clause joined into one sentence.
_JOINT = re.compile(
    rf",?\s*(?:;|\band\b|\bwhile\b|\bwhereas\b|\bbecause\b|\bsince\b|\bas\b)\s*(?=(?:the|this)\s+(?:[\w'-]+\s+)?(?:{_THING})\b)"
    rf"|,\s*(?:and|while|whereas)\s+(?=(?:it|its|this)\b)",
    re.I,
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


def parse(text: str, *, truncated: bool = False) -> Rationale | None:
    """The rationale in an answer, or None when there are not two sound sentences in it.

    truncated: the answer ran into its token limit, so a last sentence without a full stop is cut and does not count.
    """
    text = _MARKUP.sub("", _THINKING.sub("", text)).replace("’", "'").strip()
    if not text:
        return None
    found = _from_json(text)
    if found is None:
        prose = re.sub(r"\s+$", "", text)
        if truncated and not re.search(r"[.!?][\"'”)]*$", prose):
            prose = prose[: max((m.end() for m in re.finditer(r"[.!?](?=\s)", prose)), default=0)]
        found = _from_labels(prose) or _from_list(prose) or _from_prose(prose)
    return None if found is None else _sound(*found)


def _sound(user: str, item: str) -> Rationale | None:
    """The last gate, whatever the form: neither half a refusal, empty, too long or a copy of the other."""
    sentences = []
    for half in (user, item):
        sentence = re.sub(r"\s+", " ", half).strip(" \t\n\"'“”`*-,;")
        words = len(sentence.split())
        if not MIN_WORDS <= words <= MAX_WORDS or _REFUSAL.search(sentence) or _NOTHING_SAID.search(sentence):
            return None
        sentence = sentence[0].upper() + sentence[1:]
        sentences.append(sentence if sentence[-1] in ".!?" else f"{sentence}.")
    if sentences[0] == sentences[1]:
        return None
    return Rationale(*sentences)


def _from_json(text: str) -> tuple[str, str] | None:
    start = min((i for i in (text.find("{"), text.find("[")) if i >= 0), default=-1)
    if start < 0:
        return None
    # raw_decode stops at the end of the first value, so words after it do no harm.
    try:
        value = json.JSONDecoder(strict=False).raw_decode(text[start:])[0]
    except json.JSONDecodeError:
        end = max(text.rfind("}"), text.rfind("]")) + 1
        try:
            value = ast.literal_eval(text[start:end])  # what a model writes that thinks in Python
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    return _pair(value)


def _pair(value: object) -> tuple[str, str] | None:
    if isinstance(value, dict):
        named = {re.sub(r"[\s'-]+", "_", str(k).strip().lower()).replace("_s_", "_"): v for k, v in value.items()}
        user = next((named[k] for k in _USER_KEYS if k in named), None)
        item = next((named[k] for k in _ITEM_KEYS if k in named), None)
        if user is not None and item is not None:
            return _joined(user), _joined(item)
        inner = list(value.values())
        return _pair(inner[0]) if len(inner) == 1 else None
    if isinstance(value, list):
        if len(value) == 1:
            return _pair(value[0])
        if len(value) == 2 and all(isinstance(v, str) for v in value):
            return value[0], value[1]
        if len(value) == 2 and all(isinstance(v, dict) for v in value):
            return _pair({**value[0], **value[1]})
    return None


def _joined(value: object) -> str:
    """A string as it is; a list of strings as one; anything else says nothing."""
    if isinstance(value, list) and all(isinstance(v, str) for v in value):
        return ", ".join(v.rstrip(".") for v in value)
    return value if isinstance(value, str) else ""


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _from_labels(text: str) -> tuple[str, str] | None:
    halves: dict[str, list[str]] = {}
    current = None
    for line in _lines(_INLINE_LABEL.sub("\n", text)):
        bare = _BULLET.sub("", line)
        if match := _LABEL.match(bare):
            current = "user" if match["user"] else "item"
            rest = match["rest"].strip()
            halves.setdefault(current, [])
            if rest:
                halves[current].append(rest)
        elif current is not None and not _CHATTER.match(bare):
            halves[current].append(bare)
    if not halves.get("user") or not halves.get("item"):
        return None
    return _head(halves["user"]), _head(halves["item"])


def _head(lines: list[str]) -> str:
    """The first sentence; of short bullets under one label, all of them."""
    if len(lines) > 1 and all(len(line.split()) <= 8 for line in lines):
        return ", ".join(line.rstrip(".,;") for line in lines)
    return _sentences(lines[0])[0]


def _from_list(text: str) -> tuple[str, str] | None:
    numbered = re.sub(r"(?<=[.!?])\s+(?=\(?2[.)]\s)", "\n", text)
    entries = [_BULLET.sub("", line) for line in _lines(numbered) if _BULLET.match(line)]
    entries = [entry for entry in entries if not _CHATTER.match(entry)]
    if len(entries) != 2:
        return None
    user, item = (_sentences(entry)[0] for entry in entries)
    return (item, user) if _ABOUT_ITEM.match(user) and _ABOUT_USER.match(item) else (user, item)


def _from_prose(text: str) -> tuple[str, str] | None:
    sentences: list[str] = []
    for line in _lines(text):
        for sentence in _sentences(
            re.sub(r"^[^.!?]{0,120}?(?:sentences|explanation|answer|response)[^.!?]{0,60}?:\s*", "", line, flags=re.I)
        ):
            bare = _BULLET.sub("", sentence).strip(" \"'“”")
            if bare and not bare.endswith(":") and not _CHATTER.match(bare):
                sentences.append(bare)
    if any(_REFUSAL.search(sentence) for sentence in sentences):
        return None
    users = [n for n, sentence in enumerate(sentences) if _ABOUT_USER.match(sentence)]
    items = [n for n, sentence in enumerate(sentences) if _ABOUT_ITEM.match(sentence)]
    if users and (after := [n for n in items if n > users[0]]):
        return sentences[users[0]], sentences[after[0]]
    if users and items:  # the other way round
        return sentences[users[0]], sentences[items[0]]
    for sentence in sentences:
        if not _ABOUT_USER.match(sentence):
            continue
        if cut := _JOINT.search(sentence, 10):
            return sentence[: cut.start()], sentence[cut.end() :]
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
