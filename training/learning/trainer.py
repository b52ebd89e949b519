"""The training loop: steps, validation, saving, stopping, and going on where a killed run stopped.

A run is a function of its configuration: what a step does follows from (seed, step) and the state that is saved, so
a resumed run ends with the same weights, bit for bit on the same machine. Knows the model through its loss; files,
clock, screen and processes are handed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from rdrec_core.errors import CheckpointError
from rdrec_core.model import RDRecModel
from rdrec_core.types import Task
from training.data.dataset import Split
from training.learning.batching import Batch, Batcher, SampledSoftmax, rank_share
from training.learning.checkpoint import CheckpointInfo, CheckpointWriter
from training.learning.config import RESUMABLE_FIELDS, TrainConfig, current_fields
from training.learning.epochs import Epochs
from training.learning.examples import TrainingExample
from training.learning.losses import target_nll
from training.learning.parallel import Processes
from training.learning.schedule import learning_rate_factor


class StopReason(StrEnum):
    """Why training stopped."""

    EPOCHS = "all epochs done"
    BUDGET = "time budget spent"
    NO_GAIN = "validation has stopped to improve"
    INTERRUPTED = "interrupted"


@dataclass
class Position:
    """Where training stands; with the tensors, all that a resumed run needs. Counts are of finished things."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    elapsed_s: float = 0.0
    best_epoch: int = 0
    """The one that is kept, and from which patience counts."""
    best_score: float = math.inf
    """Of that epoch, lower is better: mean validation loss, or the negative NDCG@10."""
    best_loss: float = math.inf
    """Of that epoch: between two that rank alike, such as two that find nothing yet, the mean loss decides."""
    epochs_without_gain: int = 0
    """In all, whether one after another or not."""
    sums: list[list[float]] = field(default_factory=lambda: [[0.0, 0.0] for _ in Task])
    """Loss and weight of each task so far in this epoch."""
    history: list[dict[str, Any]] = field(default_factory=list)
    outcome: str | None = None


class Monitor(Protocol):
    """Who watches a run; see `progress.py`."""

    def begin_epoch(self, position: Position, n_batches: int) -> None:
        """Batches are about to run."""
        ...

    def step(self, losses: Mapping[Task, Tensor], n_samples: int, done: float) -> None:
        """One step was made, with this mean loss of each task in it; done in [0, 1] is the share of the whole run."""
        ...

    def end_epoch(self, line: Mapping[str, Any], *, is_best: bool) -> None:
        """An epoch was validated."""
        ...


