"""The rule's rewriting, review by review, and what it must never do."""

# ruff: noqa: E501 - reviews stand on one line, as a table

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.rationale.extractive import MAX_WORDS, ExtractiveTeacher, extract
from training.rationale.grounding import grounding
from training.rationale.parse import parse
from training.rationale.prompt import question
from training.rationale.rewriting import first_to_third

CASES = [
    (
        "I love strategy games with my friends. The game is easy to learn and it looks great.",
        "The user loves strategy games with their friends.",
        "The item is easy to learn.",
    ),
    ("My kids enjoy this. It is sturdy.", "The user's kids enjoy the item.", "The item is sturdy."),
    ("I'm looking for small gifts. Great value!", "The user is looking for small gifts.", "The item offers great value."),
    ("I've used these for years and they are handy.", "The user has used these for years.", "The item is handy."),
    (
        "I have been using this for a long time. Very sturdy box.",
        "The user has been using this for a long time.",
        "The item is a very sturdy box.",
    ),
    ("Love the cute tin. It's free too.", "The user loves the cute tin.", "The item is free too."),
    # A preference that nobody states is read from the attribute.
    ("Easy to use.", "The user wants an item that is easy to use.", "The item is easy to use."),
    ("The food was really good.", "The user wants an item whose food was really good.", "The item's food was really good."),
    ("Always a perfect gift!", "The user wants an item that is a perfect gift.", "The item is a perfect gift."),
    # ... but not from a complaint.
    ("It does not work at all.", "", "The item does not work at all."),
    ("Copper Mine won me over with the tricky choices.", "The user likes the tricky choices.",
     "The item stands out for its tricky choices."),
    (
        "I look for teamwork, and Mumble Jumble delivered with the feeling of winning together.",
        "The user looks for teamwork.",
        "The item stands out for its feeling of winning together.",
    ),
    ("As a card game about foxes, it came with the short rules.", "The user likes the short rules.",
     "The item is a card game about foxes and stands out for its short rules."),
    ("THIS IS A GREAT GIFT FOR KIDS", "The user wants an item that is a great gift for kids.", "The item is a great gift for kids."),
    # What is said of people is not said of the item.
    ("The receiver was very pleased.", "", ""),
    ("Thanks!", "", ""),
    ("", "", ""),
]  # fmt: skip


@pytest.mark.parametrize(("review", "preference", "attributes"), CASES)
def test_extract(review: str, preference: str, attributes: str) -> None:
    assert extract(review) == {"user_preference": preference, "item_attributes": attributes}


def test_first_to_third_leaves_names_alone() -> None:
    assert (
        first_to_third("I took my Copper Mine to the US with us") == "they took their Copper Mine to the US with them"
    )


@pytest.mark.parametrize(("review", "preference", "attributes"), [case for case in CASES if all(case)])
async def test_the_teachers_answer_parses_and_is_grounded(review: str, preference: str, attributes: str) -> None:
    answer = (await ExtractiveTeacher().ask([question(review)]))[0]
    rationale = parse(answer.text)
    assert rationale is not None
    assert (rationale.user_preference, rationale.item_attributes) == (preference, attributes)
    assert grounding(f"{preference} {attributes}", review) >= 0.6


VOCABULARY = (
    "I we my our it the this kids love is was great easy to use and but , . ! game gift has looks because 'm n't "
    "really good for with made stood out thanks A MINE"
)
WORDS = st.sampled_from(VOCABULARY.split())


@given(st.lists(WORDS, max_size=60).map(" ".join) | st.text(max_size=200))
def test_whatever_the_review(review: str) -> None:
    halves = extract(review)
    json.dumps(halves)
    for half, subject in ((halves["user_preference"], "The user"), (halves["item_attributes"], "The item")):
        if half:
            assert half.startswith(subject)
            assert half.endswith(".")
            assert len(half.split()) <= MAX_WORDS + 6
            assert not re.search(r"\b(?:I|we|my|our)\b", half)
