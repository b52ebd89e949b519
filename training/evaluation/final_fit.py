"""The model that is deployed: trained once more as validation chose, on everything that was held out as well.

The newest two purchases of everybody, a fifth of a small shop's, teach nothing while they measure. What comes out can
no longer be measured, so it takes recipe, epochs and fusion weights of the checkpoint that was.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from training.data.dataset import Dataset, WholeDataset
from training.evaluation.fusion_run import store_fusion
from training.evaluation.systems import read_fusion, read_text_encoder
from training.learning.checkpoint import TOKENIZER_FILE, load_checkpoint
from training.learning.run import train
from training.learning.trainer import StopReason


def final_fit(
    like: Path, dataset: Dataset, out: Path, *, resume: bool, force: bool, console: Console | None,
    keep_test: bool = False,
) -> StopReason:  # fmt: skip
    """Train into `out` as `like` was, for as many epochs as led to its weights, on all interactions and reviews.

    keep_test: on all but the test's, so that the outcome can be measured beside what is refitted on validation.
    The learning rate goes through its whole schedule in those epochs. Where `like` went on from an earlier checkpoint,
    this goes on from `like`, by as much again. Raises CheckpointError where `like` learned other labels than the
    dataset's.
    """
    measured = load_checkpoint(like)
    measured.dataset(dataset.path)
    config = measured.info.config.model_copy(update={"epochs": measured.info.epoch, "time_budget_min": None})
    stopped = train(
        config, WholeDataset(dataset.path, keep_test=keep_test), out,
        tokenizer_folder=(like / TOKENIZER_FILE).parent, init=like if measured.info.began_from else None,
        resume=resume, force=force, console=console,
    )  # fmt: skip
    fusion = read_fusion(like)
    if stopped is not StopReason.INTERRUPTED and fusion is not None:
        store_fusion(out, fusion, read_text_encoder(like))
    return stopped
