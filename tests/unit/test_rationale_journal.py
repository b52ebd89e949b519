"""The journal: found again by all that shaped the answer, only ever added to, whole after a torn write."""

from __future__ import annotations

import shutil
import sqlite3
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from rdrec_core.errors import DatasetError
from training.rationale import journal as journal_module
from training.rationale.journal import AnswerJournal
from training.rationale.prompt import question
from training.rationale.teacher import Answer


@dataclass(frozen=True)
class Someone:
    name: str = "someone"
    settings: dict[str, object] = field(default_factory=lambda: {"temperature": 0.0})


ASKED = question("I love soft toys.")
ANSWER = Answer("The user likes soft toys. The item is soft.", 10, None, truncated=True)


def test_an_answer_is_found_again_in_another_process_life(tmp_path: Path) -> None:
    with AnswerJournal(tmp_path / "j", Someone()) as journal:
        assert journal.get(ASKED) is None
        assert journal.add_many([(journal.key(ASKED), ANSWER, 0.25)], 1.0) == 1
    with AnswerJournal(tmp_path / "j", Someone()) as journal:
        entry = journal.get(ASKED)
        assert entry is not None
        assert (entry.answer, entry.cost) == (ANSWER, 0.25)
        spent = journal.spent()
        assert (spent.answers, spent.tokens, spent.cost) == (1, 10, 0.25)


def test_the_first_answer_stays(tmp_path: Path) -> None:
    with AnswerJournal(tmp_path / "j", Someone()) as journal:
        key = journal.key(ASKED)
        journal.add_many([(key, ANSWER, 0.25)], 1.0)
        assert journal.add_many([(key, replace(ANSWER, text="other"), 1.0)], 2.0) == 0
        entry = journal.get(ASKED)
    assert entry is not None
    assert entry.answer == ANSWER
    for statement in ("UPDATE answer SET text = ''", "DELETE FROM answer"):
        with sqlite3.connect(tmp_path / "j") as other, pytest.raises(sqlite3.IntegrityError, match="append only"):
            other.execute(statement)


def test_every_part_of_the_question_and_the_teacher_makes_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "j"
    base = AnswerJournal(path, Someone())
    keys = [
        base.key(ASKED),
        base.key(question("I love soft toys!")),
        base.key(question("I love soft toys.", strict=True)),
        base.key(replace(ASKED, system=ASKED.system + " ")),
        AnswerJournal(path, Someone(name="another")).key(ASKED),
        AnswerJournal(path, Someone(settings={"temperature": 0.5})).key(ASKED),
    ]
    monkeypatch.setattr(journal_module, "PROMPT_VERSION", "paper-2")
    keys.append(AnswerJournal(path, Someone()).key(ASKED))
    assert len(set(keys)) == len(keys)
    monkeypatch.undo()
    assert AnswerJournal(path, Someone()).key(question("  I love\n soft   toys. ")) == base.key(ASKED)


def test_another_teacher_starts_anew_beside_the_old_answers(tmp_path: Path) -> None:
    with AnswerJournal(tmp_path / "j", Someone()) as journal:
        journal.add_many([(journal.key(ASKED), ANSWER, 0.25)], 1.0)
    with AnswerJournal(tmp_path / "j", Someone(name="another")) as journal:
        assert journal.get(ASKED) is None
        assert journal.spent().answers == 0
    with AnswerJournal(tmp_path / "j", Someone()) as journal:
        assert journal.get(ASKED) is not None


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    with (
        AnswerJournal(tmp_path / "j", Someone()),
        pytest.raises(DatasetError, match="another `rdrec distill`"),
        AnswerJournal(tmp_path / "j", Someone()),
    ):
        pass


def test_a_file_that_is_no_journal_is_named(tmp_path: Path) -> None:
    (tmp_path / "j").write_bytes(b"not a database at all, but long enough to be read as a header" * 10)
    with pytest.raises(DatasetError, match="not a journal"), AnswerJournal(tmp_path / "j", Someone()):
        pass


@pytest.mark.parametrize("torn_bytes", [1, 500, 4096, 5000])
def test_a_torn_last_write_costs_only_that_write(tmp_path: Path, torn_bytes: int) -> None:
    with AnswerJournal(tmp_path / "j", Someone()) as journal:
        for n in range(20):
            journal.add_many([(journal.key(question(f"Review {n}.")), ANSWER, 0.0)], 1.0)
        # What a machine that stopped dead in the middle of a write leaves: the log without its last bytes.
        for name in ("j", "j-wal"):
            shutil.copy(tmp_path / name, tmp_path / f"torn{name}")
    wal = tmp_path / "tornj-wal"
    wal.write_bytes(wal.read_bytes()[:-torn_bytes])
    with AnswerJournal(tmp_path / "tornj", Someone()) as journal:
        found = [journal.get(question(f"Review {n}.")) is not None for n in range(20)]
        assert found == sorted(found, reverse=True), "what is lost is the end"
        assert sum(found) in (18, 19)
        assert journal.add_many([(journal.key(question("Review 19.")), ANSWER, 0.0)], 1.0) == 1


def test_a_key_is_handed_out_once(tmp_path: Path) -> None:
    with AnswerJournal(tmp_path / "j", Someone()) as journal:
        assert [journal.hand_out(key) for key in ("a", "b", "a")] == [True, True, False]


def test_answers_of_a_server_that_moved_are_found_and_counted(tmp_path: Path) -> None:
    """Until now the address was among the settings: files of then are read as they are."""
    old = Someone(settings={"url": "http://old:8000/v1", "temperature": 0.0})
    with AnswerJournal(tmp_path / "j", old) as journal:
        journal.add_many([(journal.key(ASKED), ANSWER, 0.25)], 1.0)
    other = Someone(settings={"url": "http://old:8000/v1", "temperature": 0.5})
    with AnswerJournal(tmp_path / "j", other) as journal:
        assert journal.get(ASKED) is None
    with AnswerJournal(tmp_path / "j", Someone()) as journal:
        entry = journal.get(ASKED)
        assert entry is not None
        assert entry.answer == ANSWER
        assert journal.spent().answers == 1
        assert journal.get(question("Another review.")) is None