class _WeightedLoss(nn.Module):
    """This process's part of the mean loss of a global batch, as a module, so that it can be made data-parallel."""

    def __init__(self, model: RDRecModel, config: TrainConfig, group: Processes) -> None:
        super().__init__()
        self.model, self._smoothing, self._group = model, config.label_smoothing, group
        self._bf16 = config.precision == "bf16" or (config.precision == "auto" and group.device.type == "cuda")

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum of weighted losses over the weight of the whole batch; and of each task (T, 2), detached: the sum of its
        losses, and their weight.
        """
        device = self._group.device
        with parametrize.cached(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=self._bf16):
            smoothing = self._smoothing if self.training else 0.0
            nll = target_nll(self.model, batch, device, smoothing=smoothing)
        weights = torch.from_numpy(batch.weights).to(device)
        by_row = torch.stack([(nll.detach() * weights).sum(dim=1), weights.sum(dim=1)], dim=1).double()
        tasks = torch.from_numpy(batch.source.tasks).to(device).long()
        by_task = torch.zeros(len(Task), 2, dtype=torch.float64, device=device).index_add(0, tasks, by_row)
        return (nll * weights).sum() / batch.total_weight, by_task


class Trainer:
    """Trains one model. `run` may be called once."""

    def __init__(
        self,
        config: TrainConfig,
        model: RDRecModel,
        epochs: Epochs,
        batcher: Batcher,
        validation: Mapping[Task, Sequence[TrainingExample]],
        *,
        writer: CheckpointWriter,
        describe: Callable[[int, dict[str, float]], CheckpointInfo],
        monitor: Monitor,
        clock: Callable[[], float],
        stop_requested: Callable[[], bool],
        group: Processes,
        ndcg: Callable[[RDRecModel, Processes], float] | None = None,
        labels_sha256: str = "",
        learned_upto: Split = "train",
    ) -> None:
        """describe: (epoch, validation loss by task) -> what checkpoint.json says of the weights.

        labels_sha256 identifies the items' labels, and the checkpoint that the run goes on from, which a resumed run
        must share with the saved one; learned_upto, noted with them, the last split that is learned from.

        ndcg measures the model, and the epoch that ranks best is kept; without it the one with the lowest mean loss.
        """
        self._config, self._epochs, self._batcher, self._validation = config, epochs, batcher, validation
        self._writer, self._describe, self._monitor = writer, describe, monitor
        self._clock, self._stop_requested, self._group, self._ndcg = clock, stop_requested, group, ndcg
        self._labels_sha256, self._learned_upto = labels_sha256, learned_upto
        self._model = model.to(group.device)
        self._loss: nn.Module = _WeightedLoss(self._model, config, group)
        if group.count > 1:
            self._loss = nn.parallel.DistributedDataParallel(self._loss)
        self._optimizer = torch.optim.AdamW(
            self._model.parameters(), lr=config.learning_rate, betas=config.betas,
            weight_decay=config.weight_decay, fused=True,
        )  # fmt: skip
        self.position = Position()
        self._sums = torch.zeros(len(Task), 2, dtype=torch.float64, device=group.device)

    # -- state -----------------------------------------------------------------------------------------------------

    def resume(self, tensors: Mapping[str, Tensor], saved: Mapping[str, Any]) -> None:
        """Go on from a saved state. Raises CheckpointError naming what differs: labels, or a configuration field."""
        if saved.get("labels_sha256", self._labels_sha256) != self._labels_sha256:
            raise CheckpointError(
                "the run to resume learned other items or labels than this dataset has, or went on from another"
                " checkpoint (--init); pass its own, or start anew with --force"
            )
        try:
            ours, theirs = self._config.model_dump(mode="json"), current_fields(saved["config"])
        except ValueError as error:
            raise CheckpointError(f"the run to resume cannot go on: {error}") from error
        for name in ours:
            if name not in RESUMABLE_FIELDS and ours[name] != theirs.get(name):
                raise CheckpointError(
                    f"the run to resume had {name}={theirs.get(name)!r}, not {ours[name]!r};"
                    " pass the same, or start anew"
                )
        self.position = Position(**saved["position"])
        if self._group.is_first:  # the saved sums are those of all processes
            self._sums.copy_(torch.tensor(self.position.sums, dtype=torch.float64))
        names = [name for name, _ in self._model.named_parameters()]
        self._model.load_state_dict({name: tensors[f"model.{name}"] for name in self._model.state_dict()})
        state = {
            index: {key: tensors[f"optimizer.{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            for index, name in enumerate(names)
            if f"optimizer.step.{name}" in tensors
        }
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})

    def _save(self) -> None:
        self.position.sums = self._group.total(self._sums).tolist()
        if not self._group.is_first:
            return
        tensors = {f"model.{name}": value.detach().cpu() for name, value in self._model.state_dict().items()}
        for name, parameter in self._model.named_parameters():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = value.detach().cpu()
        saved = {
            "config": self._config.model_dump(mode="json"),
            "model_config": self._model.config.model_dump(mode="json"),
            "position": asdict(self.position),
            "labels_sha256": self._labels_sha256,
            "learned_upto": self._learned_upto,
        }
        self._writer.state({name: tensor.contiguous() for name, tensor in tensors.items()}, saved)

    # -- the loop --------------------------------------------------------------------------------------------------

    def run(self) -> StopReason:
        """Train until the epochs, the time budget or the patience are used up, or a stop is requested."""
        position, config = self.position, self._config
        self._started = self._clock() - position.elapsed_s
        outcome = self._finished()
        while outcome is None:
            plan = self._epochs.plan(position.epoch)
            total = config.epochs * len(plan.batches)
            self._monitor.begin_epoch(position, len(plan.batches))
            self._loss.train()
            saved_at = self._clock()
            while position.batch < len(plan.batches):
                elapsed = self._clock() - self._started
                by_clock = elapsed / (60 * config.time_budget_min) if config.time_budget_min else 0.0
                done, stop, save = self._group.agree(
                    max(by_clock, position.step / total),  # a small dataset may reach its last epoch first
                    self._stop_requested(),
                    self._clock() - saved_at > 60 * config.checkpoint_min,
                )
                position.elapsed_s = elapsed
                if stop:
                    self._save()
                    return StopReason.INTERRUPTED
                if done >= 1.0:
                    break
                if save:
                    self._save()
                    saved_at = self._clock()
                self.step(self._epochs.examples(plan, position.batch), done)
            self._end_epoch()
            outcome = self._finished()
        position.outcome = outcome.value
        return outcome

    def _finished(self) -> StopReason | None:
        position, config = self.position, self._config
        (elapsed,) = self._group.agree(position.elapsed_s)
        if config.time_budget_min and elapsed >= 60 * config.time_budget_min:
            return StopReason.BUDGET
        if position.epoch >= config.epochs:
            return StopReason.EPOCHS
        waited = position.epochs_without_gain if config.patience_in_all else position.epoch - position.best_epoch
        if waited >= config.patience:
            return StopReason.NO_GAIN
        return None

    def step(self, examples: list[TrainingExample], done: float) -> None:
        """Learn one global batch; done in [0, 1] places the learning rate on its schedule."""
        position, config, group = self.position, self._config, self._group
        sample = None
        if config.sampled_children:  # all processes draw the same
            sample = SampledSoftmax(config.sampled_children, np.random.default_rng([config.seed, 4, position.step]))
        batch = self._batcher.batch(examples, share=rank_share(group.rank, group.count), sample=sample)
        # dropout follows from the step alone, so that a resumed run needs no generator state
        torch.manual_seed((config.seed * 1_000_003 + position.step) * group.count + group.rank)
        factor = learning_rate_factor(done, schedule=config.schedule, warmup=config.warmup)
        for parameters in self._optimizer.param_groups:
            parameters["lr"] = config.learning_rate * factor
        loss, by_task = self._loss(batch)
        (loss * group.count).backward()  # data-parallel gradients are averaged; ours are shares of one mean
        if config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._model.parameters(), config.clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._sums += by_task
        position.batch += 1
        position.step += 1
        present = sorted({example.task for example in examples})
        means = {task: by_task[task, 0] / by_task[task, 1].clamp(min=1e-9) for task in present}
        self._monitor.step(means, len(examples), done)

    def _end_epoch(self) -> None:
        position = self.position
        position.epoch += 1
        position.batch = 0
        validation = self.validate()
        with parametrize.cached():
            ndcg = None if self._ndcg is None else self._ndcg(self._model, self._group)
        position.elapsed_s = self._clock() - self._started
        sums = self._group.total(self._sums)
        line = {
            "epoch": position.epoch,
            "step": position.step,
            "elapsed_s": round(position.elapsed_s, 3),
            "learning_rate": self._optimizer.param_groups[0]["lr"],
            "train_loss": {t.name.lower(): (sums[t, 0] / sums[t, 1]).item() for t in Task if sums[t, 1] > 0},
            "validation_loss": validation,
        }
        if ndcg is not None:
            line["validation_ndcg"] = ndcg
        # without validation data the latest epoch counts as the best
        mean = sum(validation.values()) / len(validation) if validation else -float(position.epoch)
        score = mean if ndcg is None else -ndcg
        is_best = (score, mean) < (position.best_score, position.best_loss)
        if is_best:
            position.best_epoch, position.best_score, position.best_loss = position.epoch, score, mean
        else:
            position.epochs_without_gain += 1
        position.history.append(line)
        self._sums.zero_()
        if self._group.is_first:
            if is_best:
                self._writer.best(self._model, self._describe(position.epoch, validation))
            self._writer.metrics(position.history)
        self._save()
        self._monitor.end_epoch(line, is_best=is_best)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean validation loss of each task by name, over all validation examples."""
        self._loss.eval()
        sums = torch.zeros(len(Task), 2, dtype=torch.float64, device=self._group.device)
        for examples in self._validation.values():
            ordered = sorted(examples, key=lambda example: len(example.items))
            size = 2 * self._config.batch_size
            for number, begin in enumerate(range(0, len(ordered), size)):
                if number % self._group.count == self._group.rank:
                    batch = self._batcher.batch(ordered[begin : begin + size])
                    loss_module = self._loss.module if self._group.count > 1 else self._loss
                    sums += loss_module(batch)[1]
        self._loss.train()
        sums = self._group.total(sums)
        return {task.name.lower(): (sums[task, 0] / sums[task, 1]).item() for task in self._validation}
