"""What an English sentence names as what pleased, was missed or is sought: «won me over with the _», «I look for _».

Patterns over the words of one sentence. An object stands alone: no first person, no article, no end that hangs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rdrec_core.statements import Kind
from training.signals.english import GENERIC, NO_NOUN, NOT, words_of
from training.signals.phrase import Phrase

MAX_WORDS = 6
_PRAISE = (
    r"(?:won (?:me|us|them|everybody|everyone) over with|gave (?:me|us|them)|stands? out for|stood out for|thanks to|"
    r"(?:came|comes|delivered|delivers|scores?|shines?|worked well) with|admired|praised|appreciated|"
    r"(?:loves?|loved|likes?|liked|enjoyed)(?: about (?:it|this)(?: is| are)?)?)"
)
_OBJECT = (
    r"(?P<what>(?:[\w'-]+ ){0,5}?[\w'-]+)(?P<second> and (?!praised|admired)(?:the |its )?(?:[\w'-]+ ){0,3}?[\w'-]+)?"
)
_END = (
    r"(?=$|,| (?:in|just|here|there|again|on|at|when|because|so|but|from|which|who|as|and (?:it|we|they|i|praised|"
    r"admired|would|will|am|is|the)) ?\b| came\b| made\b)"
)
_PRAISED = (
    ("", re.compile(rf"\b{_PRAISE} (?:the|its|their) {_OBJECT}{_END}")),
    ("what ", re.compile(rf"\bwhat (?:i|we) (?:really )?(?:loved?|liked?|enjoy) (?:most|best)?.*? "
                         rf"(?:is|are|was|were) (?:the |its )?{_OBJECT}{_END}")),
    ("", re.compile(rf"^(?:the|its) {_OBJECT}(?: (?:in|of|from) .{{1,60}}?)? "
                    r"(?:(?:stood|stands?) out|impress(?:ed|es)|delighted|"
                    r"(?:made|makes) .*\b(?:happy|favou?rite|smile|special|worth it))\b")),
    ("", re.compile(rf"^and (?:the )?{_OBJECT} (?:(?:stood|stands?) out|impress(?:ed|es))\b")),
    (" happy", re.compile(rf"(?:so|that) (?:the )?{_OBJECT} in .{{1,60}} made (?:me|us) happy$")),
)  # fmt: skip
"""Each behind what a sentence needs to have, which is sooner looked for."""
_MISSED = re.compile(
    rf"\b(?:missed|misses|lacks|lacked|is missing|had hoped for) (?P<article>the |its |an? )?{_OBJECT}{_END}"
)
_SOUGHT = re.compile(
    r"\b(?:i|we|user|he|she|they) (?:\w+ly |just |always |also )?(?:looks? for|(?:am|are|was|were|is) looking "
    r"for|enjoys?|prefers?|"
    rf"(?:had )?hoped? for|wants?|wanted|needs?|needed) (?P<article>the |an? |some |more )?{_OBJECT}{_END}"
)
_PERSONAL = re.compile(r"\b(?:i|me|my|mine|myself|we|us|our|ours|ourselves|im|ive|i'[a-z]+|we'[a-z]+)\b")
_NO_START = words_of(
    "it this that these those them they he she him her to be is was what when how one ones everything anything "
    "something "
    "all you your my me us i we any and or but if as for of in on at with by from not no so very same other "
    "idea way fact "
    "there here more most less his their couple lot bit"
)
_NO_END = words_of(
    "the a an and or but of in on at with by from to is are was were that this it its very so as for which than i you"
)
_OWNED = re.compile(r" (?:of|for|about|with|to) (?:the|this|that|these|those|my|our|it|me|us|them|him|her|their)\b")
_CLAUSE = words_of(
    "it they he she we you i itself themselves which who whom whose when where while because if through without "
    "despite besides plus than like except"
)
"""Begin a clause or a further part within an object: «the questions it raised» are the questions."""
_PARTICIPLES = words_of(
    "hidden made shown given seen known done built drawn found worn kept sold bought told left been"
)
"""With words in -ed, what an object does not end with: «the cats hidden in every picture» are the cats."""
_WHERE = re.compile(r" (?:in|on|at|from)(?: [\w'-]+){1,3}(?=$|,| and | but | so )")
"""Goes on behind «things that are ready», which says too little."""
_ITSELF = words_of("item items user product products")


def named(words: list[str]) -> Iterator[Phrase]:
    """Phrases of a sentence's words, commas among them."""
    sentence = " ".join(words).replace(" ,", ",")
    for match in _SOUGHT.finditer(sentence):
        if text := _object(match["what"] + (match["second"] or "")):
            goes_on = _WHERE.match(sentence, match.end()) if " that " in text else None
            text = f"{match['article'] or ''}{text}{goes_on[0] if goes_on else ''}"
            yield Phrase(Kind.WANT, text, 1, is_wish=True)
    misses = "miss" in sentence or "lack" in sentence or "hoped for" in sentence
    for match in _MISSED.finditer(sentence) if misses else ():
        for text in _objects(match):
            yield Phrase(Kind.FEATURE, text, -1)
            article = {"a ": "a ", "an ": "an "}.get(match["article"], "the ")
            yield Phrase(Kind.WANT, article + text, 1, is_wish=True)  # what somebody misses is what they look for
    for needed, pattern in _PRAISED:
        for match in pattern.finditer(sentence) if needed in sentence else ():
            before = sentence[: match.start()].split()[-3:]
            if not NOT & set(before):
                for text in _objects(match):
                    yield Phrase(Kind.FEATURE, text, 1)


def _objects(match: re.Match[str]) -> Iterator[str]:
    for part in (match["what"], match["second"] or ""):
        text = _object(re.sub(r"^ and (?:the |its )?", "", part))
        if text:
            yield text


def _is_participle(word: str) -> bool:
    return word in _PARTICIPLES or (len(word) > 4 and word.endswith("ed") and not word.endswith("eed"))


def _object(text: str) -> str:
    """A noun phrase that can stand alone, or nothing."""
    words = _OWNED.split(text)[0].split()
    words = words[: next((at for at, word in enumerate(words) if at and word in _CLAUSE), None)]
    while len(words) > 1 and _is_participle(words[-1]):
        words.pop()
    while words and words[0] in GENERIC and len(words) > 1:
        words.pop(0)
    while words and words[-1] in _NO_END:
        words.pop()
    if not words or len(words) > MAX_WORDS or words[0] in _NO_START or _PERSONAL.search(" ".join(words)):
        return ""
    if (words[0] in NO_NOUN and len(words) == 1) or _ITSELF & set(words):
        return ""
    return " ".join(words)
