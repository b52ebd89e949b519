"""T5 as plain tensor functions: encoder, cross-attention keys and values, and a decoder over arbitrary token slots.

One implementation serves training, the torch engine and the ONNX export. It loads and saves Hugging Face weights
(`T5ForConditionalGeneration`, T5 1.0 and 1.1/Flan) and is compared with them in tests/parity. It knows nothing of
items, prompts or search.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

KeyValue = tuple[Tensor, Tensor]
"""Keys and values of one layer, each (B, H, T, d_kv)."""


class T5Config(BaseModel):
    """Shape of the backbone; field names follow Hugging Face's `T5Config`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vocab_size: int
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = 6
    num_decoder_layers: int = 6
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    is_gated_act: bool = False
    """Gated GELU (T5 1.1, Flan) instead of ReLU."""
    causal_encoder: bool = False
    """Encoder tokens see earlier tokens only (not T5): then every prefix of a history is a source of its own, and one
    pass trains the model on all of a user's next items (ADR 2)."""
    tie_word_embeddings: bool = True
    """The output layer is the embedding, scaled by d_model ** -0.5."""
    pad_token_id: int = 0
    eos_token_id: int = 1


class RMSNorm(nn.Module):
    """Scale by the root mean square, computed in float32; no mean, no bias (T5's layer norm)."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        scale = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.epsilon)
        return self.weight * (x * scale).to(self.weight.dtype)


class Dropout(nn.Module):
    """Zeroes a share of the entries in training and scales up the rest.

    On a CPU each entry takes one random byte instead of a random float, which is several times faster than
    `torch.nn.Dropout`; the share is then rounded to 1/256.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(...) -> (...)."""
        if not self.training or self.rate == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.rate)
        below = round(256 * self.rate)
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.uint8)[: x.numel()].view(x.shape) >= below
        return x * (kept * (256 / (256 - below)))


class Attention(nn.Module):
    """Multi-head attention without scaling (T5) and without biases."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        inner = config.num_heads * config.d_kv
        self.num_heads = config.num_heads
        self.dropout = Dropout(config.dropout_rate)
        self.q = nn.Linear(config.d_model, inner, bias=False)
        self.k = nn.Linear(config.d_model, inner, bias=False)
        self.v = nn.Linear(config.d_model, inner, bias=False)
        self.o = nn.Linear(inner, config.d_model, bias=False)

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.num_heads, -1).transpose(1, 2)

    def key_value(self, x: Tensor) -> KeyValue:
        """(B, T, D) -> keys and values (B, H, T, d_kv)."""
        return self._heads(self.k(x)), self._heads(self.v(x))

    def forward(self, x: Tensor, key_value: KeyValue, bias: Tensor) -> Tensor:
        """Attend from x (B, T, D) to key_value; bias (B or 1, H or 1, T, T_kv) is added to the scores."""
        key, value = key_value
        query = self._heads(self.q(x))
        if self.training and self.dropout.rate and x.device.type == "cpu":
            mixed = self.dropout(torch.softmax(query @ key.transpose(2, 3) + bias, dim=-1)) @ value
        else:
            rate = self.dropout.rate if self.training else 0.0
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=rate, scale=1.0)
        return self.o(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """ReLU (T5 1.0) or gated GELU (T5 1.1) feed-forward layer."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.wi = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.gate = nn.Linear(config.d_model, config.d_ff, bias=False) if config.is_gated_act else None
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False)
        self.dropout = Dropout(config.dropout_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        inner = F.relu(self.wi(x)) if self.gate is None else F.gelu(self.wi(x), approximate="tanh") * self.gate(x)
        return self.wo(self.dropout(inner))  # type: ignore[no-any-return]


class Block(nn.Module):
    """One pre-norm layer: self-attention, cross-attention in the decoder, feed-forward."""

    def __init__(self, config: T5Config, *, decoder: bool) -> None:
        super().__init__()
        self.self_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.self_attention = Attention(config)
        if decoder:
            self.cross_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
            self.cross_attention = Attention(config)
        self.ff_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.ff = FeedForward(config)
        self.dropout = Dropout(config.dropout_rate)

    def forward(
        self,
        x: Tensor,
        self_bias: Tensor,
        *,
        past: KeyValue | None = None,
        cross: KeyValue | None = None,
        cross_bias: Tensor | None = None,
    ) -> tuple[Tensor, KeyValue]:
        """x (B, T, D); returns the new x and the self-attention's keys and values, past included."""
        normed = self.self_norm(x)
        key, value = self.self_attention.key_value(normed)
        if past is not None:
            key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        x = x + self.dropout(self.self_attention(normed, (key, value), self_bias))
        if cross is not None:
            x = x + self.dropout(self.cross_attention(self.cross_norm(x), cross, cross_bias))
        return x + self.dropout(self.ff(self.ff_norm(x))), (key, value)


def relative_buckets(distance: Tensor, *, bidirectional: bool, num_buckets: int, max_distance: int) -> Tensor:
    """T5's bucket of key position minus query position, any shape, int64 -> int64 in [0, num_buckets)."""
    offset = torch.zeros_like(distance)
    if bidirectional:
        num_buckets //= 2
        offset = (distance > 0).long() * num_buckets
        distance = distance.abs()
    else:
        distance = (-distance).clamp(min=0)
    exact = num_buckets // 2
    ratio = torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    far = (exact + (ratio * (num_buckets - exact)).long()).clamp(max=num_buckets - 1)
    return offset + torch.where(distance < exact, distance, far)


def mask_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Boolean mask (True = may attend) -> additive bias of the same shape."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min / 2)


class T5(nn.Module):
    """Encoder-decoder over embeddings that the caller supplies (so prompts and whole words can be added to them)."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder_bias = nn.Embedding(config.relative_attention_num_buckets, config.num_heads)
        self.decoder_bias = nn.Embedding(config.relative_attention_num_buckets, config.num_heads)
        self.encoder = nn.ModuleList(Block(config, decoder=False) for _ in range(config.num_layers))
        self.decoder = nn.ModuleList(Block(config, decoder=True) for _ in range(config.num_decoder_layers))
        self.encoder_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.decoder_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.lm_head = None if config.tie_word_embeddings else nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.dropout = Dropout(config.dropout_rate)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw fresh weights with T5's standard deviations (factor 1)."""
        d, dk, ff, heads = self.config.d_model, self.config.d_kv, self.config.d_ff, self.config.num_heads
        deviations = {
            "q": (d * dk) ** -0.5, "k": d**-0.5, "v": d**-0.5, "o": (heads * dk) ** -0.5,
            "wi": d**-0.5, "gate": d**-0.5, "wo": ff**-0.5,
            "shared": 1.0, "lm_head": 1.0, "encoder_bias": d**-0.5, "decoder_bias": d**-0.5,
        }  # fmt: skip
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                owner = name.split(".")[-2]
                if owner in deviations:
                    parameter.normal_(0.0, deviations[owner], generator=generator)

    def _position_bias(self, table: nn.Embedding, query: Tensor, key: Tensor, *, bidirectional: bool) -> Tensor:
        """Positions (..., T) and (..., T_kv) -> (B or 1, H, T, T_kv)."""
        distance = key.unsqueeze(-2) - query.unsqueeze(-1)
        buckets = relative_buckets(
            distance,
            bidirectional=bidirectional,
            num_buckets=self.config.relative_attention_num_buckets,
            max_distance=self.config.relative_attention_max_distance,
        )
        bias: Tensor = table(buckets).movedim(-1, -3)
        return bias if bias.dim() == 4 else bias.unsqueeze(0)

    def encode(self, embeds: Tensor, mask: Tensor) -> Tensor:
        """Embeddings (B, S, D) and mask (B, S), True for real tokens -> encoder states (B, S, D)."""
        positions = torch.arange(embeds.shape[1], device=embeds.device)
        bias = self._position_bias(self.encoder_bias, positions, positions, bidirectional=True)
        visible = mask[:, None, :]
        if self.config.causal_encoder:
            visible = visible & (positions[None, :] <= positions[:, None])
        bias = bias + mask_bias(visible, bias.dtype)[:, None]
        x = self.dropout(embeds)
        for block in self.encoder:
            x, _ = block(x, bias.to(x.dtype))
        return self.dropout(self.encoder_norm(x))  # type: ignore[no-any-return]

    def _decoder_blocks(self) -> list[Block]:
        return list(self.decoder)  # type: ignore[arg-type]

    def cross_key_values(self, encoded: Tensor) -> list[KeyValue]:
        """Encoder states (B, S, D) -> one pair of (B, H, S, d_kv) a decoder layer; computed once per user."""
        return [block.cross_attention.key_value(encoded) for block in self._decoder_blocks()]

    def decode(
        self,
        tokens: Tensor,
        cross: list[KeyValue],
        source_mask: Tensor,
        *,
        positions: Tensor | None = None,
        slot_mask: Tensor | None = None,
        past: list[KeyValue] | None = None,
        past_positions: Tensor | None = None,
    ) -> tuple[Tensor, list[KeyValue]]:
        """Run the decoder over T new token slots of each row.

        tokens (B, T); source_mask (B, S), or (B, T, S) where slots see different parts of the source. Without more,
        slots are a left-to-right sequence. For trees and beams: positions (T,) or (B, T) is each new slot's depth, past
        holds earlier slots' keys and values, past_positions their depths, and slot_mask (B or 1, T, T_past + T) is True
        where a new slot may attend (its ancestors and itself). Returns the normed hidden states (B, T, D) and keys and
        values of all slots.
        """
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device)
        key_positions = positions if past_positions is None else torch.cat([past_positions, positions], dim=-1)
        if slot_mask is None:
            slot_mask = (key_positions.unsqueeze(-2) <= positions.unsqueeze(-1)).reshape(
                -1, positions.shape[-1], key_positions.shape[-1]
            )
        bias = self._position_bias(self.decoder_bias, positions, key_positions, bidirectional=False)
        bias = bias + mask_bias(slot_mask, bias.dtype)[:, None]
        cross_bias = mask_bias(source_mask if source_mask.dim() == 3 else source_mask[:, None], bias.dtype)[:, None]
        x = self.dropout(self.shared(tokens))
        present = []
        for index, block in enumerate(self._decoder_blocks()):
            x, key_value = block(
                x,
                bias.to(x.dtype),
                past=None if past is None else past[index],
                cross=cross[index],
                cross_bias=cross_bias.to(x.dtype),
            )
            present.append(key_value)
        return self.dropout(self.decoder_norm(x)), present

    def output_rows(self, rows: Tensor | None = None) -> Tensor:
        """The output layer's weights (V, D), or of the given vocabulary rows only (R, D), scaling included."""
        if self.lm_head is not None:
            weight = self.lm_head.weight
            return weight if rows is None else weight[rows]
        weight = self.shared.weight if rows is None else self.shared.weight[rows]
        return weight * float(self.config.d_model**-0.5)

    def logits(self, hidden: Tensor, rows: Tensor | None = None) -> Tensor:
        """Decoder states (..., D) -> logits over the vocabulary (..., V), or over the given rows (..., R)."""
        return hidden @ self.output_rows(rows).to(hidden.dtype).T


