"""Losses of one batch: over the whole vocabulary (the paper's), or over what the catalogue's trie allows at each token.

The trie loss is the negative log-probability of the item among the catalogue's items: at every token the softmax runs over the
children of the label's trie node alone, so forced tokens cost nothing and no probability goes to labels that do not exist.
Decoding under score mode `trie` uses the same distribution. Knows tokens and choices, not tasks, items or users.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from rdrec_core.model import RDRecModel
from training.batching import Batch, Choices


def target_nll(model: RDRecModel, batch: Batch, device: torch.device, *, smoothing: float = 0.0) -> Tensor:
    """Negative log-likelihood of each target, (B, K): mean over tokens (full), or of the item (trie); 0 where absent.

    Several targets of one source attend to the same encoder states: the decoder runs over K x T slots of which each
    sees those of its own target only.
    """
    source = batch.source
    encoded, source_mask = model.encode(
        torch.from_numpy(source.token_ids).to(device),
        torch.from_numpy(source.whole_word_ids).to(device),
        torch.from_numpy(source.mask).to(device),
        torch.from_numpy(source.tasks).to(device),
    )
    targets = torch.from_numpy(batch.targets).to(device)
    hidden = _decode(model, encoded, source_mask, targets)
    if batch.choices is None:
        return _full(model, hidden, targets, smoothing)
    return _restricted(model, hidden, batch.choices, smoothing)


def _decode(model: RDRecModel, encoded: Tensor, source_mask: Tensor, targets: Tensor) -> Tensor:
    """Teacher forcing over targets (B, K, T) -> hidden (B, K, T, D)."""
    n_rows, n_targets, length = targets.shape
    if n_targets == 1:
        return model.decode_targets(encoded, source_mask, targets[:, 0])[:, None]
    start = torch.full_like(targets[:, :, :1], model.config.t5.pad_token_id)
    slots = torch.cat([start, targets[:, :, :-1]], dim=2).flatten(1)
    positions = torch.arange(length, device=targets.device).repeat(n_targets)
    owner = torch.arange(n_targets, device=targets.device).repeat_interleave(length)
    visible = (owner[:, None] == owner[None, :]) & (positions[None, :] <= positions[:, None])
    hidden, _ = model.t5.decode(
        slots, model.t5.cross_key_values(encoded), source_mask, positions=positions, slot_mask=visible[None]
    )
    return hidden.reshape(n_rows, n_targets, length, -1)


def _full(model: RDRecModel, hidden: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    pad = model.config.t5.pad_token_id
    logits = model.t5.logits(hidden).float()
    nll = F.cross_entropy(
        logits.flatten(0, 2), targets.flatten(), reduction="none", ignore_index=pad, label_smoothing=smoothing
    ).reshape(targets.shape)
    return nll.sum(dim=2) / (targets != pad).sum(dim=2).clamp(min=1)


def _restricted(model: RDRecModel, hidden: Tensor, choices: Choices, smoothing: float) -> Tensor:
    device = hidden.device
    slots = torch.from_numpy(choices.slots).to(device)
    rows = torch.from_numpy(choices.rows).to(device)
    logits = model.t5.logits(hidden.flatten(0, 2)[slots], rows).float()
    allowed = torch.from_numpy(choices.allowed).to(device)
    log_probs = torch.log_softmax(logits.masked_fill(~allowed, -torch.inf), dim=1)
    nll = -log_probs.gather(1, torch.from_numpy(choices.columns).to(device)[:, None])[:, 0]
    if smoothing:
        spread = -log_probs.masked_fill(~allowed, 0.0).sum(dim=1) / allowed.sum(dim=1)
        nll = (1 - smoothing) * nll + smoothing * spread
    n_rows, n_targets, length = hidden.shape[:3]
    flat = torch.zeros(n_rows * n_targets, dtype=nll.dtype, device=device)
    return flat.index_add(0, slots // length, nll).reshape(n_rows, n_targets)
