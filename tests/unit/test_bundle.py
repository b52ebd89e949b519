"""The bundle is whole or absent, and any altered byte is named."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rdrec_core.bundle import MANIFEST_FILE, Bundle, BundleWriter, Description
from rdrec_core.errors import BundleError
from rdrec_core.replacing import replacing_file, replacing_folder
from rdrec_core.types import ScoreMode


def describe(**changes: object) -> Description:
    values = {
        "name": "toy", "created_at": "2026-01-01T00:00:00Z", "recipe": {}, "protocol": "clean",
        "label_scheme": "random", "dataset_sha256": {}, "n_users": 1, "n_items": 3,
        "score_modes": [ScoreMode.TRIE], "text_tasks": [],
    }  # fmt: skip
    return Description.model_validate({**values, **changes})


def write(out: Path, force: bool = False, value: int = 1) -> None:
    with replacing_folder(out, force=force) as folder:
        writer = BundleWriter(folder)
        writer.add_arrays("graph", {"a": np.arange(5) * value, "b": np.eye(2, dtype=np.float32)})
        (folder / "tokenizer.json").write_text("{}")
        writer.finish(describe())


def test_what_was_written_is_read_and_memory_mapped(tmp_path: Path) -> None:
    write(tmp_path / "b")
    bundle = Bundle.open(tmp_path / "b")
    arrays = bundle.arrays("graph")
    assert sorted(arrays) == ["a", "b"]
    assert arrays["a"].tolist() == [0, 1, 2, 3, 4]
    assert isinstance(arrays["a"].base, np.memmap)
    assert bundle.manifest.model_version.startswith("toy-")
    assert bundle.arrays("missing") == {}


def test_the_version_follows_the_content(tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b", value=2)
    write(tmp_path / "c")
    versions = [Bundle.open(tmp_path / x).manifest.model_version for x in "abc"]
    assert versions[0] == versions[2] != versions[1]


@pytest.mark.parametrize("name", ["arrays/graph/a.npy", "tokenizer.json"])
def test_a_missing_or_altered_file_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path / "b")
    file = tmp_path / "b" / name
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} was altered"):
        Bundle.open(tmp_path / "b")
    file.unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        Bundle.open(tmp_path / "b")


def test_a_newer_schema_and_a_broken_manifest_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "b")
    file = tmp_path / "b" / MANIFEST_FILE
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps({**manifest, "schema_version": 99}))
    with pytest.raises(BundleError, match="schema_version 99 is newer"):
        Bundle.open(tmp_path / "b")
    file.write_text("{")
    with pytest.raises(BundleError, match=r"manifest\.json is not JSON"):
        Bundle.open(tmp_path / "b")
    with pytest.raises(BundleError, match="is missing"):
        Bundle.open(tmp_path / "nowhere")


def test_an_existing_folder_is_kept_unless_forced_and_on_any_failure(tmp_path: Path) -> None:
    write(tmp_path / "b")
    before = Bundle.open(tmp_path / "b").manifest.model_version
    with pytest.raises(BundleError, match="--force"):
        write(tmp_path / "b", value=2)
    with pytest.raises(FileNotFoundError), replacing_folder(tmp_path / "b", force=True) as folder:
        (folder / "half").rename(folder / "never written")
    assert Bundle.open(tmp_path / "b").manifest.model_version == before
    write(tmp_path / "b", force=True, value=2)
    assert Bundle.open(tmp_path / "b").manifest.model_version != before
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_kill_9_while_writing_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib\n"
        "from rdrec_core.replacing import replacing_folder\n"
        "with replacing_folder(pathlib.Path(sys.argv[1])) as f:\n"
        "    (f / 'half').write_text('x'); print('writing', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "b")], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / "b").exists()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{process.pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    write(tmp_path / "b")
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_a_file_is_replaced_whole_or_kept_and_leftovers_of_dead_runs_go(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "table.json"
    with replacing_file(file) as temporary:
        temporary.write_text("first")
        assert not file.exists()
    (file.parent / ".table.json.tmp-999999999").write_text("of a killed run")
    with pytest.raises(FileNotFoundError), replacing_file(file) as temporary:
        temporary.with_suffix(".never written").read_text()
    assert [(path.name, path.read_text()) for path in file.parent.iterdir()] == [("table.json", "first")]
