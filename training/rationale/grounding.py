"""How much of a rationale the review and the item's title bear out: the guard against invented attributes.

Stemmed word overlap, a pure function of the texts. It does not understand synonyms or negation; it is there to catch
what a teacher made up, such as the attributes that the paper's teacher invents for short reviews (its appendix A.2.1).
"""

from __future__ import annotations

import re
from functools import lru_cache

import snowballstemmer

from training.rationale.prompt import STRICT_SYSTEM, SYSTEM, TEMPLATE

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_STEMMER = snowballstemmer.stemmer("english")

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


@lru_cache(maxsize=4096)
def stem(word: str) -> str:
    """English Snowball stem of a lower-cased word without its possessive ending."""
    return str(_STEMMER.stemWord(re.sub(r"['’]s$", "", word.lower())))


def _stems(text: str) -> list[str]:
    return [stem(word) for word in _WORD.findall(text)]


_TOLERATED = frozenset(_stems(" ".join((_FUNCTION, _FRAME, SYSTEM, STRICT_SYSTEM, TEMPLATE))))


def content_stems(text: str) -> list[str]:
    """The stems that make a claim, in order, repeats included."""
    return [s for s in _stems(text) if s not in _TOLERATED]


def grounding(rationale: str, *evidence: str) -> float:
    """Share of the rationale's content words that some evidence text holds, 0 to 1.

    A rationale without any content word claims nothing that could be borne out and scores 0.
    """
    claims = content_stems(rationale)
    if not claims:
        return 0.0
    support = {s for text in evidence for s in _stems(text)}
    return sum(claim in support for claim in claims) / len(claims)


def word_count(text: str) -> int:
    """Words of a review, as the length threshold counts them."""
    return len(_WORD.findall(text))
