"""The words of a text in any script: what text vectors count. Knows no vocabulary."""

from __future__ import annotations

import re
import unicodedata

_GRAMS = (1, 2, 3)


def _blankless() -> str:
    """Scripts that are written without blanks: Han, kana, Thai, Lao, Khmer, Burmese."""
    spans = (
        (0x0E01, 0x0E3A), (0x0E40, 0x0E4E), (0x0E81, 0x0ECE), (0x1000, 0x103F), (0x1050, 0x108F), (0x1780, 0x17D3),
        (0x3005, 0x3007), (0x3041, 0x309F), (0x30A1, 0x30FA), (0x30FC, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF),
        (0xF900, 0xFAFF), (0x20000, 0x3134F),
    )  # fmt: skip
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in spans)


def _marks() -> str:
    """Vowel signs and other marks inside words, which the re module's \\w leaves out."""
    return "".join(chr(code) for code in range(0x0300, 0x10000) if unicodedata.category(chr(code)) in ("Mn", "Mc"))


_ASCII_WORD = re.compile(r"[a-z0-9]+")
BLANKLESS = _blankless()
"""Letters and signs of scripts without blanks, iteration marks among them, as a character class; their digits are words
like any others."""
_ANY_WORD = re.compile(f"[{BLANKLESS}]+|(?:(?![_{BLANKLESS}])[\\w{_marks()}])+")
_BLANKLESS = re.compile(f"[{BLANKLESS}]")
_ACCENTS = re.compile("[\u0300-\u036f]")


def is_gram(word: str) -> bool:
    """Whether a word that `words` gave is a run of characters of a script without blanks."""
    return _BLANKLESS.match(word) is not None


def words(text: str) -> list[str]:
    """The words of a text in order, case and accents folded, numbers kept.

    Of a script without blanks, the runs of one, two and three characters instead.
    """
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    bare = _ACCENTS.sub("", unicodedata.normalize("NFKD", text).casefold())
    found: list[str] = []
    for word in _ANY_WORD.findall(unicodedata.normalize("NFKC", bare)):
        if is_gram(word):
            found += [word[at : at + n] for n in _GRAMS for at in range(len(word) - n + 1)]
        else:
            found.append(word)
    return found