_HF_PARTS = [
    (r"^(encoder|decoder)\.block\.(\d+)\.layer\.0\.SelfAttention\.([qkvo])\.", r"\1.\2.self_attention.\3."),
    (r"^(encoder|decoder)\.block\.(\d+)\.layer\.0\.layer_norm\.", r"\1.\2.self_norm."),
    (r"^decoder\.block\.(\d+)\.layer\.1\.EncDecAttention\.([qkvo])\.", r"decoder.\1.cross_attention.\2."),
    (r"^decoder\.block\.(\d+)\.layer\.1\.layer_norm\.", r"decoder.\1.cross_norm."),
    (r"^(encoder|decoder)\.block\.(\d+)\.layer\.[12]\.DenseReluDense\.wi_0\.", r"\1.\2.ff.wi."),
    (r"^(encoder|decoder)\.block\.(\d+)\.layer\.[12]\.DenseReluDense\.wi_1\.", r"\1.\2.ff.gate."),
    (r"^(encoder|decoder)\.block\.(\d+)\.layer\.[12]\.DenseReluDense\.", r"\1.\2.ff."),
    (r"^(encoder|decoder)\.block\.(\d+)\.layer\.[12]\.layer_norm\.", r"\1.\2.ff_norm."),
    (r"^(encoder|decoder)\.block\.0\.layer\.0\.SelfAttention\.relative_attention_bias\.", r"\1_bias."),
    (r"^(encoder|decoder)\.final_layer_norm\.", r"\1_norm."),
]


def from_hugging_face(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a `T5ForConditionalGeneration` state dict to this module's names; tied copies of `shared` are dropped."""
    renamed = {}
    for name, tensor in state.items():
        if name in {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}:
            continue
        for pattern, replacement in _HF_PARTS:
            new, count = re.subn(pattern, replacement, name)
            if count:
                name = new
                break
        renamed[name] = tensor
    return renamed
