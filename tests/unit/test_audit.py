import json
from itertools import islice

import numpy as np
import polars as pl
import pytest

from tests.data import real_data
from tests.purchases import prepared
from training.cli import main
from training.data.dataset import RATIONALES, Dataset
from training.data.prepare import PrepareConfig, prepare
from training.evaluation.audit import audit, neighbour_hit_rate, rule_hit_rate


@pytest.fixture
def dataset(tmp_path):
    return prepared(tmp_path)


def rewrite(folder, table, change):
    path = folder / f"{table}.parquet"
    change(pl.read_parquet(path)).write_parquet(path)


def rewrite_info(folder, **changes):
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def violations(folder):
    return audit(Dataset(folder)).violations


def test_rules_by_hand():
    numbers = np.array([10, 11, 12, 13, 14])
    indptr, items = np.array([0, 2, 4, 4, 5]), np.array([1, 0, 0, 2, 3], dtype=np.int32)
    targets = np.array([2, 1, 0, -1], dtype=np.int32)
    # user 0: largest 11 -> 12 hit, last 10 -> 11 miss; user 1: 12 -> 13 misses twice; users 2 and 3 are not tested
    assert rule_hit_rate(numbers, indptr, items, targets, "largest") == 0.5
    assert rule_hit_rate(numbers, indptr, items, targets, "last") == 0.0
    assert rule_hit_rate(numbers, indptr, items, np.array([1, 3, 0, 4], dtype=np.int32), "last") == 1.0


def test_neighbours_by_hand():
    histories = np.array([0, 1, 2, 4]), np.array([0, 1, 1, 2], dtype=np.int32)
    # user 0 owns item 0 and sees 1 twice, 2 once; user 1 owns 1 and sees 0 before 2; user 2 owns 1 and 2 and sees 0
    assert neighbour_hit_rate(np.arange(3), histories, np.array([1, 2, 0], dtype=np.int32), 3) == pytest.approx(
        1 / 3 * 2
    )


@pytest.mark.parametrize("labels", ["collaborative", "sequential", "random"])
def test_a_clean_dataset_passes(tmp_path, labels):
    report = audit(Dataset(prepared(tmp_path, labels=labels)))
    assert report.violations == []
    assert not report.failed


def leaking_labels(folder):
    """Numbers given while walking over everything, so that a user's new items are consecutive, the test item too."""
    dataset = Dataset(folder)
    indptr, items = dataset.sequences("test")
    labels = np.zeros(dataset.info.n_items, dtype=np.int64)
    number = 100
    for user in range(dataset.info.n_users):
        for item in items[indptr[user] : indptr[user + 1]]:
            if not labels[item]:
                labels[item] = number
                number += 1
    rewrite(folder, "items", lambda frame: frame.with_columns(label=pl.Series(labels).cast(pl.String)))


@pytest.fixture
def sparse(tmp_path):
    """1,000 users of 3 items each, nearly all items new: what a leaking numbering finds, it finds often."""
    rng = np.random.default_rng(0)
    rows = [
        {"user": f"u{u:04d}", "item": f"i{item:04d}", "timestamp": step}
        for u in range(1000)
        for step, item in enumerate(rng.choice(3000, size=3, replace=False))
    ]
    pl.DataFrame(rows).write_parquet(tmp_path / "r.parquet")
    prepare(PrepareConfig(out=tmp_path / "sparse", reviews=(tmp_path / "r.parquet",)))
    return tmp_path / "sparse"


def test_labels_numbered_over_test_items_are_found(sparse):
    assert violations(sparse) == []
    leaking_labels(sparse)
    found = {finding.check: finding for finding in audit(Dataset(sparse)).findings}
    for rule in ("«largest label + 1»", "«last label + 1»"):
        values = found[rule].values
        assert values["given"] > 0.1
        assert max(values["shuffled"], values["rebuilt"]) < 0.01
        assert found[rule].violates_clean


def test_user_numbers_that_follow_the_items_are_found(sparse):
    """Users in blocks of six by number: five buy an item first, and the sixth is tested with it."""

    def change(frame):
        block, place = pl.col("user_index") // 6, pl.col("user_index") % 6
        first = (pl.col("position") == 0) & (place < 5)
        tested = (pl.col("split") == "test") & (place == 5)
        shared = pl.col("item_index").first().over(block, order_by=["user_index", "position"])
        return frame.with_columns(item_index=pl.when(first | tested).then(shared).otherwise("item_index"))

    rewrite(sparse, "interactions", change)
    assert "«what the neighbours in user number bought»" in violations(sparse)


def test_a_test_review_among_training_texts_is_found(dataset):
    rewrite(
        dataset,
        "reviews",
        lambda frame: frame.with_columns(
            split=pl.when(pl.col("split") == "test").then(pl.lit("train")).otherwise("split").cast(frame["split"].dtype)
        ),
    )
    assert violations(dataset) == ["test reviews among training texts"]


