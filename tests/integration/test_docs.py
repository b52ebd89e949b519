"""The documentation holds: commands parse, links lead somewhere, names exist, and the README's way is walked once."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from typer.main import get_command

from service.server import run as serve
from service.settings import Settings
from tests.service_process import HTTP, free_port
from training.cli import COMMANDS, build_app, main, repeat_options

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
SHELL_WORDS = {"&&", "||", "|", ";", "&", "then", "do", "done", "fi"}
REDIRECTIONS = {">", ">>", "<", "2>", "2>&1"}
IDS = [page.relative_to(ROOT).as_posix() for page in PAGES]


@dataclass(frozen=True)
class Command:
    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def blocks(page: Path) -> list[list[str]]:
    """Lines of the fenced and of the indented code blocks; a line that ends in a backslash goes on in the next."""
    found: list[list[str]] = []
    fence = inside = False
    before = ""
    for line in page.read_text(encoding="utf-8").splitlines():
        if re.match(r"\s*```", line):
            fence = not fence
            if fence:
                found.append([])
        elif fence:
            found[-1].append(line.strip())
        elif line.startswith("    ") and (inside or not before.strip()):
            if not inside:
                found.append([])
            inside = True
            found[-1].append(line.strip())
        elif line.strip():
            inside = False
        before = line
    return [re.sub(r"\\\n\s*", "", "\n".join(block)).splitlines() for block in found]


def commands_of(line: str) -> list[tuple[str, ...]]:
    """The commands of a shell line, without their environment, redirections and what stands around them."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>")
    lexer.whitespace_split, lexer.commenters = True, "#"
    try:
        words = list(lexer)
    except ValueError:  # not shell: a picture, a sentence with an apostrophe
        return []
    found: list[list[str]] = [[]]
    skip = False
    for word in words:
        if word in SHELL_WORDS:
            found.append([])
        elif word in REDIRECTIONS:
            skip = True
        elif skip:
            skip = False
        elif found[-1] or not re.fullmatch(r"\$|[A-Z_]+=.*", word):
            found[-1].append(word)
    return [tuple(words) for words in found if words]


def documented(*programs: str) -> list[Command]:
    return [
        Command(page.relative_to(ROOT).as_posix(), words)
        for page in PAGES
        for block in blocks(page)
        for line in block
        for words in commands_of(line)
        if words[0] in programs
    ]


def inline_code(page: Path) -> list[str]:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]


def check_rdrec(arguments: list[str]) -> None:
    """Parse as `rdrec` would, without doing anything."""
    assert arguments, "rdrec needs a command"
    name, *rest = arguments
    assert name in COMMANDS, f"rdrec has no command {name}"
    group = get_command(build_app(name))
    assert hasattr(group, "commands")
    assert name in group.commands, f"rdrec {name} is announced but not there"
    module = sys.modules[f"training.commands.{name}"]
    group.commands[name].make_context(name, repeat_options(rest, getattr(module, "MANY_VALUES", ())))


RDREC = [*documented("rdrec"), *documented("torchrun")]


@pytest.mark.parametrize("command", RDREC, ids=str)
def test_rdrec_commands_parse(command: Command) -> None:
    words = list(command.words)
    if words[0] == "torchrun":
        words = words[words.index("training.cli") :]
    if "--help" in words:
        words = words[:2]
        assert words[1] in (*COMMANDS, "--help")
        return
    check_rdrec(words[1:])


def test_a_wrong_option_would_be_noticed() -> None:
    check_rdrec(["export", "checkpoint", "--out", "x"])
    for wrong in (
        ["export", "checkpoint", "--output", "x"],
        ["export", "checkpoint"],
        ["train", "d", "--epochs", "ten"],
    ):
        with pytest.raises(Exception, match=r"No such option|Missing parameter|valid integer"):
            check_rdrec(wrong)
    assert commands_of("A=1 rdrec audit x > log && curl -s y | jq  # why") == [
        ("rdrec", "audit", "x"), ("curl", "-s", "y"), ("jq",),
    ]  # fmt: skip


