"""`pip install rdrec[serve]` into an empty environment: no torch, no transformers, and all three endpoints answer."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from rdrec_core.bundle import Bundle, BundleWriter, Description
from rdrec_core.decoding.item_trie import ItemTrie
from rdrec_core.decoding.text_requests import text_rows
from rdrec_core.engines.bundled import trie_group
from rdrec_core.exported.search_export import export_search_graphs
from rdrec_core.exported.text_export import export_text_graphs
from rdrec_core.replacing import replacing_folder
from rdrec_core.types import ScoreMode
from tests import ranking_world as world
from tests.fake_service import N_ITEMS, base_history, item_id, user_id, write_bundle

ROOT = Path(__file__).resolve().parents[2]
NOT_FOR_SERVING = ("torch", "transformers", "onnx", "polars", "pyarrow", "scipy")
LABELS = world.random_labels(np.random.default_rng(11), N_ITEMS, longest=3)


def write_served_bundle(folder: Path) -> Path:
    """The services' fake bundle, with a real model, graphs and texts put in."""
    plain = Bundle.open(write_bundle(folder.parent / "plain"))
    model, tokenizer, encoder = world.model(1), world.tokenizer(), world.encoder(LABELS)
    with replacing_folder(folder) as temporary:
        shutil.copytree(plain.path / "arrays", temporary / "arrays")
        writer = BundleWriter(temporary)
        model.save(temporary)
        tokenizer.save(str(temporary / "tokenizer.json"))
        trie = ItemTrie.build(world.ragged(LABELS))
        writer.add_tokens("item_words", world.item_words(LABELS))
        writer.add_tokens("labels", world.ragged(LABELS))
        writer.add_arrays(trie_group(collapsed=True), trie.arrays(collapsed=True))
        graphs = temporary / "onnx"
        graphs.mkdir()
        report = export_search_graphs(model, encoder, trie, graphs, score_modes=[ScoreMode.TRIE])
        export_text_graphs(model, graphs, text_rows(tokenizer, world.VOCABULARY))
        described = {name: getattr(plain.manifest, name) for name in Description.model_fields}
        writer.finish(Description(**{**described, "strategy": report.strategy}))
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The python of an environment with rdrec[serve] alone; sources are copied, so no build lands here."""
    if not os.environ.get("RDREC_TEST_INSTALL"):
        pytest.skip("takes a minute, and the steps of the image do the same; RDREC_TEST_INSTALL=1 runs it")
    folder = tmp_path_factory.mktemp("serving")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source / name)
    for name in ("rdrec_core", "rdrec_client", "service", "training"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "--no-compile", "--disable-pip-version-check", f"{source}[serve]"]
    constraints = ROOT / "constraints.txt"
    if constraints.is_file():
        install += ["-c", str(constraints)]
    done = subprocess.run([str(part) for part in install], capture_output=True, text=True)
    if done.returncode != 0 and "ERROR: No matching distribution" not in done.stderr and "Connection" in done.stderr:
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    return python


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
def test_the_serving_install_answers_without_torch(environment: Path, tmp_path: Path) -> None:
    probe = (
        "import json, sys; from importlib.util import find_spec; print(json.dumps([*filter(find_spec, sys.argv[1:])]))"
    )
    found = subprocess.run(
        [str(environment), "-c", probe, *NOT_FOR_SERVING], check=True, capture_output=True, text=True
    )
    assert json.loads(found.stdout) == []

    bundle, port = write_served_bundle(tmp_path / "bundle"), free_port()
    log = tmp_path / "log"
    command = [str(environment.parent / "rdrec-serve"), "--bundle", str(bundle), "--port", str(port)]
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("RDREC_", "PYTHON"))}
    with log.open("wb") as output:
        service = subprocess.Popen(command, cwd=tmp_path, env=clean, stdout=output, stderr=output)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            wait_until_ready(client, service, log)
            asked = {"user_id": user_id(2), "n_items": 5}
            ranked = client.post("/recommend/sequential", json=asked).raise_for_status().json()
            assert len(ranked["items"]) == 5
            seen = {item_id(i) for i in base_history(2)}
            assert not seen & {item["item_id"] for item in ranked["items"]}
            candidates = [item_id(i) for i in range(20, 32)]
            chosen = client.post("/recommend/topn", json={**asked, "candidates": candidates}).raise_for_status().json()
            assert len(chosen["items"]) == 5
            assert {item["item_id"] for item in chosen["items"]} <= set(candidates)
            told = (
                client.post("/explain", json={"user_id": user_id(2), "item_id": item_id(9)}).raise_for_status().json()
            )
            assert {"explanation", "user_preference", "item_attributes"} <= set(told)
            assert not told["degraded"]
    finally:
        service.terminate()
        assert service.wait(30) == 0, log.read_text(errors="replace")


def wait_until_ready(client: httpx.Client, service: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert service.poll() is None, log.read_text(errors="replace")
        try:
            if client.get("/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(log.read_text(errors="replace"))
