"""English reviews into short phrases: «clear tone», «easy to use», «works well», and what a reviewer looks for.

Adjectives and nouns are learned from the reviews themselves, by the places that only they take («very _», «the _ is»);
the rest is rules over words, without a parser. A phrase has neither a first person nor an article. Rules miss much of
what is said: that is the price of saying nothing that was not. Knows neither items nor counts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rdrec_core.statements import Kind
from training.data.explanations import feature_words
from training.signals.languages import ENGLISH

MAX_WORDS = 6
_SENTENCE = re.compile(r"[.!?;:\n()\"…*]+(?=\s|$)|\s[-–—]+\s|[;:\n()\"…*]")
_TOKEN = re.compile(r"[^\W_]+(?:['-][^\W_]+)*|,")


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ARTICLE = _set("a an the this these those that its their my our your his her some such")
_BE = _set("is are was were be 's it's isn't aren't wasn't weren't they're")
_DEGREE = _set(
    "very really so quite pretty extremely super too rather absolutely incredibly fairly totally truly "
    "surprisingly just "
    "also always still all exactly a bit little more most as amazingly remarkably exceptionally overall perfectly"
)
_NOT = _set(
    "not no never isn't wasn't aren't weren't don't doesn't didn't won't can't couldn't wouldn't cannot without hardly "
    "barely nothing nor neither lacks lack lacked"
)
_MAYBE = _set("if would could should might may wish hope expected unless until")
"""What stands behind them was not found in the item."""
_IT = _set("it this they these those that")
_SENSES = {
    form: base
    for base, forms in {
        "looks": "look looks looked", "sounds": "sound sounds sounded", "feels": "feel feels felt",
        "works": "work works worked", "fits": "fit fits fitted", "holds up": "holds hold held",
        "plays": "play plays played", "stays in tune": "", "tastes": "taste tastes tasted", "smells": "smell smells",
        "performs": "perform performs performed", "functions": "functions functioned", "runs": "runs ran",
    }.items()
    for form in forms.split()
}  # fmt: skip
_WELL = _set(
    "well great good fine perfectly nicely nice perfect beautifully excellent amazing fantastic awesome flawlessly"
)
_BADLY = _set("poorly badly terrible awful horrible bad")
_GOOD = _set(
    "great good nice excellent awesome perfect fantastic amazing wonderful best fine superb outstanding terrific super "
    "incredible favorite favourite decent ideal happy pleased impressive"
)
_BAD = _set("bad poor terrible awful horrible worst worse cheesy flimsy useless broken defective disappointing weak")
GENERIC = _GOOD | _set("bad poor terrible awful horrible worst worse real overall true whole actual pretty")
"""Adjectives that praise or blame and say nothing else; they are no part of what a statement is about."""
_NO_ADJECTIVE = _set(
    "able sure worth going like here there out up down on off it one mine in available done all good for much "
    "many more "
    "less same other own new old made only due used well what where how why way that not my your still now then back "
    "glad sorry aware ready gone over about right left easy. first last next able wrong different similar "
    "certain happy "
    "pleased satisfied disappointed surprised impressed amazed skeptical honest free getting looking using "
    "being having "
    "better love care careful complain want wanted often needed helped shines embarrassed excited far picky "
    "familiar subjective "
    "important close almost love"
)
_NO_NOUN = _set(
    "thing things one ones way lot lots bit time times day days item items product products something anything "
    "everything "
    "nothing stuff job deal reason review reviews star stars point part purchase amazon problem problems issue issues "
    "choice idea option guy guys people person month months year years week weeks hour hours minute minutes money "
    "looking sounding playing feeling etc couple little enough brand company seller work experience kind sort "
    "type end side case fact use music player players world market order"
)
_PLAIN = _set(
    "easy sturdy durable soft simple handy useful solid comfortable reliable accurate smooth clean clear warm "
    "bright loud "
    "quiet strong thick thin light lightweight compact portable small large big heavy affordable inexpensive expensive "
    "adjustable versatile quick fast tasty delicious fresh colorful colourful clever tricky smart calm relaxed silly "
    "beautiful natural wooden handy convenient generous thoughtful flexible rugged stable sensitive responsive "
    "rich crisp "
    "full deep tight stiff noisy uncomfortable difficult hard slow fair funny safe classy unique cute short curious"
)
"""Known without being learned, so that a small shop has some."""
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
    re.compile(rf"\b{_PRAISE} (?:the|its|their) {_OBJECT}{_END}"),
    re.compile(rf"\bwhat (?:i|we) (?:really )?(?:loved?|liked?|enjoy) (?:most|best)?.*? "
               rf"(?:is|are|was|were) (?:the |its )?{_OBJECT}{_END}"),
    re.compile(rf"^(?:the|its) {_OBJECT}(?: (?:in|of|from) .{{1,60}}?)? "
               r"(?:(?:stood|stands?) out|impress(?:ed|es)|delighted|"
               r"(?:made|makes) .*\b(?:happy|favou?rite|smile|special|worth it))\b"),
    re.compile(rf"^and (?:the )?{_OBJECT} (?:(?:stood|stands?) out|impress(?:ed|es))\b"),
    re.compile(rf"(?:so|that) (?:the )?{_OBJECT} in .{{1,60}} made (?:me|us) happy$"),
)  # fmt: skip
_MISSED = re.compile(rf"\b(?:missed|misses|lacks|lacked|is missing|had hoped for) (?:the |its |a |an )?{_OBJECT}{_END}")
_SOUGHT = re.compile(
    r"\b(?:i|we|user|he|she|they) (?:\w+ly |just |always |also )?(?:looks? for|(?:am|are|was|were|is) looking "
    r"for|enjoys?|prefers?|"
    rf"(?:had )?hoped? for|wants?|wanted|needs?|needed) (?:the |an? |some |more )?{_OBJECT}{_END}"
)
_PERSONAL = re.compile(r"\b(?:i|me|my|mine|myself|we|us|our|ours|ourselves|im|ive|i'[a-z]+|we'[a-z]+)\b")
_NO_START = _set(
    "it this that these those them they he she him her to be is was what when how one ones everything anything "
    "something "
    "all you your my me us i we any and or but if as for of in on at with by from not no so very same other "
    "idea way fact "
    "there here more most less his their couple lot bit"
)
_NO_END = _set(
    "the a an and or but of in on at with by from to is are was were that this it its very so as for which than i you"
)


@dataclass(frozen=True, slots=True)
class Phrase:
    """What a review says in a few words. polarity: of the words alone, 1, 0 or -1; is_wish: about the reviewer "
    "alone."""

    kind: Kind
    text: str
    polarity: int
    is_wish: bool = False


