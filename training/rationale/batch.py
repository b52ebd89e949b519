"""The road for tens of millions of reviews: questions out as OpenAI-batch JSONL shards, answers back by custom_id.

The shards go to `vllm run-batch` on as many GPUs as there are, or to a hosted batch API; what comes back enters the
same journal and is parsed and judged like any other answer. Nothing is held in memory but one line.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TextIO

from rdrec_core.errors import DatasetError, InputError
from rdrec_core.replacing import replacing_file
from training.rationale.asking import ENGLISH_ONLY, look_up
from training.rationale.budget import Prices
from training.rationale.chat import ErrorReplyError, Failure, Generation, read_completion
from training.rationale.journal import AnswerJournal
from training.rationale.languages import Languages
from training.rationale.teacher import Answer, Question

_COMMIT_EVERY = 512


@dataclass(frozen=True)
class BatchTeacher:
    """Who will have answered: the model that the shards name."""

    generation: Generation
    modern: bool = False
    """Whether the shards spell limits as newer models want them; see `Generation.body`."""

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
    reasons: Counter[str] = field(default_factory=Counter)
    """What the failed ones say."""
    foreign: int = 0
    """Answers to shards of another prompt version, model or setting."""
    malformed: int = 0

    def summary(self) -> str:
        """One line for the screen."""
        counts = f"{self.new} new answers, {self.known} known, {self.failed} failed, {self.malformed} malformed lines"
        wrong = "of other shards (another prompt version, model or setting)"
        if self.foreign:
            counts += f", {self.foreign} {wrong}"
        if self.reasons:
            (reason, count), *_ = self.reasons.most_common(1)
            counts += f"; of the failed {count} say: {reason}"
        return counts


def open_questions(
    reviews: Iterable[str | None], journal: AnswerJournal, languages: Languages = ENGLISH_ONLY
) -> Iterator[tuple[str, Question]]:
    """(key, question) of whatever the journal has no answer to, each key once."""
    for review in reviews:
        asked = None if review is None else look_up(review, journal, languages.of(review)).open
        if asked is not None and journal.hand_out(key := journal.key(asked)):
            yield key, asked


def write_shards(
    questions: Iterable[tuple[str, Question]],
    journal: AnswerJournal,
    teacher: BatchTeacher,
    folder: Path,
    shard_size: int,
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
                body = teacher.generation.body(
                    question, structured=teacher.generation.structured, modern=teacher.modern
                )
                custom_id = f"{journal.run[:8]}-{key}"
                line = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                total += 1
        shards += 1
    return Written(shards, total)


def read_answers(folder: Path, journal: AnswerJournal, prices: Prices, answered_at: float) -> Read:
    """Every `*.jsonl` (or `*.jsonl.gz`) in the folder into the journal; failed requests stay open.

    The files may be of any encoding that a platform writes, and lists of errors may lie beside the answers.
    Raises DatasetError without files.
    """
    files = sorted(path for pattern in ("*.jsonl", "*.jsonl.gz", "*.ndjson") for path in folder.glob(pattern))
    if not files:
        raise DatasetError(f"--answers {folder} holds no .jsonl file")
    found = Read()
    runs = {run[:8] for run in journal.runs}
    for path in files:
        with _opened(path) as lines:
            answers = _answers(lines, runs, found)
            while chunk := list(islice(answers, _COMMIT_EVERY)):
                new = journal.add_many([(key, a, prices.of(a)) for key, a in chunk], answered_at)
                found.new += new
                found.known += len(chunk) - new
    return found


def _opened(path: Path) -> TextIO:
    """By its byte order mark, else by where the zero bytes of an ASCII brace are, else UTF-8, else Windows' Latin-1."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        head = file.read(1 << 20)
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        encoding = "utf-32"
    elif head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif b"\0" in head[:2]:
        encoding = "utf-16-be" if head[:1] == b"\0" else "utf-16-le"
    else:
        encoding = "utf-8-sig" if _is_utf8(path, opener) else "cp1252"
    return io.TextIOWrapper(opener(path, "rb"), encoding=encoding, errors="replace")


def _is_utf8(path: Path, opener: Callable[..., BinaryIO]) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with opener(path, "rb") as file:
        try:
            while block := file.read(1 << 20):
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def _answers(lines: Iterable[str], runs: set[str], found: Read) -> Iterator[tuple[str, Answer]]:
    for line in lines:
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            owner, key = re.fullmatch(r"([0-9a-f]{8})-([0-9a-f]{32})", record["custom_id"]).groups()  # type: ignore[union-attr]
            if owner not in runs:
                found.foreign += 1
                continue
            response = record.get("response") or {}
            body = response.get("body", response if "choices" in response else None)
            if isinstance(body, str):  # some platforms put the body's own text there
                body = json.loads(body)
            status = response.get("status_code", 200)
            if record.get("error") or status != 200:
                failure = Failure.read(record if record.get("error") else body)
                found.failed += 1
                found.reasons[failure.words or f"status {status}"] += 1
            else:
                yield key, read_completion(body)
        except ErrorReplyError as error:
            found.failed += 1
            found.reasons[error.failure.words] += 1
        except (ValueError, KeyError, TypeError, AttributeError):
            found.malformed += 1
