"""The checkpoint folder: the best model so far, ready to use, and the state from which training goes on.

    model.json weights.safetensors   the epoch with the best mean validation loss
    tokenizer/tokenizer.json
    checkpoint.json                  CheckpointInfo, written last: without it the folder is no checkpoint yet
    trainer.safetensors              latest weights, optimizer and position: `--resume` goes on from here
    text_rows.safetensors            how the best model places items by their words, where it was trained to
    metrics.jsonl curves.png         one line an epoch, and their picture
    fusion.json text_encoder.json    what `rdrec fuse` fitted to these weights; a new training removes them

Every file is replaced whole by a rename. No pickle. Knows files, not how training works.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator
from safetensors import safe_open
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from rdrec_core.errors import CheckpointError
from rdrec_core.file_hash import file_sha256
from rdrec_core.model import CONFIG_FILE, WEIGHTS_FILE, RDRecModel
from rdrec_core.replacing import replacing_file
from rdrec_core.text_rows import TextPlaces, TextRows
from rdrec_core.types import Task
from training.data.dataset import Dataset, Split, learned_upto
from training.learning.config import TrainConfig, current_fields
from training.learning.item_rows import finished_state, map_of

INFO_FILE = "checkpoint.json"
STATE_FILE = "trainer.safetensors"
METRICS_FILE = "metrics.jsonl"
CURVES_FILE = "curves.png"
TEXT_ROWS_FILE = "text_rows.safetensors"
TOKENIZER_FILE = "tokenizer/tokenizer.json"
FUSION_FILE = "fusion.json"
ENCODER_FILE = "text_encoder.json"
_STATE_KEY = "state"


class CheckpointInfo(BaseModel):
    """`checkpoint.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    config: TrainConfig
    dataset_path: str
    dataset_name: str
    dataset_sha256: dict[str, str]
    labels_sha256: str
    protocol: str
    label_scheme: str
    n_users: int
    n_items: int
    tasks: list[Task]
    """Tasks that the model was trained on."""
    epoch: int
    """Of the weights, counted from 1."""
    validation_loss: dict[str, float]
    """By task name, of the weights."""
    began_from: str | None = None
    """The checkpoint that the training went on from; None where it began anew."""
    learned_upto: Split = "train"
    """The last split that training learned from: test after `rdrec train --all`, val with `--keep-test`."""

    @model_validator(mode="before")
    @classmethod
    def _of_any_age(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {k: v for k, v in value.items() if k != "held_out"} | {"learned_upto": learned_upto(value)}

    @field_validator("config", mode="before")
    @classmethod
    def _of_any_version(cls, value: Any) -> Any:
        return current_fields(value) if isinstance(value, Mapping) else value

    @property
    def text_tasks(self) -> list[Task]:
        """Trained tasks that write text."""
        return [task for task in self.tasks if task not in (Task.SEQUENTIAL, Task.TOPN)]

    @property
    def topn_task(self) -> Task:
        """Which source text candidates are scored under: the task's own where it was trained."""
        return Task.TOPN if Task.TOPN in self.tasks or Task.SEQUENTIAL not in self.tasks else Task.SEQUENTIAL


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory; the model is in evaluation mode."""

    path: Path
    model: RDRecModel
    tokenizer: Tokenizer
    info: CheckpointInfo
    text_rows: TextRows | None = None

    @property
    def dataset_path(self) -> Path:
        """Where the dataset lay during training."""
        return Path(self.info.dataset_path)

    def dataset(self, path: Path | None = None) -> Dataset:
        """The dataset that the model was trained on. Raises CheckpointError where its labels are not the same."""
        dataset = Dataset(path or self.dataset_path)
        if labels_sha256(dataset) != self.info.labels_sha256:
            raise CheckpointError(
                f"{dataset.path} has other items or labels than {self.info.dataset_path} had when {self.path} was"
                " trained; pass the dataset of the checkpoint, or train again"
            )
        return dataset


def labels_sha256(dataset: Dataset, n: int | None = None) -> str:
    """Identifies what the labels of a dataset, or of its first n items, mean."""
    items = dataset.items.head(len(dataset.items) if n is None else n)
    pairs = (f"{item} {label}\n" for item, label in zip(items["item_id"], items["label"], strict=True))
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(pair.encode())
    return digest.hexdigest()


def weights_sha256(folder: Path) -> str:
    """Identifies the weights that a checkpoint folder holds now."""
    return file_sha256(folder / WEIGHTS_FILE)


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read the best model. Raises CheckpointError naming what is missing."""
    path = Path(path)
    if not (path / INFO_FILE).is_file():
        hint = (
            "no epoch was finished; go on with `rdrec train --resume`"
            if (path / STATE_FILE).is_file()
            else ("make a checkpoint with `rdrec train`")
        )
        raise CheckpointError(f"{path / INFO_FILE} is missing: {hint}")
    try:
        info = CheckpointInfo.model_validate_json((path / INFO_FILE).read_bytes())
    except ValidationError as error:
        raise CheckpointError(f"{path / INFO_FILE} is not valid: {error}") from error
    for name in (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE):
        if not (path / name).is_file():
            raise CheckpointError(f"{path / name} is missing")
    rows = path / TEXT_ROWS_FILE
    text_rows = TextRows.from_arrays(load_arrays(rows)) if info.config.text_rows and rows.is_file() else None
    return Checkpoint(path, RDRecModel.load(path), Tokenizer.from_file(str(path / TOKENIZER_FILE)), info, text_rows)


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    with replacing_file(path) as temporary:
        write(temporary)
        temporary.chmod(0o644)  # safetensors makes files that only their owner can read


class CheckpointWriter:
    """Writes one checkpoint folder, one file at a time."""

    def __init__(self, folder: Path, places: TextPlaces | None = None) -> None:
        """places: where words place items, where the model's rows are made of them."""
        self.folder, self._places = folder, places
        folder.mkdir(parents=True, exist_ok=True)

    def tokenizer(self, tokenizer: Tokenizer) -> None:
        """Write the tokenizer."""
        text = tokenizer.to_str()
        _replace(self.folder / TOKENIZER_FILE, lambda path: path.write_text(text, encoding="utf-8") and None)

    def best(self, model: RDRecModel, info: CheckpointInfo) -> None:
        """Replace the model; checkpoint.json comes last."""
        tensors = {name: value.detach().contiguous().cpu() for name, value in finished_state(model).items()}
        config = model.config.model_dump_json(indent=2)
        _replace(self.folder / CONFIG_FILE, lambda path: path.write_text(config, encoding="utf-8") and None)
        _replace(self.folder / WEIGHTS_FILE, lambda path: save_file(tensors, path))
        if self._places is not None and (learned := map_of(model)) is not None:
            arrays = {
                name: np.ascontiguousarray(each) for name, each in TextRows(self._places, learned).arrays().items()
            }
            _replace(self.folder / TEXT_ROWS_FILE, lambda path: save_arrays(arrays, path))
        text = info.model_dump_json(indent=2)
        _replace(self.folder / INFO_FILE, lambda path: path.write_text(text, encoding="utf-8") and None)

    def state(self, tensors: Mapping[str, Tensor], position: Mapping[str, Any]) -> None:
        """Replace the resumable state: tensors and a JSON-able position, in one file."""
        metadata = {_STATE_KEY: json.dumps(position)}
        _replace(self.folder / STATE_FILE, lambda path: save_file(dict(tensors), path, metadata=metadata))

    def metrics(self, history: list[dict[str, Any]]) -> None:
        """Replace metrics.jsonl."""
        text = "".join(json.dumps(line) + "\n" for line in history)
        _replace(self.folder / METRICS_FILE, lambda path: path.write_text(text, encoding="utf-8") and None)


def read_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `CheckpointWriter.state` wrote. Raises CheckpointError where there is nothing to resume."""
    path = folder / STATE_FILE
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: there is no training to resume; start without --resume")
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()[_STATE_KEY])  # noqa: SIM118
