"""What every benchmark does with its figures: a dated JSON line under results/, a file for the caller, a table.

Also says how busy others kept the machine since this was imported, which benchmarks do before they measure. Knows no
benchmark. `scaling.py` reads the lines again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.quiet import Usage, others_share, verdict

_BEGUN = Usage.now()
RESULTS = Path(__file__).resolve().parent / "results"


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
