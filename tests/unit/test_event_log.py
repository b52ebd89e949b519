"""The files of the event log: whole lines, each once, rotated, and what is told when the disk refuses."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from itertools import chain
from pathlib import Path

import pytest

from service.stores.event_log import FileEventLog, LogLine
from service.stores.history.base import HistoryUnavailableError


def line(number: int) -> LogLine:
    return LogLine(f"id{number}", json.dumps({"event_id": f"id{number}"}))


def logged(folder: Path) -> list[list[int]]:
    """Numbers of the events, by file in the order of their names."""
    files = sorted(folder.glob("events-*.jsonl"))
    return [[int(json.loads(text)["event_id"][2:]) for text in file.read_text().splitlines()] for file in files]


def all_of(files: list[list[int]]) -> list[int]:
    return list(chain.from_iterable(files))


@pytest.mark.parametrize("fsync", ["always", "interval", "never"])
async def test_every_line_is_there_once_when_append_returns(tmp_path: Path, fsync: str) -> None:
    log = FileEventLog(tmp_path / "new" / "folder", fsync=fsync)  # type: ignore[arg-type]
    await asyncio.gather(*(log.append([line(n), line(n + 1)]) for n in range(0, 200, 2)))
    assert sorted(all_of(logged(log.folder))) == list(range(200))
    await log.append([line(3), line(200), line(200)])
    assert len(all_of(logged(log.folder))) == 201, "a repetition is not logged again"
    assert {file.stat().st_mode & 0o777 for file in log.folder.iterdir()} == {0o600}
    await log.close()
    await log.close()


async def test_a_file_ends_with_its_hour_and_at_its_size_and_is_not_written_to_again(tmp_path: Path) -> None:
    now = 1_000_000_000.0
    log = FileEventLog(tmp_path, max_bytes=50, clock=lambda: now)
    for number in range(4):
        await log.append([line(number)])
    now += 3600
    await log.append([line(4)])
    await log.close()
    await log.append([line(5)])
    assert logged(tmp_path) == [[0, 1, 2], [3], [4], [5]]
    names = sorted(file.name for file in tmp_path.iterdir())
    assert [name.split("-")[1] for name in names] == ["20010909T01"] * 2 + ["20010909T02"] * 2


async def test_always_is_on_the_disk_before_it_is_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync

    def fsync(file: int) -> None:
        synced.append(len(all_of(logged(tmp_path))))
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    log = FileEventLog(tmp_path, fsync="always")
    await log.append([line(0)])
    assert synced[-1] == 1
    other = FileEventLog(tmp_path, fsync="never")
    synced.clear()
    await other.append([line(1)])
    await other.close()
    assert not synced


async def test_a_full_disk_is_told_to_all_who_wait_and_the_next_line_begins_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = FileEventLog(tmp_path)
    await log.append([line(0)])
    real = os.write

    def full(file: int, content: bytes) -> int:
        if len(content) > 5:
            return real(file, content[:5])  # a part of it still found room
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", lambda file, content: full(file, content[:7]))
    outcomes = await asyncio.gather(log.append([line(1)]), log.append([line(2)]), return_exceptions=True)
    assert all(isinstance(outcome, HistoryUnavailableError) for outcome in outcomes)
    assert "No space left" in str(outcomes[0])
    assert "RDREC_EVENT_LOG_DIR" in str(outcomes[0])
    monkeypatch.setattr(os, "write", real)
    await log.append([line(1)])
    first, second = (file.read_text() for file in sorted(tmp_path.glob("*.jsonl")))
    assert not first.endswith("\n"), "the torn line stands last"
    assert second == line(1).text + "\n"


async def test_who_left_meanwhile_keeps_nobody_else_from_being_told(tmp_path: Path) -> None:
    log = FileEventLog(tmp_path)
    gone = asyncio.create_task(log.append([line(0)]))
    await asyncio.sleep(0)
    gone.cancel()
    await log.append([line(1)])
    assert sorted(all_of(logged(tmp_path))) == [0, 1]
