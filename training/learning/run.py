"""One training run put together: dataset, model, examples, trainer, files, screen. What `rdrec train` calls.

Knows who needs whom; every part knows less.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from tokenizers import Tokenizer

from rdrec_core.decoding.item_trie import ItemTrie
from rdrec_core.encoding import RaggedTokens, SourceEncoder, encode_words
from rdrec_core.errors import CheckpointError, DatasetError
from rdrec_core.model import ModelConfig, RDRecModel
from rdrec_core.types import ScoreMode, Task
from training.data.dataset import Dataset, learned_upto
from training.learning.backbone import CatalogTokens, build
from training.learning.batching import Batcher
from training.learning.checkpoint import (
    CURVES_FILE,
    ENCODER_FILE,
    FUSION_FILE,
    INFO_FILE,
    STATE_FILE,
    TOKENIZER_FILE,
    CheckpointInfo,
    CheckpointWriter,
    labels_sha256,
    load_checkpoint,
    read_state,
    weights_sha256,
)
from training.learning.config import TrainConfig
from training.learning.epochs import Epochs
from training.learning.examples import (
    TEXT_TASKS,
    TrainingHistories,
    pool_arrays,
    pools_of,
    text_pools,
    validation_examples,
)
from training.learning.graph_embedding import graph_places, initialise_from_graph
from training.learning.item_rows import RowsFromText, attach
from training.learning.label_trie import LabelTrie
from training.learning.parallel import Once, Processes, processes
from training.learning.progress import LiveProgress, Silent, draw_curves
from training.learning.targets import TargetRule
from training.learning.trainer import StopReason, Trainer
from training.learning.validation_ranking import ndcg_at_10
from training.learning.warm_start import split_rows, start_from
from training.signals.text import text_places


@dataclass(frozen=True)
class Materials:
    """What the examples of a dataset are made of, under one tokenizer and configuration."""

    tokenizer: Tokenizer
    labels: list[str]
    catalog: CatalogTokens
    encoder: SourceEncoder
    histories: TrainingHistories
    epochs: Epochs
    batcher: Batcher
    validation: dict[Task, list[Any]]
    ndcg: Callable[[RDRecModel, Processes], float] | None
    """By which the best epoch is chosen; None: by the loss."""
    bought: npt.NDArray[np.bool_]
    """(N,): whether an item has training purchases."""


def materials(
    config: TrainConfig, dataset: Dataset, tokenizer: Tokenizer, once: Once = lambda make: make()
) -> Materials:
    """Tokenise catalogue and texts once, and set up drawing and batching. once: how processes share the texts."""
    labels = dataset.items["label"].to_list()
    catalog = CatalogTokens.of(tokenizer, labels, whole_labels=config.whole_labels)
    encoder = SourceEncoder(tokenizer, catalog.item_words)
    histories = TrainingHistories.of(dataset)

    def tokenise(texts: Iterable[str]) -> RaggedTokens:
        return encode_words(tokenizer, texts)

    wanted = [task for task in config.task_set if task in TEXT_TASKS]
    rule = TargetRule.of(config)
    train = pools_of(once(lambda: pool_arrays(text_pools(dataset, "train", wanted, tokenise, rule))))
    held_out = pools_of(once(lambda: pool_arrays(text_pools(dataset, "val", train, tokenise, rule))))
    epochs = Epochs(config, histories, train)
    if not epochs.tasks:
        raise DatasetError(f"{dataset.path} has nothing to train the tasks {', '.join(config.tasks)} on")
    validation = {}
    for task in epochs.tasks:
        if task in TEXT_TASKS and task not in held_out:
            continue
        examples = validation_examples(
            task, histories, held_out.get(task),
            negatives=config.negatives, limit=config.validation_limit, seed=config.seed,
        )  # fmt: skip
        if examples:
            validation[task] = examples
    trie = ItemTrie.build(catalog.labels)
    label_trie = LabelTrie.of(trie) if config.loss == "trie" else None
    bought = np.bincount(histories.items, minlength=len(labels)) > 0
    rivals = None
    if label_trie is not None and config.text_rows and catalog.writes_whole_items:
        # what nobody has bought yet must not learn that nobody buys it
        rivals = np.isin(label_trie.rows, catalog.labels.tokens[bought])
    batcher = Batcher(
        encoder, catalog.labels, trie=label_trie, rivals=rivals,
        text_rows=_text_rows(tokenizer, catalog) if config.loss == "trie" else None,
    )  # fmt: skip
    ndcg = None
    if config.select == "ndcg" and Task.SEQUENTIAL in validation:
        mode = ScoreMode.FULL if config.loss == "full" else ScoreMode.TRIE
        ndcg = ndcg_at_10(encoder, trie, mode, validation[Task.SEQUENTIAL], histories)
    return Materials(tokenizer, labels, catalog, encoder, histories, epochs, batcher, validation, ndcg, bought)


def _text_rows(tokenizer: Tokenizer, catalog: CatalogTokens) -> int | None:
    """How many vocabulary rows come before those of whole item words; None where there are none such."""
    n_items, size = len(catalog.item_words), tokenizer.get_vocab_size()
    words = catalog.item_words.tokens
    return size - n_items if len(words) == n_items and int(words.min()) == size - n_items else None


def missing_tasks_notice(config: TrainConfig, dataset: Dataset, epochs: Epochs) -> str | None:
    """A sentence about configured tasks that the dataset cannot feed, or None."""
    missing = [task.name.lower() for task in config.task_set if task not in epochs.tasks]
    if not missing:
        return None
    if not dataset.has_reviews:
        reason = "the dataset has no reviews"
    elif not dataset.rationales_path.is_file():
        reason = "the dataset has no rationales yet (make them with `rdrec distill`)"
    else:
        reason = "the dataset has no training rows for them"
    trained = ", ".join(task.name.lower() for task in epochs.tasks)
    return f"{reason}: training {trained} alone, without {', '.join(missing)}"


def pieces_notice(config: TrainConfig, catalog: CatalogTokens) -> str | None:
    """A sentence about a recipe that reads items whole, where this catalogue is too large for it, or None."""
    n_items = len(catalog.item_words)
    if config.item_words == "pieces" or len(catalog.item_words.tokens) == n_items:
        return None
    return (
        f"{n_items:,} items are more than whole_items_up_to ({config.whole_items_up_to:,}): they are read and written"
        " in digit pieces, not as one token each, and the decoder starts from the pad token; --set"
        f" whole_items_up_to={n_items} gives every item a row of its own"
    )


class _StopOnInterrupt(AbstractContextManager["_StopOnInterrupt"]):
    """The first SIGINT or SIGTERM asks for a stop after the running step; a second one kills as usual."""

    def __init__(self) -> None:
        self.requested = False
        self._old: dict[int, Any] = {}

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(number, self._old[number])

    def __enter__(self) -> _StopOnInterrupt:
        self._old = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)


def train(
    config: TrainConfig,
    dataset: Dataset,
    out: Path,
    *,
    tokenizer_folder: Path | None = None,
    init: Path | None = None,
    resume: bool = False,
    force: bool = False,
    console: Console | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> StopReason:
    """Train into the folder `out`; console None keeps quiet. Raises CheckpointError where `out` is taken.

    init: the checkpoint to go on from, whose dataset this one goes on from; a resumed run names the same.
    """
    if not resume and not force and ((out / INFO_FILE).exists() or (out / STATE_FILE).exists()):
        raise CheckpointError(f"{out} holds a checkpoint; pass --resume to go on, or --force to overwrite it")
    if resume and not (out / STATE_FILE).exists() and not out.exists():
        raise CheckpointError(f"{out} does not exist: there is no training to resume; start without --resume")
    with processes() as group, _StopOnInterrupt() as interrupt:
        return _train(config, dataset, out, tokenizer_folder, init, resume, console, clock, group, interrupt)


def _train(
    config: TrainConfig, dataset: Dataset, out: Path, tokenizer_folder: Path | None, init: Path | None, resume: bool,
    console: Console | None, clock: Callable[[], float], group: Processes, interrupt: _StopOnInterrupt,
) -> StopReason:  # fmt: skip
    console = console if console is not None and group.is_first else Console(quiet=True)
    # a run killed before its first save left nothing to go on from, and starts anew
    saved = read_state(out) if resume and (out / STATE_FILE).is_file() else None
    start = None if init is None else start_from(load_checkpoint(init), dataset)
    if saved is None and start is not None:
        model, tokenizer = start.model, start.tokenizer
    elif saved is None:
        model, tokenizer = build(config, dataset, tokenizer_folder)
    else:
        tokenizer = Tokenizer.from_file(str(out / TOKENIZER_FILE))
        model = RDRecModel(ModelConfig.model_validate(saved[1]["model_config"]))
        if (begun := learned_upto(saved[1])) != dataset.learned_upto:
            raise CheckpointError(f"{out} learns up to the split {begun}; pass the same --all, --keep-test")
    once = partial(group.once, out / ".shared")
    parts = materials(config, dataset, tokenizer, once)
    for notice in (missing_tasks_notice(config, dataset, parts.epochs), pieces_notice(config, parts.catalog)):
        if notice:
            console.print(f"note: {notice}", style="yellow", highlight=False)
    if saved is None and start is None and config.graph_initialisation:
        histories, width = parts.histories, model.config.t5.d_model
        places = once(lambda: {"places": graph_places(histories, width, config.seed)})["places"]
        initialise_from_graph(model, parts.catalog, places)

    words = None
    if config.text_rows and parts.catalog.writes_whole_items:
        width = model.config.t5.d_model
        words = text_places(dataset, width, config.seed) if start is None else start.words and start.words[:2]
        if words is None:
            console.print("note: the items have no words, so that none can be placed by them", style="yellow")
        else:
            first = int(parts.catalog.labels.tokens.min())
            generator = torch.Generator().manual_seed(config.seed)
            rows = RowsFromText(first, words[1], parts.bought, width, config.free_part_dropout, generator)
            if saved is None and start is not None and start.words is not None:
                split_rows(model, rows, first, words[1], start.words[2])
            attach(model, rows)
    labels = labels_sha256(dataset)

    def describe(epoch: int, validation: dict[str, float]) -> CheckpointInfo:
        return CheckpointInfo(
            config=config, dataset_path=str(dataset.path.resolve()), dataset_name=dataset.info.name,
            dataset_sha256=dataset.info.source_sha256, labels_sha256=labels, protocol=dataset.info.protocol,
            label_scheme=dataset.info.label_scheme, n_users=dataset.info.n_users, n_items=dataset.info.n_items,
            tasks=list(parts.epochs.tasks), epoch=epoch, validation_loss=validation,
            learned_upto=dataset.learned_upto, began_from=None if init is None else str(init.resolve()),
        )  # fmt: skip

    if saved is None and group.is_first:
        for stale in (INFO_FILE, STATE_FILE, FUSION_FILE, ENCODER_FILE):
            (out / stale).unlink(missing_ok=True)
    group.wait()
    writer = CheckpointWriter(out, None if words is None else words[0])
    if saved is None and group.is_first:
        writer.tokenizer(tokenizer)
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    console.print(
        f"{dataset.info.name}: {dataset.info.n_users:,} users, {dataset.info.n_items:,} items; {config.backbone} with"
        f" {n_parameters:,} parameters, vocabulary {model.config.t5.vocab_size:,}, recipe {config.recipe}",
        highlight=False,
    )
    live = LiveProgress(console, n_epochs=config.epochs, tasks=parts.epochs.tasks) if group.is_first else None
    with live or nullcontext():
        trainer = Trainer(
            config, model, parts.epochs, parts.batcher, parts.validation,
            writer=writer, describe=describe, monitor=live or Silent(), clock=clock,
            stop_requested=lambda: interrupt.requested, group=group, ndcg=parts.ndcg,
            labels_sha256=labels if init is None else f"{labels} from {weights_sha256(init)}",
            learned_upto=dataset.learned_upto,
        )  # fmt: skip
        if saved is not None:
            trainer.resume(*saved)
        outcome = trainer.run()
    if group.is_first and trainer.position.history:
        draw_curves(trainer.position.history, out / CURVES_FILE)
    best = trainer.position
    quality = (
        "without validation" if not parts.validation
        else f"mean validation loss {best.best_score:.4f}" if parts.ndcg is None
        else f"validation NDCG@10 {-best.best_score:.4f}"
    )  # fmt: skip
    console.print(
        f"{outcome.value} after epoch {best.epoch}"
        + (f"; kept epoch {best.best_epoch}, {quality}" if best.best_epoch else "")
        + f"; {out}",
        highlight=False,
    )
    return outcome
