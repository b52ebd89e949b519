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
    """Negative log-likelihood of each target, (B, G): mean over tokens (full), or of the item (trie); 0 if absent.

    All targets of a source attend to the same encoder states, under a causal encoder each to those of its prefix.
    """
    source = batch.source
    token_ids, whole_word_ids, mask, tasks = (
        torch.from_numpy(array).to(device)
        for array in (source.token_ids, source.whole_word_ids, source.mask, source.tasks)
    )
    encoded, source_mask = model.encode(token_ids, whole_word_ids, mask, tasks)
    targets = torch.from_numpy(batch.targets).to(device)
    if batch.choices is None:
        first = targets[:, 0]
        hidden = model.decode_targets(encoded, source_mask, first, model.start_tokens(token_ids, mask, tasks))
        rows = None if batch.text_rows is None else torch.arange(batch.text_rows, device=device)
        return _full(model, hidden, first, smoothing, rows)[:, None]
    last_word = None if batch.last_word is None else torch.from_numpy(batch.last_word).to(device)
    prompts = source_mask.shape[1] - whole_word_ids.shape[1]
    if last_word is not None:
        seen = F.pad(whole_word_ids, (prompts, 0))[:, None, :] <= last_word[:, :, None]
        source_mask = source_mask[:, None, :] & seen
    start = model.start_tokens(token_ids, source_mask[..., prompts:], tasks).reshape(len(targets), -1)
    hidden = _decode_side_by_side(model, encoded, source_mask, targets, start)
    return _restricted(model, hidden, batch.choices, smoothing, targets.shape[:2])


def _decode_side_by_side(
    model: RDRecModel, encoded: Tensor, source_mask: Tensor, targets: Tensor, start: Tensor
) -> Tensor:
    """Teacher forcing over targets (B, G, T), source_mask (B, S) or (B, G, S) -> hidden (B, G T, D).

    Each target reads its start token, of start (B, G), and its own tokens; no target sees another.
    """
    _, n_targets, length = targets.shape
    tokens = torch.cat([start[..., None], targets[..., :-1]], dim=2)
    if source_mask.dim() == 3:
        source_mask = source_mask.repeat_interleave(length, dim=1)
    within = torch.ones(length, length, device=targets.device).tril()
    hidden, _ = model.t5.decode(
        tokens.flatten(1),
        model.t5.cross_key_values(encoded),
        source_mask,
        positions=torch.arange(length, device=targets.device).repeat(n_targets),
        slot_mask=torch.block_diag(*[within] * n_targets).bool()[None],
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
    """Sum over each target's choices: hidden (B, G T, D) -> shape (B, G)."""
    device = hidden.device
    slots, rows, allowed, columns, owner = (
        torch.from_numpy(array).to(device)
        for array in (choices.slots, choices.rows, choices.allowed, choices.columns, choices.owner)
    )
    logits = model.t5.logits(hidden.flatten(0, 1)[slots], rows).float()
    log_probs = torch.log_softmax(logits.masked_fill(~allowed, -torch.inf), dim=1)
    nll = -log_probs.gather(1, columns[:, None])[:, 0]
    if smoothing:
        spread = -log_probs.masked_fill(~allowed, 0.0).sum(dim=1) / allowed.sum(dim=1)
        nll = (1 - smoothing) * nll + smoothing * spread
    return torch.zeros(shape.numel(), dtype=nll.dtype, device=device).index_add(0, owner, nll).reshape(shape)
