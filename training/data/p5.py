"""The dataset folder of P5, POD and RDRec, as published, and that of OpenP5.

| file | content |
|---|---|
| `sequential.txt` | a line a user: user number, item numbers, oldest first; OpenP5: `user_sequence.txt`, original ids |
| `datamaps.json` | `id2user`, `id2item`: number -> original id (inverse maps are not read); may miss where ids stand |
| `explanation.json` | optional; train, val, test: lists of records `user, item, explanation[, feature]` |
| `explanation_rationale.json` | optional, read in its place; also `user_preference`, `item_attribution` |
| `negative.txt` | optional; a line a user: user number, 99 or more item numbers that the user did not buy |

Where words are original ids they are numbered by `datamaps.json`, or by first appearance without it. Splits other than
train, val (or valid) and test are refused.
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
from training.data.values import Notes

SEQUENCES = ("sequential.txt", "user_sequence.txt")
"""What the file of histories is called, the first that is there."""
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
    """User number -> item numbers; empty without `negative.txt`. What is no item of the folder is left out."""
    notes: Notes
    """What in the negatives would make figures wrong."""
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
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as cause:
            raise DatasetError(f"{path}: not UTF-8") from cause

    name = next((name for name in SEQUENCES if (folder / name).is_file()), SEQUENCES[0])
    sequences, maps = read(name), read("datamaps.json")
    if sequences is None:
        raise DatasetError(f"{folder} is not a P5 folder: {name} is missing")
    words = _words(sequences, folder / name)
    known = None if maps is None else _id_maps(maps, folder / "datamaps.json")
    if known is None and all(word.isdigit() for user, items in words.items() for word in (user, *items)):
        raise DatasetError(
            f"{folder} is not a P5 folder: datamaps.json, which says whose numbers these are, is missing"
        )
    users, items = _Numbers.of(words, known, folder / name)
    histories = {users.number(user): [items.number(i) for i in own] for user, own in words.items()}
    log = _log(histories, users.ids, items.ids)

    rationale = read("explanation_rationale.json")
    explanation = rationale if rationale is not None else read("explanation.json")
    text_name = "explanation_rationale.json" if rationale is not None else "explanation.json"
    texts = pl.DataFrame(schema=TEXTS) if explanation is None else _texts(explanation, folder / text_name, users, items)
    given = read("negative.txt")
    negatives: dict[int, list[int]] = {}
    notes = Notes()
    if given is not None:
        negatives = _negatives(_words(given, folder / "negative.txt"), users, items, histories, notes)
    return P5Folder(
        log=log,
        texts=texts,
        has_rationales=rationale is not None,
        negatives=negatives,
        notes=notes,
        sha256=sha256,
    )


def source_files(folder: Path) -> list[Path]:
    """The files that `read_p5` would read."""
    names = [*SEQUENCES, "datamaps.json", "explanation_rationale.json", "explanation.json", "negative.txt"]
    present = [folder / name for name in names if (folder / name).is_file()]
    if folder / "explanation_rationale.json" in present:
        return [path for path in present if path.name != "explanation.json"]
    return present


def _words(text: str, path: Path) -> dict[str, list[str]]:
    lines: dict[str, list[str]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        user, *items = line.split() or [""]
        if user in lines:
            raise DatasetError(f"{path}:{number}: user {user} has a line already")
        if user:
            lines[user] = items
    return lines


@dataclass(frozen=True)
class _Numbers:
    """Which number, from 1, a word of the files stands for; `ids` has the original ids by number - 1."""

    what: str
    ids: pl.Series
    path: Path
    by_word: dict[str, int]

    @classmethod
    def of(
        cls, words: dict[str, list[str]], known: tuple[pl.Series, pl.Series] | None, path: Path
    ) -> tuple[_Numbers, _Numbers]:
        """For users and items: by the maps, words being numbers or ids; without maps by first appearance."""
        own: tuple[list[str], list[str]] = (
            list(words), list(dict.fromkeys(item for items in words.values() for item in items))
        )  # fmt: skip
        made = []
        for what, seen, ids in zip(("user", "item"), own, known or (None, None), strict=True):
            if ids is None:
                made.append(cls(what, pl.Series(seen, dtype=pl.String), path, {w: n for n, w in enumerate(seen, 1)}))
                continue
            numbers = {str(n): n for n in range(1, len(ids) + 1)}
            if not all(word.lstrip("-").isdigit() for word in seen):
                by_id = {identifier: n for n, identifier in enumerate(ids.to_list(), 1)}
                strange = next(word for word in seen if not word.lstrip("-").isdigit())
                if strange not in by_id:
                    raise DatasetError(f"{path}: {what} {strange} is neither a whole number nor an id of datamaps.json")
                numbers = by_id
            made.append(cls(what, ids, path, numbers))
        return made[0], made[1]

    def number(self, word: str) -> int:
        """Raises DatasetError for a word that the folder does not know."""
        found = self.by_word.get(word) or self.by_word.get(str(int(word)) if word.lstrip("-").isdigit() else word)
        if found is None:
            raise DatasetError(f"{self.path}: {self.what} {word} is not in datamaps.json (id2{self.what})")
        return found


def _negatives(
    words: dict[str, list[str]], users: _Numbers, items: _Numbers, histories: dict[int, list[int]], notes: Notes
) -> dict[int, list[int]]:
    negatives: dict[int, list[int]] = {}
    for user, given in words.items():
        if user not in users.by_word:
            notes.add("users in negative.txt whom the folder does not have", user)
            continue
        number = users.by_word[user]
        negatives[number] = [items.by_word[word] for word in given if word in items.by_word]
        strange = next((word for word in given if word not in items.by_word), None)
        if strange is not None:
            n = len(given) - len(negatives[number])
            notes.add("negatives left out, being no item of the folder", f"user {user}, item {strange}", n)
        own = list(dict.fromkeys(histories[number]))
        if len(own) > 2 and own[-1] in negatives[number]:
            notes.add("users whose negatives hold their own test item, which makes figures wrong", f"user {user}")
    for number in histories:
        if number not in negatives:
            notes.add("users without negatives in negative.txt", f"user {users.ids[number - 1]}")
    return negatives


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


def _log(histories: dict[int, list[int]], user_ids: pl.Series, item_ids: pl.Series) -> PurchaseLog:
    users = np.repeat(np.fromiter(histories, np.int64, len(histories)), [len(items) for items in histories.values()])
    items = np.array([item for history in histories.values() for item in history], dtype=np.int64)
    return PurchaseLog(
        user_code=(users - 1).astype(np.uint32),
        item_code=(items - 1).astype(np.uint32),
        timestamp=np.full(len(items), -1, dtype=np.int64),
        user_ids=user_ids,
        item_ids=item_ids,
    )


def _texts(text: str, path: Path, users: _Numbers, items: _Numbers) -> pl.DataFrame:
    try:
        splits = json.loads(text)
        rows = [
            _text_row(record, _SPLIT_NAMES[split], users, items)
            for split, records in splits.items()
            for record in records
        ]
    except (ValueError, AttributeError, TypeError, KeyError) as cause:
        raise DatasetError(
            f"{path}: expected train, val and test, each a list of records with user, item and explanation ({cause!r})"
        ) from cause
    return pl.DataFrame(rows, schema=TEXTS, orient="row")


def _text_row(record: dict[str, Any], split: str, users: _Numbers, items: _Numbers) -> tuple[Any, ...]:
    """Users and items that the folder does not know get number 0, which is nobody's."""
    attributes = record.get("item_attribution", record.get("item_attributes"))
    texts = (record["explanation"], record.get("user_preference"), attributes)
    return (
        users.by_word.get(str(record["user"]).strip(), 0),
        items.by_word.get(str(record["item"]).strip(), 0),
        *(" ".join(str(value).split()) or None if value is not None else None for value in texts),
        split,
    )
