"""`rdrec distill` from the command line, teacher by teacher, on small made datasets."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from tests.chat_server import Call, ChatServer, Reply, completion
from tests.rationale_dataset import write_dataset
from tests.tiny_language_models import tiny_causal, tiny_t5
from training import cli
from training.data.dataset import RATIONALES, Dataset
from training.rationale import prompt

REVIEWS = [
    ("I love strategy games with my friends. The game is easy to learn and it looks great.", "train"),
    ("Great gift", "train"),
    ("Delivered on a rainy Tuesday by some courier", "train"),
    ("My kids enjoy this puzzle. It is sturdy and colorful.", "train"),
    ("My kids enjoy this puzzle.   It is sturdy and colorful.", "train"),
    ("SECRET validation review: I love it and it is soft.", "val"),
    ("SECRET test review: I love it and it is soft.", "test"),
]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data", REVIEWS, titles=("Settlers", None))


def distill(dataset: Path, *options: str) -> int:
    return cli.main(["distill", str(dataset), *options])


def table(dataset: Path) -> pl.DataFrame:
    return pl.read_parquet(dataset / "rationales.parquet")


def test_extractive(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill(dataset, "--teacher", "extractive", "--report", str(tmp_path / "report.md")) == 0
    rows = table(dataset)
    assert dict(rows.schema) == {name: kind() if isinstance(kind, type) else kind for name, kind in RATIONALES.items()}
    assert rows["user_index"].to_list() == [0, 1, 2, 3, 4], "training reviews only, in their order"
    assert rows["verdict"].to_list() == ["ok", "ungrounded", "unparsed", "ok", "ok"]
    assert rows["use"].to_list() == [True, False, False, True, True]
    assert rows["user_preference"][0] == "The user loves strategy games with their friends."
    assert rows["item_attributes"][3] == "The item is sturdy and colorful."
    assert rows["user_preference"].to_list()[1:3] == [None, None], "never the review in place of a rationale"
    assert set(rows["teacher"]) == {"extractive"}
    assert set(rows["prompt_version"]) == {prompt.PROMPT_VERSION}
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| ungrounded | review too short | 1 | 20.0% |" in report
    assert "| 0.9 to 1.0 | 3 |" in report
    assert "The user loves strategy games with their friends." in report
    assert "SECRET" not in report + capsys.readouterr().out


def test_keep_ungrounded_asks_and_keeps(dataset: Path) -> None:
    assert distill(dataset, "--teacher", "extractive", "--keep-ungrounded") == 0
    short = table(dataset).row(1, named=True)
    assert (short["verdict"], short["use"]) == ("ungrounded", True)
    assert short["item_attributes"] == "The item is a great gift."


def answer_for(call: Call) -> Reply:
    assert "SECRET" not in json.dumps(call.body)
    said = call.question[1].split('"')[1]
    return completion(f"The user said {said.rstrip('.')}. The item is what {said.rstrip('.')} says.", tokens=(100, 20))


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(answer_for) as running:
        yield running


def chat(server: ChatServer, *more: str) -> tuple[str, ...]:
    return ("--teacher", f"openai:{server.url}", "--model", "m", *more)


def test_identical_reviews_and_reruns_ask_nothing_twice(dataset: Path, server: ChatServer) -> None:
    assert distill(dataset, *chat(server)) == 0
    assert sorted(server.sent.values()) == [1, 1, 1], "three distinct reviews are long enough"
    assert table(dataset)["prompt_tokens"].to_list() == [100, 0, 100, 100, 100]
    assert distill(dataset, *chat(server, "--min-grounding", "0.9")) == 0
    assert server.sent.total() == 3, "other thresholds judge anew without asking"


def test_answers_outlive_a_dataset_that_is_prepared_anew(dataset: Path, server: ChatServer) -> None:
    assert distill(dataset, *chat(server)) == 0
    shutil.rmtree(dataset)
    more = ("I love trains and this one is a sturdy wooden train.", "train")
    write_dataset(dataset, [more, *REVIEWS], titles=("Settlers", None))
    assert distill(dataset, *chat(server)) == 0
    assert sorted(server.sent.values()) == [1, 1, 1, 1], "only the new review is asked"


def test_a_changed_prompt_or_setting_starts_anew_and_deletes_nothing(
    dataset: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert distill(dataset, *chat(server)) == 0
    assert distill(dataset, *chat(server, "--temperature", "0.5")) == 0
    assert server.sent.total() == 6
    with monkeypatch.context() as changed:
        changed.setattr(prompt, "SYSTEM", prompt.SYSTEM + " Be brief.")
        assert distill(dataset, *chat(server)) == 0
        assert server.sent.total() == 9
    assert distill(dataset, *chat(server)) == 0
    assert server.sent.total() == 9, "the first answers are still there"


def test_a_token_budget_is_never_passed_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    texts = [(f"I love game number {n} and it is a sturdy game number {n}.", "train") for n in range(60)]
    dataset = write_dataset(tmp_path / "data", texts)
    with ChatServer(answer_for) as server:
        budget = ("--concurrency", "8", "--max-completion-tokens", "20")
        assert distill(dataset, *chat(server, *budget, "--max-tokens-total", "3000")) == 3
        # At most 25 answers of 120 tokens fit; the reservation is an estimate above 120, so some room is left.
        spent = server.answered.total() * 120
        assert 2000 <= spent <= 3000
        assert table(dataset).height == server.answered.total(), "what was answered is in the table"
        assert distill(dataset, *chat(server, *budget, "--max-tokens-total", "3000")) == 3
        assert server.answered.total() * 120 <= 3000, "a rerun shares the budget"
        price = ("--price-prompt", "10", "--price-completion", "50")  # 0.002 an answer
        assert distill(dataset, *chat(server, *budget, *price, "--max-cost", "0.05")) == 3
        assert server.answered.total() < 60
        assert distill(dataset, *chat(server, *budget)) == 0
        assert sorted(server.sent.values()) == [1] * 60
        assert table(dataset).height == 60


def test_a_budget_needs_usage(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ChatServer(lambda call: completion("The user is here. The item is there.", usage=False)) as server:
        assert distill(dataset, *chat(server, "--max-tokens-total", "100000")) == 2
        assert "no token usage" in capsys.readouterr().err
        assert distill(dataset, *chat(server)) == 0
    assert table(dataset)["prompt_tokens"].to_list() == [None, 0, None, None, None]


def test_failed_requests_leave_their_reviews_open(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = {"rainy"}

    def script(call: Call) -> Reply:
        bad = any(word in call.question[1] for word in broken)
        return Reply(b"{}", status=400) if bad else answer_for(call)

    with ChatServer(script) as server:
        assert distill(dataset, *chat(server)) == 3
        assert "1 reviews are open" in capsys.readouterr().err
        assert table(dataset)["user_index"].to_list() == [0, 1, 3, 4]
        broken.clear()
        assert distill(dataset, *chat(server)) == 0
        assert table(dataset)["user_index"].to_list() == [0, 1, 2, 3, 4]
        assert server.answered.total() == 3


def test_a_wrong_key_stops_at_once_and_writes_nothing(
    dataset: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-fallback")
    seen: list[str] = []

    def script(call: Call) -> Reply:
        seen.append(call.headers.get("authorization", ""))
        return Reply(b"{}", status=401)

    with ChatServer(script) as server:
        assert distill(dataset, *chat(server)) == 2
        monkeypatch.setenv("RDREC_TEACHER_API_KEY", "sk-first")
        assert distill(dataset, *chat(server)) == 2
    assert seen == ["Bearer sk-fallback", "Bearer sk-first"]
    assert "the key is missing or wrong" in capsys.readouterr().err
    assert not (dataset / "rationales.parquet").exists()


@pytest.mark.slow
def test_ctrl_c_waits_for_what_is_paid_and_keeps_the_old_table(tmp_path: Path) -> None:
    texts = [(f"I love game number {n} and it is a sturdy game number {n}.", "train") for n in range(400)]
    dataset = write_dataset(tmp_path / "data", texts)
    (dataset / "rationales.parquet").write_bytes(b"the table of an earlier run")

    def script(call: Call) -> Reply:
        said = call.question[1].split('"')[1]
        return completion(f"The user said {said} The item is {said}", delay_s=0.1)

    with ChatServer(script) as server:
        command = [sys.executable, "-m", "training.cli", "distill", str(dataset), *chat(server, "--concurrency", "4")]
        process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        while server.answered.total() < 20:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
        assert process.returncode == 130, stderr
        assert "run the same command again" in stderr
        assert (dataset / "rationales.parquet").read_bytes() == b"the table of an earlier run"
        assert server.answered.total() < 400
        assert not [path for path in dataset.iterdir() if path.suffix == ".tmp"]
        assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
        assert sorted(server.answered.values()) == [1] * 400, "what was under way at Ctrl-C was kept"


@pytest.mark.parametrize("make", [tiny_causal, tiny_t5])
def test_transformers(dataset: Path, tmp_path: Path, make: object) -> None:
    folder = make(tmp_path / "tiny-model")  # type: ignore[operator]
    options = ("--teacher", f"transformers:{folder}", "--max-completion-tokens", "10", "--batch-size", "2")
    assert distill(dataset, *options) == 0
    rows = table(dataset)
    # Random weights say nothing that parses: dropped after the strict question, and the tokens of both are counted.
    assert rows["verdict"].to_list() == ["unparsed", "ungrounded", "unparsed", "unparsed", "unparsed"]
    assert set(rows["teacher"]) == {"transformers:tiny-model"}
    assert min(rows["prompt_tokens"].to_list()[2:]) > 100
    assert 2 <= max(rows["completion_tokens"].to_list()) <= 20


def batch_server(shards: Path, answers: Path, text_of: object) -> int:
    """What `vllm run-batch` does with a folder of shards; returns the number of requests."""
    answers.mkdir(exist_ok=True)
    requests = 0
    for shard in sorted(shards.glob("*.jsonl")):
        lines = []
        for line in shard.read_text(encoding="utf-8").splitlines():
            request = json.loads(line)
            assert (request["method"], request["url"]) == ("POST", "/v1/chat/completions")
            text = text_of(request["body"])  # type: ignore[operator]
            response = {"status_code": 200, "request_id": "r", "body": json.loads(completion(text).body)}
            if text is None:
                response = {"status_code": 500, "request_id": "r", "body": None}
            lines.append(
                json.dumps({"id": "b", "custom_id": request["custom_id"], "response": response, "error": None})
            )
            requests += 1
        (answers / shard.name).write_text("\n".join(reversed(lines)) + "\n", encoding="utf-8")  # any order comes back
    return requests


def test_batch_round_trip(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    batch = ("--teacher", "batch", "--model", "m")
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    assert distill(dataset, *batch, "--shards", str(first), "--shard-size", "2") == 0
    assert [len(path.read_text().splitlines()) for path in sorted(first.iterdir())] == [2, 1]
    assert "SECRET" not in "".join(path.read_text() for path in first.iterdir())
    assert distill(dataset, *batch, "--shards", str(first)) == 2, "no shard is written over"

    def flaky(body: dict) -> str | None:
        said = body["messages"][1]["content"]
        if "rainy" in said:
            return None
        return (
            "Sorry, what?" if "puzzle" in said else "1. The user loves strategy games.\n2. The item is easy to learn."
        )

    assert batch_server(first, tmp_path / "out1", flaky) == 3
    (tmp_path / "out1" / "stray.jsonl").write_text(
        'not json\n{"custom_id": 5}\n{"custom_id": "' + "0" * 8 + "-" + "1" * 32 + '"}\n'
    )
    assert distill(dataset, *batch, "--answers", str(tmp_path / "out1"), "--shards", str(second)) == 3
    assert "2 new answers, 0 known, 1 failed, 2 malformed lines, 1 of other shards" in capsys.readouterr().err
    assert table(dataset)["user_index"].to_list() == [0, 1], "the short one and the answered one"
    bodies = [json.loads(line)["body"] for path in second.iterdir() for line in path.read_text().splitlines()]
    systems = {"puzzle" in b["messages"][1]["content"]: b["messages"][0]["content"] for b in bodies}
    assert systems == {True: prompt.STRICT_SYSTEM, False: prompt.SYSTEM}, (
        "the unparsed one strictly, the failed one again"
    )

    def good(body: dict) -> str:
        return "The user wants a puzzle for the kids. The item is a sturdy, colorful puzzle."

    assert batch_server(second, tmp_path / "out2", good) == 2
    assert distill(dataset, *batch, "--answers", str(tmp_path / "out2"), "--shards", str(third)) == 0
    assert not list(third.iterdir())
    rows = table(dataset)
    assert rows["verdict"].to_list() == ["ok", "ungrounded", "ungrounded", "ok", "ok"]
    assert rows["completion_tokens"].to_list() == [20, 0, 20, 40, 40], "both askings are counted"
    assert set(rows["teacher"]) == {"batch:m"}
    assert distill(dataset, *batch, "--answers", str(tmp_path / "out1")) == 0, "reading twice changes nothing"
    assert table(dataset).equals(rows)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--teacher", "gpt"), "extractive, openai:URL, transformers:PATH_OR_ID or batch"),
        (("--teacher", "openai:http://127.0.0.1:9/v1"), "--model"),
        (("--teacher", "batch", "--model", "m"), "--shards"),
        (("--teacher", "batch", "--model", "m", "--answers", "/nowhere"), "/nowhere"),
        (("--teacher", "extractive", "--shards", "x"), "--shards"),
        (("--teacher", "extractive", "--max-cost", "1"), "--price-prompt"),
        (("--teacher", "extractive", "--min-grounding", "2"), "--min-grounding"),
        (("--teacher", "extractive", "--concurrency", "0"), "--concurrency"),
    ],
)
def test_wrong_options_are_named(
    dataset: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], complaint: str
) -> None:
    assert distill(dataset, *options) == 2
    assert complaint in capsys.readouterr().err
    assert not (dataset / "rationales.parquet").exists()


def test_a_folder_that_is_no_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill(tmp_path, "--teacher", "extractive") == 2
    assert "dataset.json" in capsys.readouterr().err
    assert Dataset(write_dataset(tmp_path / "d", [])).info.n_reviews == 0
    assert distill(tmp_path / "d", "--teacher", "extractive") == 0, "no reviews: an empty table"
    assert table(tmp_path / "d").height == 0
