"""The teacher that is a rule: finds the clauses that state a preference or an attribute and rewrites them.

No model and no knowledge of the item, so that the demo and the tests need neither download nor GPU. It is honest about
what it is (`teacher: extractive`): it writes down only what the review says, and where the review states neither a
preference nor an attribute the answer stays empty, which the parser counts as unparsed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from training.rationale.rewriting import first_to_third, item_predicate, praised_feature, user_predicate
from training.rationale.teacher import Answer, Question

RULE_VERSION = 2
MAX_WORDS = 20
"""Training targets are cut at 20 tokens, so longer clauses would be lost anyway."""
_FEATURE_STRENGTH = 1.0
"""A named feature beats what was done with the item, not a plain "I love"."""

_SENTENCE = re.compile(r"(?<=[.!?…])\s+|[.!?]{2,}|\s[-–—]+\s|[;\n]+|\s*[:;][-']?[)D(]+\s*")
# A comma or conjunction ends a clause only where a new subject or predicate begins; "soft, warm and light" stays whole.
_CLAUSE = re.compile(
    r",\s+(?:and|so|while|which)\s+(?=(?:this|these|my|our|the)\b)"
    r"|,?\s+(?:because|so that|though|which|while|and|so|since)\s+(?=(?:i|i'm|i've|we|it|it's|they|he|she)\b)"
    r"|,\s+(?=(?:i|i'm|i've|we|it|it's|they|this|these|he|she|my|our)\b)"
    r"|,\s+and\s+(?-i:(?=[A-Z]))"
    r"|,?\s+(?:but|because|although|yet)\s+"
    r"|,\s+(?=(?:very |so |really )?(?:easy|great|perfect|ideal) (?:to|for)\b)",
    re.IGNORECASE,
)
_CUT = re.compile(r",\s+|\s+(?=(?:and|or|when|if|because|so|as|with|which|that|to|for|in|at|on)\b)", re.IGNORECASE)


class ExtractiveTeacher:
    """See the module's docstring; stateless and instantaneous."""

    name = "extractive"
    settings: Mapping[str, object] = {"rule_version": RULE_VERSION}
    batch_size = 256
    concurrency = 1

    async def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """JSON with the two sentences; tokens are 0 because nothing was generated."""
        return [Answer(json.dumps(extract(q.review)), 0, 0) for q in questions]

    async def aclose(self) -> None:
        """Nothing to let go of."""


def extract(review: str) -> dict[str, str]:
    """The two sentences under the keys of ANSWER_SCHEMA; empty strings where the review states nothing of the kind.

    A preference that no clause states is read from the best attribute ("easy to use" -> "The user wants an item that
    is easy to use"), never the other way round: what somebody does with an item says nothing about the item.
    """
    preferences: list[tuple[float, str]] = []
    attributes: list[tuple[float, str]] = []
    features: list[str] = []
    for place, clause in enumerate(_clauses(review)):
        lateness = 0.05 * min(place, 20)  # reviewers lead with what matters to them
        if feature := praised_feature(clause):
            features.append(feature)
        elif (user := user_predicate(clause)) is not None:
            preferences.append((user[0] - lateness, _shorten(user[1])))
        elif (item := item_predicate(clause)) is not None:
            attributes.append((item[0] - lateness, _shorten(item[1])))
    preferences += [(_FEATURE_STRENGTH, f"The user likes the {feature}") for feature in features[:1]]
    preference = max(preferences, default=(0.0, ""))[1]
    attribute = _with_feature(max(attributes, default=(0.0, ""))[1], features)
    if attribute and not preference and not re.search(r"\b(?:not|never|no)\b|n't\b", attribute):
        subject, link = ("The item's", "whose") if attribute.startswith("The item's") else ("The item", "that")
        preference = f"The user wants an item {link} {attribute[len(subject) + 1 :]}"
    return {"user_preference": _finish(preference), "item_attributes": _finish(attribute)}


def _with_feature(attribute: str, features: list[str]) -> str:
    """The best statement about the item and the first feature that pleased, in one sentence while it stays short."""
    if not features:
        return attribute
    if not attribute or attribute.startswith("The item's"):
        return f"The item stands out for its {features[0]}"
    both = f"{attribute} and stands out for its {features[0]}"
    return both if len(both.split()) <= MAX_WORDS and features[0] not in attribute else attribute


def _clauses(review: str) -> Iterator[str]:
    for sentence in _SENTENCE.split(review.replace("’", "'")):
        for clause in _CLAUSE.split(sentence or ""):
            text = clause.strip(" \t.,!?…\"'()*~")
            if text:
                yield text.lower() if text.isupper() else text


def _shorten(sentence: str) -> str:
    """At most MAX_WORDS words, cut at the last comma or connective that leaves at least five."""
    words = sentence.split()
    if len(words) <= MAX_WORDS:
        return sentence
    head = " ".join(words[:MAX_WORDS])
    cuts = [m.start() for m in _CUT.finditer(head) if len(head[: m.start()].split()) >= 5]
    return head[: cuts[-1]] if cuts else head


def _finish(sentence: str) -> str:
    text = first_to_third(sentence).strip(" ,")
    return f"{text}." if text else ""
