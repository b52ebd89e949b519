"""T5's layers as ONNX nodes, in float32, in float16 or with 8-bit products, with the runtime's fused operators.

8-bit: weights have one scale an output column, activations one scale a token, computed when the graph runs. So a
token's numbers depend on no other token and batch-mates change nothing; one scale a tensor (DynamicQuantizeMatMul)
would be faster by a fifth and would break that. Knows layers, not what a graph is for. Needs torch.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from rdrec_core.exported.graph_writer import GraphWriter
from rdrec_core.model import RDRecModel
from rdrec_core.t5 import T5, Attention, Block, FeedForward, RMSNorm, relative_buckets

KeyValueNames = tuple[str, str]
"""Keys and values of one layer, each (B, H, T, d_kv)."""


class T5Writer:
    """Writes the layers of rdrec_core/t5.py into a graph, with the runtime's fused operators."""

    kind = "float"
    """Of every number between the layers; a key of `onnx_ops.KINDS`."""
    _dtype: type[np.floating] = np.float32

    def __init__(self, graph: GraphWriter, model: RDRecModel) -> None:
        self.graph = graph
        self.config = model.config.t5

    @cached_property
    def _head_shape(self) -> str:
        return self.graph.constant(np.array([0, 0, self.config.num_heads, self.config.d_kv]))

    @cached_property
    def _row_shape(self) -> str:
        return self.graph.constant(np.array([-1, self.config.num_heads * self.config.d_kv]))

    def weight(self, tensor: Tensor) -> str:
        """A torch weight in the graph's precision."""
        return self.graph.constant(tensor.detach().float().cpu().numpy().astype(self._dtype))

    def linear(self, x: str, *layers: nn.Linear, positive: bool = False) -> str:
        """One product for all the layers, outputs side by side; see `product`."""
        return self.product(x, torch.cat([layer.weight for layer in layers]), positive=positive)

    def product(self, x: str, weight: Tensor, *, positive: bool = False) -> str:
        """x (..., K) times weight (N, K) -> (..., N). positive: x has no negative numbers."""
        return self.graph.call("MatMul", x, self.weight(weight.T))

    def heads(self, x: str) -> str:
        """(B, T, H d_kv) -> (B, H, T, d_kv)."""
        return self.graph.call("Transpose", self.graph.call("Reshape", x, self._head_shape), perm=[0, 2, 1, 3])

    def norm(self, x: str, norm: RMSNorm) -> str:
        """RMS norm."""
        return self.graph.call(
            "SimplifiedLayerNormalization", x, self.weight(norm.weight), axis=-1, epsilon=norm.epsilon
        )

    def add_and_norm(self, x: str, branch: str, norm: RMSNorm) -> tuple[str, str]:
        """x + branch, normed, and itself."""
        total = f"{branch}.sum"
        normed = self.graph.call(
            "SkipSimplifiedLayerNormalization", x, branch, self.weight(norm.weight),
            outputs=[f"{branch}.norm", "", "", total], domain="com.microsoft", epsilon=norm.epsilon,
        )  # fmt: skip
        return normed, total

    def attend(self, query: str, key: str, value: str, bias: str) -> str:
        """Queries (B, T, H d_kv), keys and values (B, H, T_kv, d_kv) or (B, T_kv, H d_kv), bias (B, H, T, T_kv).

        Returns (B, T, H d_kv).
        """
        return self.graph.call(
            "MultiHeadAttention", query, key, value, "", "", bias,
            domain="com.microsoft", num_heads=self.config.num_heads, scale=1.0,
        )  # fmt: skip

    def attend_among(self, x: str, attention: Attention, bias: str) -> str:
        """Attention of x (B, T, D) to itself, projections included: (B, T, H d_kv)."""
        joined = torch.cat([attention.q.weight, attention.k.weight, attention.v.weight])
        return self.graph.call(
            "Attention", x, self.weight(joined.T), "", "", "", bias,
            domain="com.microsoft", num_heads=self.config.num_heads, scale=1.0,
        )  # fmt: skip

    def _behind(self, past: str, kept: str, new: str) -> str:
        """The kept rows of past (B', P, K), each copied as a whole, and new (B, T, K) behind them."""
        rows = self.graph.call("Reshape", past, self._row_shape)
        return self.graph.call("Concat", self.graph.call("Gather", rows, kept), new, axis=1)

    def query_key_value(self, x: str, attention: Attention, *, split_heads: bool = True) -> tuple[str, str, str]:
        """Queries (B, T, H d_kv), keys and values (B, H, T, d_kv), or like the queries."""
        joined = self.linear(x, attention.q, attention.k, attention.v)
        parts = [f"{joined}.q", f"{joined}.k", f"{joined}.v"]
        self.graph.call("Split", joined, outputs=parts, axis=-1, num_outputs=3)
        if not split_heads:
            return parts[0], parts[1], parts[2]
        return parts[0], self.heads(parts[1]), self.heads(parts[2])

    def feed_forward(self, x: str, ff: FeedForward) -> str:
        """ReLU or gated GELU."""
        inner = self.linear(x, ff.wi)
        if ff.gate is None:
            return self.linear(self.graph.call("Relu", inner), ff.wo, positive=True)
        gated = self.graph.call("Mul", self.graph.call("Gelu", inner, approximate="tanh"), self.linear(x, ff.gate))
        return self.linear(gated, ff.wo)

    def sources(
        self, model: RDRecModel, token_ids: str, whole_word_ids: str, mask: str, tasks: str, *, table: str | None = None
    ) -> tuple[list[KeyValueNames], str]:
        """Sources (B, S), tasks (B,) -> cross-attention's keys and values a layer, and source bias (B, 1, 1, P + S).

        `RDRecModel.encode` and `T5.cross_key_values` in one. table: the embedding (V, D), where the graph is fed it.
        """
        graph, t5 = self.graph, model.t5
        if self.config.causal_encoder:  # it does not see the EOS (ADR 2)
            eos = graph.call("Equal", token_ids, graph.constant(np.int64(self.config.eos_token_id)))
            mask = graph.call("And", mask, graph.call("Not", eos))
        words = graph.call(
            "Add",
            graph.call("Gather", table or self.weight(t5.shared.weight), token_ids),
            graph.call("Gather", self.weight(model.whole_words.weight), whole_word_ids),
        )
        x = graph.call("Concat", graph.call("Gather", self.weight(model.prompts), tasks), words, axis=1)
        prompts = graph.constant(np.array([model.config.prompt_length]))
        prefix = graph.call("Concat", self.size(token_ids, 0), prompts, axis=0)
        seen = graph.call("Expand", graph.constant(np.array([[True]])), prefix)
        seen = graph.call("Concat", seen, mask, axis=1)
        source_bias = self.mask_bias(self.unsqueeze(seen, 1, 2))
        bias = graph.call("Add", self.encoder_bias(t5, self.size(seen, 1)), source_bias)
        return self.cross_key_values(t5, self.encoder(t5, x, bias)), source_bias

    def encoder(self, t5: T5, x: str, bias: str) -> str:
        """All encoder layers: embeddings (B, S, D), bias (B, H, S, S) -> normed states (B, S, D)."""
        blocks: list[Block] = list(t5.encoder)  # type: ignore[arg-type]
        normed = self.norm(x, blocks[0].self_norm)
        for index, block in enumerate(blocks):
            attended = self.linear(self.attend_among(normed, block.self_attention, bias), block.self_attention.o)
            normed, x = self.add_and_norm(x, attended, block.ff_norm)
            after = blocks[index + 1].self_norm if index + 1 < len(blocks) else t5.encoder_norm
            normed, x = self.add_and_norm(x, self.feed_forward(normed, block.ff), after)
        return normed

    def decoder(
        self,
        t5: T5,
        x: str,
        bias: str,
        cross: list[KeyValueNames],
        cross_bias: str,
        past: list[KeyValueNames] | None,
        kept: str | None = None,
    ) -> tuple[str, list[KeyValueNames]]:
        """All decoder layers over new slots: embeddings (B, T, D) -> normed states and all slots' keys and values.

        bias (B, H, T, T_kv), cross_bias (B, 1, T, S); past and what is returned as in `t5.T5.decode`. With kept (B, K)
        both are (B', P, H d_kv) and (B, K + T, H d_kv) instead: of all B' * P past slots only these are carried on.
        """
        blocks: list[Block] = list(t5.decoder)  # type: ignore[arg-type]
        normed = self.norm(x, blocks[0].self_norm)
        present: list[KeyValueNames] = []
        for index, block in enumerate(blocks):
            query, key, value = self.query_key_value(normed, block.self_attention, split_heads=kept is None)
            if past is not None and kept is not None:
                key = self._behind(past[index][0], kept, key)
                value = self._behind(past[index][1], kept, value)
            elif past is not None:
                key = self.graph.call("Concat", past[index][0], key, axis=2)
                value = self.graph.call("Concat", past[index][1], value, axis=2)
            present.append((key, value))
            attended = self.linear(self.attend(query, key, value, bias), block.self_attention.o)
            normed, x = self.add_and_norm(x, attended, block.cross_norm)
            query = self.linear(normed, block.cross_attention.q)
            attended = self.linear(self.attend(query, *cross[index], cross_bias), block.cross_attention.o)
            normed, x = self.add_and_norm(x, attended, block.ff_norm)
            after = blocks[index + 1].self_norm if index + 1 < len(blocks) else t5.decoder_norm
            normed, x = self.add_and_norm(x, self.feed_forward(normed, block.ff), after)
        return normed, present

    def cross_key_values(self, t5: T5, encoded: str) -> list[KeyValueNames]:
        """Encoder states (B, S, D) -> keys and values of every decoder layer, out of one product."""
        blocks: list[Block] = list(t5.decoder)  # type: ignore[arg-type]
        layers = [layer for block in blocks for layer in (block.cross_attention.k, block.cross_attention.v)]
        joined = self.linear(encoded, *layers)
        parts = [f"{joined}.{place}" for place in range(len(layers))]
        self.graph.call("Split", joined, outputs=parts, axis=-1, num_outputs=len(parts))
        heads = [self.heads(part) for part in parts]
        return list(zip(heads[::2], heads[1::2], strict=True))

    def distance_bias(self, table: nn.Embedding, distances: str, *, bidirectional: bool) -> str:
        """Bias of each head at a distance (key minus query): (...) int64 -> (H, ...)."""
        far = self.config.relative_attention_max_distance  # everything beyond shares the last bucket
        buckets = relative_buckets(
            torch.arange(-far, far + 1),
            bidirectional=bidirectional,
            num_buckets=self.config.relative_attention_num_buckets,
            max_distance=far,
        )
        limits = self.graph.constant(np.int64(-far)), self.graph.constant(np.int64(far))
        near = self.graph.call("Clip", distances, *limits)
        place = self.graph.call("Add", near, self.graph.constant(np.int64(far)))
        by_distance = table.weight[buckets.to(table.weight.device)].T
        return self.graph.call("Gather", self.weight(by_distance), place, axis=1)

    def encoder_bias(self, t5: T5, length: str) -> str:
        """Length S (1,) -> what encoder places add to each other's scores, (1, H, S, S); a causal encoder's mask too.

        A row is the one above it moved by a place, so rows are cut out of copies of one row of 2 S numbers: reading
        copies as rows of 2 S - 1 moves each by one. That takes a third of the time of a look-up a pair.
        """
        graph = self.graph
        one, heads = graph.constant(np.array([1])), graph.constant(np.array([self.config.num_heads]))
        twice, last = graph.call("Add", length, length), graph.call("Sub", length, one)
        count = graph.call("Squeeze", twice)
        places = graph.call("Range", graph.constant(np.int64(0)), count, graph.constant(np.int64(1)))
        distances = graph.call("Sub", places, last)
        row = self.distance_bias(t5.encoder_bias, distances, bidirectional=True)
        if self.config.causal_encoder:
            earlier = graph.call("LessOrEqual", distances, graph.constant(np.int64(0)))
            row = graph.call("Add", row, self.mask_bias(earlier))
        copies = graph.call("Expand", self.unsqueeze(row, 1), graph.call("Concat", heads, length, twice, axis=0))
        narrow = graph.call("Sub", twice, one)
        flat = graph.call("Reshape", copies, graph.call("Concat", heads, graph.constant(np.array([-1])), axis=0))
        used = graph.call("Slice", flat, graph.constant(np.array([0])), graph.call("Mul", length, narrow), one)
        rows = graph.call("Reshape", used, graph.call("Concat", heads, length, narrow, axis=0))
        return self.unsqueeze(graph.call("Slice", rows, last, narrow, graph.constant(np.array([2]))), 0)

    def mask_bias(self, mask: str) -> str:
        """True -> 0, False -> a number that no softmax sees."""
        lowest = self._dtype(np.finfo(self._dtype).min / 2)
        zero, masked = self.graph.constant(self._dtype(0)), self.graph.constant(lowest)
        return self.graph.call("Where", mask, zero, masked)

    def unsqueeze(self, x: str, *axes: int) -> str:
        """Insert axes."""
        return self.graph.call("Unsqueeze", x, self.graph.constant(np.array(axes)))

    def size(self, x: str, axis: int) -> str:
        """Size along an axis, (1,) int64."""
        return self.graph.call("Shape", x, start=axis, end=axis + 1)


