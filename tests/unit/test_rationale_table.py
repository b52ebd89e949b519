"""The rationales table: written as a stream, in row groups, and read back as it was."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from tests.rationale_dataset import write_dataset, write_many
from training.data.dataset import RATIONALES, Dataset
from training.rationale.distill import reviews_to_ask
from training.rationale.judging import Thresholds
from training.rationale.table import ROW_GROUP, WRITE_ROWS, write_rationales


class Row(dict[str, object]):
    """A dict that weak references can follow."""


def row(n: int) -> Row:
    answered = n % 3 != 0
    return Row(
        user_index=n,
        item_index=n % 7,
        user_preference=f"The user likes puzzle {n}." if answered else None,
        item_attributes=f"The item is puzzle {n}." if answered else None,
        verdict="ok" if answered else "unparsed",
        use=answered,
        grounding=0.75 if answered else None,
        teacher="openai:m",
        prompt_version="paper-1",
        prompt_tokens=None if n % 5 == 0 else n,
        completion_tokens=20,
        cost=n / 8,
    )


def test_the_table_is_written_as_a_stream_and_reads_back_as_it_was(tmp_path: Path) -> None:
    total = 2 * ROW_GROUP + 17
    alive: weakref.WeakSet[Row] = weakref.WeakSet()
    most = 0

    class Tracked(Row):
        __hash__ = object.__hash__  # type: ignore[assignment]

    def rows() -> Iterator[Mapping[str, object]]:
        nonlocal most
        for n in range(total):
            one = Tracked(row(n))
            alive.add(one)
            most = max(most, len(alive))
            yield one

    gc.collect()
    assert write_rationales(tmp_path / "r.parquet", rows()) == total
    assert most <= WRITE_ROWS + 1, "no more rows are Python objects at once"
    groups = pq.ParquetFile(tmp_path / "r.parquet").metadata
    assert [groups.row_group(g).num_rows for g in range(groups.num_row_groups)] == [ROW_GROUP, ROW_GROUP, 17]
    expected = pl.DataFrame([row(n) for n in range(total)], schema=RATIONALES, orient="row")
    assert pl.read_parquet(tmp_path / "r.parquet").equals(expected)


def test_no_rows_are_a_table_too(tmp_path: Path) -> None:
    assert write_rationales(tmp_path / "r.parquet", []) == 0
    assert pl.read_parquet(tmp_path / "r.parquet").equals(pl.DataFrame(schema=RATIONALES))


def test_the_command_keeps_arrow_off_the_allocator_that_holds_on_to_memory(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data", [("I love this soft bear and it is a sturdy toy.", "train")])
    script = (
        "import sys; from training import cli; cli.main(sys.argv[1:]); import pyarrow; import pyarrow.fs; "
        "print(pyarrow.default_memory_pool().backend_name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "distill", str(dataset), "--teacher", "extractive"],
        env={name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "system"


def test_every_eighth_review_is_asked_first_so_that_a_budget_reaches_all_items(tmp_path: Path) -> None:
    data = Dataset(write_many(tmp_path / "d", 43, "plays well with all of us"))
    asked = [int(str(text).split()[0]) for text in reviews_to_ask(data, Thresholds())]
    assert asked[:7] == [0, 8, 16, 24, 32, 40, 1]
    assert sorted(asked) == list(range(43))
