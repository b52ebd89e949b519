"""`rdrec prepare --previous`: numbers and labels stay, what is new is appended, forgotten users are gone."""

import json
from pathlib import Path

import polars as pl
import pytest

from rdrec_core.errors import InputError
from training.cli import main
from training.data.dataset import RATIONALES, Dataset
from training.data.prepare import PrepareConfig, prepare

DAY = 86_400
START = 1_600_000_000


def write_lines(path: Path, records: list[dict]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def event(number: int, user: str, item: str, day: float, kind: str = "purchase") -> dict:
    at = START + day * DAY
    return {"event_id": f"e{number}", "user_id": user, "item_id": item, "event": kind, "timestamp": at, "received": at}


@pytest.fixture
def shop(tmp_path: Path) -> Dataset:
    """Six users who bought five of eight items, a day after another, with reviews."""
    rows = [
        {
            "user_id": f"u{u}", "item_id": f"i{(u + k) % 8}", "timestamp": START + k * DAY, "rating": 4.0,
            "text": f"The board of item {(u + k) % 8} is great. User {u} says so on day {k}.",
        }
        for u in range(6) for k in range(5)
    ]  # fmt: skip
    items = [
        {"item_id": f"i{i}", "title": f"Game {i}", "brand": "Oak", "price": 2.5 + i, "age": f"0{i}"} for i in range(8)
    ]
    prepare(
        PrepareConfig(
            out=tmp_path / "first", reviews=(write_lines(tmp_path / "reviews.jsonl", rows),),
            metadata=(write_lines(tmp_path / "items.jsonl", items),), name="shop", workers=1,
        )
    )  # fmt: skip
    return Dataset(tmp_path / "first")


def go_on(shop: Dataset, records: list[dict], **options) -> Dataset:
    folder = shop.path.parent
    log = write_lines(folder / "events-1.jsonl", records)
    out = folder / "second"
    prepare(PrepareConfig(out=out, previous=shop.path, event_log=(log,), workers=1, force=True, **options))
    return Dataset(out)


def purchases(dataset: Dataset) -> set[tuple[str, str]]:
    rows = dataset.interactions
    users, items = dataset.users["user_id"].to_list(), dataset.items["item_id"].to_list()
    return {(users[u], items[i]) for u, i in zip(rows.user_index, rows.item_index, strict=True)}


def test_numbers_and_labels_stay_and_new_ones_are_appended_by_id(shop: Dataset) -> None:
    found = go_on(shop, [event(1, "a-new", "i0", 6), event(2, "u0", "i7", 6), event(3, "u1", "z9", 6.5)])
    assert found.users["user_id"].to_list() == [*shop.users["user_id"], "a-new"]
    assert found.items["item_id"].to_list() == [*shop.items["item_id"], "z9"]
    labels = found.items["label"].cast(int)
    assert labels.to_list() == [*shop.items["label"].cast(int), max(shop.items["label"].cast(int)) + 1]
    assert purchases(found) == purchases(shop) | {("a-new", "i0"), ("u0", "i7"), ("u1", "z9")}
    assert found.info.name == "shop"


def test_the_holdout_moves_with_time(shop: Dataset) -> None:
    found = go_on(shop, [event(1, "u0", "i7", 6)])
    assert found.items["item_id"][int(found.targets("test")[0])] == "i7"
    assert found.items["item_id"][int(found.targets("val")[0])] == "i4", "yesterday's test item"
    by_time = go_on(shop, [event(1, "u0", "i7", 6), event(2, "new", "i2", 6.2)], protocol="temporal", cut="3d,1d")
    rows = by_time.interactions
    assert {by_time.users["user_id"][int(u)] for u in rows.user_index[rows.split == 2]} == {"u0", "new"}
    assert set(rows.timestamp[rows.split == 1]) == {START + 4 * DAY}


def test_reviews_words_and_rationales_are_kept(shop: Dataset) -> None:
    rationale = dict.fromkeys(RATIONALES) | {"user_index": 0, "item_index": 1, "use": True, "user_preference": "Games."}
    pl.DataFrame([rationale], schema=RATIONALES).write_parquet(shop.rationales_path)
    found = go_on(shop, [event(1, "u0", "i7", 6)])
    assert found.info.n_reviews == shop.info.n_reviews == 30
    text = "The board of item 3 is great. User 2 says so on day 1."
    (row,) = found.reviews().filter(pl.col("text") == text).collect().iter_rows(named=True)
    assert (row["user_index"], row["item_index"], row["rating"]) == (2, 3, 4.0)
    assert pl.read_parquet(found.rationales_path)["user_preference"].to_list() == ["Games."]
    before, now = shop.catalogue().collect(), found.catalogue().collect()
    assert now.equals(before), "titles, brands and attributes with their types, codes such as 01 among them"


def test_the_catalogue_of_today_goes_over_yesterdays_and_brings_items_that_nobody_bought(shop: Dataset) -> None:
    items = write_lines(
        shop.path.parent / "live.jsonl",
        [
            {"item_id": "i3", "title": "Game 3, new edition", "categories": ["Games"], "attributes": {"price": 9.0}},
            {"item_id": "unbought", "title": "Game 9", "attributes": {"price": 1.5, "tags": ["a", "b"]}},
        ],
    )  # fmt: skip
    found = go_on(shop, [event(1, "u0", "i7", 6)], metadata=(items,))
    table = found.catalogue().collect()
    assert table["title"].to_list() == [*(f"Game {i}" for i in range(3)), "Game 3, new edition",
                                        *(f"Game {i}" for i in range(4, 8)), "Game 9"]  # fmt: skip
    assert table["brand"][3] == "Oak", "what today's record does not say is as it was"
    assert table["attribute.price"].to_list() == [2.5, 3.5, 4.5, 9.0, 6.5, 7.5, 8.5, 9.5, 1.5]
    assert table["attribute.tags"][8].to_list() == ["a", "b"]
    assert found.sequences("test")[0][-1] == found.info.n_interactions


def test_an_event_counts_once_however_often_it_was_logged_and_kinds_by_their_weights(shop: Dataset) -> None:
    log = [
        event(1, "u0", "i7", 6),
        event(1, "u0", "i7", 6),
        event(2, "u0", "i6", 7, "view"),
        event(3, "u0", "i5", 7, "cart"),
    ]
    bought = go_on(shop, log, repeats="keep")
    assert purchases(bought) - purchases(shop) == {("u0", "i7")}
    assert bought.info.n_interactions == shop.info.n_interactions + 1
    assert purchases(go_on(shop, log, events={"purchase": 1.0, "cart": 0.5})) - purchases(shop) == {
        ("u0", "i7"), ("u0", "i5"),
    }  # fmt: skip


def test_a_forgotten_user_leaves_a_number_without_a_name_and_may_come_back_as_somebody_new(shop: Dataset) -> None:
    log = [event(1, "u2", "i7", 6), {"event": "forget", "user_id": "u2", "received": START + 7 * DAY}]
    gone = go_on(shop, log)
    assert gone.users["user_id"].to_list() == ["u0", "u1", "(forgotten 2)", "u3", "u4", "u5"]
    rows = gone.interactions
    assert 2 not in rows.user_index
    assert gone.reviews().filter(pl.col("user_index") == 2).collect().is_empty()
    back = go_on(shop, [*log, event(3, "u2", "i1", 8)])
    assert back.users["user_id"].to_list()[-1] == "u2"
    assert {item for user, item in purchases(back) if user == "u2"} == {"i1"}


def test_a_batch_is_read_once_by_the_datasets_that_go_on(shop: Dataset) -> None:
    folder = shop.path.parent
    (folder / "days").mkdir()
    write_lines(folder / "days" / "events-1.jsonl", [event(1, "u0", "i7", 6)])
    batches = folder / "batches"

    def next_day(previous: str, out: str) -> Dataset:
        assert main(["collect", "--events", str(folder / "days"), "--out", str(batches)]) == 0
        arguments = ["--previous", str(folder / previous), "--events", str(batches), "--repeats", "keep"]
        assert main(["prepare", *arguments, "--out", str(folder / out), "--workers", "1"]) == 0
        return Dataset(folder / out)

    second = next_day("first", "second")
    write_lines(folder / "days" / "events-2.jsonl", [event(2, "u0", "i6", 7)])
    third = next_day("second", "third")
    assert (second.info.events_until, third.info.events_until) == ("batch-000001", "batch-000002")
    assert third.info.n_interactions == shop.info.n_interactions + 2
    assert next_day("third", "fourth").info.n_interactions == third.info.n_interactions


@pytest.mark.parametrize("option", [("core", 2), ("labels", "random"), ("order", "file"), ("protocol", "paper")])
def test_options_that_would_renumber_are_refused(shop: Dataset, option: tuple[str, object]) -> None:
    with pytest.raises(InputError, match="--previous") as refused:
        go_on(shop, [event(1, "u0", "i7", 6)], **dict([option]))
    assert refused.value.field == option[0]


def test_a_log_without_a_dataset_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "--events", "./events-1.jsonl", "--out", str(tmp_path / "x")]) == 2
    assert "no such file" in capsys.readouterr().err
    log = write_lines(tmp_path / "events-1.jsonl", [event(1, "u", "i", 1)])
    assert main(["prepare", "--events", str(log), "--out", str(tmp_path / "x")]) == 2
    assert "--previous" in capsys.readouterr().err
