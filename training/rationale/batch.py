"""The road for tens of millions of reviews: questions out as OpenAI-batch JSONL shards, answers back by custom_id.

The shards go to `vllm run-batch` on as many GPUs as there are, or to a hosted batch API; what comes back enters the
same journal and is parsed and judged like any other answer. Nothing is held in memory but one line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from rdrec_core.errors import DatasetError, InputError
from rdrec_core.replacing import replacing_file
from training.rationale.asking import look_up
from training.rationale.budget import Prices
from training.rationale.chat import Generation, read_completion
from training.rationale.journal import Journal
from training.rationale.teacher import Answer, Question

_COMMIT_EVERY = 512


@dataclass(frozen=True)
class BatchTeacher:
    """Who will have answered: the model that the shards name."""

    generation: Generation

    @property
    def name(self) -> str:
        """`batch:` and the model."""
        return f"batch:{self.generation.model}"

    @property
    def settings(self) -> Mapping[str, object]:
        """The generation settings."""
        return asdict(self.generation)


@dataclass(frozen=True)
class Written:
    """What `write_shards` wrote."""

    shards: int
    questions: int


@dataclass
class Read:
    """What `read_answers` found, line by line."""

    new: int = 0
    known: int = 0
    failed: int = 0
    foreign: int = 0
    """Answers to shards of another prompt version, model or setting."""
    malformed: int = 0

    def summary(self) -> str:
        """One line for the screen."""
        counts = f"{self.new} new answers, {self.known} known, {self.failed} failed, {self.malformed} malformed lines"
        wrong = "of other shards (another prompt version, model or setting)"
        return f"{counts}, {self.foreign} {wrong}" if self.foreign else counts


def open_questions(reviews: Iterable[str | None], journal: Journal) -> Iterator[tuple[str, Question]]:
    """(key, question) of whatever the journal has no answer to, each key once."""
    for review in reviews:
        asked = None if review is None else look_up(review, journal).open
        if asked is not None and journal.hand_out(key := journal.key(asked)):
            yield key, asked


def write_shards(
    questions: Iterable[tuple[str, Question]], journal: Journal, teacher: BatchTeacher, folder: Path, shard_size: int
) -> Written:
    """`shard-00000.jsonl`, ... of at most `shard_size` requests, each complete or not there.

    The folder must be new or empty, so that no shard is sent twice unawares. Raises InputError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise InputError(f"--shards {folder} is not empty; name a new folder for the open questions", field="--shards")
    stream = iter(questions)
    shards = total = 0
    while first := next(stream, None):
        path = folder / f"shard-{shards:05d}.jsonl"
        with replacing_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            for key, question in (first, *islice(stream, shard_size - 1)):
                body = teacher.generation.body(question, structured=teacher.generation.structured)
                custom_id = f"{journal.run[:8]}-{key}"
                line = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                total += 1
        shards += 1
    return Written(shards, total)


def read_answers(folder: Path, journal: Journal, prices: Prices, answered_at: float) -> Read:
    """Every `*.jsonl` in the folder into the journal; failed requests stay open. Raises DatasetError without files."""
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise DatasetError(f"--answers {folder} holds no .jsonl file")
    found = Read()
    for path in files:
        with path.open(encoding="utf-8") as lines:
            answers = _answers(lines, journal.run[:8], found)
            while chunk := list(islice(answers, _COMMIT_EVERY)):
                new = journal.add_many([(key, a, prices.of(a)) for key, a in chunk], answered_at)
                found.new += new
                found.known += len(chunk) - new
    return found


def _answers(lines: Iterable[str], run: str, found: Read) -> Iterator[tuple[str, Answer]]:
    for line in lines:
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            owner, key = re.fullmatch(r"([0-9a-f]{8})-([0-9a-f]{32})", record["custom_id"]).groups()  # type: ignore[union-attr]
            response = record.get("response") or {}
            if owner != run:
                found.foreign += 1
            elif record.get("error") or response.get("status_code", 200) != 200:
                found.failed += 1
            else:
                yield key, read_completion(response.get("body"))
        except (ValueError, KeyError, TypeError, AttributeError):
            found.malformed += 1
