"""Reviews through a server that misbehaves in every way, with three kill -9 on the way.

The oracle is the server's own count of the completions that it gave, against the journal after each kill.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import polars as pl
import pytest

from tests.chat_server import Call, ChatServer, Reply, completion
from tests.rationale_dataset import write_dataset
from training.rationale.chat import Generation
from training.rationale.journal import AnswerJournal
from training.rationale.openai import OpenAITeacher
from training.rationale.prompt import STRICT_SYSTEM, question

N_REVIEWS = int(os.environ.get("RDREC_TEST_DISTILLED", "800"))
"""RDREC_TEST_DISTILLED=2000 asks about more."""
N_DISTINCT = N_REVIEWS * 95 // 100
CONCURRENCY = 64
KILL_AFTER = tuple(N_REVIEWS * part // 100 for part in (20, 45, 70))
"""Completions given by the server before each kill."""
GARBAGE = ("", None, "I'm sorry, but I cannot help with that.", "Great!", "{}")
MISDEEDS = (
    "slow", "429", "429-seconds", "429-date", "500", "503", "cut", "malformed", "wrong-schema", "no-choices", "garbage",
    "hopeless-garbage",
)  # fmt: skip


def misdeed(prompt: str) -> str:
    """A third of the questions meet one, told by a hash of their text; a few of them hang."""
    draw = zlib.crc32(prompt.encode())
    if draw % 600 == 7:
        return "hang"
    return MISDEEDS[draw % 36] if draw % 36 < len(MISDEEDS) else ""


def good_answer(prompt: str) -> str:
    number = prompt.split("number ")[1].split(".")[0]
    return json.dumps(
        {
            "user_preference": f"The user loves sturdy wooden puzzles number {number}.",
            "item_attributes": f"The item is a sturdy wooden puzzle number {number}.",
        }
    )


def script(call: Call) -> Reply:
    system, prompt = call.question
    kind = misdeed(prompt)
    good = completion(good_answer(prompt), delay_s=0.01)
    if kind == "hopeless-garbage":
        return completion(GARBAGE[zlib.crc32(prompt.encode()) % len(GARBAGE)])
    if kind == "garbage":
        return good if system == STRICT_SYSTEM else completion(GARBAGE[zlib.crc32(prompt.encode()) % len(GARBAGE)])
    if call.attempt > 0 or not kind:
        return good
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)
    return {
        "slow": completion(good_answer(prompt), delay_s=0.6),
        "hang": Reply(b"", delay_s=600.0),
        "429": Reply(b'{"error": {"message": "slow down"}}', status=429),
        "429-seconds": Reply(b"{}", status=429, headers={"Retry-After": "0.7"}),
        "429-date": Reply(b"{}", status=429, headers={"Retry-After": later}),
        "500": Reply(b"oops", status=500),
        "503": Reply(b"<html>busy</html>", status=503),
        "cut": Reply(b'{"choices": [{"message": {"role"', cut=True),
        "malformed": Reply(b'{"choices": [{"message":'),
        "wrong-schema": Reply(b'{"result": "The user likes it. The item is good."}'),
        "no-choices": Reply(b'{"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 0}}'),
    }[kind]


def review_text(number: int) -> str:
    return f"I love sturdy wooden puzzles and this is sturdy wooden puzzle number {number % N_DISTINCT}."


@pytest.mark.slow
def test_each_review_is_answered_once_across_three_kills(tmp_path: Path) -> None:
    dataset = write_dataset(
        tmp_path / "data",
        [(review_text(n), "train") for n in range(N_REVIEWS)]
        + [(f"Unseen review number {n}.", split) for n in range(50) for split in ("val", "test")],
    )
    journal_path = tmp_path / "journal.sqlite"
    with ChatServer(script) as server:
        command = [
            *(sys.executable, "-m", "training.cli", "distill", str(dataset), "--teacher", f"openai:{server.url}"),
            *("--model", "m", "--concurrency", str(CONCURRENCY), "--timeout-s", "5", "--journal", str(journal_path)),
        ]
        environment = os.environ | {"RDREC_TEACHER_API_KEY": "sk-very-secret"}
        generation = Generation("m", 0.0, 120, True)
        teacher = OpenAITeacher(server.url, generation, concurrency=1, timeout_s=1.0, max_attempts=1)
        key = AnswerJournal(journal_path, teacher).key
        keys = {
            (q.system, q.prompt): key(q)
            for n in range(N_DISTINCT)
            for q in (question(review_text(n)), question(review_text(n), strict=True))
        }

        filed: set[str] = set()
        lost: list[set[str]] = []
        for target in KILL_AFTER:
            process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
            deadline = time.monotonic() + 120
            while server.answered.total() < target:
                assert process.poll() is None, process.stderr and process.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            while server.active - sum(misdeed(p) == "hang" for _, p in server.sent) > 0:
                time.sleep(0.01)  # whatever was in flight runs out, except what hangs
            now_filed = keys_in(journal_path)
            assert filed <= now_filed, "an answer that was on file is gone"
            assert not (dataset / "rationales.parquet").exists(), "no table before everything is answered"
            given = {keys[q] for q, count in server.answered.items() if count}
            assert now_filed <= given
            lost.append(given - now_filed)
            filed = now_filed
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stderr

        # Whatever was given and not filed was in flight at a kill, and only that was ever asked again.
        assert all(len(keys_of_kill) <= CONCURRENCY for keys_of_kill in lost)
        for asked, count in server.answered.items():
            assert count == 1 + sum(keys[asked] in keys_of_kill for keys_of_kill in lost)
        assert set(server.sent) <= set(keys), "only training reviews are ever sent"
        assert server.peak <= CONCURRENCY + 8  # requests of a killed process may still run
        assert server.statuses[429] > N_REVIEWS // 20
        assert server.statuses[500] > N_REVIEWS // 80

        before = server.sent.copy()
        again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert again.returncode == 0
        assert server.sent == before, "a rerun asks nothing"

    assert "sk-very-secret" not in done.stderr + done.stdout
    assert b"sk-very-secret" not in b"".join(path.read_bytes() for path in tmp_path.glob("journal*"))
    check_table(pl.read_parquet(dataset / "rationales.parquet"))


def keys_in(path: Path) -> set[str]:
    """Read as any other reader would: SQLite rolls a torn write back by itself."""
    connection = sqlite3.connect(path)
    try:
        return {row[0] for row in connection.execute("SELECT key FROM answer")}
    finally:
        connection.close()


def check_table(table: pl.DataFrame) -> None:
    """Every training review has the row that the script makes it have."""
    assert table.height == N_REVIEWS
    for row in table.iter_rows(named=True):
        text = review_text(row["user_index"])
        kind = misdeed(question(text).prompt)
        if kind == "hopeless-garbage":
            assert (row["verdict"], row["use"], row["user_preference"]) == ("unparsed", False, None)
        else:
            assert (row["verdict"], row["use"]) == ("ok", True)
            number = row["user_index"] % N_DISTINCT
            assert row["item_attributes"] == f"The item is a sturdy wooden puzzle number {number}."
        askings = 2 if "garbage" in kind else 1
        assert (row["prompt_tokens"], row["completion_tokens"]) == (50 * askings, 20 * askings)
