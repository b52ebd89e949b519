"""The words of English reviews: how something is meant, and adjectives and nouns learned from the reviews themselves.

Adjectives and nouns are told by the places that only they take («very _», «the _ is»), without a tagger. Knows words
and clauses; what is made of them is `phrases.py`'s and `objects.py`'s.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from training.data.explanations import feature_words
from training.signals.languages import ENGLISH

_SENTENCE = re.compile(r"[.!?;:\n()\"…*]+(?=\s|$)|\s[-–—]+\s|[;:\n()\"…*]")
_TOKEN = re.compile(r"[^\W_]+(?:['-][^\W_]+)*|,")


def words_of(text: str) -> frozenset[str]:
    """Blank-separated words as a set."""
    return frozenset(text.split())


ARTICLE = words_of("a an the this these those that its their my our your his her some such")
BE = words_of("is are was were be 's it's isn't aren't wasn't weren't they're")
DEGREE = words_of(
    "very really so quite pretty extremely super too rather absolutely incredibly fairly totally truly "
    "surprisingly just "
    "also always still all exactly a bit little more most as amazingly remarkably exceptionally overall perfectly"
)
NOT = words_of(
    "not no never isn't wasn't aren't weren't don't doesn't didn't won't can't couldn't wouldn't cannot without hardly "
    "barely nothing nor neither lacks lack lacked"
)
MAYBE = words_of("if would could should might may wish hope expected unless until")
"""What stands behind them was not found in the item."""
IT = words_of("it this they these those that")
SENSES = {
    form: base
    for base, forms in {
        "looks": "look looks looked", "sounds": "sound sounds sounded", "feels": "feel feels felt",
        "works": "work works worked", "fits": "fit fits fitted", "holds up": "holds hold held",
        "plays": "play plays played", "stays in tune": "", "tastes": "taste tastes tasted", "smells": "smell smells",
        "performs": "perform performs performed", "functions": "functions functioned", "runs": "runs ran",
    }.items()
    for form in forms.split()
}  # fmt: skip
WELL = words_of(
    "well great good fine perfectly nicely nice perfect beautifully excellent amazing fantastic awesome flawlessly"
)
BADLY = words_of("poorly badly terrible awful horrible bad")
GOOD = words_of(
    "great good nice excellent awesome perfect fantastic amazing wonderful best fine superb outstanding terrific super "
    "incredible favorite favourite decent ideal happy pleased impressive"
)
BAD = words_of("bad poor terrible awful horrible worst worse cheesy flimsy useless broken defective disappointing weak")
GENERIC = GOOD | words_of("bad poor terrible awful horrible worst worse real overall true whole actual pretty")
"""Adjectives that praise or blame and say nothing else; they are no part of what a statement is about."""
_NO_ADJECTIVE = words_of(
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
NO_NOUN = words_of(
    "thing things one ones way lot lots bit time times day days item items product products something anything "
    "everything "
    "nothing stuff job deal reason review reviews star stars point part purchase amazon problem problems issue issues "
    "choice idea option guy guys people person month months year years week weeks hour hours minute minutes money "
    "looking sounding playing feeling etc couple little enough brand company seller work experience kind sort "
    "type end side case fact use music player players world market order "
    "made buy buys do does"
)
_PLAIN = words_of(
    "easy sturdy durable soft simple handy useful solid comfortable reliable accurate smooth clean clear warm "
    "bright loud "
    "quiet strong thick thin light lightweight compact portable small large big heavy affordable inexpensive expensive "
    "adjustable versatile quick fast tasty delicious fresh colorful colourful clever tricky smart calm relaxed silly "
    "beautiful natural wooden handy convenient generous thoughtful flexible rugged stable sensitive responsive "
    "rich crisp "
    "full deep tight stiff noisy uncomfortable difficult hard slow fair funny safe classy unique cute short curious"
)
_MUCH = words_of("very so too extremely quite pretty really incredibly super surprisingly rather")
_AFTER_NOUN = words_of(", is was are were of and in on to for with that at has it")
AFTER_MANNER = words_of(", and but for on in as so too when if at or because while")
AFTER_ADJECTIVE = words_of(", and but for to enough in when as with or because than")


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
                        degrees[word] += after in AFTER_ADJECTIVE
                    elif before in ARTICLE:
                        named[word] += after in _AFTER_NOUN
                    elif before in GOOD and word.isalpha() and not word.endswith(("ing", "ly")):
                        praised[word] += after in _AFTER_NOUN
        often = {word for word, count in praised.items() if count >= min_count and count > degrees[word]}
        nouns = (frozenset(feature_words(kept, max_nouns)) | often) - NO_NOUN - ENGLISH.function - _PLAIN - GOOD
        adjectives = {
            word
            for word, count in degrees.items()
            if count >= min_count
            and count > named[word]
            and len(word) > 2
            and word.isalpha()
            and not word.endswith(("ing", "ly"))
        }
        not_adjectives = _NO_ADJECTIVE | ENGLISH.function | SENSES.keys() | DEGREE | NOT | BE
        return cls(frozenset((adjectives | GOOD | BAD | _PLAIN) - not_adjectives), nouns)


def clauses(text: str) -> Iterator[list[str]]:
    """The lower-case words of each sentence, commas kept as words of their own."""
    for sentence in _SENTENCE.split(text.replace("’", "'")):
        words = _TOKEN.findall(sentence.lower())
        if words:
            yield words
