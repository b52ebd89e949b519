"""What texts claim against what users wrote: numbers counted by hand."""

import math

import numpy as np
import pytest

from training.evaluation.claims import (
    feature_metrics,
    features_in,
    nearness,
    precision_and_recall,
    sentences,
    share_of_own,
    unique_ratio,
)
from training.rationale.languages import LANGUAGES

ENGLISH, GERMAN, JAPANESE = (LANGUAGES[code] for code in ("en", "de", "ja"))


@pytest.mark.parametrize(
    ("said", "review", "precision", "recall"),
    [
        # clear, tone, sturdi: two of three stand in the review, which has tone, clear, shini, pickup
        (("clear tone", "sturdy"), "The tones were clear, and it has a shiny pickup!", 2 / 3, 2 / 4),
        (("clear tone", "clear"), "A clear one.", 2 / 3, 1.0),  # said twice counts twice in the first alone
        (("it is the",), "A clear tone.", 0.0, 0.0),  # claims nothing
        ((), "A clear tone.", 0.0, 0.0),
        (("clear tone",), "", 0.0, 0.0),
    ],
)
def test_precision_and_recall_by_stems(said: tuple[str, ...], review: str, precision: float, recall: float) -> None:
    assert precision_and_recall(said, review, ENGLISH) == pytest.approx((precision, recall))


def test_stems_are_those_of_the_language() -> None:
    # klang, klar: «Klänge» has the stem of «Klang» in German
    assert precision_and_recall(("klarer Klang",), "Die Klänge sind klar.", GERMAN) == pytest.approx((1.0, 1.0))
    # runs of two characters within a script: 音質 agrees, 良 stands alone
    precision, _ = precision_and_recall(("音質",), "この音質は素晴らしい。", JAPANESE)
    assert precision == 1.0


def test_nearest_sentences_by_vectors() -> None:
    said = np.asarray([[1, 0], [0, 1]], dtype=np.float32)
    review = np.asarray([[0.6, 0.8], [1, 0], [0.8, 0.6]], dtype=np.float32)
    # claims: max(.6, 1, .8) = 1 and max(.8, 0, .6) = .8; sentences: .8, 1, .8
    assert nearness(said, review) == pytest.approx((0.9, 2.6 / 3))
    assert nearness(said[:0], review) == nearness(said, review[:0]) == (0.0, 0.0)
    assert sentences("Good. 3.5 stars!\nFine。とても良い。 -- ") == ["Good.", "3.5 stars!", "Fine。", "とても良い。"]


def test_features_matched_covered_and_repeated() -> None:
    features = ("tone", "strings", "case", "price")
    named = [features_in(text, features) for text in ("The Tone, the case.", "its tone", "nothing")]
    assert named == [{"tone", "case"}, {"tone"}, frozenset()]
    wanted = [{"case"}, {"strings"}, frozenset[str]()]
    # FMR: one of the two that named any; FCR: two of four; DIV: tone is shared by one of three pairs
    found = feature_metrics(named, wanted, features)
    assert found == pytest.approx({"FMR": 1 / 2, "FCR": 2 / 4, "DIV": 1 / 3})
    assert all(math.isnan(value) for value in feature_metrics([frozenset()], [frozenset()], ()).values())


def test_unlike_texts() -> None:
    assert unique_ratio(["a", "b", "a", "c"]) == 3 / 4
    assert share_of_own(["a", "a", "b", None]) == 1 / 4  # «b» is its owner's alone
    assert math.isnan(unique_ratio([]))
