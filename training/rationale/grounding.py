"""How much of a rationale the review and the item's title bear out: the guard against invented attributes.

Overlap of stemmed words, or of characters where the language parts no words or has no stemmer: a pure function of the
texts. It does not understand synonyms or negation; it is there to catch what a teacher made up, such as the attributes
that the paper's teacher invents for short reviews (its appendix A.2.1).
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Any

import snowballstemmer
from stop_words import StopWordError, get_stop_words

from training.rationale.languages import ENGLISH, Language
from training.rationale.prompt import STRICT_SYSTEM, SYSTEM, TEMPLATE

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_HAN_KANA = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[\u3040-\u309f]+|[\u30a0-\u30ff]+|[\u0e00-\u0eff]+")
_CHARACTERS = {"zh": 2, "ja": 2, "ko": 2, "th": 3, "vi": 0}
"""How many characters are compared at a time, Han ones singly; 0: whole words. A language of neither kind: 4."""

# Function words carry no claim.
_FUNCTION = (
    "a an the and or but nor so as if than that this these those which who whom whose what when where while "
    "because for of to in on at by with without from into onto about over under between after before during "
    "through out up off down again further once is are was were be been being am do does did doing have has had "
    "having will would can could should may might must shall not no very too also just only even more most much "
    "many some any all both each few other another such own same it its he him his she her they them their theirs "
    "we us our you your i me my mine one themselves itself himself herself there here how why well then now ever "
    "never always"
)
# What a writer of such sentences says whatever the review: the frame, not a claim about this item.
_FRAME = (
    "product purchase customer buyer reviewer shopper consumer person someone people prefer preference enjoy like love "
    "value appreciate want need seek look desire favor find feel think consider believe appear seem describe mention "
    "indicate suggest express feature attribute characteristic quality offer provide include make made get give use "
    "user item buy bought said say says satisfied satisfaction positive thing something experience"
)


@cache
def _stemmer(name: str) -> Any:
    return snowballstemmer.stemmer(name)


@lru_cache(maxsize=16384)
def stem(word: str, language: Language = ENGLISH) -> str:
    """Snowball stem of a lower-cased word without an English possessive ending; the word where there is no stemmer."""
    word = word.lower()
    if language is ENGLISH:
        word = re.sub(r"['’]s$", "", word)
    return str(_stemmer(language.stemmer).stemWord(word)) if language.stemmer else word


def units(text: str, language: Language) -> list[str]:
    """What is compared: stems, or short runs of characters."""
    size = 0 if language.stemmer else _CHARACTERS.get(language.code, 4)
    if not size:
        return [stem(word, language) for word in _words(text, language)]
    found: list[str] = []
    for word in _words(text, language):
        runs = _HAN_KANA.findall(word) or [word.lower()]
        found += [run[n : n + size] for run in runs for n in range(max(len(run) - size, 0) + 1)]
    return found


def _words(text: str, language: Language) -> list[str]:
    """French and Italian articles part from their word at the apostrophe; English contractions stay whole."""
    if language.code in ("fr", "it"):
        text = re.sub(r"(?<=\w)['’](?=\w)", " ", text)
    return _WORD.findall(text)


@cache
def _tolerated(language: Language) -> frozenset[str]:
    """Units that make no claim: function words, the words of the frame, and in English those of the question."""
    if language is ENGLISH:
        return frozenset(units(" ".join((_FUNCTION, _FRAME, SYSTEM, STRICT_SYSTEM, TEMPLATE)), language))
    try:
        function = get_stop_words(language.code)
    except StopWordError:
        function = []
    return frozenset(units(" ".join((*function, language.frame)), language))


def content_stems(text: str, language: Language = ENGLISH) -> list[str]:
    """The stems (or runs of characters) that make a claim, in order, repeats included."""
    tolerated = _tolerated(language)
    return [unit for unit in units(text, language) if unit not in tolerated]


def grounding(rationale: str, *evidence: str, language: Language = ENGLISH) -> float:
    """Share of the rationale's content words that some evidence text holds, 0 to 1.

    A rationale without any content word claims nothing that could be borne out and scores 0.
    """
    claims = content_stems(rationale, language)
    if not claims:
        return 0.0
    support = {unit for text in evidence for unit in units(text, language)}
    return sum(claim in support for claim in claims) / len(claims)
