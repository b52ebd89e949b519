"""Answers of a batch as platforms hand them back: in any encoding, packed, with lists of errors beside them."""

from __future__ import annotations

import codecs
import gzip
import json
from pathlib import Path

import pytest

from training.rationale.batch import BatchTeacher, open_questions, read_answers, write_shards
from training.rationale.budget import Prices
from training.rationale.chat import Generation
from training.rationale.journal import AnswerJournal
from training.rationale.languages import LANGUAGES, Languages
from training.rationale.prompt import question

REVIEWS = ["I love this café's cups.", "My kids enjoy these soft toys.", "A sturdy box for my tools."]
TEXT = "The user loves café cups “as they were”. The item is a cup."
TEACHER = BatchTeacher(Generation("m", 0.0, 120, True))


def written(tmp_path: Path, journal: AnswerJournal) -> list[str]:
    """The custom ids of the open questions."""
    write_shards(open_questions(REVIEWS, journal), journal, TEACHER, tmp_path / "shards", 10)
    (shard,) = (tmp_path / "shards").iterdir()
    return [json.loads(line)["custom_id"] for line in shard.read_text(encoding="utf-8").splitlines()]


def line(custom_id: str, **record: object) -> str:
    body = {"choices": [{"message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}]}
    whole = {"custom_id": custom_id, "response": {"status_code": 200, "body": body}, "error": None} | record
    return json.dumps(whole, ensure_ascii=False) + "\n"


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-8", b""),
        ("utf-8", codecs.BOM_UTF8),
        ("utf-16-le", codecs.BOM_UTF16_LE),
        ("utf-16-be", codecs.BOM_UTF16_BE),
        ("utf-16-le", b""),
        ("utf-16-be", b""),
        ("utf-32-le", codecs.BOM_UTF32_LE),
        ("cp1252", b""),
    ],
)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_answers_in_any_encoding(tmp_path: Path, encoding: str, mark: bytes, packed: bool) -> None:
    (tmp_path / "out").mkdir()
    with AnswerJournal(tmp_path / "j", TEACHER) as journal:
        ids = written(tmp_path, journal)
        data = mark + "".join(line(custom_id) for custom_id in ids).replace("\n", "\r\n").encode(encoding)
        path = tmp_path / "out" / ("a.jsonl.gz" if packed else "a.jsonl")
        path.write_bytes(gzip.compress(data) if packed else data)
        found = read_answers(tmp_path / "out", journal, Prices(), 0.0)
        assert (found.new, found.malformed, found.failed, found.foreign) == (3, 0, 0, 0)
        entry = journal.get(question(REVIEWS[0]))
        assert entry is not None
        assert entry.answer.text == TEXT


def test_errors_beside_answers_are_counted_with_their_words_and_stay_open(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with AnswerJournal(tmp_path / "j", TEACHER) as journal:
        first, second, third = written(tmp_path, journal)
        (out / "answers.jsonl").write_text(line(first) + "\n", encoding="utf-8")
        refused = {"status_code": 400, "body": {"error": {"message": "too long", "code": "context_length_exceeded"}}}
        (out / "errors.jsonl").write_text(
            line(second, response=refused)
            + line(third, response=None, error={"code": "expired", "message": "too long"})
            + line(third, response={"status_code": 200, "body": {"error": {"message": "busy"}}})
            + '{"custom_id": "' + first[:-3] + "\n",
            encoding="utf-8",
        )  # fmt: skip
        found = read_answers(out, journal, Prices(), 0.0)
        assert (found.new, found.failed, found.malformed) == (1, 3, 1)
        assert found.summary().endswith("; of the failed 2 say: too long")
        open_now = [review for review in REVIEWS if journal.get(question(review)) is None]
        assert open_now == REVIEWS[1:]


def test_a_body_that_is_text_and_content_in_parts(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    body = {"choices": [{"message": {"content": [{"type": "text", "text": TEXT}]}, "finish_reason": "stop"}]}
    with AnswerJournal(tmp_path / "j", TEACHER) as journal:
        first, second, _ = written(tmp_path, journal)
        lines = line(first, response={"status_code": 200, "body": json.dumps(body)}) + line(second, response=body)
        (tmp_path / "out" / "a.jsonl").write_text(lines, encoding="utf-8")
        found = read_answers(tmp_path / "out", journal, Prices(), 0.0)
        assert (found.new, found.malformed) == (2, 0)


def test_shards_ask_in_the_reviews_language_and_in_the_modern_spelling(tmp_path: Path) -> None:
    modern = BatchTeacher(TEACHER.generation, modern=True)
    reviews = [
        "Die Saiten klingen hell und bleiben lange gestimmt, gerne wieder.",
        "Bright strings, they stay in tune.",
    ]
    with AnswerJournal(tmp_path / "j", modern) as journal:
        questions = open_questions(reviews, journal, Languages(LANGUAGES["en"], by_review=True))
        assert write_shards(questions, journal, modern, tmp_path / "shards", 10).questions == 2
    (shard,) = (tmp_path / "shards").iterdir()
    bodies = [json.loads(text)["body"] for text in shard.read_text(encoding="utf-8").splitlines()]
    assert ["two short sentences in German" in json.dumps(body) for body in bodies] == [True, False]
    assert all("max_completion_tokens" in body and "temperature" not in body for body in bodies)
