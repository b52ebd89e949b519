"""What filters cost as the catalogue grows: a mask when it is new and when it is kept, and what the search adds.

    python benchmarks/filters.py [--items 10000,1000000] [--quick] [--json FILE]

Items are made up: a price, one of 2,000 brands, three of 300 categories, a label of one token. Appends one JSON line to
results/filters.jsonl.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.records import in_turns, keep, table  # noqa: E402
from rdrec_core.columns import ListColumn, NumberColumn, TextColumn  # noqa: E402
from rdrec_core.decoding.item_trie import ItemTrie  # noqa: E402
from rdrec_core.decoding.path_arrays import Availability  # noqa: E402
from rdrec_core.encoding import RaggedTokens  # noqa: E402
from rdrec_core.filters import ItemColumns, Where  # noqa: E402
from rdrec_core.item_graph import ItemGraph  # noqa: E402
from rdrec_core.ranking import Ranker  # noqa: E402

EXPRESSIONS = {
    "price": {"price": {"lte": 25}},
    "issue": {
        "category": "c7",
        "price": {"lte": 25},
        "brand": {"in": ["b1", "b2"]},
        "not": {"category": {"any": ["c9"]}},
    },
}
KEPT = 2000


def made_up(n: int, rng: np.random.Generator) -> ItemColumns:
    """Columns as they come out of a bundle."""
    brands, categories = TextColumn.of(f"b{k}" for k in range(2000)), ListColumn.of([f"c{k}"] for k in range(300))
    arrays = {
        **brands.arrays("brand"), **categories.arrays("category"),
        "brand.codes": rng.integers(0, 2000, n).astype(np.int32),
        "category.owners": np.repeat(np.arange(n, dtype=np.int32), 3),
        "category.codes": rng.integers(0, 300, 3 * n).astype(np.int32),
    }  # fmt: skip
    fields = {
        "price": NumberColumn(rng.random(n) * 100),
        "brand": TextColumn.from_arrays(arrays, "brand"),
        "category": ListColumn.from_arrays(arrays, "category"),
    }
    return ItemColumns(n, fields)


def milliseconds(work: Callable[[], object], times: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - start) / times * 1000


def measure(n: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    columns = made_up(n, rng)
    ranker = Ranker(None, ItemGraph(np.full(n, 1 / n, dtype=np.float32), {}), None, columns=columns,  # type: ignore[arg-type]
                    available=np.ones(n, dtype=np.bool_))  # fmt: skip
    trie = ItemTrie.build(RaggedTokens(np.arange(n + 1), np.arange(2, n + 2).astype(np.int32)))
    states = trie.states(collapsed=True)
    record: dict[str, float] = {"n_items": n}
    for name, document in EXPRESSIONS.items():
        where = Where.parse(document)
        record[f"{name}.first_ms"] = milliseconds(lambda: ranker.open_to(where))  # noqa: B023
        record[f"{name}.kept_ms"] = milliseconds(lambda: ranker.open_to(Where.parse(document)), KEPT)  # noqa: B023
        mask = ranker.open_to(where)
        assert mask is not None
        record[f"{name}.eligible"] = int(mask.items.sum())
        record[f"{name}.search_first_ms"] = milliseconds(lambda: Availability(states, mask.items[trie.order]))  # noqa: B023
    record["put_ms"] = milliseconds(lambda: columns.put(5, brand="b3", categories=["c1"], attributes={"price": 3}), 100)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", default="10000,100000,1000000")
    parser.add_argument("--repeats", type=int, default=3, help="turns over the sizes, of which medians are shown")
    parser.add_argument("--quick", action="store_true", help="one small size, and no line kept")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sizes = [2000] if options.quick else [int(size) for size in options.items.split(",")]
    turns = in_turns({size: partial(measure, size) for size in sizes}, 1 if options.quick else options.repeats)
    runs = list(turns.values())
    shown = table("milliseconds", *runs[0])
    for run in runs:
        shown.add_row(*(f"{value:,}" if isinstance(value, int) else f"{value:.4f}" for value in run.values()))
    Console(width=200).print(shown)
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    keep("filters", {"machine": machine, "runs": runs}, file=options.json, quick=options.quick)


if __name__ == "__main__":
    main()
