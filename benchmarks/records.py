"""What every benchmark does with its figures: medians of turns, a dated JSON line under results/, a file, a table.

Also says how busy others kept the machine since this was imported, which benchmarks do before they measure. Knows no
benchmark. `scaling.py` reads the lines again.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Collection, Hashable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from rich.table import Table

from benchmarks.quiet import Usage, others_share, verdict

_BEGUN = Usage.now()
_Name = TypeVar("_Name", bound=Hashable)
DEMO = Path("work/demo")
"""Where `make demo` leaves its bundle and dataset: what is measured unless told."""
RESULTS = Path(__file__).resolve().parent / "results"


def in_turns(contestants: Mapping[_Name, Callable[[], Mapping[str, Any]]], repeats: int) -> dict[_Name, dict[str, Any]]:
    """Figures of each contestant, all of them measured `repeats` times in turns, so that whatever else the machine does
    hits all alike: of numbers the median, of other figures the last.
    """
    found: dict[_Name, list[Mapping[str, Any]]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, measure in contestants.items():
            found[name].append(measure())
    return {name: {key: _median([row[key] for row in rows]) for key in rows[-1]} for name, rows in found.items()}


def _median(values: list[Any]) -> Any:
    return statistics.median_low(values) if all(isinstance(value, int | float) for value in values) else values[-1]


def keep(
    name: str, record: Mapping[str, Any], *, file: Path | None = None, quick: bool = False, results: Path = RESULTS
) -> None:
    """Append the record to results/<name>.jsonl with the benchmark's name and the time; `file` gets it alone.

    quick: leave no line; the run said whether the benchmark works, not what is true of the machine.
    """
    share = others_share(_BEGUN, Usage.now(), os.cpu_count() or 1)
    print(verdict(share))
    record = {**record, "others_cpu_share": None if share is None else round(share, 3)}
    if file is not None:
        file.write_text(json.dumps(record, indent=2), encoding="utf-8")
    if quick:
        return
    results.mkdir(parents=True, exist_ok=True)
    line = {"benchmark": name, "at": datetime.now(UTC).isoformat(timespec="seconds"), **record}
    with (results / f"{name}.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")


def lines(name: str, results: Path = RESULTS) -> list[dict[str, Any]]:
    """What `keep` appended, oldest first; empty where the benchmark never ran."""
    file = results / f"{name}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines() if line.strip()] if file.is_file() else []


def table(title: str | None, *columns: str, left: Collection[str] = ()) -> Table:
    """A table whose columns are aligned as figures are, but for those in `left`."""
    made = Table(title=title)
    for column in columns:
        made.add_column(column, justify="left" if column in left else "right")
    return made
