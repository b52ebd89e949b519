"""`rdrec train` from outside: resumed runs, kills, interrupts, pretrained folders, several processes."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from transformers import T5Config, T5ForConditionalGeneration

from rdrec_core.errors import CheckpointError, InputError
from rdrec_core.types import Task
from tests.redis_process import free_port
from tests.small_dataset import write_small_dataset
from training.cli import main
from training.data.dataset import Dataset, WholeDataset
from training.evaluation.fusion_run import store_fusion
from training.evaluation.measure import rank_sequential
from training.evaluation.metrics import summary
from training.evaluation.protocol import questions
from training.evaluation.systems import load_system, read_fusion
from training.learning.backbone import CatalogTokens, build
from training.learning.checkpoint import CheckpointWriter, load_checkpoint, read_state
from training.learning.config import TrainConfig, load_config
from training.learning.run import pieces_notice, train
from training.learning.trainer import StopReason
from training.learning.vocabulary import train_vocabulary, training_texts

SMALL = {"batch_size": 16, "passes": 1, "negatives": 9, "backbone": "scratch:tiny", "vocabulary_size": 300}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_small_dataset(tmp_path_factory.mktemp("data") / "small", n_users=15)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # bit-for-bit comparisons need the same order of additions
    yield
    torch.set_num_threads(before)


def small(recipe: str = "paper", **fields: Any) -> TrainConfig:
    return load_config(recipe, None, SMALL | fields)


def ticking(stop_at: int | None = None) -> Callable[[], float]:
    """A clock that moves a second a look; at `stop_at` looks it raises, as a crash would."""
    looks = 0

    def clock() -> float:
        nonlocal looks
        looks += 1
        if looks == stop_at:
            raise KeyboardInterrupt
        return float(looks)

    return clock


@pytest.mark.parametrize("recipe", ["paper", "scratch"])
def test_a_crashed_run_resumes_to_the_same_weights_bit_for_bit(tmp_path: Path, recipe: str) -> None:
    dataset = write_small_dataset(tmp_path / "data", n_users=5)
    config = small(recipe, epochs=2, checkpoint_min=0.1, schedule="cosine", batch_size=8)
    stop_at = 70
    train(config, dataset, tmp_path / "whole", clock=ticking())
    with pytest.raises(KeyboardInterrupt):
        train(config, dataset, tmp_path / "crashed", clock=ticking(stop_at=stop_at))
    crashed_at = read_state(tmp_path / "crashed")[1]["position"]
    assert crashed_at["batch"] > 0  # in the middle of an epoch
    train(config, dataset, tmp_path / "crashed", resume=True, clock=ticking())
    for name in ("weights.safetensors", "trainer.safetensors"):
        whole, resumed = load_file(tmp_path / "whole" / name), load_file(tmp_path / "crashed" / name)
        assert whole.keys() == resumed.keys()
        for key in whole:
            assert torch.equal(whole[key], resumed[key]), key
    lines = [
        [{k: v for k, v in json.loads(line).items() if k != "elapsed_s"} for line in path.read_text().splitlines()]
        for path in (tmp_path / "whole" / "metrics.jsonl", tmp_path / "crashed" / "metrics.jsonl")
    ]
    assert lines[0] == lines[1]
    assert len(lines[0]) == 2


def test_training_learns_and_the_checkpoint_says_what_it_is(dataset: Dataset, tmp_path: Path) -> None:
    config = small("scratch", epochs=2)
    assert train(config, dataset, tmp_path / "out") is StopReason.EPOCHS
    lines = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    for task in ("explanation", "sequential", "user_preference", "item_attributes"):
        assert lines[-1]["train_loss"][task] < lines[0]["train_loss"][task]
    assert lines[-1]["validation_loss"]["item_attributes"] < lines[0]["validation_loss"]["item_attributes"]
    loaded = load_checkpoint(tmp_path / "out")
    assert loaded.info.config == config
    assert loaded.info.n_items == 40
    assert not loaded.model.training
    assert loaded.info.validation_loss == lines[loaded.info.epoch - 1]["validation_loss"]
    assert loaded.dataset().info == dataset.info
    assert (tmp_path / "out/curves.png").read_bytes()[:4] == b"\x89PNG"


def test_a_checkpoint_refuses_a_dataset_with_other_labels(dataset: Dataset, tmp_path: Path) -> None:
    train(small(epochs=1, tasks="sequential"), dataset, tmp_path / "out")
    other = write_small_dataset(tmp_path / "other", n_items=41)
    with pytest.raises(CheckpointError, match="other items or labels"):
        load_checkpoint(tmp_path / "out").dataset(other.path)


def test_it_stops_after_epochs_without_gain_and_keeps_the_best(dataset: Dataset, tmp_path: Path) -> None:
    # steps too small to change anything: the first epoch stays the best
    config = small(epochs=9, patience=2, learning_rate=1e-30, tasks="sequential")
    assert train(config, dataset, tmp_path / "out") is StopReason.NO_GAIN
    losses = [json.loads(line)["validation_loss"]["sequential"] for line in (tmp_path / "out/metrics.jsonl").open()]
    assert load_checkpoint(tmp_path / "out").info.epoch == 1
    assert len(losses) == 3


def test_the_epoch_that_ranks_best_is_kept_and_printed(dataset: Dataset, tmp_path: Path) -> None:
    config = small("scratch", epochs=6, patience=6, tasks="sequential", select="ndcg", learning_rate=0.01)
    console = Console(record=True, width=200, file=io.StringIO())
    train(config, dataset, tmp_path / "out", console=console)
    lines = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").open()]
    kept = load_checkpoint(tmp_path / "out")
    ndcg = [line["validation_ndcg"] for line in lines]
    best = max(ndcg)
    losses = {n: lines[n]["validation_loss"]["sequential"] for n in range(6) if ndcg[n] == best}
    assert kept.info.epoch == 1 + min(losses, key=losses.__getitem__)
    assert f"kept epoch {kept.info.epoch}, validation NDCG@10 {best:.4f}" in console.export_text()
    # the same number as the evaluation of the kept weights gives: all 15 users are asked, each by the served search
    asked = questions(dataset, "val")
    ranker = load_system(tmp_path / "out", dataset).ranker(None, None)
    outcome = rank_sequential(ranker, asked, fusion=False, beam_width=20, progress=lambda _: None)
    assert summary(outcome.ranks)["NDCG@10"] == pytest.approx(lines[kept.info.epoch - 1]["validation_ndcg"], abs=1e-9)


def test_patience_counts_from_the_epoch_that_ranks_best(dataset: Dataset, tmp_path: Path) -> None:
    # steps too small to change anything: every epoch ranks as the first did
    config = small("scratch", epochs=9, patience=2, tasks="sequential", select="ndcg", learning_rate=1e-30)
    assert train(config, dataset, tmp_path / "out") is StopReason.NO_GAIN
    assert len((tmp_path / "out/metrics.jsonl").read_text().splitlines()) == 3
    assert load_checkpoint(tmp_path / "out").info.epoch == 1


@pytest.mark.parametrize(("in_all", "epochs"), [(True, 5), (False, 6)])
def test_patience_may_count_over_the_whole_run(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_all: bool, epochs: int
) -> None:
    scores = iter([0.1, 0.2, 0.15, 0.3, 0.25, 0.2, 0.1])
    monkeypatch.setattr("training.learning.run.ndcg_at_10", lambda *_: lambda *_: next(scores))
    config = small("scratch", epochs=9, patience=2, patience_in_all=in_all, tasks="sequential", select="ndcg")
    assert train(config, dataset, tmp_path / "out") is StopReason.NO_GAIN
    assert len((tmp_path / "out/metrics.jsonl").read_text().splitlines()) == epochs
    assert load_checkpoint(tmp_path / "out").info.epoch == 4


def test_the_time_budget_ends_the_run_with_the_learning_rate_at_its_end(dataset: Dataset, tmp_path: Path) -> None:
    config = small("scratch", time_budget_min=1.0, epochs=50, patience=50, tasks="sequential")
    assert train(config, dataset, tmp_path / "out", clock=ticking()) is StopReason.BUDGET
    last = json.loads((tmp_path / "out/metrics.jsonl").read_text().splitlines()[-1])
    assert last["learning_rate"] < 0.05 * config.learning_rate


def test_fields_that_are_gone_are_read_at_their_old_defaults_alone(dataset: Dataset, tmp_path: Path) -> None:
    config = small(epochs=1, tasks="sequential")
    train(config, dataset, tmp_path / "out")
    info = tmp_path / "out/checkpoint.json"
    stored = json.loads(info.read_text())
    stored["config"] |= {"future_targets": 1, "future_decay": 1.0}
    info.write_text(json.dumps(stored))
    assert load_checkpoint(tmp_path / "out").info.config == config
    stored["config"]["future_targets"] = 3
    info.write_text(json.dumps(stored))
    with pytest.raises(CheckpointError, match=r"future_targets=3 was taken out.*train again"):
        load_checkpoint(tmp_path / "out")
    tensors, state = read_state(tmp_path / "out")
    CheckpointWriter(tmp_path / "out").state(tensors, state | {"config": stored["config"]})
    with pytest.raises(CheckpointError, match="future_targets=3"):
        train(small(epochs=2, tasks="sequential"), dataset, tmp_path / "out", resume=True)
    with pytest.raises(InputError, match="future_targets"):
        small(future_targets=1)


def test_all_trains_on_what_was_held_out_as_long_as_validation_chose(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = WholeDataset(dataset.path)
    assert whole.sequences("train")[1].tolist() == dataset.sequences("test")[1].tolist()
    assert whole.reviews().collect()["split"].unique().to_list() == ["train"]
    like, out = tmp_path / "like", tmp_path / "final"
    train(small(epochs=2, tasks="sequential,explanation"), dataset, like)
    store_fusion(like, {"sequential.graph": 0.5})
    command = ["train", str(dataset.path), "--all", "--out", str(out)]
    assert main([*command, "--like", str(like)]) == 0
    final, measured = load_checkpoint(out).info, load_checkpoint(like).info
    assert final.learned_upto == "test"
    assert (final.epoch, final.labels_sha256) == (measured.epoch, measured.labels_sha256)
    assert final.validation_loss == {}
    assert read_fusion(out) == {"sequential.graph": 0.5}
    (line, *_) = (out / "metrics.jsonl").read_text().splitlines()
    (before, *_) = (like / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] > json.loads(before)["step"]  # there is more to learn from
    with pytest.raises(CheckpointError, match="nothing is left to measure"):
        load_system(out, dataset)
    with pytest.raises(CheckpointError, match="up to the split test"):
        train(small(epochs=3, tasks="sequential,explanation"), dataset, out, resume=True)
    stored = json.loads((out / "checkpoint.json").read_text())
    assert stored.pop("learned_upto") == "test"
    (out / "checkpoint.json").write_text(json.dumps(stored | {"held_out": False}))
    assert load_checkpoint(out).info.learned_upto == "test", "as earlier versions wrote it"
    between = tmp_path / "between"
    assert main([*command[:3], "--keep-test", "--out", str(between), "--like", str(like)]) == 0
    assert load_checkpoint(between).info.learned_upto == "val"
    kept = WholeDataset(dataset.path, keep_test=True)
    assert kept.sequences("train")[1].tolist() == dataset.sequences("val")[1].tolist()
    assert kept.targets("test").tolist() == dataset.targets("test").tolist()
    assert load_system(between, dataset, upto="val").facts["learned_upto"] == "val"
    with pytest.raises(CheckpointError, match="evaluate --refit"):
        load_system(between, dataset)
    assert main(command) != 0
    assert "--like CHECKPOINT" in " ".join(capsys.readouterr().err.split())


def test_gradients_are_clipped_only_where_asked(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clipped: list[float] = []
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda _, norm: clipped.append(norm))
    train(small(epochs=1, tasks="sequential"), dataset, tmp_path / "paper")
    assert clipped == []
    train(small(epochs=1, tasks="sequential", clip_norm=0.5), dataset, tmp_path / "asked")
    assert set(clipped) == {0.5}
    assert load_config("scratch").clip_norm == 1.0


def test_resuming_on_other_labels_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    config = small(epochs=1, tasks="sequential")
    train(config, dataset, tmp_path / "out")
    shutil.copytree(dataset.path, tmp_path / "other")
    other = Dataset(tmp_path / "other")
    turned = other.items["label"].reverse()  # the same labels, of other items
    other.items.with_columns(turned).write_parquet(tmp_path / "other/items.parquet")
    with pytest.raises(CheckpointError, match="other items or labels"):
        train(small(epochs=2, tasks="sequential"), Dataset(tmp_path / "other"), tmp_path / "out", resume=True)


def test_fusion_weights_belong_to_the_weights_that_they_were_fitted_to(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    config = small(epochs=1, tasks="explanation")  # whose loss falls from epoch to epoch
    train(config, dataset, out)
    store_fusion(out, {"sequential.graph": 0.5}, "somewhere")
    assert read_fusion(out) == {"sequential.graph": 0.5}
    train(config, dataset, out, force=True)
    assert not (out / "fusion.json").exists()
    assert not (out / "text_encoder.json").exists()
    store_fusion(out, {"sequential.graph": 0.5})
    train(small(epochs=2, tasks="explanation"), dataset, out, resume=True)
    assert load_checkpoint(out).info.epoch > 1  # a better epoch took the place of the first
    with pytest.raises(CheckpointError, match="run `rdrec fuse` again"):
        load_system(out, dataset)
    assert load_system(out, dataset, with_fusion=False).fusion is None
    (out / "fusion.json").write_text(json.dumps({"sequential.graph": 0.5}))  # as earlier versions wrote it
    assert load_system(out, dataset).fusion == {"sequential.graph": 0.5}


def test_resuming_with_another_setting_names_it(dataset: Dataset, tmp_path: Path) -> None:
    train(small(epochs=1, tasks="sequential"), dataset, tmp_path / "out")
    with pytest.raises(CheckpointError, match="batch_size=16, not 8"):
        train(small(epochs=2, tasks="sequential", batch_size=8), dataset, tmp_path / "out", resume=True)
    with pytest.raises(CheckpointError, match="--resume"):
        train(small(epochs=1), dataset, tmp_path / "out")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"epochs": 0}, "epochs"), ({"ratio": "1:2"}, "ratio"), ({"lerning_rate": 1}, "lerning_rate"),
        ({"backbone": "scratch:huge"}, "backbone"), ({"tasks": "topn,sing"}, "tasks"),
    ],
)  # fmt: skip
def test_wrong_settings_are_named(dataset: Dataset, tmp_path: Path, fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError) as caught:
        train(small(**fields), dataset, tmp_path / "out")
    assert named in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_hugging_face_folder_is_a_backbone(dataset: Dataset, tmp_path: Path) -> None:
    tokenizer = train_vocabulary(training_texts(dataset), size=300)
    theirs = T5ForConditionalGeneration(
        T5Config(
            vocab_size=tokenizer.get_vocab_size(), d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
            feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0,
        )
    )  # fmt: skip
    theirs.save_pretrained(tmp_path / "t5")
    tokenizer.save(str(tmp_path / "t5/tokenizer.json"))
    config = small(backbone=str(tmp_path / "t5"), epochs=1, learning_rate=1e-9)
    train(config, dataset, tmp_path / "out")
    ours = load_checkpoint(tmp_path / "out").model
    # a step of 1e-9 leaves the pretrained weights where they were
    assert torch.allclose(ours.t5.shared.weight, theirs.shared.weight, atol=1e-5)
    assert torch.allclose(
        ours.t5.decoder[1].ff.gate.weight, theirs.decoder.block[1].layer[2].DenseReluDense.wi_1.weight, atol=1e-5
    )
    assert ours.t5.lm_head is not None
    assert torch.allclose(ours.t5.lm_head.weight, theirs.lm_head.weight, atol=1e-5)


def command(dataset: Dataset, out: Path, *more: str) -> list[str]:
    settings = [f"--set={name}={value}" for name, value in SMALL.items()]
    return [sys.executable, "-m", "training.cli", "train", str(dataset.path), "--out", str(out), *settings, *more]


ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def wait_for(path: Path, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, "the run ended too soon"
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_kill_9_leaves_a_folder_that_resumes_to_the_same_end(dataset: Dataset, tmp_path: Path) -> None:
    settings = ["--recipe=paper", "--epochs=3", "--tasks=sequential,topn", "--set=passes=4"]
    subprocess.run(command(dataset, tmp_path / "whole", *settings), check=True, env=ONE_THREAD, capture_output=True)
    process = subprocess.Popen(
        command(dataset, tmp_path / "killed", *settings), env=ONE_THREAD, stdout=subprocess.DEVNULL
    )
    wait_for(tmp_path / "killed/trainer.safetensors", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = command(dataset, tmp_path / "killed", *settings, "--resume")
    subprocess.run(again, check=True, env=ONE_THREAD, capture_output=True)
    whole, resumed = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


@pytest.mark.slow
def test_sigint_saves_and_exits_130(dataset: Dataset, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(dataset, tmp_path / "out", "--recipe=scratch", "--epochs=100000", "--set=patience=100000"),
        env=ONE_THREAD, stdout=subprocess.PIPE,
    )  # fmt: skip
    wait_for(tmp_path / "out/trainer.safetensors", process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"--resume" in output
    assert read_state(tmp_path / "out")[1]["position"]["step"] > 0


@pytest.mark.slow
def test_two_processes_follow_the_loss_curve_of_one(dataset: Dataset, tmp_path: Path) -> None:
    # without dropouts, whose masks differ by process; few and small steps, since Adam enlarges rounding errors
    settings = ["--recipe=scratch", "--epochs=2", "--set=dropout=0.0", "--set=passes=1", "--learning-rate=0.0003"]
    settings.append("--set=free_part_dropout=0.0")
    subprocess.run(command(dataset, tmp_path / "one", *settings), check=True, env=ONE_THREAD, capture_output=True)
    two = command(dataset, tmp_path / "two", *settings)
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        f"--master-port={free_port()}",
        "-m",
        *two[2:],
    ]
    subprocess.run(launch, check=True, env=ONE_THREAD, capture_output=True, timeout=240)
    curves = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert len(curves[0]) == len(curves[1]) == 2
    for one, both in zip(*curves, strict=True):
        assert one["step"] == both["step"]
        for kind in ("train_loss", "validation_loss"):
            assert one[kind] == pytest.approx(both[kind], rel=1e-3)
    assert not (tmp_path / "two" / ".shared").exists(), "what the processes shared"
    assert curves[0][1]["train_loss"]["explanation"] < 0.98 * curves[0][0]["train_loss"]["explanation"]


def test_show_batch_prints_all_five_tasks(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(dataset.path), "--show-batch", "--set", "negatives=4"]) == 0
    printed = capsys.readouterr().out
    for task in Task:
        assert task.name.lower()[:8] in printed
    assert "item_10" in printed


def test_a_dataset_without_reviews_says_what_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = write_small_dataset(tmp_path / "plain", reviews=False)
    arguments = ["train", str(plain.path), "--out", str(tmp_path / "out"), "--recipe", "paper", "--epochs", "1"]
    assert main([*arguments, "--backbone", "scratch:tiny", "--set", "negatives=9"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "no reviews: training sequential, topn alone" in printed
    assert load_checkpoint(tmp_path / "out").info.tasks == [Task.SEQUENTIAL, Task.TOPN]


def test_large_catalogues_are_read_in_pieces_and_the_run_says_so(dataset: Dataset) -> None:
    labels = dataset.items["label"].to_list()
    widths = {}
    for limit in (39, 40):
        config = small("scratch", whole_items_up_to=limit)
        model, tokenizer = build(config, dataset, None)
        catalog = CatalogTokens.of(tokenizer, labels)
        widths[limit] = {len(catalog.item_words[item]) for item in range(40)}
        assert model.config.starts_from_source == (limit == 40)  # not from the last digits of a label
        notice = pieces_notice(config, catalog)
        assert (notice is None) == (limit == 40)
    assert widths == {39: {3}, 40: {1}}
    notice = pieces_notice(small("scratch", whole_items_up_to=39), CatalogTokens.of(tokenizer, labels))
    assert notice is None  # a vocabulary that has the words is used as it is


def test_labels_of_one_digit_piece_are_no_items_own_tokens() -> None:
    """A shop of up to 900 items, read in pieces: its labels are single tokens among all numbers of three digits."""
    pieces = CatalogTokens.of(train_vocabulary([], size=100), ["100", "507"], whole_labels=True)
    whole = CatalogTokens.of(
        train_vocabulary([], size=100, whole_items=["100", "507"]), ["100", "507"], whole_labels=True
    )
    assert [len(pieces.labels[item]) for item in range(2)] == [1, 1]
    assert (pieces.writes_whole_items, whole.writes_whole_items) == (False, True)
