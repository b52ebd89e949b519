"""SASRec (Kang and McAuley, ICDM 2018) as a baseline: self-attention over the history, one table of items.

Trained at every position with a cross-entropy over the true item and thousands of uniform negatives that a batch
shares, which is known to beat the published loss of one negative; on the same training interactions as everything
else, and stopped when validation NDCG@10 stops rising. Runs are cached and resumable. Knows histories, not datasets
or tables.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from rdrec_core.replacing import replacing_file
from training.evaluation.metrics import summary
from training.evaluation.protocol import Questions
from training.learning.ranks import rank_by_score

_USERS_AT_ONCE = 256
_STATE = "state"
_FORM = b"layer norm before the blocks"
"""Part of a cached run's name: what is changed in the model or its training changes this too."""


class SASRecConfig(BaseModel):
    """Hyperparameters: the paper's shape, and patience that lets a slow start pass (docs/experiments.md)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(64, ge=1)
    layers: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    length: int = Field(50, ge=1)
    dropout: float = Field(0.5, ge=0, lt=1)
    batch_size: int = Field(128, ge=1)
    negatives: int = Field(2000, ge=1)
    """Items a batch that the true ones are told from; all items where there are no more."""
    temperature: float = Field(0.0, ge=0)
    """Logits are cosines divided by this; 0: inner products, as published."""
    learning_rate: float = Field(1e-3, gt=0)
    epochs: int = Field(200, ge=1)
    patience: int = Field(10, ge=1)
    """Epochs without a better validation NDCG@10 after which training stops."""
    seed: int = 0


class SASRec(nn.Module):
    """Item 0 of the embedding is padding, item i sits in row i + 1."""

    def __init__(self, n_items: int, config: SASRecConfig) -> None:
        super().__init__()
        self.n_items, self.config = n_items, config
        self.items = nn.Embedding(n_items + 1, config.width, padding_idx=0)
        self.places = nn.Embedding(config.length, config.width)
        layer = nn.TransformerEncoderLayer(
            config.width, config.heads, config.width, config.dropout, "relu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        for parameter in (self.items.weight, self.places.weight):
            nn.init.normal_(parameter, std=0.02)
        with torch.no_grad():
            self.items.weight[0] = 0.0

    def forward(self, rows: Tensor) -> Tensor:
        """rows (B, L) of items + 1, padded on the right -> hidden states (B, L, width)."""
        length = rows.shape[1]
        states = self.dropout(self.items(rows) * self.config.width**0.5 + self.places.weight[:length])
        causal = torch.ones(length, length, dtype=torch.bool, device=rows.device).triu(1)
        return self._placed(self.norm(self.blocks(states, mask=causal)))

    def rows(self, items: Tensor) -> Tensor:
        """(...) of items + 1 -> (..., width): what a state's product with is the item's logit."""
        return self._placed(self.items(items))

    def logits(self, states: Tensor) -> Tensor:
        """(..., width) -> (..., N)."""
        return functional.linear(states, self._placed(self.items.weight[1:]))

    def _placed(self, vectors: Tensor) -> Tensor:
        temperature = self.config.temperature
        return functional.normalize(vectors, dim=-1) / temperature**0.5 if temperature else vectors


def _rows(histories: list[npt.NDArray[np.int64]], length: int) -> Tensor:
    cut = [history[-length:] for history in histories]
    rows = np.zeros((len(cut), max(1, max(map(len, cut)))), dtype=np.int64)
    for i, history in enumerate(cut):
        rows[i, : len(history)] = history + 1
    return torch.from_numpy(rows)


@torch.inference_mode()
def sasrec_scores(model: SASRec, histories: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.float32]:
    """Log-probabilities of all items as the next one, (B, N)."""
    model.eval()
    rows = _rows(histories, model.config.length)
    last = (rows > 0).sum(dim=1).clamp(min=1) - 1
    states = model(rows)[torch.arange(len(rows)), last]
    return functional.log_softmax(model.logits(states), dim=-1).numpy()


def _validation(model: SASRec, asked: Questions) -> float:
    ranks = []
    for start in range(0, len(asked), _USERS_AT_ONCE):
        batch = list(range(start, min(len(asked), start + _USERS_AT_ONCE)))
        histories = [asked.history(q) for q in batch]
        scores = sasrec_scores(model, histories)
        for row, history in enumerate(histories):
            scores[row, history] = -np.inf
        ranks.append(rank_by_score(scores, asked.targets[batch]))
    return summary(np.concatenate(ranks))["NDCG@10"]


def _loss(model: SASRec, states: Tensor, targets: Tensor, rng: np.random.Generator) -> Tensor:
    """states (M, width), targets (M,) rows of the item table -> mean cross-entropy."""
    if model.config.negatives >= model.n_items:
        return functional.cross_entropy(model.logits(states), targets - 1)
    drawn = torch.from_numpy(rng.choice(model.n_items, model.config.negatives, replace=False) + 1)
    others = states @ model.rows(drawn).T
    others = others.masked_fill(drawn[None] == targets[:, None], -torch.inf)
    own = (states * model.rows(targets)).sum(dim=-1, keepdim=True)
    logits = torch.cat([own, others], dim=1)
    return functional.cross_entropy(logits, torch.zeros_like(targets))


def _epoch(
    model: SASRec, optimizer: torch.optim.Optimizer, histories: list[npt.NDArray[np.int64]], epoch: int
) -> float:
    """One pass over the users; order, negatives and dropout are functions of (seed, epoch). Returns the mean loss."""
    config = model.config
    rng = np.random.default_rng([config.seed, epoch])
    torch.manual_seed(int(rng.integers(2**31)))
    model.train()
    total, count = 0.0, 0
    # users of like length share a batch, so that little is padding; the batches come in random order
    order = rng.permutation(len(histories))
    order = order[np.argsort([min(len(histories[u]), config.length) for u in order], kind="stable")]
    batches = [order[at : at + config.batch_size] for at in range(0, len(order), config.batch_size)]
    for at in rng.permutation(len(batches)):
        chosen = [histories[u] for u in batches[at]]
        sources, targets = _rows([h[:-1] for h in chosen], config.length), _rows([h[1:] for h in chosen], config.length)
        real = targets > 0
        loss = _loss(model, model(sources)[real], targets[real], rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total, count = total + loss.item() * int(real.sum()), count + int(real.sum())
    return total / max(count, 1)


def train_sasrec(
    histories: list[npt.NDArray[np.int64]],
    validation: Questions | None,
    n_items: int,
    config: SASRecConfig,
    cache: Path,
    report: Callable[[int, float, float | None], None],
) -> tuple[SASRec, int]:
    """Train to convergence, or go on with, or take, what `cache` (a folder) holds for the same data and configuration.

    Returns the model of the epoch that did best on validation users, and which that was; without validation users the
    model after all `config.epochs`. report(epoch, loss, validation NDCG@10) is called after every epoch.
    """
    usable = [history for history in histories if len(history) > 1]
    stopping = {"epochs", "patience"} if validation is not None else {"patience"}
    digest = hashlib.sha256(_FORM + config.model_dump_json(exclude=stopping).encode())
    for part in (*usable, *(() if validation is None else (validation.users, validation.targets))):
        digest.update(np.ascontiguousarray(part).tobytes())
    path = cache / f"sasrec-{digest.hexdigest()[:12]}.safetensors"

    torch.manual_seed(config.seed)
    model = SASRec(n_items, config)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, betas=(0.9, 0.98))
    best, position = copy.deepcopy(model.state_dict()), {"epoch": 0, "best": -1.0, "best_epoch": 0}
    if path.is_file():
        best, position = _load(path, model, optimizer)
    while position["epoch"] < config.epochs and position["epoch"] - position["best_epoch"] < config.patience:
        loss = _epoch(model, optimizer, usable, position["epoch"])
        quality = None if validation is None else _validation(model, validation)
        position["epoch"] += 1
        if quality is None or quality > position["best"]:
            best = copy.deepcopy(model.state_dict())
            position |= {"best": quality or 0.0, "best_epoch": position["epoch"]}
        _save(path, model, best, optimizer, position)
        report(int(position["epoch"]), loss, quality)
    model.load_state_dict(best)
    return model.eval(), int(position["best_epoch"])


def _save(
    path: Path, model: SASRec, best: dict[str, Tensor], optimizer: torch.optim.Adam, position: dict[str, float]
) -> None:
    tensors = {f"latest.{k}": v for k, v in model.state_dict().items()} | {f"best.{k}": v for k, v in best.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{k}": v for k, v in state.items()}
    with replacing_file(path) as temporary:
        save_file({k: v.contiguous().clone() for k, v in tensors.items()}, temporary, {_STATE: json.dumps(position)})


def _load(path: Path, model: SASRec, optimizer: torch.optim.Adam) -> tuple[dict[str, Tensor], dict[str, float]]:
    groups: dict[str, dict[str, Tensor]] = {"latest": {}, "best": {}, "adam": {}}
    with safe_open(path, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118
            group, _, name = key.partition(".")
            groups[group][name] = file.get_tensor(key)
        position = json.loads(file.metadata()[_STATE])
    model.load_state_dict(groups["latest"])
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in groups["adam"].items():
        index, _, part = name.partition(".")
        state.setdefault(int(index), {})[part] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    return groups["best"], position
