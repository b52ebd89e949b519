"""The text graphs: RDRecModel as the ONNX models that `onnx_text.py` runs.

They are written node by node rather than traced, so that they hold what a search over beams needs and nothing else:
one product for q, k and v, cross-attention keys and values from the encoder graph (one a request, not one a beam),
the text vocabulary's rows of both embeddings only, log-softmax and the choice of candidates inside. Needs torch and
onnx.
"""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import TensorProto

from rdrec_core.exported.graph_writer import GraphWriter
from rdrec_core.exported.t5_graph import KeyValueNames, QuantizedT5Writer, T5Writer
from rdrec_core.model import RDRecModel
from rdrec_core.types import IntArray

_KINDS = ("key", "value")


def encoder_graph(model: RDRecModel) -> onnx.ModelProto:
    """Sources (B, S) -> source_bias (B, 1, 1, P + S) and cross.<layer>.key/value (B, H, P + S, d_kv)."""
    graph, config = GraphWriter(), model.config.t5
    tokens = graph.input("token_ids", TensorProto.INT64, ["B", "S"])
    whole = graph.input("whole_word_ids", TensorProto.INT64, ["B", "S"])
    mask = graph.input("mask", TensorProto.BOOL, ["B", "S"])
    tasks = graph.input("tasks", TensorProto.INT64, ["B"])
    cross, source_bias = T5Writer(graph, model).sources(model, tokens, whole, mask, tasks)
    graph.output("source_bias", TensorProto.FLOAT, ["B", 1, 1, "PS"])
    graph.call("Identity", source_bias, outputs=["source_bias"])
    for index, pair in enumerate(cross):
        for kind, value in zip(_KINDS, pair, strict=True):
            name = f"cross.{index}.{kind}"
            graph.output(name, TensorProto.FLOAT, ["B", config.num_heads, "PS", config.d_kv])
            graph.call("Identity", value, outputs=[name])
    return graph.model("text_encoder")


def step_graph(model: RDRecModel, rows: IntArray, *, int8: bool = False) -> onnx.ModelProto:
    """One token of every beam: tokens (B, W) as columns -> log_probs, columns (B, W, C) and grown keys and values.

    kept (B, K): which of all past slots (B' * P of them) are carried on. ancestors (B, W, K + W) says which slots a
    beam attends to, distances (B, K + W) how many steps ago each was written, n_candidates (1,) is C. int8: products in
    8 bits.
    """
    graph = GraphWriter()
    write = (QuantizedT5Writer if int8 else T5Writer)(graph, model)
    config, t5 = model.config.t5, model.t5
    tokens = graph.input("tokens", TensorProto.INT64, ["B", "W"])
    kept = graph.input("kept", TensorProto.INT64, ["B", "K"])
    ancestors = graph.input("ancestors", TensorProto.BOOL, ["B", "W", "KW"])
    distances = graph.input("distances", TensorProto.INT64, ["B", "KW"])
    n_candidates = graph.input("n_candidates", TensorProto.INT64, [1])
    source_bias = graph.input("source_bias", TensorProto.FLOAT, ["B", 1, 1, "PS"])
    graph.output("log_probs", TensorProto.FLOAT, ["B", "W", "C"])
    graph.output("columns", TensorProto.INT64, ["B", "W", "C"])

    layers = range(config.num_decoder_layers)

    inner = config.num_heads * config.d_kv

    def key_value_input(layer: int, name: str, shape: list[int | str]) -> KeyValueNames:
        key, value = (graph.input(f"{name}.{layer}.{kind}", TensorProto.FLOAT, shape) for kind in _KINDS)
        return key, value

    by_distance = write.distance_bias(t5.decoder_bias, graph.call("Neg", distances), bidirectional=False)
    by_distance = write.unsqueeze(graph.call("Transpose", by_distance, perm=[1, 0, 2]), 2)
    bias = graph.call("Add", by_distance, write.mask_bias(write.unsqueeze(ancestors, 1)))
    one = graph.constant(np.array([1]))
    beams = graph.call("Concat", one, one, write.size(tokens, 1), one, axis=0)
    cross_bias = graph.call("Expand", source_bias, beams)

    start_and_rows = torch.from_numpy(np.append(rows, config.pad_token_id)).to(t5.shared.weight.device)
    x = graph.call("Gather", write.weight(t5.shared.weight[start_and_rows]), tokens)
    past = [key_value_input(layer, "past", ["B'", "P", inner]) for layer in layers]
    cross = [key_value_input(layer, "cross", ["B", config.num_heads, "PS", config.d_kv]) for layer in layers]
    hidden, present = write.decoder(t5, x, bias, cross, cross_bias, past, kept)
    for value in (value for pair in present for value in pair):  # no names of their own: renaming would copy them
        graph.output(value, TensorProto.FLOAT, ["B", "KW", inner])
    logits = write.product(hidden, t5.output_rows(start_and_rows[:-1]))
    log_probs = graph.call("LogSoftmax", logits, axis=-1)
    graph.call("TopK", log_probs, n_candidates, outputs=["log_probs", "columns"], axis=-1)
    eos = int(np.flatnonzero(rows == config.eos_token_id)[0])
    return graph.model("text_step", {"pad_token_id": str(config.pad_token_id), "eos_column": str(eos)})
