"""The sample shop with time: what arrives is bought, and tastes move."""

import json
from collections import Counter
from pathlib import Path

import pytest

from training.cli import main
from training.data.event_log import event_row
from training.data.growing_shop import EVENTS_FILE, FOLDER, Growth, write_days
from training.data.sample import METADATA_FILE, write_sample

GROWTH = Growth(days=9, new_items=3, new_users=5)


def read(folder: Path, kind: str) -> list[list[dict]]:
    """A list a day."""
    files = sorted((folder / FOLDER).glob(f"{kind}-*.jsonl"))
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grown")
    _, shop = write_sample(folder, seed=3)
    write_days(folder, shop, GROWTH, seed=3)
    return folder


def test_the_seed_decides_every_byte_and_growth_changes_nothing_before(grown: Path, tmp_path: Path) -> None:
    _, shop = write_sample(tmp_path, seed=3)
    write_days(tmp_path, shop, GROWTH, seed=3)
    for path in sorted((grown / FOLDER).iterdir()):
        assert (tmp_path / FOLDER / path.name).read_bytes() == path.read_bytes()
    assert (tmp_path / METADATA_FILE).read_bytes() == (grown / METADATA_FILE).read_bytes()


def test_every_day_brings_items_users_and_events_in_the_log_s_form(grown: Path) -> None:
    items, events = read(grown, "items"), read(grown, "events")
    assert [len(day) for day in items] == [3] * 9
    assert EVENTS_FILE.format(day="2019-01-01") == "events-2019-01-01.jsonl"
    ids = [record["event_id"] for day in events for record in day]
    assert len(set(ids)) == len(ids)
    for day, arrived in zip(events, items, strict=True):
        assert [event_row(record) for record in day]
        times = [record["timestamp"] for record in day]
        assert times == sorted(times)
        assert all(item["arrived"] <= times[0] and times[-1] < item["arrived"] + 86_400 for item in arrived)
    described = [(item["title"], item["brand"], item["description"]) for day in items for item in day]
    assert len(set(described)) == len(described) == 27


def test_new_items_are_bought_soon_and_by_those_who_have_what_goes_before(grown: Path) -> None:
    items, events = read(grown, "items"), read(grown, "events")
    arrived = {item["item_id"]: day for day, found in enumerate(items) for item in found}
    bought = [
        (record["user_id"], record["item_id"], day)
        for day, found in enumerate(events)
        for record in found
        if record["event"] == "purchase"
    ]
    assert len(set(bought)) == len(bought)
    assert all(day >= arrived.get(item, 0) for _, item, day in bought), "nobody buys what is not there yet"
    shares = Counter(item for _, item, _ in bought)
    new, old = [n for item, n in shares.items() if item in arrived], [n for i, n in shares.items() if i not in arrived]
    assert len(new) >= 20, "of 27"
    days_there = sum(len(events) - day for day in arrived.values())
    assert sum(new) / days_there > 1.3 * sum(old) / (240 * len(events)), "more a day than what was there before"


def test_the_command_says_what_it_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "--out", str(tmp_path / "shop"), "--days", "2", "--new-items", "1", "--new-users", "0"]) == 0
    assert "2 days, 2 new items, 0 new users" in capsys.readouterr().out
