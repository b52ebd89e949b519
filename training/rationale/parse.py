"""Two sentences out of what language models really write; or nothing.

Pure: text in, Rationale or None out. None means that the caller asks again or drops the review; the review's own text
is never put in place of a rationale. Thinking is taken off first; then JSON beats everything, and tags, a table,
labelled lines, a list of two and prose are tried in this order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rdrec_core.words import BLANKLESS
from training.rationale.final_words import final_words, without_musing
from training.rationale.json_forms import json_pairs
from training.rationale.languages import ENGLISH, Language, word_count
from training.rationale.prose_forms import from_labels, from_list, from_prose, from_table, from_tags
from training.rationale.refusing import declines, says_nothing

MIN_WORDS = 3
MAX_WORDS = 60
"""A "sentence" outside these bounds is a fragment or a lecture, not what was asked for."""
_STOPS = ".!?。！？"


@dataclass(frozen=True)
class Rationale:
    """Two sentences, white space collapsed, each ending in punctuation."""

    user_preference: str
    item_attributes: str


def parse(text: str, *, truncated: bool = False, language: Language = ENGLISH) -> Rationale | None:
    """The rationale in an answer, or None when there are not two sound sentences in it.

    truncated: the answer ran into its token limit, so a last sentence without a full stop is cut and does not count.
    language: the one that was asked for; English is understood besides. Prose in any other is not.
    """
    said = final_words(text)
    answer = without_musing(said)
    found = _read(answer, truncated, language)
    if found is None and answer != said:  # a thought without marks, whose JSON may be the answer
        found = _from_json(said, truncated)
    return found


def _read(said: str, truncated: bool, language: Language) -> Rationale | None:
    if json_pairs(said, truncated=truncated):
        return _from_json(said, truncated)
    prose = said.rstrip()
    if truncated and not re.search(rf"[{_STOPS}][\"'”)」』]*$", prose):
        prose = prose[: max((m.end() for m in re.finditer(rf"[.!?](?=\s)|[{_STOPS[3:]}]", prose)), default=0)]
    if not prose:
        return None
    found = (
        from_tags(prose)
        or from_table(prose, language)
        or from_labels(prose, language)
        or from_list(prose, language)
        or from_prose(prose, language)
    )
    return None if found is None else _sound(*found)


def _from_json(said: str, truncated: bool) -> Rationale | None:
    """The last sound one: a model that drafts ends with what it means."""
    pairs = json_pairs(said, truncated=truncated)
    return next((sound for pair in reversed(pairs) if (sound := _sound(*pair))), None)


def _sound(user: str, item: str) -> Rationale | None:
    """The last gate, whatever the form: neither half a refusal, empty, too long or a copy of the other."""
    sentences = []
    for half in (user, item):
        sentence = re.sub(r"\s+", " ", half.replace("’", "'")).strip(" `*-,;“”„«»")
        if sentence.startswith(('"', "'")) or sentence.endswith("'"):
            sentence = sentence.strip("\"' ")
        if not MIN_WORDS <= word_count(sentence) <= MAX_WORDS or declines(sentence) or says_nothing(sentence):
            return None
        if sentence.count('"') % 2:  # half of a quotation stayed in the other sentence, or was taken off above
            sentence = sentence.replace('"', "")
        if not re.search(f"[{BLANKLESS}]", sentence):
            sentence = sentence.replace("。", ". ").replace("！", "! ").replace("？", "? ").strip()
        sentence = sentence[0].upper() + sentence[1:]
        sentences.append(sentence if re.search(rf"[{_STOPS}]\"?$", sentence) else f"{sentence}.")
    if sentences[0] == sentences[1]:
        return None
    return Rationale(*sentences)
