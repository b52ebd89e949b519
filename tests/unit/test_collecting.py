"""`rdrec collect` from files: exactly once, whatever happens in between."""

import json
from pathlib import Path

import polars as pl
import pytest

from rdrec_core.errors import DatasetError, InputError
from training.cli import main
from training.data import collecting
from training.data.collecting import BATCH_EVENTS, ITEMS_FILE, batches, collect, read_items
from training.data.event_log import FORGET
from training.data.log_sources import FileLog


def record(number: int, user: str = "u1", **more: object) -> dict:
    return {
        "event_id": f"e{number}", "user_id": user, "item_id": f"i{number}", "event": "purchase",
        "timestamp": 1e9 + number, "received": 1e9 + number, **more,
    }  # fmt: skip


def log(folder: Path, name: str, *records: object) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    with (folder / name).open("a") as file:
        file.writelines(each if isinstance(each, str) else json.dumps(each) + "\n" for each in records)


def collected(out: Path) -> list[str]:
    frames = [pl.read_parquet(path / BATCH_EVENTS) for path in batches(out)]
    return [event for frame in frames for event in frame.filter(pl.col("event") != FORGET)["event_id"].to_list()]


def test_what_is_new_is_taken_once_from_files_that_grow_and_rotate(tmp_path: Path) -> None:
    source, out = tmp_path / "log", tmp_path / "out"
    log(source / "a", "events-1.jsonl", record(1), record(3), '{"event_id": "e5", "user_')
    log(source / "b", "events-1.jsonl", record(2))
    assert collect(FileLog(source), out).n_events == 3
    assert collected(out) == ["e1", "e2", "e3"], "in the order of their arrival, without the line being written"
    assert collect(FileLog(source), out).batches == ()
    log(source / "a", "events-1.jsonl", 'id": "u1", "item_id": "i5", "timestamp": 1000000005}\n')
    log(source / "a", "events-2.jsonl", record(6))
    found = collect(FileLog(source), out)
    assert (found.n_events, [path.name for path in found.batches]) == (2, ["batch-000002"])
    assert sorted(collected(out)) == ["e1", "e2", "e3", "e5", "e6"]


def test_a_record_that_was_logged_twice_counts_once_within_and_over_batches(tmp_path: Path) -> None:
    source, out = tmp_path / "log", tmp_path / "out"
    log(source, "events-1.jsonl", record(1), record(1), record(2))
    assert collect(FileLog(source), out).n_repeated == 1
    log(source, "events-1.jsonl", record(2), record(3))
    assert collect(FileLog(source), out).n_repeated == 1
    assert collected(out) == ["e1", "e2", "e3"]


def test_many_records_become_several_batches(tmp_path: Path) -> None:
    log(tmp_path / "log", "events-1.jsonl", *(record(n) for n in range(5)))
    found = collect(FileLog(tmp_path / "log"), tmp_path / "out", limit=2)
    assert (len(found.batches), found.n_events) == (3, 5)
    assert collected(tmp_path / "out") == [f"e{n}" for n in range(5)]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("name", ["write_parquet", "write_text", "rename"])
def test_a_kill_at_any_moment_leaves_a_batch_with_its_cursor_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    source, out = tmp_path / "log", tmp_path / "out"
    log(source, "events-1.jsonl", record(1))
    collect(FileLog(source), out)
    log(source, "events-1.jsonl", record(2))

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as broken:
        broken.setattr(*{"write_parquet": (pl.DataFrame, name, die)}.get(name, (Path, name, die)))
        with pytest.raises(Killed):
            collect(FileLog(source), out)
    assert collected(out) == ["e1"]
    collect(FileLog(source), out)
    assert collected(out) == ["e1", "e2"]


def test_a_forgotten_user_is_gone_from_every_batch_and_what_comes_later_stays(tmp_path: Path) -> None:
    source, out = tmp_path / "log", tmp_path / "out"
    log(source, "events-1.jsonl", record(1, "u1"), record(2, "u2"))
    collect(FileLog(source), out)
    forget = {"event": "forget", "user_id": "u1", "received": 1e9 + 4}
    log(source, "events-1.jsonl", record(3, "u1"), forget, record(5, "u1"))
    assert collect(FileLog(source), out).n_forgotten == 1
    assert collected(out) == ["e2", "e5"]


def test_records_that_are_none_are_counted_with_the_reason(tmp_path: Path) -> None:
    bad = ["nonsense\n", {"event_id": "x"}, record(1, timestamp=-4), record(2, quantity=0), record(3, event_id="")]
    log(tmp_path / "log", "events-1.jsonl", *bad, record(4))
    found = collect(FileLog(tmp_path / "log"), tmp_path / "out")
    assert (found.n_events, found.bad.total) == (1, 5)
    told = " ".join(found.bad.lines())
    for word in ("no user_id", "timestamp -4", "quantity 0", "no event_id"):
        assert word in told


def test_the_catalogue_is_kept_where_it_changed(tmp_path: Path) -> None:
    log(tmp_path / "log", "events-1.jsonl", record(1))
    item = {"item_id": "B1", "title": "Loom", "attributes": {"price": 3.5}, "available": False, "arrived": 5.0}
    log(tmp_path, "items.jsonl", item | {"title": "Old"}, item)

    def run() -> list[Path]:
        return list(
            collect(FileLog(tmp_path / "log"), tmp_path / "out", items=read_items([tmp_path / "items.jsonl"])).batches
        )

    (first,) = run()
    assert json.loads((first / ITEMS_FILE).read_text()) == {k: v for k, v in item.items() if k != "available"}
    assert run() == []
    log(tmp_path, "items.jsonl", item | {"title": "New"})
    (second,) = run()
    assert collecting.newest_items(tmp_path / "out") == second / ITEMS_FILE
    log(tmp_path, "broken.jsonl", "[]\n")
    with pytest.raises(DatasetError, match="is no item"):
        read_items([tmp_path / "broken.jsonl"])


def test_another_source_than_before_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log(tmp_path / "log", "events-1.jsonl", record(1))
    arguments = ["collect", "--events", str(tmp_path / "log"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert "1 events" in capsys.readouterr().out
    (tmp_path / "out" / "batch-000001" / "cursor.json").write_text('{"stream": "5-0", "added": 1}')
    assert main(arguments) == 2
    assert "from Redis" in capsys.readouterr().err
    with pytest.raises(InputError, match="neither a folder"):
        FileLog(tmp_path / "nowhere")
