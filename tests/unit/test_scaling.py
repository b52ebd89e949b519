"""benchmarks/scaling.py: the table is arithmetic on the benchmarks' lines, and what is missing is said to be."""

import json
from pathlib import Path

import pytest

from benchmarks.scaling import (
    Assumptions,
    assumptions_of,
    markdown,
    per_million,
    read_measured,
    table,
    with_tables,
)

LOAD = {"at": "now", "bundle": "b", "cores": 2, "engine_threads": 1, "engine": 500.0, "capacity": 400.0,
        "service_to_engine": 0.8, "unanswered": 0}  # fmt: skip
PREPARE = {"rows_per_s": 10_000.0, "workers": 2, "n_users": 100, "n_interactions": 1000, "n_reviews": 500}
LINES = {
    "load": [{**LOAD, "capacity": 1.0}, LOAD],
    "decode": [{"records": [
        {"task": "sequential", "mode": "trie", "strategy": "exact", "batch": 16, "users_per_s": 20.0},
        {"task": "sequential", "mode": "hf", "strategy": "beam", "batch": 16, "users_per_s": 99.0},
        {"task": "topn", "mode": "trie", "strategy": "exact", "batch": 16, "users_per_s": 99.0},
    ]}],
    "prepare": [{**PREPARE, "rows": 2000, "peak_rss_bytes": 3_000}, {**PREPARE, "rows": 1000, "peak_rss_bytes": 2_000}],
    "distill": [{"quick": False, "answers_per_s": 100.0, "concurrency": 64, "latency_s": 0.2}],
    "train": [{"threads": 1, "device": "cpu", "results": [
        {"task": "sequential", "backbone": "tiny", "samples_per_s": {"scratch": 1000.0}},
        {"task": "topn", "backbone": "tiny", "samples_per_s": {"scratch": 9e9}},
    ]}],
}  # fmt: skip


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES[name]))
    return folder


def test_the_table_is_arithmetic(tmp_path: Path) -> None:
    measured, said = read_measured(write(tmp_path, *LINES))
    assert not [line for line in said if "missing" in line]
    rows = {row.what: row.values[0] for row in table(measured, Assumptions())}  # a million users
    assert rows["requests at peak"] == pytest.approx(1e6 * 5 * 3 / 86_400)  # 173.6 a second
    assert rows["serving, measured bundle: cores"] == 2  # 200 a core at half load: 173.6 / 100
    assert rows["serving, measured bundle: replicas"] == 2  # one of two cores, and a spare
    assert rows["serving, measured bundle: a month"] == pytest.approx(2 * 2 * 730 * 0.04)
    assert rows["serving, T5-small: cores"] == 44  # 10 a core, 0.8 of them through HTTP, half load: 173.6 / 4
    assert rows["`rdrec batch`, measured bundle"] == pytest.approx(1e6 / 500 / 3600)
    assert rows["`rdrec batch`, T5-small: shards"] == 4  # 27.8 core hours within 8
    assert rows["`rdrec prepare`, one machine"] == pytest.approx(1e6 * 10 / 10_000 / 3600)
    assert rows["`rdrec prepare`, memory (straight line)"] == pytest.approx((1_000 + 1e7) / 1e9)  # a byte a row
    assert rows["`rdrec distill`, every review, one client"] == pytest.approx(1e6 * 5 / 100 / 3600)
    assert rows["`rdrec train`, one pass over the interactions"] == pytest.approx(1e6 * 10 / 1000 / 3600)
    assert per_million(Assumptions(), measured.capacity_a_core) == pytest.approx(1e6 / 100 / 3600 * 0.04)


def test_what_was_not_measured_is_missing_not_guessed(tmp_path: Path) -> None:
    measured, said = read_measured(write(tmp_path, "load"))
    assert {line.partition(":")[0] for line in said if "missing; run" in line} == {
        "decode", "prepare", "distill", "train",
    }  # fmt: skip
    text = markdown(measured, Assumptions(), said)
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in text.splitlines() if line.startswith("| ")}
    assert "missing" not in rows["serving, measured bundle: cores"]
    for name in ("serving, T5-small: cores", "Redis memory, all copies", "`rdrec prepare`, one machine", "reviews"):
        assert rows[name].count("missing") == 3
    assert "T5-small missing" in text


def test_assumptions_can_be_replaced() -> None:
    assert assumptions_of(["price_core_hour=0.1", "spare_replicas=3"]) == Assumptions(
        price_core_hour=0.1, spare_replicas=3
    )
    with pytest.raises(SystemExit, match="the names are"):
        assumptions_of(["price=1"])


def test_only_what_is_between_the_markers_changes() -> None:
    page = "a\n<!-- begin: benchmarks/scaling.py -->\nold\n<!-- end: benchmarks/scaling.py -->\nb\n"
    assert with_tables(page, "new") == page.replace("old", "new")
