"""Metrics, ranks and paired tests against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.metrics import coverage, novelty, per_user, summary
from training.evaluation.significance import interval, paired_difference
from training.learning.ranks import rank_by_score, rank_in_list


def test_metrics_of_four_users_by_hand() -> None:
    ranks = np.array([1.0, 3.0, 10.0, np.inf])
    expected = {
        "HR@1": 1 / 4, "HR@5": 2 / 4, "HR@10": 3 / 4,
        "NDCG@5": (1 + 0.5) / 4,  # 1 / log2(1 + 3) = 0.5
        "NDCG@10": (1 + 0.5 + 0.2890648263) / 4,  # 1 / log2(11)
    }  # fmt: skip
    assert summary(ranks) == pytest.approx(expected, rel=1e-9)
    assert list(per_user(ranks)) == list(expected)
    assert summary(np.array([])) == dict.fromkeys(expected, 0.0)


def test_the_place_just_behind_a_cutoff_counts_for_nothing() -> None:
    values = summary(np.array([6.0, 11.0]))
    assert (values["HR@5"], values["NDCG@5"], values["HR@10"]) == (0.0, 0.0, 0.5)
    assert values["NDCG@10"] == pytest.approx(0.5 / np.log2(7))


def test_rank_in_list() -> None:
    assert rank_in_list(7, [3, 7, 1]) == 2.0
    assert rank_in_list(9, np.array([3, 7, 1])) == np.inf


def test_equal_scores_share_the_middle_of_their_places() -> None:
    scores = np.array([[0.5, 0.5, 0.5, 0.1], [0.9, 0.2, 0.9, 0.9], [1.0, 2.0, 3.0, -np.inf]])
    # three share places 1 to 3; three share places 1 to 3; the last is no candidate at all
    assert rank_by_score(scores, np.array([1, 2, 3])).tolist() == [2.0, 2.0, np.inf]


def test_items_taken_out_are_above_nobody() -> None:
    scores = np.array([[-np.inf, 0.3, 0.4, -np.inf]])
    assert rank_by_score(scores, np.array([1])).tolist() == [2.0]


def test_coverage_and_novelty_by_hand() -> None:
    lists = np.array([[0, 1], [1, -1]])
    assert coverage(lists, 4) == 0.5
    # shares 1/2 and 1/4: 1 bit once, 2 bits twice
    assert novelty(lists, np.array([0.5, 0.25, 0.25, 0.0])) == pytest.approx((1 + 2 + 2) / 3)
    # bought by nobody: half of the least share, 1/8, is 3 bits
    assert novelty(np.array([[3]]), np.array([0.5, 0.25, 0.25, 0.0])) == pytest.approx(3.0)


def test_paired_difference_finds_a_planted_gap_and_no_gap_in_noise() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(800)
    better = base + 0.05 + 0.1 * rng.standard_normal(800)
    found = paired_difference(better, base, np.random.default_rng(1))
    assert found.low < 0.05 < found.high
    assert found.significant
    assert found.p_value < 1e-6
    # the t statistic by its definition
    gap = better - base
    t = gap.mean() / (gap.std(ddof=1) / np.sqrt(800))
    assert found.mean == pytest.approx(gap.mean())
    assert (found.low, found.high) == pytest.approx(
        (gap.mean() * (1 - 1.96 / t), gap.mean() * (1 + 1.96 / t)), abs=2e-3
    )
    noise = paired_difference(base, rng.permutation(base), np.random.default_rng(1))
    assert not noise.significant
    assert paired_difference(base, base, np.random.default_rng(1)).p_value == 1.0


def test_the_interval_has_the_width_of_the_standard_error() -> None:
    values = (np.arange(1000) % 4 == 0).astype(float)  # a share of 0.25
    low, high = interval(values, np.random.default_rng(0))
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.25 * 0.75 / 1000), rel=0.1)
    assert low < 0.25 < high
