"""Languages, as far as statements need them: which one a text is in, its function words, its stems.

Six languages are known by their function words; scripts without blanks need none. Whatever else there is, is read
without a stemmer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from rdrec_core.words import is_gram, words


@dataclass(frozen=True, eq=False)
class Language:
    """code: ISO 639-1. stemmer: as Snowball calls it. function: words without a claim; personal: of a first person.

    One of those below, in every process: they are told apart by what they are, not by their words.
    """

    code: str
    stemmer: str | None
    function: frozenset[str]
    personal: frozenset[str]
    negations: frozenset[str]

    def __reduce__(self) -> tuple[Callable[[str], Language], tuple[str]]:
        return _of_code, (self.code,)

    @cached_property
    def _snowball(self) -> Any:
        import snowballstemmer

        return snowballstemmer.stemmer(self.stemmer) if self.stemmer else None

    @cached_property
    def _folded_function(self) -> frozenset[str]:
        return frozenset(part for word in self.function for part in words(word))

    @lru_cache(maxsize=200_000)  # noqa: B019  languages live as long as the process
    def claim(self, word: str) -> str | None:
        """The stem of one of `rdrec_core.words.words`; None for a function word.

        Without blanks two characters are a stem; single ones and threes say nothing more.
        """
        if is_gram(word):
            return word if len(word) == 2 else None
        if word in self._folded_function or len(word) == 1:
            return None
        return str(self._snowball.stemWord(word)) if self._snowball is not None else word


def _language(code: str, stemmer: str | None, function: str, personal: str, negations: str) -> Language:
    own, no = frozenset(personal.split()), frozenset(negations.split())
    return Language(code, stemmer, frozenset(function.split()) | own | no, own, no)


ENGLISH = _language(
    "en", "english",
    "a an the and or but nor so as if than that this these those which who whom whose what when where while "
    "because for of "
    "to in on at by with from into onto about over under between after before during through out up off down "
    "again further "
    "once is are was were be been being am do does did doing have has had having will would can could should "
    "may might must "
    "shall very too also just only even more most much many some any all both each few other another such own "
    "same it its "
    "he him his she her they them their theirs you your themselves itself himself herself there here how why "
    "well then now "
    "ever always s t d ll re ve m one it's they're that's there's",
    "i me my mine myself we us our ours ourselves i'm i've i'd i'll we're we've we'd we'll", "not no never "
    "don't doesn't didn't isn't wasn't",
)  # fmt: skip
GERMAN = _language(
    "de", "german",
    "der die das den dem des ein eine einen einem einer eines und oder aber auch als wie wenn dass daß ist sind "
    "war waren wird "
    "werden wurde wurden hat haben hatte hatten zu zum zur im in an am auf aus bei beim mit nach von vom vor "
    "für über unter "
    "um durch es er sie man sich so sehr nur noch schon mal dann da hier dieser diese dieses diesen sein seine "
    "ihr ihre ganz "
    "etwas alles alle mehr viel kann können soll sollte doch denn weil bis ohne gegen man",
    "ich mich mir mein meine meinen meinem meiner wir uns unser unsere unseren", "nicht kein keine keinen nie",
)  # fmt: skip
FRENCH = _language(
    "fr", "french",
    "le la les l un une des du de d et ou mais est sont était étaient a ont avait être avoir ce cet cette ces c "
    "qui que qu "
    "quoi dont où il elle ils elles on se s son sa ses leur leurs y en à au aux avec pour par sur dans sans "
    "sous plus très "
    "tout tous toute toutes si comme aussi bien fait été donc car même peu trop",
    "je j me m mon ma mes moi nous notre nos", "ne n pas jamais aucun aucune rien",
)  # fmt: skip
SPANISH = _language(
    "es", "spanish",
    "el la los las un una unos unas de del y o pero que es son era eran ser está están ha han había se su sus "
    "lo le les al a "
    "en con por para sin sobre entre como más muy ya si también este esta estos estas ese esa eso esto todo "
    "toda todos todas "
    "cuando donde porque hay fue tan",
    "yo me mi mis mío mía nosotros nos nuestro nuestra", "no nunca ningún ninguna nada",
)  # fmt: skip
ITALIAN = _language(
    "it", "italian",
    "il lo la i gli le l un uno una di del della dei delle e o ma che è sono era erano essere ha hanno aveva si "
    "suo sua suoi "
    "sue al alla ai alle a da dal in nel nella con per su sul tra fra come più molto già se anche questo questa "
    "questi queste "
    "quello quella tutto tutta tutti tutte quando dove perché c ci ne così",
    "io mi mio mia miei mie noi nostro nostra", "non mai nessun nessuna niente",
)  # fmt: skip
PORTUGUESE = _language(
    "pt", "portuguese",
    "o a os as um uma uns umas de do da dos das e ou mas que é são era eram ser está estão tem têm tinha se seu "
    "sua seus suas "
    "ao à aos em no na nos nas com por para sem sobre entre como mais muito já também este esta isto esse essa "
    "isso todo toda "
    "todos todas quando onde porque há foi tão",
    "eu me meu minha meus minhas nós nosso nossa", "não nunca nenhum nenhuma nada",
)  # fmt: skip
BLANKLESS = Language("ja", None, frozenset(), frozenset(["私", "僕", "俺", "我"]), frozenset(["ない", "不"]))
"""Japanese, Chinese, Thai and the like: characters instead of words."""
OTHER = Language("und", None, frozenset(), frozenset(), frozenset())
_KNOWN = (ENGLISH, GERMAN, FRENCH, SPANISH, ITALIAN, PORTUGUESE)
BY_CODE = {language.code: language for language in (*_KNOWN, BLANKLESS)}
_WORD = re.compile(r"[^\W\d_]+")


def _of_code(code: str) -> Language:
    return BY_CODE.get(code, OTHER)


def language_of(texts: Iterable[str]) -> Language:
    """The language that most of the words of a sample speak for; OTHER where hardly any function word is known."""
    counts = dict.fromkeys(_KNOWN, 0)
    total = grams = 0
    for text in texts:
        for word in _WORD.findall(text.lower()):
            total += 1
            grams += is_gram(word)
            for language in _KNOWN:
                counts[language] += word in language.function
    best = max(_KNOWN, key=lambda language: counts[language])
    if 2 * grams > total:
        return BLANKLESS
    return best if total and counts[best] > 0.15 * total else OTHER
