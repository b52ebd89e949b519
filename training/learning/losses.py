"""Losses of one batch: over the whole vocabulary (the paper's), or over what the catalogue's trie allows at each token.

The trie loss is the negative log-probability of the item among the catalogue's items: at every token the softmax runs
over the children of the label's trie node alone, so forced tokens cost nothing and no probability goes to labels that
do not exist. Decoding under score mode `trie` uses the same distribution. Knows tokens and choices, not tasks, items or
users.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from rdrec_core.model import RDRecModel
from training.learning.batching import Batch, Choices


def target_nll(model: RDRecModel, batch: Batch, device: torch.device, *, smoothing: float = 0.0) -> Tensor:
    """Negative log-likelihood of each target, (B, G, F): mean over tokens (full), or of the item (trie); 0 if absent.

    All targets of a source attend to the same encoder states; a group under a causal encoder to those of its prefix.
    """
    source = batch.source
    token_ids, whole_word_ids, mask, tasks = (
        torch.from_numpy(array).to(device)
        for array in (source.token_ids, source.whole_word_ids, source.mask, source.tasks)
    )
    encoded, source_mask = model.encode(token_ids, whole_word_ids, mask, tasks)
    targets = torch.from_numpy(batch.targets).to(device)
    if batch.choices is None:
        first = targets[:, 0, 0]
        hidden = model.decode_targets(encoded, source_mask, first, model.start_tokens(token_ids, mask, tasks))
        rows = None if batch.text_rows is None else torch.arange(batch.text_rows, device=device)
        return _full(model, hidden, first, smoothing, rows)[:, None, None]
    last_word = None if batch.last_word is None else torch.from_numpy(batch.last_word).to(device)
    prompts = source_mask.shape[1] - whole_word_ids.shape[1]
    if last_word is not None:
        seen = F.pad(whole_word_ids, (prompts, 0))[:, None, :] <= last_word[:, :, None]
        source_mask = source_mask[:, None, :] & seen
    start = model.start_tokens(token_ids, source_mask[..., prompts:], tasks).reshape(len(targets), -1)
    hidden = _decode_groups(model, encoded, source_mask, targets, start)
    return _restricted(model, hidden, batch.choices, smoothing, targets.shape[:3])


def _decode_groups(model: RDRecModel, encoded: Tensor, source_mask: Tensor, targets: Tensor, start: Tensor) -> Tensor:
    """Teacher forcing over targets (B, G, F, T), source_mask (B, S) or (B, G, S) -> hidden (B, G (1 + F (T - 1)), D).

    The first slot of a group reads its start token, of start (B, G), and is shared; each target's further slots see it
    and their own.
    """
    _, n_groups, _, length = targets.shape
    device = targets.device
    tokens = torch.cat([start[..., None], targets[..., :-1].flatten(2)], dim=2)
    width = tokens.shape[2]
    within = torch.arange(width, device=device)
    positions = torch.where(within == 0, 0, (within - 1) % max(length - 1, 1) + 1)
    target = torch.where(within == 0, -1, (within - 1) // max(length - 1, 1))
    visible = (target[None, :] < 0) | (
        (target[:, None] == target[None, :]) & (positions[None, :] <= positions[:, None])
    )
    if source_mask.dim() == 3:
        source_mask = source_mask.repeat_interleave(width, dim=1)
    hidden, _ = model.t5.decode(
        tokens.flatten(1),
        model.t5.cross_key_values(encoded),
        source_mask,
        positions=positions.repeat(n_groups),
        slot_mask=torch.block_diag(*[visible.float()] * n_groups).bool()[None],
    )
    return hidden


def _full(model: RDRecModel, hidden: Tensor, targets: Tensor, smoothing: float, rows: Tensor | None) -> Tensor:
    """Mean over each target's tokens: hidden (B, T, D), targets (B, T) -> (B,). rows: a prefix of the vocabulary."""
    real = targets != model.config.t5.pad_token_id
    logits = model.t5.logits(hidden[real], rows).float()  # padding is not worth a softmax over the vocabulary
    nll = F.cross_entropy(logits, targets[real], reduction="none", label_smoothing=smoothing)
    sums = torch.zeros(len(targets), dtype=nll.dtype, device=nll.device).index_add(0, real.nonzero()[:, 0], nll)
    return sums / real.sum(dim=1).clamp(min=1)


def _restricted(model: RDRecModel, hidden: Tensor, choices: Choices, smoothing: float, shape: torch.Size) -> Tensor:
    """Sum over each target's choices: hidden (B, slots, D) -> shape (B, G, F)."""
    device = hidden.device
    slots, rows, allowed, place, columns, owner = (
        torch.from_numpy(array).to(device)
        for array in (choices.slots, choices.rows, choices.allowed, choices.place, choices.columns, choices.owner)
    )
    logits = model.t5.logits(hidden.flatten(0, 1)[slots], rows).float()
    log_probs = torch.log_softmax(logits.masked_fill(~allowed, -torch.inf), dim=1)
    nll = -log_probs[place, columns]
    if smoothing:
        spread = -log_probs.masked_fill(~allowed, 0.0).sum(dim=1) / allowed.sum(dim=1)
        nll = (1 - smoothing) * nll + smoothing * spread[place]
    return torch.zeros(shape.numel(), dtype=nll.dtype, device=device).index_add(0, owner, nll).reshape(shape)
