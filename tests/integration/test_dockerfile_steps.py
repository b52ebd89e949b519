"""The Dockerfile's own install steps, run outside a container, and the service that comes of them.

What cannot be run without Docker: pulling the base images, their apt-get step, USER, and the layers themselves. The
training image's dependencies (torch with CUDA, several GB) are left out as well.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rdrec_client import RDRecClient
from tests.dockerfile import ancestry
from tests.fake_service import item_id, user_id, write_bundle
from tests.redis_process import free_port, running_redis
from tests.replica import ROOT, Replica

PATH = f"{sys.base_prefix}/bin:{os.environ['PATH']}"


def run_stage(stage: str, root: Path) -> None:
    """Do the COPY and RUN steps of a stage, with /opt and /src under `root`."""
    shutil.rmtree(root / "src", ignore_errors=True)
    (root / "src").mkdir(parents=True)
    for line in ancestry(stage):
        word, _, rest = line.partition(" ")
        if word == "COPY":
            *sources, target = rest.split()
            for source in sources:
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, root / "src" / target)
                else:
                    shutil.copy(ROOT / source, root / "src")
        elif word == "RUN":
            command = rest.replace("/opt/", f"{root}/opt/")
            environment = {"PATH": PATH, "HOME": str(root), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
            environment["PIP_NO_COMPILE"] = "1"  # what is imported here is compiled then; the image compiles all
            environment |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
            shell = ["/bin/sh", "-c", command]
            done = subprocess.run(shell, cwd=root / "src", env=environment, capture_output=True, text=True, timeout=540)
            if done.returncode and "No matching distribution" in done.stderr and not os.environ.get("CI"):
                pytest.skip(f"no package index is reached: {done.stderr[-300:]}")
            assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose opt/ is the /opt of the image serve-cpu."""
    root = tmp_path_factory.mktemp("image")
    run_stage("dependencies-cpu", root)
    (root / "opt/venv").rename(root / "dependencies")
    run_stage("code-cpu", root)
    shutil.rmtree(root / "opt/venv")
    (root / "dependencies").rename(root / "opt/venv")
    return root


def python(image: Path, code: str) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": f"{image}/opt/app", "PATH": "/usr/bin:/bin"}
    command = [f"{image}/opt/venv/bin/python", "-c", code]
    return subprocess.run(command, cwd=image, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_the_entry_point_starts(image: Path) -> None:
    script = image / "opt/app/bin/rdrec-serve"
    assert script.read_text().splitlines()[0] == f"#!{image}/opt/venv/bin/python3"
    environment = {"PYTHONPATH": f"{image}/opt/app", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([str(script), "--help"], cwd=image, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--bundle" in done.stdout


@pytest.mark.slow
def test_no_torch_no_training_no_pip(image: Path) -> None:
    for module in ("torch", "transformers", "training", "pip", "polars", "scipy", "pytest"):
        assert python(image, f"import {module}").returncode != 0, module
    done = python(image, "import service.server, rdrec_core.engines, onnxruntime, redis")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_installed_service_answers_and_writes(image: Path, tmp_path: Path) -> None:
    """With the fake engine of the tests and a real Redis: console, scripts for Redis and all came along."""
    port = free_port()
    with running_redis(tmp_path / "redis") as redis:
        environment = {
            "PYTHONPATH": f"{image}/opt/app:{ROOT}", "PATH": "/usr/bin:/bin",
            "RDREC_BUNDLE": str(write_bundle(tmp_path / "bundle")), "RDREC_PORT": str(port),
            "RDREC_REDIS_URL": redis.url, "RDREC_REDIS_TIMEOUT_MS": "2000",
        }  # fmt: skip
        replica = Replica(tmp_path, tmp_path / "log", port=port)
        command = [f"{image}/opt/venv/bin/python", "-m", "tests.fake_server"]
        with (tmp_path / "log").open("wb") as log:
            replica.process = subprocess.Popen(command, cwd=image, env=environment, stdout=log, stderr=log)
        try:
            replica.wait_until_ready()
            with RDRecClient(replica.url, timeout_s=20.0) as client:
                assert client.sequential(user_id(1), n_items=2).items
                assert client.record(user_id(1), item_id(3)).history_source == "redis"
                assert client._http.get("/").text.startswith("<!doctype html>")
            maps = Path(f"/proc/{replica.process.pid}/cmdline").read_text()
            assert str(image) in maps
            assert replica.stop() == 0
        finally:
            replica.kill()
