"""`Network` that records RDRecModel's encoder and decoder as ONNX nodes, in float32 or with 8-bit products.

8-bit: weights have one scale an output column, activations one scale a token, computed when the graph runs. So a
token's numbers depend on no other token and batch-mates change nothing; one scale a tensor (DynamicQuantizeMatMul)
would be faster by a fifth and would break that. Needs torch and onnx.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from rdrec_core.decoding.onnx_ops import OnnxOps, SearchGraphWriter, Value
from rdrec_core.decoding.text_graphs import T5Writer
from rdrec_core.model import RDRecModel
from rdrec_core.t5 import Attention, Block, FeedForward

KeyValueNames = tuple[str, str]


class QuantizedT5Writer(T5Writer):
    """`T5Writer` whose products run in 8 bits."""

    def __init__(self, graph: SearchGraphWriter, model: RDRecModel) -> None:
        super().__init__(graph, model)
        self._quantized: dict[tuple[str, bool], tuple[str, str, str]] = {}

    def linear(self, x: str, *layers: nn.Linear, positive: bool = False) -> str:
        """x (..., K) times all the layers; positive: x has no negative numbers, which is worth a bit."""
        graph = self.graph
        weight = np.concatenate([layer.weight.detach().float().cpu().numpy() for layer in layers]).T
        scale = np.maximum(np.abs(weight).max(axis=0), 1e-12).astype(np.float32) / 127
        quantized, row_scale, zero = self._quantize(x, positive)
        product = graph.call(
            "MatMulIntegerToFloat", quantized, graph.constant(np.rint(weight / scale).astype(np.int8)),
            graph.constant(np.float32(1)), graph.constant(scale), zero, domain="com.microsoft",
        )  # fmt: skip
        return graph.call("Mul", product, row_scale)

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

    def feed_forward(self, x: str, ff: FeedForward) -> str:
        """ReLU or gated GELU."""
        if ff.gate is not None:
            return super().feed_forward(x, ff)
        return self.linear(self.graph.call("Relu", self.linear(x, ff.wi)), ff.wo, positive=True)


class OnnxNetwork:
    """The network of one graph. `memory` is the cross-attention's keys and values a layer and the source bias."""

    def __init__(self, ops: OnnxOps, model: RDRecModel, columns: Value, *, int8: bool) -> None:
        """columns (T,): the trie's vocabulary ids, an input of the graph."""
        self._ops, self._graph, self._model, self._config = ops, ops.graph, model, model.config.t5
        self._write = (QuantizedT5Writer if int8 else T5Writer)(ops.graph, model)
        self._shared = ops.graph.weight(model.t5.shared.weight)
        output = model.t5.shared if model.t5.lm_head is None else model.t5.lm_head
        self._output = ops.graph.weight(output.weight)
        self._output_scale = 1.0 if model.t5.lm_head is not None else self._config.d_model**-0.5
        self._column_rows = ops.graph.call("Gather", self._output, columns.name, axis=0)

    def encode(self, token_ids: Value, whole_word_ids: Value, mask: Value, tasks: Value) -> Any:
        """Sources (B, S) and tasks (B,) -> memory."""
        graph, write, ops, model = self._graph, self._write, self._ops, self._model
        if self._config.causal_encoder:
            mask = mask & ~(token_ids == self._config.eos_token_id)
        words = graph.call(
            "Add",
            graph.call("Gather", self._shared, token_ids.name),
            graph.call("Gather", graph.weight(model.whole_words.weight), whole_word_ids.name),
        )
        x = graph.call("Concat", graph.call("Gather", graph.weight(model.prompts), tasks.name), words, axis=1)
        prefix = ops.full_index([ops.size(token_ids, 0), model.config.prompt_length], 1) == 1
        seen = ops.concat([prefix, mask], 1)
        length = ops.size(seen, 1)
        places = ops.arange(length)
        distances = ops.unsqueeze(places, 0) - ops.unsqueeze(places, 1)
        by_distance = write.distance_bias(model.t5.encoder_bias, distances.name, bidirectional=True)
        source_bias = write.mask_bias(ops.unsqueeze(ops.unsqueeze(seen, 1), 1).name)
        visible = source_bias
        if self._config.causal_encoder:
            visible = graph.call("Add", visible, write.mask_bias((distances <= 0).name))
        bias = graph.call("Add", write.unsqueeze(by_distance, 0), visible)
        blocks: list[Block] = list(model.t5.encoder)  # type: ignore[arg-type]
        normed = write.norm(x, blocks[0].self_norm)
        for index, block in enumerate(blocks):
            attended = write.attend(*write.query_key_value(normed, block.self_attention), bias)
            normed, x = write.add_and_norm(x, write.linear(attended, block.self_attention.o), block.ff_norm)
            after = blocks[index + 1].self_norm if index + 1 < len(blocks) else model.t5.encoder_norm
            normed, x = write.add_and_norm(x, write.feed_forward(normed, block.ff), after)
        attentions = [block.cross_attention for block in self._decoder()]
        return self._cross_key_values(normed, attentions), source_bias

    def _cross_key_values(self, encoded: str, attentions: list[Attention]) -> list[KeyValueNames]:
        """One product for the keys and values of all layers."""
        layers = [layer for attention in attentions for layer in (attention.k, attention.v)]
        joined = self._write.linear(encoded, *layers)
        parts = [f"{joined}.{place}" for place in range(len(layers))]
        self._graph.call("Split", joined, outputs=parts, axis=-1, num_outputs=len(parts))
        heads = [self._write.heads(part) for part in parts]
        return list(zip(heads[::2], heads[1::2], strict=True))

    def _decoder(self) -> list[Block]:
        return list(self._model.t5.decoder)  # type: ignore[arg-type]

    def decode(
        self,
        tokens: Value,
        positions: Value,
        slot_mask: Value,
        memory: tuple[list[KeyValueNames], str],
        past: list[KeyValueNames] | None,
        past_positions: Value | None,
    ) -> tuple[Value, list[KeyValueNames]]:
        graph, write, ops, t5 = self._graph, self._write, self._ops, self._model.t5
        cross, source_bias = memory
        batch = Value(graph, write.size(source_bias, 0), "int")
        n_new = ops.size(tokens, 1)
        key_positions = positions if past_positions is None else ops.concat([past_positions, positions], 1)
        distances = ops.unsqueeze(key_positions, 1) - ops.unsqueeze(positions, 2)
        by_distance = write.distance_bias(t5.decoder_bias, distances.name, bidirectional=False)
        bias = graph.call(
            "Add",
            graph.call("Transpose", by_distance, perm=[1, 0, 2, 3]),
            write.mask_bias(ops.unsqueeze(slot_mask, 1).name),
        )
        cross_bias = ops.expand(Value(graph, source_bias, "float"), [1, 1, n_new, 1]).name

        x = graph.call("Gather", self._shared, ops.expand(tokens, [batch, n_new]).name)
        blocks = self._decoder()
        normed = write.norm(x, blocks[0].self_norm)
        present: list[KeyValueNames] = []
        for index, block in enumerate(blocks):
            query, key, value = write.query_key_value(normed, block.self_attention)
            if past is not None:
                key = graph.call("Concat", past[index][0], key, axis=2)
                value = graph.call("Concat", past[index][1], value, axis=2)
            present.append((key, value))
            attended = write.linear(write.attend(query, key, value, bias), block.self_attention.o)
            normed, x = write.add_and_norm(x, attended, block.cross_norm)
            query = write.linear(normed, block.cross_attention.q)
            attended = write.linear(write.attend(query, *cross[index], cross_bias), block.cross_attention.o)
            normed, x = write.add_and_norm(x, attended, block.ff_norm)
            after = blocks[index + 1].self_norm if index + 1 < len(blocks) else t5.decoder_norm
            normed, x = write.add_and_norm(x, write.feed_forward(normed, block.ff), after)
        return Value(graph, normed, "float"), present

    def _logits(self, hidden: Value, rows: str) -> Value:
        ops = self._ops
        batch, slots = ops.size(hidden, 0), ops.size(hidden, 1)
        flat = ops.reshape(hidden, [-1, self._config.d_model])
        product = Value(
            self._graph, self._graph.call("Gemm", flat.name, rows, alpha=self._output_scale, transB=1), "float"
        )
        return ops.reshape(product, [batch, slots, -1])

    def column_logits(self, hidden: Value) -> Value:
        return self._logits(hidden, self._column_rows)

    def vocabulary_logsumexp(self, hidden: Value) -> Value:
        return self._ops.logsumexp(self._logits(hidden, self._output))
