"""`rdrec fuse`, `evaluate`, `baselines` and `report` over an untrained checkpoint and a made-up dataset."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rdrec_core.types import Task
from tests.ranking_dataset import chained_histories, write_dataset
from training.cli import main
from training.data.cold_items import hide_items
from training.data.dataset import Dataset
from training.learning.backbone import build
from training.learning.checkpoint import CheckpointInfo, CheckpointWriter, labels_sha256
from training.learning.config import TrainConfig
from training.learning.run import train

USERS, ITEMS = 60, 40


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    data = write_dataset(folder / "data", chained_histories(np.random.default_rng(0), USERS, ITEMS), ITEMS)
    write_checkpoint(folder / "ckpt", data)
    assert main(["fuse", str(folder / "ckpt"), str(folder / "data")]) == 0
    return folder


def write_checkpoint(path: Path, data: Dataset) -> None:
    config = TrainConfig(backbone="scratch:tiny", tasks=("sequential", "topn"), loss="trie", vocabulary_size=200)
    model, tokenizer = build(config, data, None)
    writer = CheckpointWriter(path)
    writer.tokenizer(tokenizer)
    info = data.info
    writer.best(
        model,
        CheckpointInfo(
            config=config, dataset_path=str(data.path), dataset_name=info.name, dataset_sha256={},
            labels_sha256=labels_sha256(data), protocol="clean", label_scheme=info.label_scheme, n_users=info.n_users,
            n_items=info.n_items, tasks=[Task.SEQUENTIAL, Task.TOPN], epoch=1, validation_loss={},
        ),
    )  # fmt: skip


def metrics_by_hand(ranks: list[float | None]) -> dict[str, float]:
    found = {f"HR@{k}": sum(r is not None and r <= k for r in ranks) / len(ranks) for k in (1, 5, 10)}
    gains = {
        f"NDCG@{k}": sum(1 / np.log2(1 + r) for r in ranks if r is not None and r <= k) / len(ranks) for k in (5, 10)
    }
    return found | gains


@pytest.mark.parametrize("task", ["sequential", "topn"])
def test_the_record_is_what_its_ranks_say(workplace: Path, task: str) -> None:
    out = workplace / f"{task}.json"
    arguments = [
        "evaluate",
        str(workplace / "ckpt"),
        str(workplace / "data"),
        "--task",
        task,
        "--baselines",
        "--no-sasrec",
    ]
    assert main([*arguments, "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    ranks = pl.read_parquet(out.with_suffix(".parquet"))
    assert record["n_users"] == USERS
    assert record["main"] == "fused"
    assert set(record["rows"]) == {
        "fused", "model alone", "graph alone", "popularity", "co-purchase counts", "item-kNN", "EASE + counts",
    }  # fmt: skip
    for system, row in record["rows"].items():
        own = ranks.filter(pl.col("system") == system)
        assert own["user_index"].to_list() == list(range(USERS))
        expected = metrics_by_hand(own["rank"].to_list())
        assert {name: row[name] for name in expected} == pytest.approx(expected)
        for row_items, target, rank in own.select("items", "target", "rank").iter_rows():
            if rank is not None and rank == int(rank) <= 10 and system in ("fused", "model alone"):
                assert row_items[int(rank) - 1] == target
    assert {name: record[name] for name in expected} == {name: record["rows"]["fused"][name] for name in expected}
    # the model is untrained and the data a chain: the graph must carry the list
    assert record["rows"]["fused"]["HR@10"] > record["rows"]["popularity"]["HR@10"]


def test_the_history_is_never_recommended(workplace: Path) -> None:
    out = workplace / "seen.json"
    assert main(["evaluate", str(workplace / "ckpt"), str(workplace / "data"), "--out", str(out)]) == 0
    data = Dataset(workplace / "data")
    indptr, items = data.sequences("val")
    for user, listed in pl.read_parquet(out.with_suffix(".parquet")).select("user_index", "items").iter_rows():
        assert not set(listed) & set(items[indptr[user] : indptr[user + 1]].tolist())
        assert len(listed) == len(set(listed)) == 10


def test_fusion_off_is_the_model_and_refit_adds_validation(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["evaluate", str(workplace / "ckpt"), str(workplace / "data")]
    off, refit = workplace / "off.json", workplace / "refit.json"
    assert main([*base, "--fusion", "off", "--out", str(off)]) == 0
    assert main([*base, "--refit", "--out", str(refit)]) == 0
    assert json.loads(off.read_text())["main"] == "model alone"
    assert "validation" in json.loads(refit.read_text())["fitted_on"]
    assert main([*base, "--refit", "--split", "val"]) == 2
    assert main([*base, "--trials", "3"]) == 2
    assert main([*base, "--task", "knitting"]) == 2
    message = capsys.readouterr().err
    assert "--refit" in message
    assert "sequential, topn, explanation" in message


def test_without_text_no_word_ranks(workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, copy = (Path(shutil.copytree(workplace / name, tmp_path / name)) for name in ("data", "ckpt"))
    items = pl.read_parquet(data / "items.parquet")
    titles = [f"chapter{i} chapter{i + 1}" for i in range(ITEMS)]  # each shares a word with the next one
    items.with_columns(pl.Series("title", titles)).write_parquet(data / "items.parquet")
    fitted = {}
    for option in ("--text", "--no-text"):
        assert main(["fuse", str(copy), str(data), "--no-tune-graph", option]) == 0
        fitted[option] = any(".channel.text" in name for name in json.loads((copy / "fusion.json").read_text()))
    assert fitted == {"--text": True, "--no-text": False}
    assert main(["evaluate", str(copy), str(data)]) == 0
    capsys.readouterr()
    assert main(["fuse", str(copy), str(data), "--no-text", "--text-encoder", "a-folder"]) == 2
    assert "--text-encoder" in capsys.readouterr().err


def test_trials_draw_other_candidates_and_state_their_spread(workplace: Path) -> None:
    out = workplace / "trials.json"
    arguments = ["evaluate", str(workplace / "ckpt"), str(workplace / "data"), "--task", "topn", "--fusion", "off"]
    # a catalogue this small has fewer than 99 others, so draws differ by their order only and spread is nearly nothing
    assert main([*arguments, "--trials", "3", "--out", str(out)]) == 0
    trials = json.loads(out.read_text())["trials"]
    assert trials["n"] == 3
    assert trials["rows"]["model alone"]["HR@10"]["deviation"] >= 0


def test_another_dataset_is_refused(workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_dataset(tmp_path / "other", chained_histories(np.random.default_rng(9), 20, 30), 30)
    assert main(["evaluate", str(workplace / "ckpt"), str(other.path)]) == 2
    assert "other items or labels" in capsys.readouterr().err


def test_baselines_and_the_report_on_one_page_without_other_files(workplace: Path) -> None:
    record = workplace / "baselines.json"
    arguments = ["baselines", str(workplace / "data"), "--no-sasrec", "--out", str(record)]
    assert main(arguments) == 0
    page = workplace / "report.html"
    runs = [str(workplace / "sequential.json"), str(record)]
    assert main(["report", *runs, "--out", str(page)]) == 0
    text = page.read_text()
    for name in ("fused", "graph alone", "co-purchase counts", "protocol clean", "popularity decile"):
        assert name in text
    value = json.loads((workplace / "sequential.json").read_text())["HR@10"]
    assert f"{value:.4f}" in text
    groups = {name: part for name, part in json.loads(record.read_text())["groups"].items() if part["n_questions"]}
    assert ("cold none, rare fewer than five" in text) == (len(groups) > 1)
    for part in groups.values():
        row = part["rows"]["co-purchase counts"]
        assert len(groups) == 1 or f"{row['HR@10']:.4f} / {row['NDCG@10']:.4f}" in text
    assert text.count("<svg") == 2
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:|/|\w+\.\w)", text), "the page must need no other file"
    assert main(["report", str(workplace / "missing.json"), "--out", str(page)]) == 2


def test_cold_items_are_measured_by_a_model_that_never_saw_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_dataset(tmp_path / "data", chained_histories(np.random.default_rng(1), USERS, ITEMS), ITEMS)
    config = TrainConfig(
        backbone="scratch:tiny", tasks=("sequential",), loss="trie", vocabulary_size=200, epochs=1,
        discrete_templates=False, validation_limit=5, batch_size=64,
    )  # fmt: skip
    train(config, data, tmp_path / "ckpt")
    command = ["evaluate", str(tmp_path / "ckpt"), str(data.path), "--cold-items", "0.25", "--out"]
    assert main([*command, str(tmp_path / "first.json")]) == 0
    shown = capsys.readouterr().out
    assert "cold none, rare fewer than five" in re.sub(r"\s+", " ", shown)
    record = json.loads((tmp_path / "first.json").read_text())
    assert record["cold_items"] == 0.25
    counts = {name: group["n_questions"] for name, group in record["groups"].items()}
    assert sum(counts.values()) == record["n_users"] == USERS
    hidden = hide_items(data, tmp_path / "again", share=0.25, seed=0)
    unseen = np.setdiff1d(np.arange(ITEMS), hidden.sequences("train")[1])
    assert counts["cold"] == np.isin(hidden.targets("test"), unseen).sum() > 0
    weights = tmp_path / "ckpt-cold-0.25-0/weights.safetensors"
    made = weights.stat().st_mtime_ns
    assert main([*command, str(tmp_path / "second.json")]) == 0
    assert weights.stat().st_mtime_ns == made  # trained once
    assert json.loads((tmp_path / "second.json").read_text())["groups"] == record["groups"]
    trained, kept = str(tmp_path / "ckpt-cold-0.25-0"), str(tmp_path / "data-cold-0.25-0")
    assert main(["evaluate", trained, kept, "--cold-items", "0.5"]) != 0
    assert "hides 0.25 of its items, not 0.5" in re.sub(r"\s+", " ", capsys.readouterr().err)
    assert main(["audit", kept]) == 0
