"""benchmarks/records.py: figures are kept where scaling.py finds them again."""

from __future__ import annotations

import json
from datetime import datetime
from functools import partial
from pathlib import Path

from benchmarks.records import in_turns, keep, lines, table


def test_a_run_appends_a_dated_line_and_a_quick_one_does_not(tmp_path: Path) -> None:
    results, file = tmp_path / "results", tmp_path / "figures.json"
    keep("load", {"capacity": 1.5}, results=results)
    keep("load", {"capacity": 2.5}, file=file, results=results)
    keep("load", {"capacity": 3.5}, quick=True, results=results)
    first, second = lines("load", results)
    assert [first["capacity"], second["capacity"]] == [1.5, 2.5]
    assert first["benchmark"] == "load"
    assert datetime.fromisoformat(first["at"]).tzinfo is not None
    kept = json.loads(file.read_text())
    assert kept["capacity"] == 2.5
    assert set(kept) == {"capacity", "others_cpu_share"}
    assert lines("decode", results) == []


def test_figures_stand_to_the_right() -> None:
    columns = table("t", "mode", "users/s", left=("mode",)).columns
    assert [(column.header, column.justify) for column in columns] == [("mode", "left"), ("users/s", "right")]


def test_contestants_take_turns_and_their_medians_are_shown() -> None:
    asked: list[str] = []
    figures = {"a": iter([3, 1, 2]), "b": iter([9, 7, 8])}

    def measured(name: str) -> dict[str, object]:
        asked.append(name)
        return {"seconds": next(figures[name]), "name": name}

    found = in_turns({name: partial(measured, name) for name in figures}, 3)
    assert asked == ["a", "b"] * 3
    assert found == {"a": {"seconds": 2, "name": "a"}, "b": {"seconds": 8, "name": "b"}}
