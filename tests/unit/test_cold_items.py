"""Items that nobody has bought yet: how they are hidden, and how figures divide by what was known of the target."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rdrec_core.errors import DatasetError, InputError
from tests.small_dataset import write_small_dataset
from training.data.cold_items import hidden_items, hide_items, purchases_by_item
from training.data.dataset import Dataset
from training.evaluation.measure import Answers
from training.evaluation.protocol import Questions, questions
from training.evaluation.target_groups import by_purchases


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_small_dataset(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture(scope="module")
def cold(dataset: Dataset) -> Dataset:
    return hide_items(dataset, dataset.path.with_name("cold"), share=0.2, seed=3)


def pairs(path: Path, where: pl.Expr) -> set[tuple[int, int]]:
    return set(pl.read_parquet(path).filter(where).select("user_index", "item_index").iter_rows())


def test_nothing_but_catalogue_and_test_knows_a_hidden_item(dataset: Dataset, cold: Dataset) -> None:
    hidden = set(hidden_items(40, 0.2, 3).tolist())
    assert len(hidden) == 8
    assert cold.info.cold_items == 0.2
    assert cold.items["item_id"].to_list() == dataset.items["item_id"].to_list()
    for user in range(dataset.info.n_users):
        for upto in ("train", "val"):
            (start, old), (starts, items) = dataset.sequences(upto), cold.sequences(upto)
            before = [i for i in old[start[user] : start[user + 1]].tolist() if i not in hidden]
            assert items[starts[user] : starts[user + 1]].tolist() == before
    assert cold.targets("test").tolist() == dataset.targets("test").tolist()
    assert set(cold.targets("val").tolist()) & hidden == set()
    rows = pl.read_parquet(cold.path / "interactions.parquet")
    assert cold.info.n_interactions == len(rows)
    for _, own in rows.group_by("user_index", maintain_order=True):
        assert own["position"].to_list() == list(range(len(own)))
    before_test, known = pl.col("split") != "test", pl.col("item_index").is_in(list(hidden)).not_()
    for name in ("reviews", "rationales"):
        where = before_test if name == "reviews" else pl.lit(True)
        kept = pairs(cold.path / f"{name}.parquet", where)
        assert kept == pairs(dataset.path / f"{name}.parquet", where & known) != set()
    assert pairs(cold.path / "reviews.parquet", ~before_test) == pairs(dataset.path / "reviews.parquet", ~before_test)
    assert cold.info.n_reviews == len(pl.read_parquet(cold.path / "reviews.parquet"))


def test_labels_are_made_without_the_hidden_purchases(dataset: Dataset, cold: Dataset) -> None:
    labels = cold.items["label"].to_list()
    assert len(set(labels)) == 40
    assert labels != dataset.items["label"].to_list()
    again = hide_items(dataset, dataset.path.with_name("again"), share=0.2, seed=3)
    assert again.items.equals(cold.items)


def test_what_cannot_be_hidden_is_refused(dataset: Dataset, cold: Dataset, tmp_path: Path) -> None:
    for share in (0.0, 1.0, -0.1):
        with pytest.raises(InputError, match="between 0 and 1"):
            hide_items(dataset, tmp_path / "out", share=share, seed=0)
    with pytest.raises(DatasetError, match=r"hides 0\.2"):
        hide_items(cold, tmp_path / "out", share=0.1, seed=0)
    paper = Dataset(dataset.path)
    paper.info = dataset.info.model_copy(update={"protocol": "paper"})
    with pytest.raises(DatasetError, match="paper"):
        hide_items(paper, tmp_path / "out", share=0.1, seed=0)
    assert not (tmp_path / "out").exists()


def test_figures_divide_by_the_purchases_of_the_target(cold: Dataset) -> None:
    asked = questions(cold, "test")
    counts = purchases_by_item(cold)
    by_hand = np.zeros(40, dtype=int)
    for item in cold.sequences("train")[1]:
        by_hand[item] += 1
    assert counts.tolist() == by_hand.tolist()
    assert (counts == 0).sum() >= 8
    users = np.arange(6)
    small = Questions(users, np.array([0, 1, 2, 3, 0, 2]), np.zeros(7, dtype=int), np.empty(0, dtype=int))
    answers = {"it": Answers(np.array([1.0, 2.0, 3.0, np.inf, np.inf, 1.0]), np.zeros((6, 10), dtype=int), 1.0)}
    groups = by_purchases(small, answers, np.array([0, 4, 5, 1]))
    assert {name: group["n_questions"] for name, group in groups.items()} == {"cold": 2, "rare": 2, "other": 2}
    assert [groups[name]["rows"]["it"]["HR@10"] for name in ("cold", "rare", "other")] == [0.5, 0.5, 1.0]
    assert groups["other"]["rows"]["it"]["NDCG@10"] == pytest.approx((1 + 1 / np.log2(4)) / 2)
    assert len(asked) == 30
