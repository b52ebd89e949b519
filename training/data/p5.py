"""The dataset folder of P5, POD and RDRec, as published.

| file | content |
|---|---|
| `sequential.txt` | a line a user: user number, item numbers, oldest first |
| `datamaps.json` | `id2user`, `id2item`: number -> original id (inverse maps are not read) |
| `explanation.json` | optional; train, val, test: lists of records `user, item, explanation[, feature]` |
| `explanation_rationale.json` | optional, read in its place; also `user_preference`, `item_attribution` |
| `negative.txt` | optional; a line a user: user number, 99 or more item numbers that the user did not buy |

Splits other than train, val (or valid) and test are refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rdrec_core.errors import DatasetError
from training.data.dataset import SPLITS
from training.data.histories import PurchaseLog

_SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "test": "test"}
TEXTS = {
    "user": pl.Int64,
    "item": pl.Int64,
    "explanation": pl.String,
    "user_preference": pl.String,
    "item_attributes": pl.String,
    "split": pl.Enum(SPLITS),
}
"""What the explanation files hold; the rationales are null without `explanation_rationale.json`."""


@dataclass(frozen=True)
class P5Folder:
    """A folder as read: the log's codes are the published numbers minus 1."""

    log: PurchaseLog
    texts: pl.DataFrame
    """TEXTS, in the order of the files."""
    has_rationales: bool
    negatives: dict[int, list[int]]
    """User number -> item numbers; empty without `negative.txt`."""
    sha256: dict[str, str]


def read_p5(folder: Path, on_bytes: Callable[[int], None] = lambda n: None) -> P5Folder:
    """Read the folder. Raises DatasetError naming the file and line that is wrong."""
    sha256: dict[str, str] = {}

    def read(name: str) -> str | None:
        path = folder / name
        if not path.is_file():
            return None
        data = path.read_bytes()
        sha256[name] = hashlib.sha256(data).hexdigest()
        on_bytes(len(data))
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as cause:
            raise DatasetError(f"{path}: not UTF-8") from cause

    sequences, maps = read("sequential.txt"), read("datamaps.json")
    if sequences is None or maps is None:
        missing = "sequential.txt" if sequences is None else "datamaps.json"
        raise DatasetError(f"{folder} is not a P5 folder: {missing} is missing")
    histories = _number_lines(sequences, folder / "sequential.txt")
    user_ids, item_ids = _id_maps(maps, folder / "datamaps.json")
    log = _log(histories, user_ids, item_ids, folder)

    rationale = read("explanation_rationale.json")
    explanation = rationale if rationale is not None else read("explanation.json")
    name = "explanation_rationale.json" if rationale is not None else "explanation.json"
    texts = pl.DataFrame(schema=TEXTS) if explanation is None else _texts(explanation, folder / name)
    negatives = read("negative.txt")
    return P5Folder(
        log=log,
        texts=texts,
        has_rationales=rationale is not None,
        negatives=_number_lines(negatives, folder / "negative.txt") if negatives is not None else {},
        sha256=sha256,
    )


def source_files(folder: Path) -> list[Path]:
    """The files that `read_p5` would read."""
    names = ["sequential.txt", "datamaps.json", "explanation_rationale.json", "explanation.json", "negative.txt"]
    present = [folder / name for name in names if (folder / name).is_file()]
    if folder / "explanation_rationale.json" in present:
        return [path for path in present if path.name != "explanation.json"]
    return present


def _number_lines(text: str, path: Path) -> dict[int, list[int]]:
    lines: dict[int, list[int]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        try:
            user, *items = map(int, words)
        except ValueError:
            raise DatasetError(f"{path}:{number}: expected whole numbers, a user and items") from None
        if user in lines:
            raise DatasetError(f"{path}:{number}: user {user} has a line already")
        lines[user] = items
    return lines


def _id_maps(text: str, path: Path) -> tuple[pl.Series, pl.Series]:
    """Original ids by number - 1; numbers without an id keep the number as their id."""
    try:
        maps = json.loads(text)
        ids = []
        for name in ("id2user", "id2item"):
            numbered = {int(number): str(identifier) for number, identifier in maps[name].items()}
            if min(numbered, default=1) < 1:
                raise DatasetError(f"{path}: {name} has number {min(numbered)}; numbers count from 1")
            ids.append(
                pl.Series([numbered.get(n, str(n)) for n in range(1, max(numbered, default=0) + 1)], dtype=pl.String)
            )
    except (KeyError, ValueError, AttributeError, TypeError) as cause:
        raise DatasetError(f"{path}: expected the maps id2user and id2item, number -> id ({cause!r})") from cause
    for name, series in zip(("id2user", "id2item"), ids, strict=True):
        if series.n_unique() != len(series):
            raise DatasetError(f"{path}: {name} gives one id to several numbers")
    return ids[0], ids[1]


def _log(histories: dict[int, list[int]], user_ids: pl.Series, item_ids: pl.Series, folder: Path) -> PurchaseLog:
    users = np.repeat(np.fromiter(histories, np.int64, len(histories)), [len(items) for items in histories.values()])
    items = np.array([item for history in histories.values() for item in history], dtype=np.int64)
    for name, numbers, ids in (("user", users, user_ids), ("item", items, item_ids)):
        if len(numbers) and not (numbers.min() >= 1 and numbers.max() <= len(ids)):
            wrong = numbers[(numbers < 1) | (numbers > len(ids))][0]
            raise DatasetError(f"{folder / 'sequential.txt'}: {name} {wrong} is not in datamaps.json (id2{name})")
    return PurchaseLog(
        user_code=(users - 1).astype(np.uint32),
        item_code=(items - 1).astype(np.uint32),
        timestamp=np.full(len(items), -1, dtype=np.int64),
        user_ids=user_ids,
        item_ids=item_ids,
    )


def _texts(text: str, path: Path) -> pl.DataFrame:
    try:
        splits = json.loads(text)
        rows = [_text_row(record, _SPLIT_NAMES[split]) for split, records in splits.items() for record in records]
    except (ValueError, AttributeError, TypeError, KeyError) as cause:
        raise DatasetError(
            f"{path}: expected train, val and test, each a list of records with user, item and explanation ({cause!r})"
        ) from cause
    return pl.DataFrame(rows, schema=TEXTS, orient="row")


def _text_row(record: dict[str, Any], split: str) -> tuple[Any, ...]:
    attributes = record.get("item_attribution", record.get("item_attributes"))
    texts = (record["explanation"], record.get("user_preference"), attributes)
    return (
        int(record["user"]),
        int(record["item"]),
        *(" ".join(str(value).split()) or None if value is not None else None for value in texts),
        split,
    )
