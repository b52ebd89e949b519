"""What an evaluation leaves behind: one JSON record, and one Parquet row a user and system beside it.

The top level of the record carries the measured system's metrics under their printed names, so that a script needs no
path into it; `rows` holds every system of the table. Knows files and columns, not how anything was measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from rdrec_core.errors import DatasetError
from rdrec_core.replacing import replacing_file
from training.evaluation.measure import Answers
from training.evaluation.metrics import coverage, novelty, per_user, summary
from training.evaluation.protocol import Questions
from training.evaluation.significance import by_user, interval, paired_difference

HEADLINE = "NDCG@10"


@dataclass(frozen=True)
class Measured:
    """One table: the questions and every system's answers by name.

    main: the system that the record is about; popularity (N,): the items' shares of the purchases that were fitted on.
    """

    asked: Questions
    outcomes: Mapping[str, Answers]
    main: str
    popularity: npt.NDArray[np.float64]


def ranking_record(measured: Measured, *, seed: int) -> dict[str, Any]:
    """Metrics, intervals, coverage, novelty and paired differences of a ranking table, ready for JSON."""
    users = measured.asked.users
    values = {
        name: {metric: by_user(each, users) for metric, each in per_user(outcome.ranks).items()}
        for name, outcome in measured.outcomes.items()
    }
    rows = {}
    for name, outcome in measured.outcomes.items():
        low, high = interval(values[name][HEADLINE], np.random.default_rng(seed))
        rows[name] = summary(outcome.ranks) | {
            f"{HEADLINE} low": low, f"{HEADLINE} high": high,
            "coverage@10": coverage(outcome.lists, len(measured.popularity)),
            "novelty@10": novelty(outcome.lists, measured.popularity), "users_per_s": outcome.users_per_s,
        }  # fmt: skip
    differences = {
        name: {
            metric: paired_difference(
                values[measured.main][metric], theirs[metric], np.random.default_rng(seed)
            ).record()
            for metric in ("HR@10", HEADLINE)
        }
        for name, theirs in values.items()
        if name != measured.main
    }
    return rows[measured.main] | {
        "n_users": len(np.unique(users)), "n_questions": len(users), "main": measured.main, "rows": rows,
        "differences": differences,
    }  # fmt: skip


def rank_table(measured: Measured) -> pl.DataFrame:
    """One row a question and system.

    user_index, target, target_share (of the fitted purchases), history_length, system, rank (from 1, null where the
    list lacks the target), items (up to ten).
    """
    frames = []
    for name, outcome in measured.outcomes.items():
        frames.append(
            pl.DataFrame(
                {
                    "user_index": measured.asked.users.astype(np.int32),
                    "target": measured.asked.targets.astype(np.int32),
                    "target_share": measured.popularity[measured.asked.targets].astype(np.float32),
                    "history_length": measured.asked.lengths().astype(np.int32),
                    "system": [name] * len(measured.asked),
                    "rank": [None if np.isinf(rank) else float(rank) for rank in outcome.ranks],
                    "items": [row[row >= 0].tolist() for row in outcome.lists],
                },
                schema_overrides={"rank": pl.Float32, "items": pl.List(pl.Int32)},
            )
        )
    return pl.concat(frames)


def write_results(out: Path, record: Mapping[str, Any], ranks: pl.DataFrame | None) -> None:
    """Write `out` (JSON), the Parquet of the same name first: a record never stands without its ranks."""
    if ranks is not None:
        with replacing_file(out.with_suffix(".parquet")) as temporary:
            ranks.write_parquet(temporary)
    with replacing_file(out) as temporary:
        temporary.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_record(path: Path) -> dict[str, Any]:
    """A record that `write_results` wrote. Raises DatasetError where it is not one."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(f"{path} does not exist; make it with `rdrec evaluate --out`") from error
    except ValueError as error:
        raise DatasetError(f"{path} is not JSON: {error}") from error
    if not isinstance(record, dict) or "task" not in record:
        raise DatasetError(f"{path} is not a result of `rdrec evaluate`")
    return record
