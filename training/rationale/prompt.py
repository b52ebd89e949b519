"""The words that a teacher is asked with: the paper's question, a system instruction, and a stricter second asking.

Pure text, in English, which every teacher understands best; for reviews in another language it asks for sentences in
that one. Whoever changes a word here must change PROMPT_VERSION: it is part of the journal's key, so a new version asks
anew and leaves the old answers where they are. (The words themselves are in the key too.)
"""

from __future__ import annotations

from training.rationale.languages import ENGLISH, Language
from training.rationale.teacher import Question

PROMPT_VERSION = "paper-1"

SYSTEM = (
    "You explain purchases from reviews. Answer with exactly two short sentences in English. "
    'The first begins with "The user" and states what the user prefers or needs. '
    'The second begins with "The item" and states the attributes of the item. '
    "Use only what the review says; add nothing else. "
    "If you are asked for JSON, put the first sentence in user_preference and the second in item_attributes."
)
STRICT_SYSTEM = (
    "Write exactly two lines and nothing before, between or after them.\n"
    "Line 1: The user <what the review says that the user prefers or needs>.\n"
    "Line 2: The item <what the review says about the item>.\n"
    "No list, no heading, no quotation marks, no comment. "
    "If you are asked for JSON, put line 1 in user_preference and line 2 in item_attributes."
)
# Section 3.1 of the paper, word for word.
TEMPLATE = (
    'A user bought an item and said "{review}". '
    "Use two sentences to explain the user's preference and the item's attributes, respectively."
)
FOREIGN_SYSTEM = (
    "You explain purchases from reviews. Answer with exactly two short sentences in {language}. "
    "The first is about the user and states what the user prefers or needs. "
    "The second is about the item and states the attributes of the item. "
    "Use only what the review says; add nothing else. "
    "If you are asked for JSON, put the first sentence in user_preference and the second in item_attributes; "
    "only these two keys stay in English."
)
FOREIGN_STRICT_SYSTEM = (
    "Write exactly two lines in {language} and nothing before, between or after them.\n"
    "Line 1: one sentence about what the review says that the user prefers or needs.\n"
    "Line 2: one sentence about what the review says about the item.\n"
    "No list, no heading, no quotation marks, no comment, no other language. "
    "If you are asked for JSON, put line 1 in user_preference and line 2 in item_attributes."
)
FOREIGN_TEMPLATE = TEMPLATE + " Write both sentences in {language}."
ANSWER_SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {"user_preference": {"type": "string"}, "item_attributes": {"type": "string"}},
    "required": ["user_preference", "item_attributes"],
    "additionalProperties": False,
}

MAX_REVIEW_CHARS = 4000
"""A longer review is cut at a word: it must fit beside the instruction into a 2,048-token context."""


def normalise(review: str) -> str:
    """White space collapsed and over-long text cut; reviews that are equal after this are asked once."""
    text = " ".join(review.split())
    if len(text) <= MAX_REVIEW_CHARS:
        return text
    return text[:MAX_REVIEW_CHARS].rsplit(" ", 1)[0]


def question(review: str, *, strict: bool = False, language: Language = ENGLISH) -> Question:
    """The question about one review, for sentences in this language."""
    text = normalise(review)
    if language is not ENGLISH:
        system = FOREIGN_STRICT_SYSTEM if strict else FOREIGN_SYSTEM
        return Question(
            review=text,
            system=system.format(language=language.name),
            prompt=FOREIGN_TEMPLATE.format(review=text, language=language.name),
            strict=strict,
            language=language,
        )
    return Question(
        review=text,
        system=STRICT_SYSTEM if strict else SYSTEM,
        prompt=TEMPLATE.format(review=text),
        strict=strict,
    )