def test_a_copied_test_review_is_found(dataset):
    def change(frame):
        text = frame.filter(pl.col("split") == "test")["text"][0].upper()
        first = pl.int_range(pl.len()).over("split") == 0
        return frame.with_columns(
            text=pl.when((pl.col("split") == "train") & first).then(pl.lit(text)).otherwise("text")
        )

    rewrite(dataset, "reviews", change)
    assert violations(dataset) == ["copies of held-out reviews"]


def test_a_rationale_of_a_held_out_interaction_is_found(dataset):
    held = pl.read_parquet(dataset / "interactions.parquet").filter(pl.col("split") == "val").head(1)
    row = held.with_columns(
        pl.lit(None, dtype).alias(name) for name, dtype in RATIONALES.items() if name not in held.columns
    )
    row.select(*RATIONALES).write_parquet(dataset / "rationales.parquet")
    assert violations(dataset) == ["rationales"]


def test_a_test_interaction_in_training_is_found(dataset):
    def change(frame):
        """One user's test interaction stands in the training split, too."""
        extra = frame.filter((pl.col("split") == "test") & (pl.col("user_index") == 3))
        extra = extra.with_columns(split=pl.lit("train").cast(frame["split"].dtype), position=pl.lit(0, pl.Int32))
        moved = frame.with_columns(
            position=pl.when(pl.col("user_index") == 3).then(pl.col("position") + 1).otherwise("position")
        )
        return pl.concat([moved, extra.with_columns(timestamp=pl.lit(0, pl.Int64))])

    rewrite(dataset, "interactions", change)
    assert set(violations(dataset)) >= {"test interactions in the training split and graph", "duplicated interactions"}


def test_a_test_interaction_called_training_is_found(dataset):
    rewrite(
        dataset,
        "interactions",
        lambda frame: frame.with_columns(
            split=pl.when((pl.col("split") == "test") & (pl.col("user_index") < 5))
            .then(pl.lit("train"))
            .otherwise("split")
            .cast(frame["split"].dtype)
        ),
    )
    assert "order of the splits" in violations(dataset)


def test_duplicates_are_found(dataset):
    def change(frame):
        """A user's second purchase becomes the first one again."""
        first = pl.col("item_index").first().over("user_index")
        again = (pl.col("user_index") == 2) & (pl.col("position") == 1)
        return frame.with_columns(item_index=pl.when(again).then(first).otherwise("item_index"))

    rewrite(dataset, "interactions", change)
    assert "duplicated interactions" in violations(dataset)


def test_times_against_the_order_are_found(dataset):
    rewrite(
        dataset,
        "interactions",
        lambda frame: frame.with_columns(
            timestamp=pl.when((pl.col("user_index") == 1) & (pl.col("position") == 2)).then(1).otherwise("timestamp")
        ),
    )
    assert violations(dataset) == ["timestamps against the order"]


def test_cold_test_items_are_reported_and_allowed(sparse):
    finding = next(f for f in audit(Dataset(sparse)).findings if f.check.startswith("cold"))
    dataset = Dataset(sparse)
    trained = set(dataset.sequences("train")[1].tolist())
    assert finding.values["count"] == sum(item not in trained for item in dataset.targets("test").tolist()) > 0
    assert not finding.violates_clean


def test_the_command_fails_under_clean_and_warns_under_paper(dataset, tmp_path, capsys):
    assert main(["audit", str(dataset), "--json", str(tmp_path / "a.json")]) == 0
    report = json.loads((tmp_path / "a.json").read_text())
    assert (report["failed"], report["violations"]) == (False, [])
    rewrite_info(dataset, label_scheme="original")
    assert main(["audit", str(dataset), "--json", str(tmp_path / "a.json")]) == 1
    report = json.loads((tmp_path / "a.json").read_text())
    assert (report["failed"], report["violations"]) == (True, ["label scheme"])
    rewrite_info(dataset, protocol="paper")
    capsys.readouterr()
    assert main(["audit", str(dataset)]) == 0
    assert "paper leaks" in capsys.readouterr().out


def test_a_folder_that_is_no_dataset_is_an_error(tmp_path, capsys):
    assert main(["audit", str(tmp_path)]) == 2
    assert "dataset.json is missing" in capsys.readouterr().err


def test_beauty_leaks_as_published_and_is_clean_as_prepared(tmp_path):
    folder = real_data("beauty")
    prepare(PrepareConfig(out=tmp_path / "paper", p5=folder, protocol="paper"))
    found = {finding.check: finding.values for finding in audit(Dataset(tmp_path / "paper")).findings}
    assert round(found["«largest label + 1»"]["given"], 3) == 0.044
    assert round(found["«largest label + 1»"]["shuffled"], 3) == 0.000
    part = tmp_path / "part"  # clean labels of all users take six times as long
    part.mkdir()
    with (folder / "sequential.txt").open(encoding="utf-8") as lines:
        (part / "sequential.txt").write_text("".join(islice(lines, 4000)), encoding="utf-8")
    (part / "datamaps.json").write_bytes((folder / "datamaps.json").read_bytes())
    prepare(PrepareConfig(out=tmp_path / "clean", p5=part))
    assert violations(tmp_path / "clean") == []
