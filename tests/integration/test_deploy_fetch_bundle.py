"""The init container's script: bundles from an archive over HTTP, and what it refuses."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_service import write_bundle
from tests.replica import ROOT

pytestmark = pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="unpacking needs Python 3.11.4")

SCRIPT = ROOT / "deploy/helm/rdrec/files/fetch_bundle.py"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    folder = tmp_path / "site"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def run(target: Path, url: str = "", sha256: str = "") -> subprocess.CompletedProcess[str]:
    target.mkdir(exist_ok=True)
    environment = {**os.environ, "BUNDLE_URL": url, "MANIFEST_SHA256": sha256, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(target)], capture_output=True, text=True, env=environment, timeout=60
    )


def packed(bundle: Path, archive: Path, inside: str) -> str:
    with tarfile.open(archive, "w:gz") as files:
        files.add(bundle, arcname=inside)
    return hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()


@pytest.mark.parametrize("inside", ["", "some-folder"])
def test_an_archive_is_unpacked_and_checked_also_after_a_cut_attempt(
    tmp_path: Path, site: tuple[Path, str], inside: str
) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    sha256 = packed(bundle, site[0] / "b.tar.gz", inside)
    target = tmp_path / "target"
    (target / "arrays").mkdir(parents=True)
    (target / "arrays" / "left-over").write_text("x")
    done = run(target, f"{site[1]}/b.tar.gz", sha256)
    assert done.returncode == 0, done.stderr
    assert "files are as the manifest says" in done.stdout
    assert {p.relative_to(target) for p in target.rglob("*")} == {p.relative_to(bundle) for p in bundle.rglob("*")}
    assert run(target, "", sha256).returncode == 0, "a bundle that is already there is only checked"


def test_another_manifest_is_refused(tmp_path: Path, site: tuple[Path, str]) -> None:
    packed(write_bundle(tmp_path / "bundle"), site[0] / "b.tar.gz", "")
    done = run(tmp_path / "target", f"{site[1]}/b.tar.gz", "0" * 64)
    assert done.returncode != 0
    assert "has SHA-256" in done.stderr


def test_an_altered_file_is_refused_by_name(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    file = next(bundle.rglob("popularity.npy"))
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    done = run(bundle)
    assert done.returncode != 0
    assert "popularity.npy was altered" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_archive_cannot_write_outside(tmp_path: Path, site: tuple[Path, str]) -> None:
    with tarfile.open(site[0] / "b.tar.gz", "w:gz") as files:
        entry = tarfile.TarInfo("../outside.txt")
        entry.size = 1
        files.addfile(entry, io.BytesIO(b"x"))
    assert run(tmp_path / "target", f"{site[1]}/b.tar.gz").returncode != 0
    assert not (tmp_path / "outside.txt").exists()


def test_what_cannot_be_fetched_is_said_without_the_url(tmp_path: Path, site: tuple[Path, str]) -> None:
    (site[0] / "no-archive").write_text("hello")
    for path in ("missing?signature=secret", "no-archive?signature=secret"):
        done = run(tmp_path / "target", f"{site[1]}/{path}")
        assert done.returncode != 0
        assert "cannot be fetched" in done.stderr
        assert "secret" not in done.stderr
