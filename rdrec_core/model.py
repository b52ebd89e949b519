"""RDRecModel: T5 plus continuous prompt vectors and whole-word embeddings (paper, section 3.1).

Turns padded sources into encoder states and targets into log-probabilities. Knows nothing of items, tries or search.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rdrec_core.errors import BundleError
from rdrec_core.t5 import T5, T5Config
from rdrec_core.types import Task

CONFIG_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"


class ModelConfig(BaseModel):
    """`model.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    t5: T5Config
    prompt_length: int = 3
    """Prompt vectors a task, put before the token embeddings (paper, section 4.3)."""
    whole_word_rows: int = 512
    starts_from_source: bool = False
    """The decoder of the sequential task starts from the source's last token, the item bought last, instead of the pad
    token (ADR 2)."""


class RDRecModel(nn.Module):
    """The network. B batch, S source without prompts, P prompt length, T target, V vocabulary, D width."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.t5 = T5(config.t5)
        self.prompts = nn.Parameter(torch.empty(len(Task), config.prompt_length, config.t5.d_model))
        self.whole_words = nn.Embedding(config.whole_word_rows, config.t5.d_model)

    def initialise(self, generator: torch.Generator, *, backbone: bool = True) -> None:
        """Draw fresh weights; backbone=False keeps T5's (they were loaded)."""
        if backbone:
            self.t5.initialise(generator)
        with torch.no_grad():
            self.prompts.uniform_(-0.1, 0.1, generator=generator)
            self.whole_words.weight.uniform_(-0.1, 0.1, generator=generator)

    def source_embeddings(
        self, token_ids: Tensor, whole_word_ids: Tensor, mask: Tensor, tasks: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sources (B, S) and tasks (B,) -> embeddings (B, P + S, D) and mask (B, P + S).

        A causal encoder's sources are prefixes of each other, so it does not see the EOS at their end.
        """
        if self.config.t5.causal_encoder:
            mask = mask & (token_ids != self.config.t5.eos_token_id)
        words = self.t5.shared(token_ids) + self.whole_words(whole_word_ids)
        prompts = self.prompts[tasks]
        prefix = torch.ones(prompts.shape[:2], dtype=torch.bool, device=mask.device)
        return torch.cat([prompts, words], dim=1), torch.cat([prefix, mask], dim=1)

    def encode(self, token_ids: Tensor, whole_word_ids: Tensor, mask: Tensor, tasks: Tensor) -> tuple[Tensor, Tensor]:
        """Sources (B, S) and tasks (B,) -> encoder states (B, P + S, D) and their mask (B, P + S)."""
        embeds, full_mask = self.source_embeddings(token_ids, whole_word_ids, mask, tasks)
        return self.t5.encode(embeds, full_mask), full_mask

    def start_tokens(self, token_ids: Tensor, seen: Tensor, tasks: Tensor) -> Tensor:
        """What the decoder starts from: (B,), or (B, G) for G prefixes of each source.

        token_ids (B, S), right-padded; seen (B, S) or (B, G, S) is True for the leading tokens that are read.
        """
        if not self.config.starts_from_source:
            return torch.full(seen.shape[:-1], self.config.t5.pad_token_id, dtype=torch.int64, device=seen.device)
        token_ids, tasks = (x.reshape(len(x), *[1] * (seen.dim() - 2), -1) for x in (token_ids, tasks))
        words = seen & (token_ids != self.config.t5.eos_token_id)
        last = token_ids.expand(seen.shape).gather(-1, words.sum(-1, keepdim=True) - 1)
        return torch.where(tasks == Task.SEQUENTIAL, last, self.config.t5.pad_token_id).squeeze(-1)

    def decode_targets(self, encoded: Tensor, source_mask: Tensor, targets: Tensor, start: Tensor) -> Tensor:
        """Teacher forcing: targets (B, T) after start (B,) -> hidden states (B, T, D) that predict them."""
        inputs = torch.cat([start[:, None], targets[:, :-1]], dim=1)
        hidden, _ = self.t5.decode(inputs, self.t5.cross_key_values(encoded), source_mask)
        return hidden

    def save(self, folder: Path) -> None:
        """Write model.json and weights.safetensors into an existing folder."""
        (folder / CONFIG_FILE).write_text(self.config.model_dump_json(indent=2), encoding="utf-8")
        save_file({k: v.detach().contiguous().cpu() for k, v in self.state_dict().items()}, folder / WEIGHTS_FILE)

    @classmethod
    def load(cls, folder: Path) -> RDRecModel:
        """Read what `save` wrote, in evaluation mode. Raises BundleError naming the file that is missing or wrong."""
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            if not (folder / name).is_file():
                raise BundleError(f"{folder / name} is missing")
        config = ModelConfig.model_validate(json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")))
        model = cls(config)
        try:
            model.load_state_dict(load_file(folder / WEIGHTS_FILE))
        except RuntimeError as error:
            raise BundleError(f"{folder / WEIGHTS_FILE} does not fit {CONFIG_FILE}: {error}") from error
        return model.eval()
