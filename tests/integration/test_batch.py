"""`rdrec batch`: everybody gets the list that the ranking gives them alone, whoever computes it and however often."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from rdrec_core.bundle import Bundle, BundleWriter
from rdrec_core.engines.torch_engine import TorchEngine
from rdrec_core.errors import DatasetError
from rdrec_core.fusion import FusionWeights, TaskWeights
from rdrec_core.item_graph import Mix
from rdrec_core.ranking import Ranker
from rdrec_core.types import RankRequest
from tests.small_dataset import write_small_dataset
from training.bundling.signals import add_signals
from training.cli import main
from training.data import ingest, source_jobs
from training.data.dataset import Dataset
from training.evaluation.fusion_run import store_fusion
from training.learning.checkpoint import load_checkpoint
from training.learning.config import load_config
from training.learning.run import train
from training.signals import graph as graph_module
from training.signals import nearest, phrase_spill

N_USERS, N_ITEMS = 30, 40
COLUMNS = ["user_id", "rank", "item_id", "score", "model", "graph", "text", "model_version"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_small_dataset(
        tmp_path_factory.mktemp("data") / "small", n_users=N_USERS, n_items=N_ITEMS, reviews=False
    )


@pytest.fixture(scope="module")
def bundle(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    config = load_config("scratch", None, {"epochs": 1, "passes": 1, "vocabulary_size": 300})
    train(config, dataset, folder / "checkpoint")
    assert main(["graph", str(dataset.path), "--out", str(folder / "graph"), "--workers", "1"]) == 0
    export = ["export", str(folder / "checkpoint"), "--out", str(folder / "bundle"), "--score-modes", "trie"]
    assert main([*export, "--graph", str(folder / "graph")]) == 0
    one = TaskWeights(0.5, Mix(0.05, {"next": 0.6, "reach": 0.3}))
    store_fusion(folder / "bundle", FusionWeights(one, one).to_manifest())
    return folder / "bundle"


@pytest.fixture(scope="module")
def whole(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results") / "whole.parquet"
    assert batch(bundle, out) == 0
    return out


def batch(bundle: Path, out: Path, *options: object) -> int:
    return main(["batch", str(bundle), "--out", str(out), "--block-users", "4", "--threads", "1", *map(str, options)])


@cache
def reference(bundle: Path) -> tuple[Bundle, Ranker]:
    opened = Bundle.open(bundle)
    return opened, Ranker.of_bundle(opened, TorchEngine.from_bundle(opened))


def expected(path: Path, user_index: int | None, history: list[int], **options: bool) -> dict[str, float]:
    """Every eligible item's score, by the reference engine, one user alone."""
    bundle, ranker = reference(path)
    exclude = tuple(history) if options.get("exclude_seen", True) else ()
    request = RankRequest(user_index, tuple(history), n_items=N_ITEMS, exclude=exclude, beam_width=N_ITEMS)
    found = ranker.recommend([request], fusion=[options.get("fusion", True)])[0]
    return {bundle.catalog.item_ids[i]: float(s) for i, s in zip(found.item_indices, found.scores, strict=True)}


def assert_best(rows: pl.DataFrame, scores: dict[str, float], n_items: int) -> None:
    assert rows["rank"].to_list() == list(range(1, n_items + 1))
    assert rows["item_id"].n_unique() == n_items
    assert rows["score"].to_list() == pytest.approx(sorted(scores.values(), reverse=True)[:n_items], abs=1e-3)
    assert rows["score"].to_list() == pytest.approx([scores[item] for item in rows["item_id"]], abs=1e-3)


def test_everybody_gets_the_best_items_by_the_reference_engine(bundle: Path, whole: Path, dataset: Dataset) -> None:
    rows = pl.read_parquet(whole)
    assert rows.columns == COLUMNS
    assert rows["user_id"].unique(maintain_order=True).to_list() == [f"u{n}" for n in range(N_USERS)]
    assert rows["model_version"].unique().to_list() == [Bundle.open(bundle).manifest.model_version]
    indptr, bought = dataset.sequences("test")
    for user in range(N_USERS):
        history = bought[indptr[user] : indptr[user + 1]].tolist()
        mine = rows.filter(pl.col("user_id") == f"u{user}")
        assert_best(mine, expected(bundle, user, history), 10)
        assert not set(mine["item_id"]) & {f"B{item:03d}" for item in history}
        # both signals are there, and the score is made of them; there are no texts
        by_hand = ((mine["model"] + 0.5 * mine["graph"]) / 1.5).exp()
        by_hand = by_hand / by_hand[0] * mine["score"][0]
        assert mine["score"].to_list() == pytest.approx(by_hand.to_list(), rel=1e-3)
        assert mine["text"].is_null().all()


