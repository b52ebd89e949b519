"""The text graphs: RDRecModel as the ONNX models that `onnx_text.py` runs.

They are written node by node rather than traced, so that they hold what a search over beams needs and nothing else:
one product for q, k and v, cross-attention keys and values from the encoder graph (one a request, not one a beam),
the text vocabulary's rows of both embeddings only, log-softmax and the choice of candidates inside. Needs torch and
onnx.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from rdrec_core.model import RDRecModel
from rdrec_core.t5 import Attention, Block, FeedForward, RMSNorm, relative_buckets
from rdrec_core.types import IntArray

_OPSET = 20
_MASKED = float(np.finfo(np.float32).min / 2)


class GraphWriter:
    """Collects nodes, weights, inputs and outputs; values are named by the writer."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def constant(self, array: npt.ArrayLike) -> str:
        """A weight or another constant."""
        name = f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def weight(self, tensor: Tensor) -> str:
        """A torch weight in float32."""
        return self.constant(tensor.detach().float().cpu().numpy())

    def call(self, op: str, *inputs: str, outputs: Sequence[str] = (), domain: str = "", **attributes: Any) -> str:
        """Add a node; returns its first output (named by the writer unless outputs are given)."""
        outputs = list(outputs) or [f"v{len(self._nodes)}"]
        self._nodes.append(helper.make_node(op, list(inputs), outputs, domain=domain, **attributes))
        return outputs[0]

    def input(self, name: str, kind: int, shape: Sequence[int | str]) -> str:
        """Declare an input."""
        self._inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def output(self, name: str, kind: int, shape: Sequence[int | str]) -> str:
        """Declare an output; a node must produce it under this name."""
        self._outputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def model(self, name: str, metadata: dict[str, str] | None = None) -> onnx.ModelProto:
        """The finished model."""
        model = helper.make_model(
            helper.make_graph(self._nodes, name, self._inputs, self._outputs, self._weights),
            opset_imports=[helper.make_opsetid("", _OPSET), helper.make_opsetid("com.microsoft", 1)],
            ir_version=10,
            producer_name="rdrec",
        )
        helper.set_model_props(model, metadata or {})
        return model


class T5Writer:
    """Writes the layers of rdrec_core/t5.py into a graph, with the runtime's fused operators."""

    def __init__(self, graph: GraphWriter, model: RDRecModel) -> None:
        self.graph = graph
        self.config = model.config.t5
        self._head_shape = graph.constant(np.array([0, 0, self.config.num_heads, self.config.d_kv]))

    def linear(self, x: str, *layers: nn.Linear) -> str:
        """One product for all the layers, outputs side by side."""
        return self.graph.call("MatMul", x, self.graph.weight(torch.cat([layer.weight for layer in layers]).T))

    def heads(self, x: str) -> str:
        """(B, T, H d_kv) -> (B, H, T, d_kv)."""
        return self.graph.call("Transpose", self.graph.call("Reshape", x, self._head_shape), perm=[0, 2, 1, 3])

    def norm(self, x: str, norm: RMSNorm) -> str:
        """RMS norm."""
        return self.graph.call(
            "SimplifiedLayerNormalization", x, self.graph.weight(norm.weight), axis=-1, epsilon=norm.epsilon
        )

    def add_and_norm(self, x: str, branch: str, norm: RMSNorm) -> tuple[str, str]:
        """x + branch, normed, and itself."""
        total = f"{branch}.sum"
        normed = self.graph.call(
            "SkipSimplifiedLayerNormalization", x, branch, self.graph.weight(norm.weight),
            outputs=[f"{branch}.norm", "", "", total], domain="com.microsoft", epsilon=norm.epsilon,
        )  # fmt: skip
        return normed, total

    def attend(self, query: str, key: str, value: str, bias: str) -> str:
        """Queries (B, T, H d_kv), keys and values (B, H, T_kv, d_kv), bias (B, H, T, T_kv) -> (B, T, H d_kv)."""
        return self.graph.call(
            "MultiHeadAttention", query, key, value, "", "", bias,
            domain="com.microsoft", num_heads=self.config.num_heads, scale=1.0,
        )  # fmt: skip

    def query_key_value(self, x: str, attention: Attention) -> tuple[str, str, str]:
        """Queries (B, T, H d_kv), keys and values (B, H, T, d_kv)."""
        joined = self.linear(x, attention.q, attention.k, attention.v)
        parts = [f"{joined}.q", f"{joined}.k", f"{joined}.v"]
        self.graph.call("Split", joined, outputs=parts, axis=-1, num_outputs=3)
        return parts[0], self.heads(parts[1]), self.heads(parts[2])

    def feed_forward(self, x: str, ff: FeedForward) -> str:
        """ReLU or gated GELU."""
        inner = self.linear(x, ff.wi)
        if ff.gate is None:
            inner = self.graph.call("Relu", inner)
        else:
            inner = self.graph.call("Mul", self.graph.call("Gelu", inner, approximate="tanh"), self.linear(x, ff.gate))
        return self.linear(inner, ff.wo)

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
        return self.graph.call("Gather", self.graph.weight(by_distance), place, axis=1)

    def mask_bias(self, mask: str) -> str:
        """True -> 0, False -> a number that no softmax sees."""
        zero, masked = self.graph.constant(np.float32(0)), self.graph.constant(np.float32(_MASKED))
        return self.graph.call("Where", mask, zero, masked)

    def unsqueeze(self, x: str, *axes: int) -> str:
        """Insert axes."""
        return self.graph.call("Unsqueeze", x, self.graph.constant(np.array(axes)))

    def size(self, x: str, axis: int) -> str:
        """Size along an axis, (1,) int64."""
        return self.graph.call("Shape", x, start=axis, end=axis + 1)


