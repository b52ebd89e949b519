"""Grounding scores worked out by hand, and the verdicts that follow from them."""

from __future__ import annotations

import pytest

from training.rationale.grounding import content_stems, grounding
from training.rationale.judging import Thresholds, judge
from training.rationale.languages import word_count
from training.rationale.parse import Rationale

REVIEW = "My daughter loved these dolls; the hair is so soft."


@pytest.mark.parametrize(
    ("rationale", "score"),
    [
        # doll, daughter, soft, hair: all in the review, stemmed
        ("The user wants a doll for their daughter. The item has soft hair.", 1.0),
        # daughter | washable, battery-powered (two words), robust: 1 of 5
        ("The user has a daughter. The item is washable, battery-powered and robust.", 0.2),
        # barbie (title), doll | castle: 2 of 3
        ("The user likes Barbie dolls. The item is a castle.", 2 / 3),
        # nothing but the frame: no claim to bear out
        ("The user likes the product. The item is an item.", 0.0),
        ("", 0.0),
    ],
)
def test_score(rationale: str, score: float) -> None:
    assert grounding(rationale, REVIEW, "Barbie Dreamtopia") == pytest.approx(score)


def test_the_prompts_own_words_are_no_claims() -> None:
    assert content_stems("The user's preference is explained by the review; the item's attributes are stated.") == []
    assert content_stems("Soft, softly, softness: Dolls' doll") == ["soft", "soft", "soft", "doll", "doll"]


def test_word_count() -> None:
    assert word_count("Great!") == 1
    assert word_count("Don't like it -- at all...") == 5
    assert word_count("¡Qué buen regalo!") == 3
    assert word_count("这个玩具很好。孩子很喜欢") == 6, "every two characters where no blank parts words"


GOOD = Rationale("The user wants a doll for their daughter.", "The item has soft hair.")
INVENTED = Rationale("The user has a daughter.", "The item is washable, battery-powered and robust.")


@pytest.mark.parametrize(
    ("rationale", "review", "keep", "verdict", "reason", "use"),
    [
        (GOOD, REVIEW, False, "ok", "", True),
        (INVENTED, REVIEW, False, "ungrounded", "not borne out", False),
        (INVENTED, REVIEW, True, "ungrounded", "not borne out", True),
        (None, REVIEW, True, "unparsed", "no two sentences", False),
        (None, "Nice.", False, "ungrounded", "review too short", False),
        (None, "Nice.", True, "unparsed", "no two sentences", False),
        (GOOD, "Soft hair!", True, "ungrounded", "review too short", True),
    ],
)
def test_verdicts(rationale: Rationale | None, review: str, keep: bool, verdict: str, reason: str, use: bool) -> None:
    judgement = judge(rationale, review, None, Thresholds(keep_ungrounded=keep))
    assert (judgement.verdict, judgement.reason, judgement.use) == (verdict, reason, use)
    assert (judgement.score is None) == (rationale is None)


def test_short_reviews_are_paid_for_only_when_they_are_kept() -> None:
    assert not Thresholds(min_review_words=4).worth_asking("Great little gift")
    assert Thresholds(min_review_words=4).worth_asking("Great little gift card")
    assert Thresholds(min_review_words=4, keep_ungrounded=True).worth_asking("Great")