def test_options_reach_the_ranking(bundle: Path, tmp_path: Path, dataset: Dataset) -> None:
    assert batch(bundle, tmp_path / "o.parquet", "--n-items", 3, "--no-exclude-seen", "--fusion", "off") == 0
    rows = pl.read_parquet(tmp_path / "o.parquet")
    indptr, bought = dataset.sequences("test")
    for user in (0, 7, 29):
        history = bought[indptr[user] : indptr[user + 1]].tolist()
        scores = expected(bundle, user, history, exclude_seen=False, fusion=False)
        mine = rows.filter(pl.col("user_id") == f"u{user}")
        assert mine["item_id"].to_list() == sorted(scores, key=lambda item: -scores[item])[:3]
        by_model = mine["model"].exp() / mine["model"].exp()[0] * mine["score"][0]
        assert mine["score"].to_list() == pytest.approx(by_model.to_list(), rel=1e-3)


def test_threads_change_no_byte(bundle: Path, whole: Path, tmp_path: Path) -> None:
    assert batch(bundle, tmp_path / "two.parquet", "--threads", 2) == 0
    assert (tmp_path / "two.parquet").read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("n", [2, 3, 20])
def test_the_shards_one_after_another_are_the_whole(bundle: Path, whole: Path, tmp_path: Path, n: int) -> None:
    shards = [tmp_path / f"{i}.parquet" for i in range(1, n + 1)]
    for i, shard in enumerate(shards, 1):
        assert batch(bundle, shard, "--shard", f"{i}/{n}") == 0
    parts = [pl.read_parquet(shard) for shard in shards]
    assert pl.concat(parts).equals(pl.read_parquet(whole), null_equal=True)
    users = [part["user_id"].n_unique() for part in parts]
    assert max(users) - min(users) <= 4  # of 30 users in blocks of 4


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_a_wrong_shard_is_refused(bundle: Path, tmp_path: Path, shard: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert batch(bundle, tmp_path / "o.parquet", f"--shard={shard}") == 2
    assert "i/n" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two workers of Ray, started once: it takes seconds."""
    ray = pytest.importorskip("ray", reason="Ray is not installed (extra `ray`)")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def killed_once(function: Callable[..., Any], marker: Path) -> Callable[..., Any]:
    """The same function, whose first call takes its whole process with it."""

    def call(*args: Any, **settings: Any) -> Any:
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **settings)

    return call


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("cluster")
def test_ray_gives_the_same_bytes(bundle: Path, whole: Path, tmp_path: Path) -> None:
    assert batch(bundle, tmp_path / "ray.parquet", "--ray", "--workers", 2) == 0
    assert (tmp_path / "ray.parquet").read_bytes() == whole.read_bytes()
    # a worker's complaint arrives as one line, not as a stack trace of another process
    assert batch(bundle, tmp_path / "full.parquet", "--ray", "--workers", 1, "--mode", "full") == 2


@pytest.mark.usefixtures("cluster")
def test_prepare_by_ray_writes_the_same_bytes_though_a_worker_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reviews = tmp_path / "r.json"
    rows = ({"user": f"u{n % 9}", "item": f"i{n % 7}", "ts": 10**9 + n, "text": f"The lamp {n}."} for n in range(300))
    reviews.write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr(source_jobs, "BLOCK_BYTES", 4096)
    options = ["prepare", "--name", "shop", "--reviews", str(reviews), "--repeats", "keep"]
    assert main([*options, "--out", str(tmp_path / "here")]) == 0
    monkeypatch.setattr(ingest, "_write_part", killed_once(ingest._write_part, tmp_path / "killed"))
    assert main([*options, "--out", str(tmp_path / "ray"), "--ray"]) == 0
    assert (tmp_path / "killed").exists()
    assert files(tmp_path / "ray") == files(tmp_path / "here")

    def refuse(*_: Any) -> None:
        raise DatasetError("no such thing")

    monkeypatch.setattr(ingest, "_write_part", refuse)
    assert main([*options, "--out", str(tmp_path / "no"), "--ray"]) == 2
    assert "no such thing" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


@pytest.mark.usefixtures("cluster")
def test_the_graph_by_ray_has_the_same_bytes_though_a_worker_is_killed(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["graph", str(dataset.path), "--interactions", "train"]
    assert main([*options, "--out", str(tmp_path / "here"), "--workers", "1"]) == 0
    monkeypatch.setattr(graph_module, "_ROWS_AT_ONCE", 7)
    monkeypatch.setattr(graph_module, "_CELLS_AT_ONCE", 1000)
    pieces = ((graph_module, "_solved"), (nearest, "_near_sparse"))
    for module, name in pieces:
        monkeypatch.setattr(module, name, killed_once(getattr(module, name), tmp_path / name))
    assert main([*options, "--out", str(tmp_path / "ray"), "--ray"]) == 0
    assert all((tmp_path / name).exists() for _, name in pieces)
    assert "text.catalogue.sparse.items.npy" in files(tmp_path / "here")
    assert files(tmp_path / "ray") == files(tmp_path / "here")


@pytest.mark.usefixtures("cluster")
def test_statements_by_processes_and_by_ray_have_the_same_bytes(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reviews = write_small_dataset(tmp_path / "reviews", n_users=N_USERS, n_items=N_ITEMS)
    monkeypatch.setattr(phrase_spill, "BLOCK", 80)
    by = {"here": ["--workers", "1"], "processes": ["--workers", "2"], "ray": ["--ray"]}
    for name, options in by.items():
        shutil.copytree(bundle, tmp_path / name)
        assert main(["profile", str(tmp_path / name), "--dataset", str(reviews.path), *options]) == 0
    assert "arrays/statements/texts.blob.npy" in files(tmp_path / "here")
    assert files(tmp_path / "processes") == files(tmp_path / "here")
    assert files(tmp_path / "ray") == files(tmp_path / "here")
    assert {path.name for path in tmp_path.iterdir()} == {*by, "reviews"}


def test_a_graph_built_apart_is_the_one_that_export_would_build(bundle: Path, dataset: Dataset, tmp_path: Path) -> None:
    add_signals(BundleWriter(tmp_path), load_checkpoint(bundle.parent / "checkpoint"), dataset, "test")
    expected = files(tmp_path)
    assert {"arrays/graph/text.catalogue.sparse.items.npy", "arrays/text/catalogue.sparse.row.npy"} < set(expected)
    found = files(bundle)
    assert {name: found[name] for name in found if name.startswith(("arrays/graph/", "arrays/text/"))} == expected


def test_a_graph_of_something_else_is_refused(
    bundle: Path, dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, graph = str(bundle.parent / "checkpoint"), str(bundle.parent / "graph")
    export = ["export", checkpoint, "--out", str(tmp_path / "b"), "--score-modes", "trie"]
    assert main([*export, "--graph", graph, "--interactions", "train"]) == 2
    assert "interactions up to test, needed is train" in capsys.readouterr().err
    assert main([*export, "--graph", checkpoint]) == 2
    assert "no folder of `rdrec graph`" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_worker_s_error_is_the_command_s(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert batch(bundle, tmp_path / "full.parquet", "--mode", "full") == 2
    assert "has no graphs for score mode full; it has trie" in capsys.readouterr().err
    # nothing was kept, so the right mode may follow
    assert batch(bundle, tmp_path / "full.parquet", "--mode", "trie") == 0


def listed(path: Path, n: int) -> Path:
    """Users whom the bundle does not know, with histories of three items."""
    rng = np.random.default_rng(3)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "history"])
        for user in range(n):
            writer.writerow([f"new{user}", " ".join(f"B{i:03d}" for i in rng.choice(N_ITEMS, 3, replace=False))])
    return path


def test_a_killed_run_goes_on_to_the_same_bytes(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    users = listed(tmp_path / "users.csv", 400)
    out, parts = tmp_path / "killed.parquet", tmp_path / "killed.parquet.parts"
    command = [sys.executable, "-m", "training.cli", "batch", str(bundle), "--out", str(out), "--users", str(users),
               "--block-users", "4", "--threads", "1"]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 60
    while len(list(parts.glob("part-*.parquet"))) < 5:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "no parts appeared"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = len(list(parts.glob("part-*.parquet")))
    assert 5 <= kept < 100
    assert not out.exists()
    capsys.readouterr()
    assert batch(bundle, out, "--users", users) == 0
    assert f"{4 * kept} users were done by an earlier run" in capsys.readouterr().err
    assert not parts.exists()
    assert batch(bundle, tmp_path / "calm.parquet", "--users", users) == 0
    assert out.read_bytes() == (tmp_path / "calm.parquet").read_bytes()


def test_parts_of_another_run_are_not_mixed_in(
    bundle: Path, tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.batch_scoring import parts as parts_module

    def full_disk(self: object) -> int:
        raise OSError("no space left")

    out = tmp_path / "o.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(parts_module.Parts, "finish", full_disk)
        with pytest.raises(OSError, match="no space"):
            batch(bundle, out, "--n-items", 3)
    assert batch(bundle, out) == 2
    assert "other n_items" in capsys.readouterr().err
    assert not out.exists()
    assert batch(bundle, out, "--force") == 0
    assert out.read_bytes() == whole.read_bytes()
    assert batch(bundle, out) == 2
    assert "exists" in capsys.readouterr().err


def test_a_damaged_part_is_named(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.batch_scoring import parts as parts_module

    def damage(self: parts_module.Parts) -> int:
        (tmp_path / "o.parquet.parts" / "part-00000002.parquet").write_bytes(b"PAR1 no more")
        return finish(self)

    finish = parts_module.Parts.finish
    monkeypatch.setattr(parts_module.Parts, "finish", damage)
    assert batch(bundle, tmp_path / "o.parquet") == 2
    assert not (tmp_path / "o.parquet").exists()


def test_two_runs_do_not_write_one_result(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.batch_scoring import parts as parts_module

    statuses = []

    def meanwhile(self: parts_module.Parts) -> int:
        with monkeypatch.context() as patch:
            patch.setattr(parts_module.Parts, "finish", finish)
            statuses.append(batch(bundle, tmp_path / "o.parquet"))
        return finish(self)

    finish = parts_module.Parts.finish
    monkeypatch.setattr(parts_module.Parts, "finish", meanwhile)
    assert batch(bundle, tmp_path / "o.parquet") == 0
    assert statuses == [2]
    assert "another run is writing" in capsys.readouterr().err


def test_lists_of_users_in_every_form(bundle: Path, whole: Path, tmp_path: Path) -> None:
    wanted = ["u7", "u3", "u29"]
    (tmp_path / "users.txt").write_text("\ufeffu7\nu3\r\n\nu29\n", encoding="utf-8")
    (tmp_path / "users.csv").write_text("age,user_id\n3,u7\n4,u3\n5,u29\n")
    (tmp_path / "users.tsv").write_text("user_id\thistory\nu7\t\nu3\t\nu29\t\n")
    pl.DataFrame({"user_id": wanted, "history": [None, None, None]}).write_parquet(tmp_path / "users.parquet")
    results = []
    for name in ("users.txt", "users.csv", "users.tsv", "users.parquet"):
        assert batch(bundle, tmp_path / f"{name}.out", "--users", tmp_path / name) == 0
        results.append(pl.read_parquet(tmp_path / f"{name}.out"))
    everybody = pl.read_parquet(whole)
    for rows in results:
        assert rows["user_id"].unique(maintain_order=True).to_list() == wanted
        for user in wanted:
            mine, theirs = (frame.filter(pl.col("user_id") == user) for frame in (rows, everybody))
            assert mine["item_id"].to_list() == theirs["item_id"].to_list()
            assert mine["score"].to_list() == pytest.approx(theirs["score"].to_list(), abs=1e-3)


def test_given_histories_replace_the_bundle_s(
    bundle: Path, tmp_path: Path, dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    users = pl.DataFrame(
        {"user_id": ["u7", "stranger", "nobody", "empty"],
         "history": [["B001", "B002"], ["B005", "gone", "B001"], None, []]}
    )  # fmt: skip
    users.write_parquet(tmp_path / "users.parquet")
    assert batch(bundle, tmp_path / "o.parquet", "--users", tmp_path / "users.parquet", "--n-items", 5) == 0
    rows = pl.read_parquet(tmp_path / "o.parquet")

    def of(user: str) -> pl.DataFrame:
        return rows.filter(pl.col("user_id") == user)

    assert_best(of("u7"), expected(bundle, 7, [1, 2]), 5)
    assert_best(of("stranger"), expected(bundle, None, [5, 1]), 5)
    counts = np.bincount(dataset.interactions.item_index, minlength=N_ITEMS)
    popular = [f"B{i:03d}" for i in np.lexsort((np.arange(N_ITEMS), -counts))[:5]]
    for user in ("nobody", "empty"):
        assert of(user)["item_id"].to_list() == popular
        assert of(user)["model"].null_count() == 5
    said = capsys.readouterr().err
    assert "2 users without any history got the popular items" in said
    assert "1 items of the given histories are not in the catalogue" in said


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.csv", "customer\nu1\n", "no column user_id; it has customer"),
        ("a.txt", "u1\nu2\nu1\n", "'u1' more than once"),
        ("a.csv", "user_id,history\n,B001\n", "row 0 has no user id"),
        ("a.parquet", "not parquet", "cannot be read"),
        ("a.txt", b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_a_wrong_list_is_refused(
    bundle: Path, tmp_path: Path, name: str, content: str | bytes, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert batch(bundle, tmp_path / "o.parquet", "--users", file) == 2
    assert complaint in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [file]


def test_no_users_make_an_empty_result(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "users.txt").write_text("")
    assert batch(bundle, tmp_path / "o.parquet", "--users", tmp_path / "users.txt") == 0
    rows = pl.read_parquet(tmp_path / "o.parquet")
    assert rows.columns == COLUMNS
    assert rows.is_empty()
