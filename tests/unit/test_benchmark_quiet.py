"""How much of the machine others took, from a /proc that the test wrote."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.quiet import TOO_BUSY, Usage, children_mb, others_share, verdict

TICKS = os.sysconf("SC_CLK_TCK")


def write_proc(root: Path, *, busy_s: float, idle_s: float, processes: dict[int, tuple[int, float, float]]) -> None:
    """processes: parent, own seconds, seconds of ended children, by number."""
    root.mkdir(exist_ok=True)
    parts = [busy_s / 2, 0, busy_s / 2, idle_s, 100, 0, 0, 0]
    (root / "stat").write_text("cpu  " + " ".join(str(int(part * TICKS)) for part in parts) + " 0 0\ncpu0 1\n")
    for number, (parent, own_s, ended_s) in processes.items():
        (root / str(number)).mkdir(exist_ok=True)
        fields = ["S", str(parent), *("0" * 9), *(str(int(s * TICKS)) for s in (own_s, 0, ended_s, 0)), "20"]
        (root / str(number) / "stat").write_text(f"{number} (a (name) {number}) " + " ".join(fields))


def test_own_time_is_that_of_the_process_and_all_that_came_of_it(tmp_path: Path) -> None:
    processes = {1: (0, 50.0, 0.0), 10: (1, 2.0, 3.0), 11: (10, 4.0, 0.0), 12: (11, 1.0, 0.0), 13: (1, 100.0, 0.0)}
    write_proc(tmp_path / "proc", busy_s=400, idle_s=1000, processes=processes)
    usage = Usage.now(tmp_path / "proc", 10)
    assert usage is not None
    assert usage.own == pytest.approx(10.0)
    assert usage.machine == pytest.approx(400.0)


def test_memory_is_that_of_all_that_came_of_a_process(tmp_path: Path) -> None:
    processes = {10: (1, 0.0, 0.0), 11: (10, 0.0, 0.0), 12: (11, 0.0, 0.0), 13: (1, 0.0, 0.0)}
    write_proc(tmp_path / "proc", busy_s=1, idle_s=1, processes=processes)
    for number in processes:
        (tmp_path / "proc" / str(number) / "smaps_rollup").write_text(f"55-66 [rollup]\nRss: 1 kB\nPss: {number} kB\n")
    assert children_mb(tmp_path / "proc", 10) == pytest.approx(23 / 1024)


def test_the_rest_of_what_was_busy_is_others() -> None:
    before, after = Usage(0.0, 100.0, 5.0), Usage(10.0, 116.0, 17.0)
    assert others_share(before, after, 2) == pytest.approx(0.2)
    assert others_share(before, Usage(10.0, 110.0, 17.0), 2) == 0.0, "clocks of the two differ by a little"
    assert others_share(None, after, 2) is None


def test_the_verdict_warns_where_figures_say_nothing() -> None:
    assert verdict(TOO_BUSY + 0.01).startswith("TOO BUSY TO TELL")
    assert not verdict(TOO_BUSY).startswith("TOO BUSY")
    assert "not known" in verdict(None)


def test_nothing_is_known_without_proc(tmp_path: Path) -> None:
    assert Usage.now(tmp_path) is None
