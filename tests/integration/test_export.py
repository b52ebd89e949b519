"""`rdrec export`: the bundle holds what the dataset and the checkpoint say, and is there whole or not at all."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rdrec_core.bundle import Bundle, BundleWriter
from rdrec_core.engines import open_engine
from rdrec_core.engines.torch_engine import TorchEngine
from rdrec_core.item_graph import ItemGraph
from rdrec_core.item_texts import ItemTexts
from rdrec_core.types import RankRequest, ScoreMode, ScoreRequest, Task, TextRequest
from tests.small_dataset import write_small_dataset
from tests.tiny_language_models import tiny_sentence_encoder
from training.bundling.signals import add_signals
from training.cli import main
from training.data.dataset import Dataset
from training.evaluation.systems import WEIGHTS_KEY
from training.learning.checkpoint import load_checkpoint
from training.learning.config import load_config
from training.learning.run import train
from training.signals.graph import CHANNELS


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_small_dataset(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture(scope="module")
def checkpoint(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("checkpoints") / "scratch"
    train(load_config("scratch", None, {"epochs": 2, "passes": 1, "vocabulary_size": 300}), dataset, out)
    return out


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("bundles") / "scratch"
    assert main(["export", str(checkpoint), "--out", str(out), "--score-modes", "trie,full"]) == 0
    return Bundle.open(out)


def test_the_bundle_describes_its_origin(bundle: Bundle, checkpoint: Path) -> None:
    info, manifest = load_checkpoint(checkpoint).info, bundle.manifest
    assert manifest.model_version.startswith("small-")
    assert manifest.recipe["recipe"] == "scratch"
    assert manifest.dataset_sha256 == {"made": "up"}
    assert manifest.score_modes == [ScoreMode.TRIE, ScoreMode.FULL]
    assert manifest.text_tasks == [Task.EXPLANATION, Task.USER_PREFERENCE, Task.ITEM_ATTRIBUTES]
    assert manifest.topn_task is Task.SEQUENTIAL  # the recipe gives top-N no part
    assert manifest.metrics["validation_loss.sequential"] == info.validation_loss["sequential"]
    assert manifest.fusion is None


def test_items_users_and_histories_are_the_datasets(bundle: Bundle, dataset: Dataset) -> None:
    for row in dataset.items.iter_rows(named=True):
        assert bundle.catalog.item_ids.find(row["item_id"]) == row["item_index"]
        assert bundle.catalog.title(row["item_index"]) == row["title"]
        assert bundle.catalog.labels[row["item_index"]] == int(row["label"])
    rows = dataset.interactions
    for user in range(dataset.info.n_users):
        assert bundle.users.history(user).tolist() == rows.item_index[rows.user_index == user].tolist()
    popularity = np.bincount(rows.item_index, minlength=dataset.info.n_items) / len(rows.item_index)
    assert bundle.arrays("graph")["popularity"] == pytest.approx(popularity)


def test_served_answers_are_those_of_the_checkpoints_model(bundle: Bundle) -> None:
    request = RankRequest(user_index=3, history=(1, 2, 5), n_items=40)
    candidates = ScoreRequest(3, (7, 1, 30), (1, 2, 5), Task.SEQUENTIAL)
    text = TextRequest(Task.EXPLANATION, user_index=3, item_index=4, fast=True)
    served, torch_engine = open_engine(bundle), TorchEngine.from_bundle(bundle)
    mine, reference = served.recommend([request])[0], torch_engine.recommend([request])[0]
    assert mine.item_indices.tolist() == reference.item_indices.tolist()
    assert mine.log_probs == pytest.approx(reference.log_probs, abs=1e-4)
    assert np.exp(mine.log_probs).sum() == pytest.approx(1.0, abs=1e-4)
    assert served.score([candidates])[0] == pytest.approx(torch_engine.score([candidates])[0], abs=1e-4)
    assert served.generate_text([text]) == torch_engine.generate_text([text])


def test_a_bundle_to_measure_holds_training_items_only(checkpoint: Path, dataset: Dataset, tmp_path: Path) -> None:
    export = ["export", str(checkpoint), "--out", str(tmp_path / "out"), "--score-modes", "trie"]
    assert main([*export, "--interactions", "train"]) == 0
    indptr, items = dataset.sequences("train")
    users = Bundle.open(tmp_path / "out").users
    assert users.indptr.tolist() == indptr.tolist()
    assert users.items.tolist() == items.tolist()


def test_fitted_fusion_weights_travel_with_the_bundle_and_idle_channels_stay_behind(
    checkpoint: Path, dataset: Dataset, tmp_path: Path
) -> None:
    copy = shutil.copytree(checkpoint, tmp_path / "fused")
    encoder = tiny_sentence_encoder(tmp_path / "encoder")
    kept = {
        "sequential.graph": 0.5, "sequential.popularity": 0.1, "topn.graph": 0.4, "topn.popularity": 0.1,
        "sequential.channel.next": 0.5, "topn.channel.next": 0.0, "sequential.channel.text.catalogue.dense": 0.0,
        "topn.channel.text.catalogue.dense": 0.3,
    }  # fmt: skip
    idle = {
        f"{task}.channel.{name}": 0.0 for task in ("sequential", "topn") for name in ("reach", "text.reviews.sparse")
    }
    (copy / "fusion.json").write_text(json.dumps(kept | idle), encoding="utf-8")
    (copy / "text_encoder.json").write_text(json.dumps({"text_encoder": str(encoder)}), encoding="utf-8")
    assert main(["export", str(copy), "--out", str(tmp_path / "out"), "--score-modes", "trie"]) == 0
    bundle = Bundle.open(tmp_path / "out")
    assert bundle.manifest.fusion == kept
    graph = ItemGraph.from_arrays(bundle.arrays("graph"))
    assert set(graph.channels) == {"next", "text.catalogue.dense"}
    texts = ItemTexts.of_bundle(bundle)
    assert texts is not None
    assert set(texts.fields) == {"catalogue"}
    for item in (0, 7):  # the served encoder gives an item's own text the row that training gave the item
        items, cosine = texts.cosines(dataset.items["title"][item])["text.catalogue.dense"]
        items, weights = texts.fields["catalogue"].rules["dense"].row(cosine, items)
        channel = graph.channels["text.catalogue.dense"]
        row = slice(channel.indptr[item], channel.indptr[item + 1])
        expected = dict(zip(channel.items[row].tolist(), channel.weights[row].tolist(), strict=True))
        found = dict(zip(items.tolist(), weights.tolist(), strict=True))
        assert item in found
        del found[item]
        assert found == pytest.approx(expected, rel=1e-3)
    # the same from a graph that was built apart
    graph = ["graph", str(dataset.path), "--checkpoint", str(copy), "--out", str(tmp_path / "graph"), "--workers", "1"]
    assert main(graph) == 0
    written = BundleWriter(tmp_path / "again")
    assert add_signals(written, load_checkpoint(copy), dataset, "test", tmp_path / "graph") == kept
    files = [file.relative_to(written.folder) for file in written.folder.rglob("*") if file.is_file()]
    assert {file.parts[-2] for file in files} == {"graph", "text"}
    assert all((written.folder / file).read_bytes() == (bundle.path / file).read_bytes() for file in files)


def test_dense_channels_are_fused_and_a_bundle_is_fused_and_measured_on_the_channels_that_it_has(
    checkpoint: Path, dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    encoder = tiny_sentence_encoder(tmp_path / "encoder")
    fuse = ["--no-tune-graph", "--limit-users", "10"]
    assert main(["fuse", str(copy), str(dataset.path), *fuse, "--text-encoder", str(encoder)]) == 0
    fusion = json.loads((copy / "fusion.json").read_text(encoding="utf-8"))
    del fusion[WEIGHTS_KEY]
    dense = {name: value for name, value in fusion.items() if name.endswith(".dense")}
    assert {name.split(".")[3] for name in dense} >= {"catalogue", "reviews"}
    assert (copy / "text_encoder.json").is_file() is any(dense.values())  # an encoder that earned nothing is not kept

    forced = dict.fromkeys(fusion, 0.0) | {
        "sequential.graph": 0.5, "topn.graph": 0.5, "sequential.channel.next": 0.4,
        "sequential.channel.text.catalogue.dense": 0.4, "topn.channel.text.catalogue.dense": 0.4,
    }  # fmt: skip
    (copy / "fusion.json").write_text(json.dumps(forced), encoding="utf-8")
    (copy / "text_encoder.json").write_text(json.dumps({"text_encoder": str(encoder)}), encoding="utf-8")
    assert main(["export", str(copy), "--out", str(tmp_path / "out"), "--score-modes", "trie"]) == 0
    shutil.rmtree(encoder)  # the bundle brings its own
    assert main(["evaluate", str(tmp_path / "out"), str(dataset.path), "--split", "val"]) == 0
    assert main(["fuse", str(tmp_path / "out"), str(dataset.path), *fuse]) == 0
    again = Bundle.open(tmp_path / "out")
    assert again.manifest.fusion is not None
    channels = {name.partition(".channel.")[2] for name in again.manifest.fusion if ".channel." in name}
    assert channels == {"next", "text.catalogue.dense"}
    assert main(["fuse", str(tmp_path / "out"), str(dataset.path), "--text-encoder", "x"]) == 2
    assert "give --text-encoder with the checkpoint" in capsys.readouterr().err


def test_a_bundle_that_was_never_fused_holds_every_channel_and_field(bundle: Bundle) -> None:
    fields = ("catalogue", "reviews", "attributes")  # what is wanted is the same of all items, so it says nothing
    graph = ItemGraph.from_arrays(bundle.arrays("graph"))
    assert set(graph.channels) == {*CHANNELS, *(f"text.{field}.sparse" for field in fields)}
    texts = ItemTexts.of_bundle(bundle)
    assert texts is not None
    assert set(texts.fields) == {*fields, "preferences"}
    scores = texts.affinity("a puzzle, please")
    assert scores is not None
    assert set(np.argsort(-scores)[:10] % 4) == {3}
    assert texts.affinity("zebra") is None


def test_an_existing_bundle_is_kept_without_force(
    bundle: Bundle, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (bundle.path / "manifest.json").read_bytes()
    assert main(["export", str(checkpoint), "--out", str(bundle.path)]) == 2
    assert "--force" in capsys.readouterr().err
    assert (bundle.path / "manifest.json").read_bytes() == before


def test_wrong_arguments_are_named(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option, value in (("--score-modes", "exact"), ("--strategy", "dfs"), ("--interactions", "test")):
        assert main(["export", str(checkpoint), "--out", str(tmp_path / "out"), option, value]) == 2
        assert option in capsys.readouterr().err
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "checkpoint.json is missing" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_kill_9_leaves_no_bundle_and_the_next_export_clears_up(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundles" / "out"
    export = ["export", str(checkpoint), "--out", str(out), "--score-modes", "trie"]
    command = [sys.executable, "-m", "training.cli", *export]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(out.parent.glob(".out.tmp-*/arrays/graph")):  # in the middle
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    assert list(out.parent.iterdir())  # the killed run's leftovers
    assert main(export) == 0
    Bundle.open(out)
    assert [path.name for path in out.parent.iterdir()] == ["out"]