@dataclass(frozen=True)
class Lexicon:
    """Adjectives and nouns of these reviews."""

    adjectives: frozenset[str]
    nouns: frozenset[str]

    @classmethod
    def learn(cls, texts: Iterable[str], *, min_count: int = 3, max_nouns: int = 3000) -> Lexicon:
        """From English texts. A word that stands at least as often where a noun does is no adjective."""
        kept = list(texts)
        degrees: Counter[str] = Counter()
        named: Counter[str] = Counter()
        praised: Counter[str] = Counter()
        for text in kept:
            for clause in clauses(text):
                for before, word, after in zip(clause, clause[1:], [*clause[2:], ","], strict=False):
                    if before in _MUCH:
                        degrees[word] += after in _AFTER_ADJECTIVE
                    elif before in _ARTICLE:
                        named[word] += after in _AFTER_NOUN
                    elif before in _GOOD and word.isalpha() and not word.endswith(("ing", "ly")):
                        praised[word] += after in _AFTER_NOUN
        often = {word for word, count in praised.items() if count >= min_count and count > degrees[word]}
        nouns = (frozenset(feature_words(kept, max_nouns)) | often) - _NO_NOUN - ENGLISH.function - _PLAIN - _GOOD
        adjectives = {
            word
            for word, count in degrees.items()
            if count >= min_count
            and count > named[word]
            and len(word) > 2
            and word.isalpha()
            and not word.endswith(("ing", "ly"))
        }
        not_adjectives = _NO_ADJECTIVE | ENGLISH.function | _SENSES.keys() | _DEGREE | _NOT | _BE
        return cls(frozenset((adjectives | _GOOD | _BAD | _PLAIN) - not_adjectives), nouns)


_MUCH = _set("very so too extremely quite pretty really incredibly super surprisingly rather")
_AFTER_NOUN = _set(", is was are were of and in on to for with that at has it")
_AFTER_MANNER = _set(", and but for on in as so too when if at or because while")
_AFTER_ADJECTIVE = _set(", and but for to enough in when as with or because than")


def clauses(text: str) -> Iterator[list[str]]:
    """The lower-case words of each sentence, commas kept as words of their own."""
    for sentence in _SENTENCE.split(text.replace("’", "'")):
        words = _TOKEN.findall(sentence.lower())
        if words:
            yield words


