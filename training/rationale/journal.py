"""Every answer that a teacher ever gave, on disk, found again by what was asked.

SQLite in WAL mode, one commit an answer: a kill -9 at any point loses only what was not yet committed, and a torn
write is rolled back when the journal is opened again (a power cut may lose the last commits, never the file). Rows are
only ever added; triggers refuse anything else. The key is a hash of all that shapes an answer (prompt, teacher and
model, settings; not the address of a server, which may move), so another one finds nothing and starts anew beside the
old answers. Knows no parsing and no verdicts: those are recomputed from the raw text, so that a better parser costs
nothing.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from rdrec_core.errors import DatasetError
from training.rationale.prompt import PROMPT_VERSION
from training.rationale.teacher import Answer, Identity, Question

_SCHEMA = """
CREATE TABLE IF NOT EXISTS run (id TEXT PRIMARY KEY, description TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS answer (
    key TEXT PRIMARY KEY, run TEXT NOT NULL, text TEXT NOT NULL, truncated INTEGER NOT NULL,
    prompt_tokens INTEGER, completion_tokens INTEGER, cost REAL NOT NULL, answered_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS answer_run ON answer (run, prompt_tokens, completion_tokens, cost);
CREATE TRIGGER IF NOT EXISTS answer_is_final BEFORE UPDATE ON answer BEGIN SELECT RAISE(ABORT, 'append only'); END;
CREATE TRIGGER IF NOT EXISTS answer_stays BEFORE DELETE ON answer BEGIN SELECT RAISE(ABORT, 'append only'); END;
CREATE TEMP TABLE IF NOT EXISTS handed_out (key TEXT PRIMARY KEY);
"""


@dataclass(frozen=True)
class Entry:
    """A stored answer and what it cost, in the currency of the prices given."""

    answer: Answer
    cost: float


@dataclass(frozen=True)
class Spent:
    """What all answers of one run id took together; each answer counts once, however many reviews share it."""

    answers: int
    prompt_tokens: int
    completion_tokens: int
    cost: float

    @property
    def tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


class AnswerJournal:
    """One file; one process at a time (a second one gets a DatasetError). Use as a context manager."""

    def __init__(self, path: Path, teacher: Identity) -> None:
        self.path = path
        description = {"prompt_version": PROMPT_VERSION, "teacher": teacher.name, "settings": dict(teacher.settings)}
        self._description = json.dumps(description, sort_keys=True)
        self.run = hashlib.sha256(self._description.encode()).hexdigest()[:32]
        self.runs = [self.run]

    def __enter__(self) -> Self:
        try:
            self._db = sqlite3.connect(self.path, isolation_level=None, timeout=1.0)
            for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=NORMAL", "temp_store=FILE"):
                self._db.execute(f"PRAGMA {pragma}")
            self._db.executescript(_SCHEMA)
            self._db.execute("INSERT OR IGNORE INTO run VALUES (?, ?)", (self.run, self._description))
            known = self._db.execute("SELECT id, description FROM run").fetchall()
            self.runs += [run for run, description in known if self._is_older_spelling(run, description)]
        except sqlite3.Error as error:
            busy = "locked" in str(error)
            reason = "another `rdrec distill` is using it" if busy else f"it is not a journal ({error})"
            raise DatasetError(f"cannot open the journal {self.path}: {reason}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def _is_older_spelling(self, run: str, description: str) -> bool:
        """Whether a run of an older file is this one: there the server's address was among the settings."""
        other = json.loads(description)
        other.get("settings", {}).pop("url", None)
        return run != self.run and json.dumps(other, sort_keys=True) == self._description

    def key(self, question: Question, run: str | None = None) -> str:
        """128 bits over the run (prompt version, teacher, settings) and every word that is sent."""
        digest = hashlib.sha256((run or self.run).encode())
        for part in (question.system, question.prompt):
            digest.update(b"\0" + part.encode("utf-8", "surrogatepass"))
        return digest.hexdigest()[:32]

    def get(self, question: Question) -> Entry | None:
        """The answer to this question, if any."""
        for run in self.runs:
            row = self._db.execute(
                "SELECT text, prompt_tokens, completion_tokens, truncated, cost FROM answer WHERE key = ?",
                (self.key(question, run),),
            ).fetchone()
            if row is not None:
                return Entry(Answer(row[0], row[1], row[2], bool(row[3])), row[4])
        return None

    def add_many(self, entries: Iterable[tuple[str, Answer, float]], answered_at: float) -> int:
        """Store answers for good in one commit: on file when this returns. Returns how many were new; old ones stay."""
        before = self._db.total_changes
        rows = (
            (key, self.run, a.text, a.truncated, a.prompt_tokens, a.completion_tokens, cost, answered_at)
            for key, a, cost in entries
        )
        self._db.execute("BEGIN")
        self._db.executemany("INSERT OR IGNORE INTO answer VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        self._db.execute("COMMIT")
        return self._db.total_changes - before

    def hand_out(self, key: str) -> bool:
        """Mark a key as given out in this process (on disk, not in memory); False when it was already."""
        return self._db.execute("INSERT OR IGNORE INTO handed_out VALUES (?)", (key,)).rowcount == 1

    def spent(self) -> Spent:
        """Over all answers of this run id, those of earlier processes included."""
        places = ", ".join("?" * len(self.runs))
        row = self._db.execute(
            "SELECT COUNT(*), TOTAL(prompt_tokens), TOTAL(completion_tokens), TOTAL(cost) FROM answer"
            f" WHERE run IN ({places})",
            self.runs,
        ).fetchone()
        return Spent(int(row[0]), int(row[1]), int(row[2]), float(row[3]))