def encoder_graph(model: RDRecModel) -> onnx.ModelProto:
    """Sources (B, S) -> source_bias (B, 1, 1, P + S) and cross.<layer>.key/value (B, H, P + S, d_kv)."""
    graph = GraphWriter()
    write, config, t5 = T5Writer(graph, model), model.config.t5, model.t5
    tokens = graph.input("token_ids", TensorProto.INT64, ["B", "S"])
    whole = graph.input("whole_word_ids", TensorProto.INT64, ["B", "S"])
    mask = graph.input("mask", TensorProto.BOOL, ["B", "S"])
    tasks = graph.input("tasks", TensorProto.INT64, ["B"])
    if config.causal_encoder:  # it does not see the EOS (ADR 2)
        eos = graph.call("Equal", tokens, graph.constant(np.int64(config.eos_token_id)))
        mask = graph.call("And", mask, graph.call("Not", eos))
    words = graph.call(
        "Add",
        graph.call("Gather", graph.weight(t5.shared.weight), tokens),
        graph.call("Gather", graph.weight(model.whole_words.weight), whole),
    )
    x = graph.call("Concat", graph.call("Gather", graph.weight(model.prompts), tasks), words, axis=1)
    prompt_width = graph.constant(np.array([model.config.prompt_length]))
    seen = graph.call("Expand", graph.constant(np.array([[True]])), graph.call(
        "Concat", write.size(tokens, 0), prompt_width, axis=0
    ))  # fmt: skip
    full_mask = graph.call("Concat", seen, mask, axis=1)
    graph.output("source_bias", TensorProto.FLOAT, ["B", 1, 1, "PS"])
    zero_axis = graph.constant(np.array([1, 2]))
    source_bias = graph.call("Unsqueeze", write.mask_bias(full_mask), zero_axis, outputs=["source_bias"])
    length = graph.call("Squeeze", write.size(x, 1), graph.constant(np.array([0])))
    places = graph.call("Range", graph.constant(np.int64(0)), length, graph.constant(np.int64(1)))
    distances = graph.call("Sub", write.unsqueeze(places, 0), write.unsqueeze(places, 1))
    by_distance = write.unsqueeze(write.distance_bias(t5.encoder_bias, distances, bidirectional=True), 0)
    visible = source_bias
    if config.causal_encoder:
        earlier = graph.call("LessOrEqual", distances, graph.constant(np.int64(0)))
        visible = graph.call("Add", visible, write.mask_bias(earlier))
    bias = graph.call("Add", by_distance, visible)
    blocks: list[Block] = list(t5.encoder)  # type: ignore[arg-type]
    normed = write.norm(x, blocks[0].self_norm)
    for index, block in enumerate(blocks):
        attended = write.attend(*write.query_key_value(normed, block.self_attention), bias)
        normed, x = write.add_and_norm(x, write.linear(attended, block.self_attention.o), block.ff_norm)
        after = blocks[index + 1].self_norm if index + 1 < len(blocks) else t5.encoder_norm
        normed, x = write.add_and_norm(x, write.feed_forward(normed, block.ff), after)
    decoder: list[Block] = list(t5.decoder)  # type: ignore[arg-type]
    for index, block in enumerate(decoder):
        for kind, layer in (("key", block.cross_attention.k), ("value", block.cross_attention.v)):
            name = graph.output(f"cross.{index}.{kind}", TensorProto.FLOAT, ["B", config.num_heads, "PS", config.d_kv])
            graph.call("Identity", write.heads(write.linear(normed, layer)), outputs=[name])
    return graph.model("text_encoder")


