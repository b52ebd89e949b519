"""`rdrec profile` of a checkpoint and of a bundle; resumed, refused, and answered by the service without decoding."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from rdrec_core.bundle import Bundle, BundleWriter
from rdrec_core.engines.onnx_engine import OnnxEngine
from rdrec_core.errors import CheckpointError
from rdrec_core.profiles import Profiles
from rdrec_core.signing import SIGNATURE_FILE
from rdrec_core.types import Task, TextRequest
from service.web.app import create_app
from tests.fake_service import FakeEngine, fake_settings, user_id, write_bundle
from tests.small_dataset import write_small_dataset
from training.bundling.profiles import (
    PROFILES_FILE,
    ProfileJob,
    ProfileJournal,
    journal_of,
    profiles_of_checkpoint,
    store_in_bundle,
    write_profiles,
)
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
    train(load_config("scratch", None, {"epochs": 2, "vocabulary_size": 300}), dataset, out)
    return out


def written_by(bundle: Bundle) -> tuple[list[str], list[str]]:
    engine = OnnxEngine.from_bundle(bundle, threads=1)
    users = engine.generate_text([TextRequest(Task.USER_PREFERENCE, u) for u in range(N_USERS)])
    items = engine.generate_text([TextRequest(Task.ITEM_ATTRIBUTES, item_index=i) for i in range(N_ITEMS)])
    return users, items


def read(profiles: Profiles) -> tuple[list[str | None], list[str | None]]:
    return (
        [profiles.user_preference(u) for u in range(N_USERS)],
        [profiles.item_attributes(i) for i in range(N_ITEMS)],
    )


def hashes(bundle: Path) -> dict[str, str]:
    return {str(p.relative_to(bundle)): hashlib.sha256(p.read_bytes()).hexdigest() for p in bundle.rglob("*.*")}


def test_a_checkpoints_profiles_are_exported_and_are_what_the_served_model_writes(
    checkpoint: Path, tmp_path: Path
) -> None:
    assert main(["profile", str(checkpoint), "--batch-size", "16"]) == 0
    assert not journal_of(checkpoint).exists()
    out = tmp_path / "bundle"
    assert main(["export", str(checkpoint), "--out", str(out), "--score-modes", "trie"]) == 0
    bundle = Bundle.open(out)
    users, items = read(Profiles.of_bundle(bundle))
    assert (users, items) == tuple([text or None for text in texts] for texts in written_by(bundle))
    assert any(users)
    assert any(items)


def test_a_bundle_is_replaced_by_one_with_profiles_and_nothing_else_changed(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / PROFILES_FILE).unlink(missing_ok=True)
    out = tmp_path / "bundle"
    assert main(["export", str(checkpoint), "--out", str(out), "--score-modes", "trie"]) == 0
    before, old = hashes(out), Bundle.open(out)
    assert read(Profiles.of_bundle(old)) == ([None] * N_USERS, [None] * N_ITEMS)
    (out / SIGNATURE_FILE).write_bytes(b"of the old manifest")
    assert main(["profile", str(out), "--fast", "--threads", "1"]) == 0

    bundle = Bundle.open(out)
    after = hashes(out)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert {name for name in changed if not name.startswith("arrays/profiles/")} == {"manifest.json"}
    assert bundle.manifest.model_version != old.manifest.model_version
    fields = {"model_version", "files"}
    assert bundle.manifest.model_dump(exclude=fields) == old.manifest.model_dump(exclude=fields)
    engine = OnnxEngine.from_bundle(bundle, threads=1)
    [greedy] = engine.generate_text([TextRequest(Task.ITEM_ATTRIBUTES, item_index=7, fast=True)])
    assert Profiles.of_bundle(bundle).item_attributes(7) == (greedy or None)
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_profiles_are_not_replaced_without_force(tmp_path: Path) -> None:
    out = write_bundle(tmp_path / "bundle")
    store_in_bundle(Bundle.open(out), Profiles.from_texts(["likes games"], ["a game"]))
    assert main(["profile", str(out)]) == 2
    assert Profiles.of_bundle(Bundle.open(out)).user_preference(0) == "likes games"


def test_a_failure_leaves_the_bundle_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = write_bundle(tmp_path / "bundle")
    before = hashes(out)

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(BundleWriter, "finish", fail)
    with pytest.raises(OSError, match="full"):
        store_in_bundle(Bundle.open(out), Profiles.from_texts(["likes games"], ["a game"]))
    assert hashes(out) == before
    Bundle.open(out)


class Writer:
    """Writes a text of its own for each request, and stops for good after some batches."""

    def __init__(self, batches: int) -> None:
        self.batches, self.asked = batches, []

    def __call__(self, requests: Sequence[TextRequest]) -> list[str]:
        if not self.batches:
            raise KeyboardInterrupt
        self.batches -= 1
        self.asked += requests
        return [f"Zeile «{r.user_index}, {r.item_index}»\n" for r in requests]


JOB = ProfileJob("model", 10, 7, (Task.USER_PREFERENCE, Task.ITEM_ATTRIBUTES), fast=False)


def run(job: ProfileJob, path: Path, writer: Writer) -> Profiles:
    with ProfileJournal(path, job) as journal:
        return write_profiles(writer, job, journal, batch_size=4, done=lambda _: None)


def test_a_run_that_was_cut_off_goes_on_and_asks_nothing_twice(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    first, second = Writer(2), Writer(99)
    with pytest.raises(KeyboardInterrupt):
        run(JOB, path, first)
    with path.open("ab") as file:  # a kill in the midst of a line
        file.write('"Zeile «'.encode())
    profiles = run(JOB, path, second)
    assert len(first.asked) == 8
    assert first.asked + second.asked == [JOB.request(place) for place in range(17)]
    assert [profiles.user_preference(u) for u in range(11)] == [*(f"Zeile «{u}, None»\n" for u in range(10)), None]
    assert [profiles.item_attributes(i) for i in range(8)] == [*(f"Zeile «None, {i}»\n" for i in range(7)), None]


@pytest.mark.parametrize(
    "other",
    [
        ProfileJob("another model", 10, 7, JOB.text_tasks, fast=False),
        ProfileJob("model", 10, 7, JOB.text_tasks, fast=True),
        ProfileJob("model", 10, 7, (Task.ITEM_ATTRIBUTES,), fast=False),
    ],
)
def test_another_job_starts_anew(other: ProfileJob, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with pytest.raises(KeyboardInterrupt):
        run(JOB, path, Writer(2))
    writer = Writer(99)
    run(other, path, writer)
    assert writer.asked == [other.request(place) for place in range(other.requests)]


def test_profiles_of_other_weights_are_refused_at_export(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["profile", str(checkpoint), "--fast"]) == 0
    weights = checkpoint / "weights.safetensors"
    content = weights.read_bytes()
    try:
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert main(["export", str(checkpoint), "--out", str(tmp_path / "bundle")]) == 2
        assert "rdrec profile" in capsys.readouterr().err
        assert not (tmp_path / "bundle").exists()
        with pytest.raises(CheckpointError):
            profiles_of_checkpoint(checkpoint)
    finally:
        weights.write_bytes(content)
    assert profiles_of_checkpoint(checkpoint) is not None


def test_a_model_without_rationales_has_no_profiles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = write_bundle(tmp_path / "bundle", text_tasks=[Task.EXPLANATION])
    assert main(["profile", str(out)]) == 2
    assert "rdrec distill" in capsys.readouterr().err


def test_the_service_answers_profiles_without_decoding_and_writes_what_is_missing(tmp_path: Path) -> None:
    out = write_bundle(tmp_path / "bundle")
    store_in_bundle(Bundle.open(out), Profiles.from_texts(["", "", "", "likes towers"], [""] * 8 + ["is a tower"]))
    engine = FakeEngine()
    with TestClient(create_app(fake_settings(out), open_engine=lambda *_: engine)) as client:
        warm = len(engine.calls)
        answer = client.post("/explain", json={"user_id": user_id(3), "item_id": "i0008"}).json()
        assert (answer["user_preference"], answer["item_attributes"]) == ("likes towers", "is a tower")
        assert sum(n for what, n in engine.calls[warm:] if what == "text") == 1
        answer = client.post("/explain", json={"user_id": user_id(2), "item_id": "i0009"}).json()
        assert answer["user_preference"] == "user_preference of user 2 and item None"
        assert answer["item_attributes"] == "item_attributes of user None and item 9"


def test_the_journals_first_line_names_the_job(tmp_path: Path) -> None:
    with ProfileJournal(tmp_path / "journal", JOB):
        pass
    first = json.loads((tmp_path / "journal").read_text().splitlines()[0])
    assert first == {"model": "model", "counts": [10, 7], "fast": False}