@pytest.mark.parametrize("command", documented("rdrec-serve"), ids=str)
def test_rdrec_serve_commands_parse(
    command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RDREC_REDIS_URL", "redis://127.0.0.1:1/0")  # which is not asked: there is no such bundle
    # a missing bundle is a status; argparse ends the process for an option that it does not know
    if "--help" not in command.words:
        assert serve([*command.words[1:], "--bundle", "nowhere"]) == 2
        assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize("command", documented("make"), ids=str)
def test_make_targets_exist(command: Command) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in command.words[1:]:
        assert "=" in target or re.search(rf"^{re.escape(target)}:", makefile, re.M), f"no target {target}"


@pytest.mark.parametrize("command", documented("python"), ids=str)
def test_scripts_and_their_options_exist(command: Command) -> None:
    words = command.words
    if words[1].endswith(".py"):
        script = ROOT / words[1]
        assert script.is_file(), f"{words[1]} does not exist"
        for option in (word.partition("=")[0] for word in words if word.startswith("--")):
            assert f'"{option}"' in script.read_text(), f"{words[1]} has no option {option}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_named_in_the_text_exist(page: Path) -> None:
    for code in inline_code(page):
        if match := re.match(r"rdrec ([a-z]+)\b", code):
            name = match.group(1)
            assert name in COMMANDS, code
            group = get_command(build_app(name))
            options = {option for p in group.commands[name].params for option in (*p.opts, *p.secondary_opts)}  # type: ignore[attr-defined]
            for option in re.findall(r"(?<=\s)--[a-z][a-z0-9-]*", code):
                assert option in options, f"{code}: rdrec {name} has no {option}"
        elif code.startswith("make "):
            assert re.search(rf"^{re.escape(code.split()[1])}:", (ROOT / "Makefile").read_text(), re.M), code


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{target} does not exist"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.M)
            assert anchor in {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}, (
                f"no heading {anchor}"
            )


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_files_named_in_the_text_exist(page: Path) -> None:
    tops = "rdrec_core|rdrec_client|training|service|tests|benchmarks|deploy|docs"
    for code in inline_code(page):
        if re.fullmatch(rf"(?:{tops})/[\w./*-]+", code) and "results" not in code:
            assert list(ROOT.glob(code.rstrip("/"))), f"{code} does not exist"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_settings_named_in_the_text_exist(page: Path) -> None:
    fields = {f"RDREC_{name.upper()}" for name in Settings.model_fields}
    sources = [
        path.read_text(encoding="utf-8", errors="ignore")
        for folder in ("training", "service", "tests", "benchmarks", "deploy")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path != Path(__file__) and path.suffix in (".py", ".sh", ".yaml", ".tpl", "")
    ]
    for name in sorted(set(re.findall(r"\bRDREC_[A-Z_]*[A-Z]\b", page.read_text(encoding="utf-8")))):
        assert name in fields or any(name in text for text in sources), f"{name} is not read anywhere"


# -- the README's way on a small shop, for real ------------------------------------------------------------------------

QUICK = {
    "train": ["--time-budget", "0.02", "--set", "vocabulary_size=300", "--set", "validation_limit=20"],
    "fuse": ["--no-tune-graph", "--limit-users", "20"],
    "evaluate": ["--no-sasrec", "--limit-users", "20"],
    "export": ["--score-modes", "trie", "--strategy", "exact"],
}
"""Put behind the README's own options, so that its commands end within seconds."""


def own_data_block() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "## Your own data" in text
    lines = [line for block in blocks(ROOT / "README.md") for line in block]
    start = next(i for i, line in enumerate(lines) if line.startswith("rdrec prepare"))
    end = next(i for i, line in enumerate(lines) if line.startswith("rdrec-serve") and i > start)
    return lines[start : end + 1]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the two files that the README starts from: the sample shop, fewer users."""
    folder = tmp_path_factory.mktemp("readme")
    assert main(["sample", "--out", str(folder / "sample")]) == 0
    reviews = gzip.decompress((folder / "sample" / "reviews.json.gz").read_bytes()).splitlines(keepends=True)
    users = sorted({json.loads(line)["reviewerID"] for line in reviews})[:60]
    kept = [line for line in reviews if json.loads(line)["reviewerID"] in set(users)]
    (folder / "reviews.json.gz").write_bytes(gzip.compress(b"".join(kept)))
    shutil.copy(folder / "sample" / "metadata.json.gz", folder)
    return folder


@pytest.fixture(scope="module")
def walked(shop: Path) -> Path:
    """The README's block run line by line; the bundle that came out."""
    before = Path.cwd()
    os.chdir(shop)
    try:
        for line in own_data_block():
            for words in commands_of(line):
                if words[0] == "rdrec":
                    assert main([*words[1:], *QUICK.get(words[1], [])]) == 0, line
    finally:
        os.chdir(before)
    (bundle,) = {words[words.index("--bundle") + 1] for words in commands_of(own_data_block()[-1])}
    return shop / bundle


@pytest.fixture(scope="module")
def url(walked: Path) -> Iterator[str]:
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RDREC_")}
    log = walked.parent / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("rdrec-serve"), "--bundle", walked, "--port", str(port)],
            env=environment, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert process.poll() is None, log.read_text()
            try:
                if HTTP.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_the_readme_s_way_ends_in_a_bundle(walked: Path) -> None:
    assert (walked / "manifest.json").is_file()
    assert main(["batch", str(walked), "--out", str(walked.parent / "everybody.parquet")]) == 0


CURLS = [c for c in documented("curl") if re.search(r"(?:localhost|127\.0\.0\.1):8000", " ".join(c.words))]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("command", CURLS, ids=str)
def test_curl_commands_are_answered(command: Command, url: str, tmp_path: Path) -> None:
    words = [re.sub(r"(?:https?://)?(?:localhost|127\.0\.0\.1):8000", url, word) for word in command.words]
    body = tmp_path / "body"
    done = subprocess.run(
        [*words, "-s", "-o", body, "-w", "\n%{http_code}"], capture_output=True, text=True, timeout=30
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    status = int(done.stdout.splitlines()[-1])
    if not 200 <= status < 300:
        # ids of a reader's shop are not those of this one, and nobody holds an admin key here: these problems are right
        problem = json.loads(body.read_text())["type"].rpartition(":")[2]
        assert problem in ("unknown-item", "unknown-impression", "unauthenticated", "forbidden"), body.read_text()
