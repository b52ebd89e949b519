"""English reviews into short phrases: «clear tone», «easy to use», «works well», and what a reviewer looks for.

Rules over words, without a parser. A phrase has neither a first person nor an article. Rules miss much of what is said:
that is the price of saying nothing that was not. Knows neither items nor counts.
"""

from __future__ import annotations

from collections.abc import Iterator

from rdrec_core.statements import Kind
from training.signals.english import (
    AFTER_ADJECTIVE,
    AFTER_MANNER,
    ARTICLE,
    BAD,
    BADLY,
    BE,
    DEGREE,
    GENERIC,
    GOOD,
    IT,
    MAYBE,
    NO_NOUN,
    NOT,
    SENSES,
    WELL,
    Lexicon,
    clauses,
)  # fmt: skip
from training.signals.languages import ENGLISH
from training.signals.objects import named
from training.signals.phrase import Phrase


class PhraseFinder:
    """See the module."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._adjectives, self._nouns = lexicon.adjectives, lexicon.nouns

    def phrases(self, text: str) -> list[Phrase]:
        """Each once, in the order of the text."""
        found: dict[tuple[Kind, str], Phrase] = {}
        for words in clauses(text):
            for phrase in (*named(words), *self._scan(words)):
                found.setdefault((phrase.kind, phrase.text), phrase)
        texts = [(f" {phrase.text} ", phrase.is_wish) for phrase in found.values()]
        return [
            p
            for p in found.values()
            if not any(
                f" {p.text} " in text and len(text) > len(p.text) + 2 and is_wish is p.is_wish
                for text, is_wish in texts
            )
        ]

    def _scan(self, words: list[str]) -> Iterator[Phrase]:
        n = len(words)
        for at, word in enumerate(words):
            if word not in self._adjectives and word not in SENSES:
                continue
            before = words[max(0, at - 4) : at]
            if word in self._adjectives:
                end = at + 1
                while end < n and end < at + 3 and words[end] in self._nouns and words[end] not in self._adjectives:
                    end += 1
                doubt = bool(MAYBE & set(before))
                negated = bool(NOT & set(before[-3:]))
                if end > at + 1:  # «clear tone»
                    if not doubt and not (end < n and words[end] in self._nouns):
                        yield self._phrase(Kind.FEATURE, words[at:end], negated, before)
                elif not doubt and (subject := self._subject(words, at)) is not None:
                    yield from self._predicate(words, at, subject, negated, before)
            elif at + 1 < n:  # «works well»
                step = at + 1
                while step < n - 1 and words[step] in DEGREE:
                    step += 1
                manner = words[step]
                stands = step + 1 == n or words[step + 1] in AFTER_MANNER
                if (
                    stands
                    and (manner in WELL or manner in BADLY)
                    and not MAYBE & set(before)
                    and not {"you", "i", "we"} & set(before[-1:])
                ):
                    negated = bool(NOT & set(before[-3:]))
                    good = 1 if manner in WELL else -1
                    text = f"{SENSES[word]} {manner}"
                    if negated:
                        text, good = (
                            f"does not {SENSES[word].removesuffix('s').replace('s up', ' up')} {manner}",
                            -good,
                        )
                    yield Phrase(Kind.DOES, text, good)

    def _subject(self, words: list[str], at: int) -> list[str] | None:
        """What a predicate is said of: [] for the item itself, a part's words, None where it is something else."""
        step = at - 1
        while step >= 0 and (
            words[step] in DEGREE or words[step] in self._adjectives or words[step] in ("and", ",", "not")
        ):
            step -= 1
        if step < 0:
            return []  # a fragment: «Very easy to use»
        if words[step] in ("it's", "they're"):
            return []
        if words[step] not in BE and words[step] not in SENSES:
            return None
        if step == 0:
            return []
        owner = words[step - 1]
        if owner in IT or owner in NO_NOUN:
            return []
        if owner in self._nouns:
            start = step - 1
            while start > 0 and words[start - 1] in self._nouns:
                start -= 1
            if start == 0 or words[start - 1] in ARTICLE:
                return words[start:step]
        return None

    def _predicate(
        self, words: list[str], at: int, subject: list[str], negated: bool, before: list[str]
    ) -> Iterator[Phrase]:
        word = words[at]
        if subject:  # «the tone is clear»
            yield self._phrase(Kind.FEATURE, [word, *subject], negated, before)
            return
        rest = words[at + 1 : at + 3]
        if len(rest) == 2 and rest[0] == "to" and rest[1].isalpha() and rest[1] not in ENGLISH.function:
            yield self._phrase(Kind.QUALITY, [word, *rest], negated, before)
        elif (not rest or rest[0] in AFTER_ADJECTIVE) and word not in GENERIC:
            yield self._phrase(Kind.QUALITY, [word], negated, before)

    def _phrase(self, kind: Kind, words: list[str], negated: bool, before: list[str]) -> Phrase:
        polarity = 1 if words[0] in GOOD else -1 if words[0] in BAD else 0
        if kind is Kind.FEATURE:
            while len(words) > 1 and words[0] in GENERIC and polarity >= 0:
                words = words[1:]  # «great tone»: the tone is praised
        if before[-1:] == ["too"] and not negated:
            return Phrase(kind, " ".join(["too", *words] if kind is Kind.QUALITY else words), -1)
        if negated:
            polarity = -polarity or -1
            words = ["not", *words] if kind is Kind.QUALITY else words
        return Phrase(kind, " ".join(words), polarity)
