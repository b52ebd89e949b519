"""What `rdrec evaluate --cold-items` measures: the same recipe, trained where some items have never been bought.

A trained model cannot forget an item, so it is trained anew, once, with the checkpoint's own configuration on a copy of
the dataset that hides the items; both stand beside the originals and are found again. Knows who needs whom.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from rdrec_core.bundle import MANIFEST_FILE
from rdrec_core.errors import DatasetError, InputError
from training.data.cold_items import hide_items
from training.data.dataset import Dataset
from training.evaluation.fusion_run import fit_system, store_fusion
from training.evaluation.systems import load_system, open_encoder, read_text_encoder
from training.learning.checkpoint import FUSION_FILE, STATE_FILE, load_checkpoint
from training.learning.run import train
from training.learning.trainer import StopReason

FUSION_USERS = 5000
"""As many validation users as `rdrec fuse` takes by default."""


def without_items(
    checkpoint: Path, dataset: Dataset, *, share: float, seed: int, console: Console
) -> tuple[Path, Dataset] | None:
    """A checkpoint that never saw a purchase of the hidden items, and its dataset; None where training was interrupted.

    A dataset that hides this share already is taken as it is, with its checkpoint. Raises InputError for a bundle,
    DatasetError where what stands beside the dataset was made from another one.
    """
    if (checkpoint / MANIFEST_FILE).is_file():
        raise InputError(
            "--cold-items trains the model anew without them, so it needs a checkpoint, not a bundle", field="system"
        )
    if dataset.info.cold_items:
        if dataset.info.cold_items != share:
            raise InputError(
                f"{dataset.path} hides {dataset.info.cold_items:g} of its items, not {share:g}", field="cold_items"
            )
        return checkpoint, dataset
    config = load_checkpoint(checkpoint).info.config
    ending = f"cold-{share:g}-{seed}"
    hidden = _hidden(dataset, dataset.path.with_name(f"{dataset.path.name}-{ending}"), share=share, seed=seed)
    out = checkpoint.with_name(f"{checkpoint.name}-{ending}")
    console.print(
        f"{hidden.path}: {hidden.info.n_interactions:,} of {dataset.info.n_interactions:,} interactions; training"
        f" {out} on it, unless it is there", highlight=False,
    )  # fmt: skip
    if train(config, hidden, out, resume=(out / STATE_FILE).is_file(), console=console) is StopReason.INTERRUPTED:
        return None
    if (checkpoint / FUSION_FILE).is_file() and not (out / FUSION_FILE).is_file():
        encoder = read_text_encoder(checkpoint)
        system = replace(load_system(out, hidden), encoder=open_encoder(encoder, hidden))
        fitted = fit_system(system, hidden, limit_users=FUSION_USERS, tune_graph=True, seed=0, console=console)
        store_fusion(out, fitted.flat, encoder)
    return out, hidden


def _hidden(dataset: Dataset, path: Path, *, share: float, seed: int) -> Dataset:
    if not path.exists():
        return hide_items(dataset, path, share=share, seed=seed)
    found = Dataset(path)
    same = ("name", "protocol", "label_scheme", "seed", "n_users", "n_items", "source_sha256")
    wrong = [name for name in same if getattr(found.info, name) != getattr(dataset.info, name)]
    if wrong:
        raise DatasetError(f"{path} was made from another dataset ({', '.join(wrong)} differ); remove it")
    return found
