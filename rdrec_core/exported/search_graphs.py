"""The ranking graphs: source tokens in, ranked leaves out, one graph a task. Needs torch and onnx.

    <mode>.beam.onnx    encoder + constrained beam search
    <mode>.exact.onnx   encoder + scores of all items + the best eligible ones
    <mode>.score.onnx   encoder + scores of the request's candidates
    <mode>.<one of them>.float16.onnx   the same in half precision, for GPUs
    saturation.onnx     8-bit only: one product that shows whether a processor adds without loss

The trie's arrays and the embedding table are inputs, so a catalogue changes without a new graph, also by items that it
did not have. What a graph fixes: how many levels of states a trie may have at most, and how many tokens an edge between
states.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from rdrec_core.decoding.beam_search import BeamSearch, Eligibility
from rdrec_core.decoding.candidate_scoring import CandidateScoring, PathTensors
from rdrec_core.decoding.item_trie import TrieStates
from rdrec_core.decoding.tensor_ops import TrieTensors
from rdrec_core.engines.onnx_engine import SATURATION_WIDTH
from rdrec_core.exported.graph_writer import GraphWriter
from rdrec_core.exported.onnx_network import OnnxNetwork
from rdrec_core.exported.onnx_ops import KINDS, OnnxOps, Value
from rdrec_core.exported.t5_graph import HalfT5Writer, QuantizedT5Writer, T5Writer
from rdrec_core.model import RDRecModel
from rdrec_core.types import ScoreMode

SPARE_LEVELS = 1
"""Levels of states beyond those of the trie at export, so that new items may be deeper. Unused ones cost nothing."""


class _Graph:
    """The inputs that every ranking graph has, and the network over them."""

    def __init__(self, model: RDRecModel, states: TrieStates, mode: ScoreMode, half: bool) -> None:
        self.writer = GraphWriter()
        self.ops = OnnxOps(self.writer)
        self.full = mode is ScoreMode.FULL
        self.levels = states.n_levels + SPARE_LEVELS
        self.chain = states.tokens.shape[1]
        width = model.config.t5.d_model
        layers = QuantizedT5Writer if mode is ScoreMode.TRIE_INT8 else HalfT5Writer if half else T5Writer
        table = self.input("table", layers.kind, "V", width)
        column_rows = self.input("trie.column_rows", layers.kind, "T", width)
        self.network = OnnxNetwork(self.ops, model, table, column_rows, layers)
        self.memory = self.network.encode(
            self.input("token_ids", "int", "B", "S"),
            self.input("whole_word_ids", "int", "B", "S"),
            self.input("mask", "bool", "B", "S"),
            self.input("tasks", "int", "B"),
        )
        self.batch = self.ops.size(Value(self.writer, "token_ids", "int"), 0)

    def input(self, name: str, kind: str, *shape: str | int) -> Value:
        return Value(self.writer, self.writer.input(name, KINDS[kind], shape), kind)

    def sizes(self, name: str) -> tuple[Value, ...]:
        """A vector input as one (1,) size a level."""
        vector = self.input(name, "int", self.levels)
        return tuple(self.ops.take(vector, self.ops.full_index([1], level)) for level in range(self.levels))

    def edges(self) -> dict[str, Value]:
        """The arrays that scoring reads."""
        return {
            "edge_start": self.input("trie.edge_start", "int32", "K1"),
            "edge_column": self.input("trie.edge_column", "int32", "E"),
        }

    def finished(self, **outputs: Value) -> onnx.ModelProto:
        for name, value in outputs.items():
            self.writer.output(name, KINDS[value.kind], ["B", f"{name}.size"])
            self.writer.call("Identity", value.name, outputs=[name])
        metadata = {"levels": str(self.levels), "chain": str(self.chain)}
        return self.writer.model("rank", metadata)


def beam_graph(model: RDRecModel, states: TrieStates, mode: ScoreMode, *, half: bool = False) -> onnx.ModelProto:
    """Inputs: sources, trie arrays, `BeamArrays`. Outputs scores and leaves (B, W)."""
    graph = _Graph(model, states, mode, half)
    trie = TrieTensors(
        **graph.edges(),
        inner_edges=graph.input("trie.inner_edges", "int32", "K"),
        edge_target=graph.input("trie.edge_target", "int32", "E"),
        edge_alive=graph.input("trie.edge_alive", "bool", "E"),
        position=graph.input("trie.position", "int32", "K"),
        length=graph.input("trie.length", "int32", "K"),
        tokens=graph.input("trie.tokens", "int32", "K", graph.chain),
        root_tokens=graph.input("trie.root_tokens", "int", "R"),
        fanout=graph.sizes("trie.fanout"),
        inner_fanout=graph.sizes("trie.inner_fanout"),
        chain=graph.chain,
    )
    eligibility = Eligibility(
        graph.input("allowed_by_default", "float", "B", 1),
        graph.input("state", "int", "B", "X"),
        graph.input("offset", "int", "B", "X"),
    )
    search = BeamSearch(graph.ops, graph.network, trie, full=graph.full)
    n_items = graph.input("n_items", "int", "B", 1)
    scores, leaves = search(graph.memory, eligibility, n_items, graph.input("beam_width", "int", 1))
    return graph.finished(scores=scores, leaves=leaves)


def _paths(graph: _Graph, batch: str | int) -> PathTensors:
    return PathTensors(
        tokens=graph.input("paths.tokens", "int", batch, "Q"),
        positions=graph.input("paths.positions", "int", batch, "Q"),
        slot_mask=graph.input("paths.slot_mask", "bool", batch, "Q", "Q"),
        state=graph.input("paths.state", "int", batch, "KP"),
        state_slot=graph.input("paths.state_slot", "int", batch, "KP"),
        steps=graph.input("paths.steps", "int", batch, "C", "L"),
    )


def _scoring(graph: _Graph) -> CandidateScoring:
    edges = graph.edges() if not graph.full else dict.fromkeys(("edge_start", "edge_column"))
    unused = dict.fromkeys(("inner_edges", "edge_target", "edge_alive", "position", "length", "tokens", "root_tokens"))
    trie = TrieTensors(**edges, **unused, fanout=(), inner_fanout=(), chain=graph.chain)
    widest = graph.input("trie.widest", "int", 1) if not graph.full else 1
    return CandidateScoring(graph.ops, graph.network, trie, widest=widest, full=graph.full)


def score_graph(model: RDRecModel, states: TrieStates, mode: ScoreMode, *, half: bool = False) -> onnx.ModelProto:
    """Inputs: sources, `Paths` of a batch, trie arrays. Output scores (B, C)."""
    graph = _Graph(model, states, mode, half)
    scores = _scoring(graph)(graph.memory, graph.batch, _paths(graph, "B"))
    return graph.finished(scores=scores)


def exact_graph(model: RDRecModel, states: TrieStates, mode: ScoreMode, *, half: bool = False) -> onnx.ModelProto:
    """Inputs: sources, `Paths` of the whole catalogue once, `ExactArrays`. Outputs: (B, n) twice and (B, A)."""
    graph = _Graph(model, states, mode, half)
    scores, leaves, also = _scoring(graph).best(
        graph.memory,
        graph.batch,
        _paths(graph, 1),
        graph.input("allowed_by_default", "float", "B", 1),
        graph.input("exceptions", "int", "B", "X"),
        graph.input("leaf_alive", "bool", "C"),
        graph.input("n_items", "int", 1),
        graph.input("also", "int", "B", "A"),
    )
    return graph.finished(scores=scores, leaves=leaves, also_scores=also)


def saturation_graph() -> onnx.ModelProto:
    """x (1, K) uint8 -> sums (1, N): x times weights that are all 127, which kernels that add in 16 bits get wrong.

    It stands beside the 8-bit graphs, so that an engine can ask its processor before it trusts it.
    """
    writer = GraphWriter()
    x = writer.input("x", onnx.TensorProto.UINT8, [1, SATURATION_WIDTH])
    weight = writer.constant(np.full((SATURATION_WIDTH, 64), 127, dtype=np.int8))
    writer.output("sums", onnx.TensorProto.INT32, [1, 64])
    writer.call("MatMulInteger", x, weight, outputs=["sums"])
    return writer.model("saturation")


GRAPHS: dict[str, Callable[..., onnx.ModelProto]] = {
    "beam": beam_graph,
    "exact": exact_graph,
    "score": score_graph,
}
"""Of (model, states, mode); half=True for float16."""
