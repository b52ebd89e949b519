"""`Network` that records RDRecModel's encoder and decoder as ONNX nodes. Needs torch and onnx."""

from __future__ import annotations

from typing import Any

from rdrec_core.exported.onnx_ops import KINDS, OnnxOps, Value
from rdrec_core.exported.t5_graph import KeyValueNames, T5Writer
from rdrec_core.model import RDRecModel
from rdrec_core.types import Task


class OnnxNetwork:
    """The network of one graph.

    `memory` is the cross-attention's keys and values a layer, the source bias, and what the decoder starts from (B, 1)
    unless that is the trie's own start token.
    """

    def __init__(
        self, ops: OnnxOps, model: RDRecModel, table: Value, column_rows: Value, writer: type[T5Writer] = T5Writer
    ) -> None:
        """table (V, D), the shared embedding, and column_rows (T, D), output rows of the trie's tokens, are inputs.

        So they may grow by rows of items that came after the export (ADR 8).
        """
        self._ops, self._graph, self._model, self._config = ops, ops.graph, model, model.config.t5
        self._write = writer(ops.graph, model)
        self._shared = table.name
        is_tied = model.t5.lm_head is None
        self._output = table.name if model.t5.lm_head is None else self._write.weight(model.t5.lm_head.weight)
        self._output_scale = self._config.d_model**-0.5 if is_tied else 1.0
        self._column_rows = column_rows.name

    def encode(self, token_ids: Value, whole_word_ids: Value, mask: Value, tasks: Value) -> Any:
        """Sources (B, S) and tasks (B,) -> memory."""
        names = (value.name for value in (token_ids, whole_word_ids, mask, tasks))
        cross, source_bias = self._write.sources(self._model, *names, table=self._shared)
        start = self._last_token(token_ids, mask, tasks) if self._model.config.starts_from_source else None
        return cross, source_bias, start

    def _last_token(self, token_ids: Value, mask: Value, tasks: Value) -> Value:
        """`RDRecModel.start_tokens`, (B, 1)."""
        ops = self._ops
        words = mask & ~(token_ids == self._config.eos_token_id)
        places = ops.unsqueeze(ops.arange(ops.size(token_ids, 1)), 0)
        last = ops.take_along(token_ids, ops.unsqueeze(ops.largest(ops.where(words, places, 0)), 1))
        return ops.where(ops.unsqueeze(tasks, 1) == int(Task.SEQUENTIAL), last, self._config.pad_token_id)

    def decode(
        self,
        tokens: Value,
        positions: Value,
        slot_mask: Value,
        memory: tuple[list[KeyValueNames], str, Value | None],
        past: list[KeyValueNames] | None,
        past_positions: Value | None,
    ) -> tuple[Value, list[KeyValueNames]]:
        graph, write, ops, t5 = self._graph, self._write, self._ops, self._model.t5
        cross, source_bias, start = memory
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

        tokens = ops.expand(tokens, [batch, n_new])
        if start is not None:
            tokens = ops.where(positions == 0, start, tokens)
        x = graph.call("Gather", self._shared, tokens.name)
        normed, present = write.decoder(t5, x, bias, cross, cross_bias, past)
        return Value(graph, normed, write.kind), present

    def _logits(self, hidden: Value, rows: str) -> Value:
        ops = self._ops
        batch, slots = ops.size(hidden, 0), ops.size(hidden, 1)
        flat = ops.reshape(hidden, [-1, self._config.d_model])
        product = self._graph.call("Gemm", flat.name, rows, alpha=self._output_scale, transB=1)
        if self._write.kind != "float":
            product = self._graph.call("Cast", product, to=KINDS["float"])
        return ops.reshape(Value(self._graph, product, "float"), [batch, slots, -1])

    def column_logits(self, hidden: Value) -> Value:
        return self._logits(hidden, self._column_rows)

    def vocabulary_logsumexp(self, hidden: Value) -> Value:
        return self._ops.logsumexp(self._logits(hidden, self._output))
