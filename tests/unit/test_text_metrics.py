"""BLEU and ROUGE on sentences short enough to count by hand."""

import math

import pytest

from rdrec_core.errors import InputError
from training.evaluation.text_metrics import TEXT_METRICS, score_texts


def test_equal_texts_score_full_marks_and_unlike_ones_almost_none() -> None:
    text = "a very sturdy box for small games"
    assert score_texts([text], [text]) == pytest.approx(dict.fromkeys(TEXT_METRICS, 100.0))
    nothing = score_texts(["one two three four five"], ["six seven eight nine ten"])
    assert nothing["ROUGE-1"] == nothing["ROUGE-2"] == nothing["ROUGE-L"] == nothing["BLEU-1"] == 0.0


def test_one_pair_counted_by_hand() -> None:
    # 6 and 6 tokens; the, cat, sat, the, mat agree (5 of 6), pairs: the-cat, cat-sat, the-mat (3 of 5),
    # triples: the-cat-sat (1 of 4), no four in a row (0 of 3: smoothed to 1 / (2 * 3))
    scores = score_texts(["the cat sat near the mat"], ["the cat sat on the mat"])
    assert scores["BLEU-1"] == pytest.approx(100 * 5 / 6)
    assert scores["BLEU-4"] == pytest.approx(100 * (5 / 6 * 3 / 5 * 1 / 4 * 1 / 6) ** 0.25)
    assert scores["ROUGE-1"] == pytest.approx(100 * 5 / 6)
    assert scores["ROUGE-2"] == pytest.approx(100 * 3 / 5)
    assert scores["ROUGE-L"] == pytest.approx(100 * 5 / 6)


def test_order_matters_to_rouge_l_and_not_to_rouge_1() -> None:
    # the longest common subsequence of "a b c d" and "d c b a" is one word
    scores = score_texts(["a b c d"], ["d c b a"])
    assert scores["ROUGE-1"] == pytest.approx(100.0)
    assert scores["ROUGE-L"] == pytest.approx(25.0)


def test_bleu_sums_counts_over_the_corpus_and_punishes_shortness_while_rouge_is_a_mean() -> None:
    # BLEU-1: 2 + 0 of 3 words agree; 3 written for 6 wanted: exp(1 - 6 / 3)
    # ROUGE-1 F1: 2 * 1 * (2 / 4) / (1 + 2 / 4) = 2 / 3, and 0
    scores = score_texts(["good box", "bad"], ["good box of games", "great fun"])
    assert scores["BLEU-1"] == pytest.approx(100 * 2 / 3 * math.exp(-1))
    assert scores["ROUGE-1"] == pytest.approx(100 * (2 / 3 + 0) / 2)


def test_an_empty_text_counts_and_unequal_numbers_are_refused() -> None:
    assert score_texts(["", "a box"], ["a box", "a box"])["ROUGE-1"] == pytest.approx(50.0)
    with pytest.raises(InputError, match="one reference a text"):
        score_texts(["a"], ["a", "b"])
    with pytest.raises(InputError):
        score_texts([], [])
