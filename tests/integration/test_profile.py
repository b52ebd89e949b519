"""`rdrec profile` of a checkpoint and of a bundle: what is kept, what is refused, what export takes."""

import hashlib
import json
from pathlib import Path

import polars as pl
import pytest

from rdrec_core.bundle import Bundle, BundleWriter
from rdrec_core.errors import CheckpointError
from rdrec_core.signing import SIGNATURE_FILE
from rdrec_core.statements import Statements
from tests.small_dataset import write_small_dataset
from training.bundling.statements import STATEMENTS_FILE, statements_of_checkpoint, store_in_bundle
from training.cli import main
from training.data.dataset import Dataset
from training.learning.config import load_config
from training.learning.run import train

N_USERS, N_ITEMS = 30, 40


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_small_dataset(tmp_path_factory.mktemp("data") / "small", n_users=N_USERS, n_items=N_ITEMS)


@pytest.fixture(scope="module")
def checkpoint(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("checkpoints") / "scratch"
    train(load_config("scratch", None, {"epochs": 1, "passes": 1, "vocabulary_size": 300}), dataset, out)
    return out


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "bundle"
    assert main(["export", str(checkpoint), "--out", str(out), "--score-modes", "trie"]) == 0
    return out


def told(statements: Statements) -> list[list[tuple[str, int, int, str | None]]]:
    return [[(s.text, s.count, s.total, s.quote) for s in statements.of_item(n)] for n in range(N_ITEMS)]


def hashes(bundle: Path) -> dict[str, str]:
    return {str(p.relative_to(bundle)): hashlib.sha256(p.read_bytes()).hexdigest() for p in bundle.rglob("*.*")}


def test_a_bundle_has_statements_of_training_reviews_without_being_asked(exported: Path, dataset: Dataset) -> None:
    statements = Statements.of_bundle(Bundle.open(exported))
    reviews = dataset.reviews().filter(pl.col("split") == "train").collect()
    for item in range(N_ITEMS):
        texts = reviews.filter(pl.col("item_index") == item)["text"]
        feature = ("dice", "cards", "board", "puzzle")[item % 4]
        counts = {s.text: (s.count, s.total) for s in statements.of_item(item)}
        assert counts.get(feature) == ((len(texts), len(texts)) if len(texts) else None), (
            item
        )  # «Great dice for my family.»
    assert statements.language == "en"


def test_a_bundle_is_replaced_by_one_with_other_statements_and_nothing_else_changed(
    exported: Path, dataset: Dataset
) -> None:
    before, old = hashes(exported), Bundle.open(exported)
    plain = told(Statements.of_bundle(old))
    (exported / SIGNATURE_FILE).write_bytes(b"of the old manifest")
    arguments = ["profile", str(exported), "--quotes", "--dataset", str(dataset.path)]
    assert main(arguments) == 2  # it has some
    assert main([*arguments, "--force"]) == 0
    bundle, after = Bundle.open(exported), hashes(exported)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert {name for name in changed if not name.startswith("arrays/statements/")} == {"manifest.json"}
    assert bundle.manifest.model_version != old.manifest.model_version
    fields = {"model_version", "files"}
    assert bundle.manifest.model_dump(exclude=fields) == old.manifest.model_dump(exclude=fields)
    quoted = told(Statements.of_bundle(bundle))
    assert [[row[:3] for row in rows] for rows in plain] == [[row[:3] for row in rows] for rows in quoted]
    assert any(row[3] for rows in quoted for row in rows)
    assert not any(row[3] for rows in plain for row in rows)


def test_a_failure_leaves_the_bundle_as_it_was(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = hashes(exported)

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(BundleWriter, "finish", fail)
    with pytest.raises(OSError, match="full"):
        store_in_bundle(Bundle.open(exported), Statements.none())
    assert hashes(exported) == before


def test_a_bundle_needs_its_own_dataset(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", str(exported), "--force"]) == 2
    assert "--dataset is missing" in capsys.readouterr().err
    other = write_small_dataset(tmp_path / "other", n_users=N_USERS, n_items=N_ITEMS + 1)
    assert main(["profile", str(exported), "--force", "--dataset", str(other.path)]) == 2
    assert "other users or items" in capsys.readouterr().err
    assert main(["profile", str(exported), "--force", "--language", "tlh"]) == 2
    assert "should be one of en, de" in capsys.readouterr().err


def test_statements_wait_in_a_checkpoint_and_are_refused_for_other_reviews(
    checkpoint: Path, dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["profile", str(checkpoint)]) == 0
    assert "40 items" in capsys.readouterr().err.replace("\n", " ")
    kept = statements_of_checkpoint(checkpoint, dataset)
    assert kept is not None
    assert any(told(kept))
    info = dataset.path / "dataset.json"
    content = info.read_text()
    try:
        info.write_text(json.dumps(json.loads(content) | {"source_sha256": {"other": "reviews"}}))
        with pytest.raises(CheckpointError, match="rdrec profile"):
            statements_of_checkpoint(checkpoint, Dataset(dataset.path))
    finally:
        info.write_text(content)
        (checkpoint / STATEMENTS_FILE).unlink()
    assert statements_of_checkpoint(checkpoint, dataset) is None


def test_explanations_are_measured_as_served_by_command(
    checkpoint: Path, exported: Path, dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for system in (checkpoint, exported):
        out = tmp_path / f"{system.name}.json"
        arguments = ["evaluate", str(system), str(dataset.path), "--limit-users", "12", "--out", str(out)]
        assert main([*arguments, "--task", "explanation"]) == 0
        record = json.loads(out.read_text())
        assert list(record["rows"])[:2] == ["as served", "the model alone"]
        assert record["statement precision"] == record["rows"]["as served"]["statement precision"] == 1.0
        assert record["grounded"] == record["whole"] == 1.0
        assert len(pl.read_parquet(out.with_suffix(".parquet"))) == 4 * record["n_texts"] == 48
    assert main(["report", str(out), "--out", str(tmp_path / "report.html")]) == 0
    assert "as served" in (tmp_path / "report.html").read_text()
    assert main(["evaluate", str(checkpoint), str(dataset.path), "--text-encoder", "nowhere"]) == 2
    assert "belongs to --task explanation" in capsys.readouterr().err
