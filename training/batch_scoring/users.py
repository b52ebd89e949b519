"""Who is scored, in a stable order: all users of the bundle, or those that a file lists. Knows ids, not items' indices.

A list is text (one user id a line), or CSV, TSV or Parquet with a column `user_id` and, if wanted, `history`: item ids,
oldest first, that replace what the bundle knows of the user. In CSV the ids of a history stand apart by a space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import polars as pl

from rdrec_core.catalog import Users
from rdrec_core.errors import InputError
from rdrec_core.file_hash import file_sha256


@dataclass(frozen=True, slots=True)
class AskedUser:
    """One user; history: external item ids, oldest first, or None for the bundle's."""

    user_id: str
    history: tuple[str, ...] | None


class UserList(Protocol):
    """Users by place; the same source gives the same users at the same places."""

    @property
    def identity(self) -> str:
        """Tells two lists apart."""
        ...

    def __len__(self) -> int: ...

    def rows(self, start: int, stop: int) -> list[AskedUser]:
        """The users at places [start, stop)."""
        ...


class BundleUsers:
    """All users that the bundle knows, by their index."""

    identity = "bundle"

    def __init__(self, users: Users) -> None:
        self._users = users

    def __len__(self) -> int:
        return len(self._users)

    def rows(self, start: int, stop: int) -> list[AskedUser]:
        """See UserList."""
        return [AskedUser(self._users.user_ids[index], None) for index in range(start, min(stop, len(self)))]


class ListedUsers:
    """The users of a file, in its order."""

    def __init__(self, frame: pl.DataFrame, identity: str) -> None:
        """frame: user_id (String) and, perhaps, history (List of String)."""
        self._frame, self.identity = frame, identity

    def __len__(self) -> int:
        return len(self._frame)

    def rows(self, start: int, stop: int) -> list[AskedUser]:
        """See UserList."""
        part = self._frame.slice(start, stop - start)
        histories: Sequence[Sequence[str] | None] = [None] * len(part)
        if "history" in part.columns:
            histories = part["history"].to_list()
        return [
            AskedUser(user, None if history is None else tuple(history))
            for user, history in zip(part["user_id"].to_list(), histories, strict=True)
        ]


def read_users(path: Path) -> ListedUsers:
    """Read a list of users. Raises InputError naming the row or column that is wrong, and where users repeat."""
    if not path.is_file():
        raise InputError(f"--users {path} does not exist", field="users")
    try:
        frame = _read(path)
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise InputError(f"--users {path} cannot be read: {error}", field="users") from error
    empty = frame["user_id"].is_null() | (frame["user_id"].str.len_bytes() == 0)
    if empty.any():
        raise InputError(f"--users {path}: row {empty.arg_max()} has no user id (rows count from 0)", field="users")
    again = frame["user_id"].is_duplicated()
    if again.any():
        user = frame["user_id"].filter(again)[0]
        raise InputError(f"--users {path} lists {user!r} more than once; a user has one answer", field="users")
    return ListedUsers(frame, file_sha256(path))


def _read(path: Path) -> pl.DataFrame:
    kinds = {suffix.lower() for suffix in path.suffixes}
    if ".parquet" in kinds:
        frame = pl.read_parquet(path)
    elif kinds & {".csv", ".tsv"}:
        frame = pl.read_csv(path, separator="\t" if ".tsv" in kinds else ",", infer_schema=False)
    else:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        return pl.DataFrame({"user_id": [line for line in lines if line]}, schema={"user_id": pl.String})
    if "user_id" not in frame.columns:
        raise InputError(f"--users {path} has no column user_id; it has {', '.join(frame.columns)}", field="users")
    columns = [pl.col("user_id").cast(pl.String)]
    if "history" in frame.columns:
        history = pl.col("history")
        if frame.schema["history"] == pl.String:
            items = history.str.split(" ").list.filter(pl.element().str.len_bytes() > 0)
            columns.append(pl.when(history.str.len_bytes() > 0).then(items).alias("history"))
        else:
            columns.append(history.cast(pl.List(pl.String)))
    return frame.select(columns)