class HalfT5Writer(T5Writer):
    """`T5Writer` in float16, for GPUs; norms and softmax add in float32 inside the runtime's operators."""

    kind = "half"
    _dtype = np.float16


class QuantizedT5Writer(T5Writer):
    """`T5Writer` whose products run in 8 bits."""

    def __init__(self, graph: GraphWriter, model: RDRecModel) -> None:
        super().__init__(graph, model)
        self._quantized: dict[tuple[str, bool], tuple[str, str, str]] = {}

    def attend_among(self, x: str, attention: Attention, bias: str) -> str:
        """See `T5Writer.attend_among`."""
        return self.attend(*self.query_key_value(x, attention, split_heads=False), bias)

    def product(self, x: str, weight: Tensor, *, positive: bool = False) -> str:
        """See `T5Writer.product`; that x is positive is worth a bit."""
        graph = self.graph
        columns = weight.detach().float().cpu().numpy().T
        scale = np.maximum(np.abs(columns).max(axis=0), 1e-12).astype(np.float32) / 127
        quantized, row_scale, zero = self._quantize(x, positive)
        whole = graph.call(
            "MatMulIntegerToFloat", quantized, graph.constant(np.rint(columns / scale).astype(np.int8)),
            graph.constant(np.float32(1)), graph.constant(scale), zero, domain="com.microsoft",
        )  # fmt: skip
        return graph.call("Mul", whole, row_scale)

    def _quantize(self, x: str, positive: bool) -> tuple[str, str, str]:
        key = (x, positive)
        if key not in self._quantized:
            graph = self.graph
            size = x if positive else graph.call("Abs", x)
            largest = graph.call("ReduceMax", size, graph.constant(np.array([-1])), keepdims=1)
            largest = graph.call("Max", largest, graph.constant(np.float32(1e-12)))
            levels = np.float32(255 if positive else 127)
            row_scale = graph.call("Mul", largest, graph.constant(1 / levels))
            zero = graph.constant(np.uint8(0 if positive else 128))
            scaled = graph.call("Div", x, row_scale)
            quantized = graph.call("QuantizeLinear", scaled, graph.constant(np.float32(1)), zero)
            self._quantized[key] = (quantized, row_scale, zero)
        return self._quantized[key]