class PhraseFinder:
    """See the module."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._adjectives, self._nouns = lexicon.adjectives, lexicon.nouns

    def phrases(self, text: str) -> list[Phrase]:
        """Each once, in the order of the text."""
        found: dict[tuple[Kind, str], Phrase] = {}
        for words in clauses(text):
            for phrase in (*self._named(words), *self._scan(words)):
                found.setdefault((phrase.kind, phrase.text), phrase)
        texts = [f" {phrase.text} " for phrase in found.values()]
        return [
            p
            for p in found.values()
            if not any(f" {p.text} " in text and len(text) > len(p.text) + 2 for text in texts)
        ]

    def _named(self, words: list[str]) -> Iterator[Phrase]:
        """What a sentence names as what pleased, was missed or is sought."""
        sentence = " ".join(words).replace(" ,", ",")
        for match in _SOUGHT.finditer(sentence):
            if text := _object(match["what"] + (match["second"] or "")):
                yield Phrase(Kind.WANT, text, 1, is_wish=True)
        for match in _MISSED.finditer(sentence):
            for text in _objects(match):
                yield Phrase(Kind.FEATURE, text, -1)
        for pattern in _PRAISED:
            for match in pattern.finditer(sentence):
                before = sentence[: match.start()].split()[-3:]
                if not _NOT & set(before):
                    for text in _objects(match):
                        yield Phrase(Kind.FEATURE, text, 1)

    def _scan(self, words: list[str]) -> Iterator[Phrase]:
        n = len(words)
        for at, word in enumerate(words):
            before = words[max(0, at - 4) : at]
            if word in self._adjectives:
                end = at + 1
                while end < n and end < at + 3 and words[end] in self._nouns and words[end] not in self._adjectives:
                    end += 1
                doubt = bool(_MAYBE & set(before))
                negated = bool(_NOT & set(before[-3:]))
                if end > at + 1:  # «clear tone»
                    if not doubt and not (end < n and words[end] in self._nouns):
                        yield self._phrase(Kind.FEATURE, words[at:end], negated, before)
                elif not doubt and (subject := self._subject(words, at)) is not None:
                    yield from self._predicate(words, at, subject, negated, before)
            elif word in _SENSES and at + 1 < n:  # «works well»
                step = at + 1
                while step < n - 1 and words[step] in _DEGREE:
                    step += 1
                manner = words[step]
                stands = step + 1 == n or words[step + 1] in _AFTER_MANNER
                if (
                    stands
                    and (manner in _WELL or manner in _BADLY)
                    and not _MAYBE & set(before)
                    and not {"you", "i", "we"} & set(before[-1:])
                ):
                    negated = bool(_NOT & set(before[-3:]))
                    good = 1 if manner in _WELL else -1
                    text = f"{_SENSES[word]} {manner}"
                    if negated:
                        text, good = (
                            f"does not {_SENSES[word].removesuffix('s').replace('s up', ' up')} {manner}",
                            -good,
                        )
                    yield Phrase(Kind.DOES, text, good)

    def _subject(self, words: list[str], at: int) -> list[str] | None:
        """What a predicate is said of: [] for the item itself, a part's words, None where it is something else."""
        step = at - 1
        while step >= 0 and (
            words[step] in _DEGREE or words[step] in self._adjectives or words[step] in ("and", ",", "not")
        ):
            step -= 1
        if step < 0:
            return []  # a fragment: «Very easy to use»
        if words[step] in ("it's", "they're"):
            return []
        if words[step] not in _BE and words[step] not in _SENSES:
            return None
        if step == 0:
            return []
        owner = words[step - 1]
        if owner in _IT or owner in _NO_NOUN:
            return []
        if owner in self._nouns:
            start = step - 1
            while start > 0 and words[start - 1] in self._nouns:
                start -= 1
            if start == 0 or words[start - 1] in _ARTICLE:
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
        elif (not rest or rest[0] in _AFTER_ADJECTIVE) and word not in GENERIC:
            yield self._phrase(Kind.QUALITY, [word], negated, before)

    def _phrase(self, kind: Kind, words: list[str], negated: bool, before: list[str]) -> Phrase:
        polarity = 1 if words[0] in _GOOD else -1 if words[0] in _BAD else 0
        if kind is Kind.FEATURE:
            while len(words) > 1 and words[0] in GENERIC and polarity >= 0:
                words = words[1:]  # «great tone»: the tone is praised
        if before[-1:] == ["too"] and not negated:
            return Phrase(kind, " ".join(["too", *words] if kind is Kind.QUALITY else words), -1)
        if negated:
            polarity = -polarity or -1
            words = ["not", *words] if kind is Kind.QUALITY else words
        return Phrase(kind, " ".join(words), polarity)


_OWNED = re.compile(r" (?:of|for|about|with|to) (?:the|this|that|these|those|my|our|it|me|us|them|him|her|their)\b")
_ITSELF = _set("item items user product products")


def _objects(match: re.Match[str]) -> Iterator[str]:
    for part in (match["what"], match["second"] or ""):
        text = _object(re.sub(r"^ and (?:the |its )?", "", part))
        if text:
            yield text


def _object(text: str) -> str:
    """A noun phrase that can stand alone, or nothing."""
    words = _OWNED.split(text)[0].split()
    while words and words[0] in GENERIC and len(words) > 1:
        words.pop(0)
    while words and words[-1] in _NO_END:
        words.pop()
    if not words or len(words) > MAX_WORDS or words[0] in _NO_START or _PERSONAL.search(" ".join(words)):
        return ""
    if (words[0] in _NO_NOUN and len(words) == 1) or _ITSELF & set(words):
        return ""
    return " ".join(words)
