"""Whether a text can be shown: begun, ended, of a fit length, not going round in circles. Of any language."""

from __future__ import annotations

import re
from itertools import pairwise

from rdrec_core.words import is_gram, words

MAX_TEXT_WORDS = 60
_WHOLE = re.compile(r"^[\"'“«„‚(\[¿¡#]*[^\W_].*[.!?。！？…][\"'»”)\]]*$", re.DOTALL)
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])")
_LOOP = re.compile(r"([^\s\d.]{2,12})\1\1")


def is_whole(text: str) -> bool:
    """Whether a text begins as a sentence does and ends as one, is of a fit length, and does not go round in circles as
    a weak model does."""
    spoken = words(text)
    length = sum(not is_gram(word) for word in spoken) + sum(is_gram(word) and len(word) == 1 for word in spoken) // 2
    if not _WHOLE.match(text.strip()) or not 3 <= length <= MAX_TEXT_WORDS:
        return False
    return not any(_repeats(sentence) for sentence in _SENTENCE_END.split(text))


def _repeats(sentence: str) -> bool:
    """A word twice in a row, three words that come again, or (without blanks) a run of characters thrice in a row."""
    spoken = [word for word in words(sentence) if not is_gram(word)]
    threes = list(zip(spoken, spoken[1:], spoken[2:], strict=False))
    return (
        any(first == second for first, second in pairwise(spoken))
        or len(set(threes)) < len(threes)
        or _LOOP.search(sentence) is not None
    )