def step_graph(model: RDRecModel, rows: IntArray) -> onnx.ModelProto:
    """One token of every beam: tokens (B, W) as columns -> log_probs, columns (B, W, C) and the grown keys and values.

    ancestors (B, W, P + W) says which slots a beam attends to, distances (P + W,) how many steps ago each was written,
    n_candidates (1,) is C.
    """
    graph = GraphWriter()
    write, config, t5 = T5Writer(graph, model), model.config.t5, model.t5
    heads = config.num_heads
    tokens = graph.input("tokens", TensorProto.INT64, ["B", "W"])
    ancestors = graph.input("ancestors", TensorProto.BOOL, ["B", "W", "PW"])
    distances = graph.input("distances", TensorProto.INT64, ["PW"])
    n_candidates = graph.input("n_candidates", TensorProto.INT64, [1])
    source_bias = graph.input("source_bias", TensorProto.FLOAT, ["B", 1, 1, "PS"])
    graph.output("log_probs", TensorProto.FLOAT, ["B", "W", "C"])
    graph.output("columns", TensorProto.INT64, ["B", "W", "C"])

    by_distance = write.distance_bias(t5.decoder_bias, graph.call("Neg", distances), bidirectional=False)
    bias = graph.call("Add", write.unsqueeze(by_distance, 0, 2), write.mask_bias(write.unsqueeze(ancestors, 1)))
    one = graph.constant(np.array([1]))
    beams = graph.call("Concat", one, one, write.size(tokens, 1), one, axis=0)
    cross_bias = graph.call("Expand", source_bias, beams)

    start_and_rows = torch.from_numpy(np.append(rows, config.pad_token_id)).to(t5.shared.weight.device)
    x = graph.call("Gather", graph.weight(t5.shared.weight[start_and_rows]), tokens)
    blocks: list[Block] = list(t5.decoder)  # type: ignore[arg-type]
    normed = write.norm(x, blocks[0].self_norm)
    for index, block in enumerate(blocks):
        query, *new = write.query_key_value(normed, block.self_attention)
        memory = []
        for kind, value in zip(("key", "value"), new, strict=True):
            past = graph.input(f"past.{index}.{kind}", TensorProto.FLOAT, ["B", heads, "P", config.d_kv])
            present = graph.output(f"present.{index}.{kind}", TensorProto.FLOAT, ["B", heads, "PW", config.d_kv])
            memory.append(graph.call("Concat", past, value, outputs=[present], axis=2))
        attended = write.linear(write.attend(query, memory[0], memory[1], bias), block.self_attention.o)
        normed, x = write.add_and_norm(x, attended, block.cross_norm)
        cross = [
            graph.input(f"cross.{index}.{kind}", TensorProto.FLOAT, ["B", heads, "PS", config.d_kv])
            for kind in ("key", "value")
        ]
        attended = write.attend(write.linear(normed, block.cross_attention.q), cross[0], cross[1], cross_bias)
        normed, x = write.add_and_norm(x, write.linear(attended, block.cross_attention.o), block.ff_norm)
        after = blocks[index + 1].self_norm if index + 1 < len(blocks) else t5.decoder_norm
        normed, x = write.add_and_norm(x, write.feed_forward(normed, block.ff), after)
    output = t5.output_rows(start_and_rows[:-1])
    log_probs = graph.call("LogSoftmax", graph.call("MatMul", normed, graph.weight(output.T)), axis=-1)
    graph.call("TopK", log_probs, n_candidates, outputs=["log_probs", "columns"], axis=-1)
    eos = int(np.flatnonzero(rows == config.eos_token_id)[0])
    return graph.model("text_step", {"pad_token_id": str(config.pad_token_id), "eos_column": str(eos)})
