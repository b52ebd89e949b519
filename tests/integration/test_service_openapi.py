"""Schemathesis over the OpenAPI document, all checks, against a real process.

RDREC_SCHEMATHESIS_EXAMPLES sets the examples an operation; 550 makes more than 5,000 cases.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.fake_service import write_bundle
from tests.integration.test_service_endpoints import key
from tests.service_process import service_process

PATIENT = {"timeout_ms": "60000", "explain_timeout_ms": "60000", "batch_timeout_ms": "60000", "access_log": "false"}
"""A busy machine may take longer than a second; a 504 would be right then, but is not what is looked for."""
ARMS = {"second_score_mode": "full", "second_mode": "on_request"}
"""The document allows both arms, so both are served."""
CONFIG = Path(__file__).parents[1] / "schemathesis.toml"
GUARDED = "admin|items|catalogue|explain|history|model|interactions|feedback"
"""Paths that are asked with a key; the others without."""
EXAMPLES = int(os.environ.get("RDREC_SCHEMATHESIS_EXAMPLES", "10"))


def schemathesis(url: str, *options: str, examples: int = EXAMPLES) -> int:
    """Run it; the number of cases, all of which passed."""
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "schemathesis"), "--config-file", str(CONFIG),
            "run", f"{url}/openapi.json", "--checks", "all", "--max-examples", str(examples),
            "--seed", "4", "--request-timeout", "60", "--max-response-time", "60",  # a busy machine is no fault
            "--no-color", "--suppress-health-check", "all", *options,
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    found = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert found is not None, done.stdout[-2000:]
    assert found[1] == found[2]
    return int(found[1])


@pytest.mark.slow
def test_the_open_operations_keep_their_contract(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundles" / "first")
    with service_process(bundle, tmp_path / "log", **PATIENT, **ARMS) as service:
        assert schemathesis(service.url, "--exclude-path-regex", GUARDED) >= 6 * EXAMPLES
        assert httpx.get(f"{service.url}/health/ready").status_code == 200
        assert "unforeseen_error" not in service.log.read_text()


@pytest.mark.slow
def test_the_guarded_operations_keep_their_contract(tmp_path: Path) -> None:
    """With keys: the check `ignored_auth` asks every operation without one, and bundles are swapped while it runs."""
    bundle = write_bundle(tmp_path / "bundles" / "first")
    keys = [{**key("root", "ops"), "scopes": ["recommend", "write", "catalog", "admin"]}]
    with service_process(
        bundle, tmp_path / "log", api_keys=json.dumps(keys), open_docs="true", **PATIENT, **ARMS
    ) as service:
        options = ("-H", "Authorization: Bearer root", "--include-path-regex", GUARDED)
        # each of these may start engines
        assert schemathesis(service.url, *options, examples=max(1, EXAMPLES // 2)) >= EXAMPLES
        assert "unforeseen_error" not in service.log.read_text()


def test_the_tool_that_this_file_needs_is_installed() -> None:
    assert shutil.which("schemathesis", path=str(Path(sys.executable).parent)) is not None
