"""Collects the nodes of one ONNX graph. Knows the format, neither T5 nor what a graph is for. Needs onnx."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

_OPSET = 20


class GraphWriter:
    """Collects nodes, weights, inputs and outputs; values are named by the writer.

    Equal constants are stored once, and a condition's branches are written by it too.
    """

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._count = 0

    def constant(self, array: npt.ArrayLike) -> str:
        """A weight or another constant; an equal one that was given before is used again."""
        values = np.asarray(array)
        key = (values.dtype.str, values.shape, hashlib.sha256(values.tobytes()).digest())
        if key not in self._known:
            self._known[key] = f"w{len(self._weights)}"
            self._weights.append(numpy_helper.from_array(values, self._known[key]))
        return self._known[key]

    def names(self, prefix: str, n: int) -> list[str]:
        """Unused names for the outputs of a node that has several."""
        self._count += 1
        return [f"{prefix}{self._count}.{place}" for place in range(n)]

    def call(self, op: str, *inputs: str, outputs: Sequence[str] = (), domain: str = "", **attributes: Any) -> str:
        """Add a node; returns its first output, whose name is unique over all branches unless outputs are given."""
        self._count += 1
        outputs = list(outputs) or [f"n{self._count}"]
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

    def branch(self, write: Callable[[], Sequence[tuple[int, str]]]) -> onnx.GraphProto:
        """A graph attribute: the nodes that `write` adds, giving the values (kind, name) that it returns."""
        outer, self._nodes = self._nodes, []
        # a branch may not hand through an outer value, and may give one value only once
        results = [(kind, self.call("Identity", name)) for kind, name in write()]
        nodes, self._nodes = self._nodes, outer
        infos = [helper.make_tensor_value_info(name, kind, None) for kind, name in results]
        return helper.make_graph(nodes, self.names("branch", 1)[0], [], infos)

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
