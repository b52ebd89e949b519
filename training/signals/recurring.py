"""Words that recur: statements of a language whose grammar is not known here.

Two or three words (of a script without blanks, two to six characters) that stand together in several reviews, with a
word of content at either end. Language-blind beyond function words; polarity comes from the ratings alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from rdrec_core.statements import Kind
from rdrec_core.words import is_gram
from training.signals.languages import BLANKLESS, Language
from training.signals.phrase import Phrase

MIN_REVIEWS = 3
_MAX_KEPT = 200_000
_CLAUSE = re.compile(r"[.!?;:,\n()\"…*«»。！？、，；：「」]+|\s[-–—]+\s")
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_PARTICLES = frozenset("のはがをにでともへやねよなだです・ー")
_CHARACTERS = (2, 6)


class RecurringFinder:
    """See the module."""

    def __init__(self, language: Language, known: frozenset[str]) -> None:
        self._language, self._known = language, known

    @classmethod
    def learn(cls, texts: Iterable[str], language: Language) -> RecurringFinder:
        """Keeps what at least MIN_REVIEWS texts hold; of nested ones the longest that recurs as often."""
        seen: Counter[str] = Counter()
        for text in texts:
            seen.update(dict.fromkeys(_candidates(text, language)).keys())
            if len(seen) > 5 * _MAX_KEPT:
                seen = Counter(dict(seen.most_common(_MAX_KEPT)))
        often = {text: n for text, n in seen.most_common(_MAX_KEPT) if n >= MIN_REVIEWS}
        swallowed = {
            inner
            for text, n in often.items()
            for inner in _parts(text, language)
            if inner != text and often.get(inner, 0) <= 1.25 * n
        }
        return cls(language, frozenset(often) - swallowed)

    def phrases(self, text: str) -> list[Phrase]:
        """Each once; none inside a longer one of the same text."""
        found = [each for each in dict.fromkeys(_candidates(text, self._language)) if each in self._known]
        inner = {part for each in found for part in _parts(each, self._language) if part != each}
        negations = self._language.negations
        return [
            Phrase(Kind.MENTION, each, -1 if negations & set(each.split()) else 0)
            for each in found
            if each not in inner
        ]


def _candidates(text: str, language: Language) -> Iterator[str]:
    for clause in _CLAUSE.split(text.lower()):
        if language is BLANKLESS:
            yield from _runs(clause.strip())
            continue
        words = _WORD.findall(clause)
        for length in (2, 3):
            for at in range(len(words) - length + 1):
                part = words[at : at + length]
                ends = {part[0], part[-1]}
                if not ends & language.function and not set(part) & language.personal and not part[0].isdigit():
                    yield " ".join(part)


def _runs(clause: str) -> Iterator[str]:
    low, high = _CHARACTERS
    for length in range(low, high + 1):
        for at in range(len(clause) - length + 1):
            part = clause[at : at + length]
            if (
                all(map(is_gram, part))
                and part[0] not in _PARTICLES
                and part[-1] not in _PARTICLES
                and not any(word in part for word in BLANKLESS.personal)
            ):
                yield part


def _parts(text: str, language: Language) -> Iterator[str]:
    return _runs(text) if language is BLANKLESS else _candidates(text, language)
