"""Protocol `temporal`: what is before a moment trains, what is after it asks, whoever and whatever it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rdrec_core.errors import DatasetError, InputError
from training.cli import main
from training.data.dataset import Dataset
from training.data.temporal import cut_moments, split_by_time
from training.evaluation.protocol import Questions, candidate_lists, questions
from training.evaluation.significance import by_user
from training.learning.examples import TrainingHistories

DAY = 86_400
TIMES = np.arange(100, dtype=np.int64) * DAY


def test_a_cut_is_two_shares_or_two_dates() -> None:
    assert cut_moments("0.8,0.9", TIMES) == (80 * DAY, 90 * DAY)
    assert cut_moments("1970-02-01, 0.9", TIMES) == (31 * DAY, 90 * DAY)
    assert cut_moments("1970-02-01T12:00+02:00,1970-03-01", TIMES) == (31 * DAY + 10 * 3600, 59 * DAY)
    splits = split_by_time(TIMES, (80 * DAY, 90 * DAY)).tolist()
    assert splits == [0] * 80 + [1] * 10 + [2] * 10


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("0.9", InputError, "two shares, dates or times"),
        ("0.9,1.5", InputError, "between 0 and 1"),
        ("0.8,soon", InputError, "neither a share, nor a date"),
        ("0.9,0.8", DatasetError, "every split needs some"),
        ("0.8,1999-01-01", DatasetError, "reach from 1970-01-01"),
    ],
)
def test_a_cut_that_divides_nothing_is_refused(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        cut_moments(text, TIMES)


def test_every_interaction_needs_a_time() -> None:
    with pytest.raises(DatasetError, match="1 of 100 have none"):
        cut_moments("0.8,0.9", np.where(TIMES == 0, -1, TIMES))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Users buy over a year; `late` comes after the test begins, and `newest` is an item of those days."""
    folder = tmp_path_factory.mktemp("temporal")
    rng = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{item}", int(day) * DAY, f"a text of u{user} about i{item}, long enough to be told apart")
        for user in range(30)
        for item, day in zip(rng.permutation(25)[:8].tolist(), np.sort(rng.permutation(360)[:8]) + 1, strict=True)
    ]
    rows += [("late", "i3", 361 * DAY, "one"), ("late", "newest", 362 * DAY, "two"), ("u0", "newest", 363 * DAY, "x")]
    pl.DataFrame(rows, schema=["user", "item", "timestamp", "text"], orient="row").write_csv(folder / "log.csv")
    command = [
        "prepare",
        "--reviews",
        str(folder / "log.csv"),
        "--out",
        str(folder / "data"),
        "--min-interactions",
        "1",
    ]
    assert main([*command, "--protocol", "temporal", "--cut", "1970-10-01,1970-11-15"]) == 0
    return Dataset(folder / "data")


def test_what_is_after_the_cut_asks_and_nothing_of_it_trains(shop: Dataset) -> None:
    validation, test = 273 * DAY, 318 * DAY
    assert shop.info.protocol == "temporal"
    assert shop.info.cut == (validation, test)
    rows = shop.interactions
    assert rows.split.tolist() == np.searchsorted([validation, test], rows.timestamp, side="right").tolist()
    reviews = shop.reviews().collect()
    times = {(u, i): t for u, i, t in zip(rows.user_index, rows.item_index, rows.timestamp, strict=True)}
    for user, item, split in reviews.select("user_index", "item_index", "split").iter_rows():
        assert (split == "train") == (times[user, item] < validation)
    assert main(["audit", str(shop.path)]) == 0


def test_each_later_purchase_is_a_question_with_all_that_came_before(shop: Dataset) -> None:
    rows = shop.interactions
    for split, code in (("val", 1), ("test", 2)):
        asked = questions(shop, split)
        expected = [
            (user, item, [i for u, i, t in zip(rows.user_index, rows.item_index, rows.timestamp, strict=True)
                          if u == user and t < time])
            for user, item, time, own in zip(rows.user_index, rows.item_index, rows.timestamp, rows.split, strict=True)
            if own == code
        ]  # fmt: skip
        found = list(zip(asked.users, asked.targets, [h.tolist() for h in asked.histories()], strict=True))
        assert found == expected
        some = questions(shop, split, limit=5, seed=1)
        assert len(np.unique(some.users)) == 5
        assert all((some.users == user).sum() == (asked.users == user).sum() for user in np.unique(some.users))


def test_new_users_and_items_stay_in(shop: Dataset) -> None:
    asked = questions(shop, "test")
    late = shop.users["user_id"].to_list().index("late")
    newest = shop.items["item_id"].to_list().index("newest")
    theirs = np.flatnonzero(asked.users == late)
    assert [asked.history(int(q)).tolist() for q in theirs] == [[], [asked.targets[theirs[0]]]]
    assert asked.targets[theirs[1]] == newest
    assert [asked.user(int(q)) for q in theirs] == [None, None]
    assert asked.user(len(asked) - 1) == asked.users[-1]
    lists = candidate_lists(shop, asked, n=5)
    assert set(lists[theirs[0]].tolist()) != set(lists[theirs[1]].tolist())


def test_training_validates_on_the_first_item_after_the_earlier_cut(shop: Dataset) -> None:
    histories, asked = TrainingHistories.of(shop), questions(shop, "val")
    for user in np.unique(asked.users).tolist():
        assert histories.validation[user] == asked.targets[np.flatnonzero(asked.users == user)[0]]


def test_users_not_questions_are_the_draws_of_an_interval() -> None:
    rng = np.random.default_rng(0)
    users = np.sort(rng.integers(0, 50, 200))
    values = rng.random(200)
    drawn = by_user(values, users)
    assert len(drawn) == len(np.unique(users))
    assert drawn.mean() == pytest.approx(values.mean())
    # the deviation of the mean, against resampling the users themselves
    own = [values[users == user] for user in np.unique(users)]
    means = []
    for _ in range(4000):
        chosen = [own[k] for k in rng.integers(0, len(own), len(own))]
        means.append(np.concatenate(chosen).mean())
    assert drawn.std() / np.sqrt(len(drawn)) == pytest.approx(np.std(means), rel=0.1)
    single = np.arange(200)
    assert by_user(values, single).tolist() == values.tolist()


def test_evaluation_runs_on_it(shop: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    assert main(["baselines", str(shop.path), "--no-sasrec", "--no-tune-graph", "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    asked: Questions = questions(shop, "test")
    assert record["n_questions"] == len(asked) > record["n_users"] == len(np.unique(asked.users))
    assert record["groups"]["cold"]["n_questions"] >= 2
    assert sum(group["n_questions"] for group in record["groups"].values()) == len(asked)


def test_a_folder_without_times_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "--p5", str(tmp_path), "--out", str(tmp_path / "out"), "--protocol", "temporal"]) != 0
    assert "does not hold" in " ".join(capsys.readouterr().err.split())
