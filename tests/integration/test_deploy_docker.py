"""The Dockerfile, held to hadolint and to what the images promise. No Docker engine runs here: no image is built."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from service.settings import Settings
from tests.deploy_tools import run, tool
from tests.dockerfile import ancestry, stages
from tests.fake_service import write_bundle
from tests.replica import ROOT, running_replica

KNOWN_VARIABLES = {f"RDREC_{name.upper()}" for name in Settings.model_fields} | {"RDREC_SETTINGS_FILE"}


def test_hadolint() -> None:
    run(tool("hadolint"), "--failure-threshold", "style", ROOT / "Dockerfile")


def test_bases_are_pinned_to_a_full_version() -> None:
    bases = [line.partition("=")[2] for line in stages()[""] if line.startswith("ARG ")]
    assert len(bases) == 2
    for base in bases:
        assert re.search(r":\d+\.\d+\.\d+-", base), base


@pytest.mark.parametrize("target", ["serve-cpu", "serve-gpu"])
def test_serving_images_are_small_and_confined(target: str) -> None:
    lines = ancestry(target)
    text = "\n".join(lines)
    assert "USER 10001:10001" in lines
    assert lines.index("USER 10001:10001") > max(n for n, line in enumerate(lines) if line.startswith("COPY"))
    assert any(line.startswith("HEALTHCHECK ") and "healthcheck.py" in line for line in lines)
    assert not re.search(r"\b(gcc|g\+\+|build-essential|make|torch|git|curl)\b", text)
    assert 'ENTRYPOINT ["/opt/app/bin/rdrec-serve"]' in lines, "the exec form: signals reach the service"
    variables = set(re.findall(r"\b(RDREC_[A-Z_]+)=", text))
    assert variables <= KNOWN_VARIABLES
    assert {"RDREC_HOST", "RDREC_BUNDLE"} <= variables


@pytest.mark.parametrize("extras", [["serve"], ["serve", "gpu"], ["train"]])
def test_requirements_of_the_images(extras: list[str]) -> None:
    lines = run(sys.executable, ROOT / "deploy/docker/requirements.py", *extras, cwd=ROOT).stdout.split("\n")
    names = [re.split(r"[=<>\[;~! ]", line)[0] for line in lines if line]
    assert ("torch" in names) == ("train" in extras)
    assert ("onnxruntime-gpu" in names) == ("gpu" in extras)
    assert ("onnxruntime" in names) == ("gpu" not in extras), "both in one environment overwrite each other"
    assert "numpy" in names


def test_all_that_is_copied_is_let_through_and_exists() -> None:
    let_through = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for lines in stages().values():
        for line in lines:
            if line.startswith("COPY ") and "--from=" not in line:
                for source in line.split()[1:-1]:
                    assert any(source == kept or source.startswith(f"{kept}/") for kept in let_through), source
    for kept in let_through:
        assert (ROOT / kept).exists(), f"{kept}: .dockerignore names what is not there"


def test_the_health_check_is_true_to_the_service(tmp_path: Path) -> None:
    check = [sys.executable, str(ROOT / "deploy/docker/healthcheck.py")]
    with running_replica(write_bundle(tmp_path / "bundle"), tmp_path / "log") as replica:
        environment = {**os.environ, "RDREC_PORT": str(replica.port)}
        run(*check, env=environment)
    done = subprocess.run(check, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert "not alive" in done.stderr


class _Alive(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health/live" else 404)
        self.end_headers()

    def log_message(self, *arguments: object) -> None: ...


def test_the_health_check_speaks_tls_as_the_settings_file_says(tmp_path: Path) -> None:
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
            "-subj", "/CN=shop.example", "-keyout", f"{tmp_path}/key.pem", "-out", f"{tmp_path}/cert.pem",
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Alive)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "rdrec.toml").write_text(f'port = {server.server_port}\ntls_certificate = "{tmp_path}/cert.pem"\n')
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RDREC_")}
    check = [sys.executable, str(ROOT / "deploy/docker/healthcheck.py")]
    try:
        run(*check, env={**plain, "RDREC_SETTINGS_FILE": f"{tmp_path}/rdrec.toml"})
        without = {**plain, "RDREC_PORT": str(server.server_port)}
        assert subprocess.run(check, capture_output=True, env=without).returncode == 1, "TLS is not guessed"
    finally:
        server.shutdown()
        server.server_close()
    linked = subprocess.run(check, capture_output=True, text=True, env={**plain, "RDREC_PORT": "tcp://10.0.0.1:8000"})
    assert "Traceback" not in linked.stderr
