"""docs/shop.md walked from its first command to its last, on fewer users and with quicker trainings."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml

from tests.integration.test_docs import ROOT, blocks, commands_of
from tests.service_process import free_port
from training.cli import main, repeat_options

PAGE = ROOT / "docs" / "shop.md"
QUICK = {
    "tasks": "sequential", "ratio": "0:0:1:0", "epochs": 2, "passes": 1, "vocabulary_size": 300, "validation_limit": 20,
}  # fmt: skip
N_USERS = 80


def shell_lines() -> list[str]:
    """Every command line of the page, in its order; the crontab's is the refresh that was there before."""
    lines = [line for block in blocks(PAGE) for line in block if commands_of(line)]
    programs = ("rdrec", "rdrec-serve", "curl", "openssl", "printf", "ln")
    return [line for line in lines if re.sub(r"^(?:[A-Z_]+=\S+ )+", "", line).split()[0] in programs]


def fewer_users(folder: Path) -> None:
    """The sample shop of some of its users, in place of all."""
    path = folder / "shop" / "reviews.json.gz"
    reviews = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    users = set(sorted({json.loads(line)["reviewerID"] for line in reviews})[:N_USERS])
    path.write_bytes(gzip.compress(b"".join(line for line in reviews if json.loads(line)["reviewerID"] in users)))


def write_settings(folder: Path, url: str) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    settings = yaml.safe_load(text)
    settings["replicas"]["urls"] = [url]
    settings["train"] = {"epochs": 1}
    settings["fuse"] = {"limit_users": 40, "tune_graph": False}
    settings["min_validation"] = 100
    settings["gate"] = {
        "bound": 1.0,
        "doubt": 1.0,
        "max_fall": 1.0,
        "min_questions": 1,
    }  # trained for seconds, nothing is foreseen
    (folder / "refresh.yaml").write_text(yaml.safe_dump(settings))


def serve(line: str, folder: Path, port: int) -> subprocess.Popen[bytes]:
    own = dict(re.findall(r"([A-Z_]+)=(\S+)", line))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RDREC_")} | own
    (words,) = commands_of(line)
    process = subprocess.Popen(
        [Path(sys.executable).with_name("rdrec-serve"), *words[1:], "--port", str(port)],
        cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=(folder / "serve.log").open("wb"),
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, (folder / "serve.log").read_text()[-2000:]
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200:
                return process
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    process.kill()
    pytest.fail("the service was not ready in time")


@pytest.mark.slow
@pytest.mark.skipif(not all(map(shutil.which, ("curl", "openssl"))), reason="curl or openssl is not installed")
def test_every_command_of_the_page_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump(QUICK))
    port = free_port()
    url, process = f"http://127.0.0.1:{port}", None
    walked: list[str] = []
    try:
        for line in shell_lines():
            if line.split("rdrec-serve")[0] != line:
                process = serve(line, tmp_path, port)
                first = httpx.get(f"{url}/v1/model", headers=_key(tmp_path)).json()["model_version"]
            elif line.startswith("rdrec "):
                (words,) = commands_of(re.sub(r"https?://localhost:8000", url, line))
                if words[1] == "build":
                    words = (*words, "--minutes", "0.2", "--config", "quick.yaml")
                if words[1] == "refresh":
                    write_settings(tmp_path, url)
                module = sys.modules.get(f"training.commands.{words[1]}")
                assert main(repeat_options(words[1:], getattr(module, "MANY_VALUES", ()))) == 0, line
                if words[1] == "sample":
                    fewer_users(tmp_path)
            else:
                done = subprocess.run(
                    ["bash", "-c", line.replace("localhost:8000", f"127.0.0.1:{port}")], capture_output=True, text=True
                )
                assert done.returncode == 0, done.stderr
                if line.startswith("curl"):
                    answer = json.loads(done.stdout)
                    assert "type" not in answer, answer
            walked.append(line)
        assert [line.split()[1] for line in walked if line.startswith("rdrec ")] == [
            "sample", "build", "replay", "refresh",
        ]  # fmt: skip
        assert (tmp_path / "bundles" / "current").resolve().name != "first"
        served = httpx.get(f"{url}/v1/model", headers=_key(tmp_path)).json()
        assert served["model_version"] != first
        answer = httpx.post(
            f"{url}/recommend/sequential", json={"user_id": "anna", "n_items": 5}, headers=_key(tmp_path)
        ).json()
        assert len(answer["items"]) == 5
        report = json.loads((tmp_path / "refresh" / "report.json").read_text())
        facts = {step["name"]: step["facts"] for step in report["steps"]}
        assert facts["collect"]["events"] > 300
        assert facts["prepare"]["new_items"] >= 9, "those that arrived in three days"
    finally:
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait()


def _key(folder: Path) -> dict[str, str]:
    return {"Authorization": f"Bearer {(folder / 'key.txt').read_text()}"}
