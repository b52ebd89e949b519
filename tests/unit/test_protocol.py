"""Leave-one-out questions and candidate lists, from their definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rdrec_core.errors import DatasetError
from tests.ranking_dataset import write_dataset
from training.evaluation.protocol import candidate_lists, questions
from training.learning.examples import draw_negatives

HISTORIES = [[3, 1, 4, 0, 5], [2, 6, 7], [1, 2, 3, 4]]


def test_test_histories_are_all_but_the_last_and_validation_histories_all_but_two(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "d", HISTORIES, 300)
    test, val = questions(data, "test"), questions(data, "val")
    assert [h.tolist() for h in test.histories()] == [h[:-1] for h in HISTORIES]
    assert test.targets.tolist() == [5, 7, 4]
    assert [h.tolist() for h in val.histories()] == [h[:-2] for h in HISTORIES]
    assert val.targets.tolist() == [0, 6, 3]
    assert val.lengths().tolist() == [3, 1, 2]
    with pytest.raises(DatasetError, match="val and test"):
        questions(data, "train")


def test_a_sample_is_a_part_of_all_with_the_same_candidates(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = write_dataset(tmp_path / "d", [rng.permutation(400)[:6].tolist() for _ in range(40)], 400)
    everybody, some = questions(data, "test"), questions(data, "test", limit=7, seed=3)
    assert len(some) == 7
    lists = dict(zip(everybody.users.tolist(), candidate_lists(data, everybody, seed=5), strict=True))
    for place, (user, sampled) in enumerate(zip(some.users.tolist(), candidate_lists(data, some, seed=5), strict=True)):
        assert sampled.tolist() == lists[user].tolist()
        assert some.history(place).tolist() == everybody.history(user).tolist()


def test_candidates_are_the_target_and_99_items_that_the_user_never_bought(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    histories = [rng.permutation(600)[:8].tolist() for _ in range(60)]
    data = write_dataset(tmp_path / "d", histories, 600)
    asked = questions(data, "val")
    places, drawn = [], []
    for user, target, candidates in zip(
        asked.users.tolist(), asked.targets.tolist(), candidate_lists(data, asked), strict=True
    ):
        assert len(set(candidates.tolist())) == 100
        assert set(candidates.tolist()) & set(histories[user]) == {target}
        places.append(candidates.tolist().index(target))
        drawn += candidates.tolist()
    assert len(set(places)) > 20, "the target must not sit in one place"
    # uniform over the catalogue: every item about ten times in 6000 draws
    assert np.bincount(drawn, minlength=600).max() < 30
    assert [c.tolist() for c in candidate_lists(data, asked, seed=1)] != [
        c.tolist() for c in candidate_lists(data, asked)
    ]


def test_a_small_catalogue_gives_all_there_are(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "d", HISTORIES, 9)
    lists = candidate_lists(data, questions(data, "test"))
    assert [sorted(c.tolist()) for c in lists] == [
        sorted({5} | set(range(9)) - {3, 1, 4, 0, 5}),
        sorted({7} | set(range(9)) - {2, 6, 7}),
        sorted({4} | set(range(9)) - {1, 2, 3, 4}),
    ]


def test_negatives_that_came_with_the_data_are_used(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "d", HISTORIES, 300)
    pl.DataFrame({"user_index": [0, 1, 2], "item_indices": [[9, 8], [10, 11], [20, 21]]}).write_parquet(
        data.path / "negatives.parquet"
    )
    data.info = data.info.model_copy(update={"negatives": True})
    lists = candidate_lists(data, questions(data, "test"))
    assert [sorted(c.tolist()) for c in lists] == [[5, 8, 9], [7, 10, 11], [4, 20, 21]]


def test_the_same_seed_draws_the_candidates_of_the_published_figures() -> None:
    # noted before training and evaluation drew by one function; another order of draws would move every top-N figure
    rng = np.random.default_rng([3, 5])
    assert draw_negatives(rng, 60, np.array([9, 2, 31, 44]), 6).tolist() == [1, 8, 3, 53, 49, 18]
    assert draw_negatives(rng, 20, np.array([9, 2]), 6).tolist() == [17, 7, 16, 12, 10, 3]
