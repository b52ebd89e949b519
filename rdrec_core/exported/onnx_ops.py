"""`TensorOps` that records a graph instead of computing: each call adds ONNX nodes. See tensor_ops.py for the contract.

A `Value` is the name of a tensor that will exist when the graph runs; a size is a Value of shape (1,) or an int.
Needs onnx.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from rdrec_core.exported.graph_writer import GraphWriter

KINDS = {
    "float": TensorProto.FLOAT,
    "half": TensorProto.FLOAT16,
    "int": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "bool": TensorProto.BOOL,
}
_DTYPES = {"float": np.float32, "int": np.int64, "bool": np.bool_}


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the graph."""

    graph: GraphWriter
    name: str
    kind: str
    """A key of KINDS."""

    def _other(self, other: Value | float) -> str:
        if isinstance(other, Value):
            return other.name
        return self.graph.constant(np.asarray(other, dtype=_DTYPES[self.kind]))

    def _binary(self, op: str, other: Value | float, kind: str | None = None) -> Value:
        return Value(self.graph, self.graph.call(op, self.name, self._other(other)), kind or self.kind)

    def __add__(self, other: Value | float) -> Value:
        return self._binary("Add", other)

    __radd__ = __add__

    def __sub__(self, other: Value | float) -> Value:
        return self._binary("Sub", other)

    def __rsub__(self, other: float) -> Value:
        return Value(self.graph, self.graph.call("Sub", self._other(other), self.name), self.kind)

    def __mul__(self, other: Value | float) -> Value:
        return self._binary("Mul", other)

    __rmul__ = __mul__

    def __floordiv__(self, other: Value | float) -> Value:
        return self._binary("Div", other)  # indices are not negative, so truncation is the floor

    def __mod__(self, other: Value | float) -> Value:
        return self._binary("Mod", other)

    def __lt__(self, other: Value | float) -> Value:
        return self._binary("Less", other, "bool")

    def __le__(self, other: Value | float) -> Value:
        return self._binary("LessOrEqual", other, "bool")

    def __gt__(self, other: Value | float) -> Value:
        return self._binary("Greater", other, "bool")

    def __ge__(self, other: Value | float) -> Value:
        return self._binary("GreaterOrEqual", other, "bool")

    def __eq__(self, other: object) -> Value:  # type: ignore[override]
        assert isinstance(other, Value | int | float)
        return self._binary("Equal", other, "bool")

    def __and__(self, other: Value) -> Value:
        return self._binary("And", other)

    def __invert__(self) -> Value:
        return Value(self.graph, self.graph.call("Not", self.name), "bool")


Size = Value | int


class OnnxOps:
    """Records; one instance a graph."""

    def __init__(self, graph: GraphWriter) -> None:
        self.graph = graph

    def _call(self, kind: str, op: str, *inputs: str, **attributes: Any) -> Value:
        return Value(self.graph, self.graph.call(op, *inputs, **attributes), kind)

    def _index(self, *values: int) -> str:
        return self.graph.constant(np.asarray(values, dtype=np.int64))

    def _one(self, n: Size) -> str:
        """A size as a (1,) tensor."""
        return n.name if isinstance(n, Value) else self._index(n)

    def _shape(self, sizes: Sequence[Size]) -> str:
        if not any(isinstance(size, Value) for size in sizes):
            return self._index(*(size for size in sizes if isinstance(size, int)))
        return self.graph.call("Concat", *(self._one(size) for size in sizes), axis=0)

    def size(self, x: Value, axis: int) -> Value:
        return self._call("int", "Shape", x.name, start=axis, end=axis + 1)

    def arange(self, n: Size) -> Value:
        zero, one = self.graph.constant(np.int64(0)), self.graph.constant(np.int64(1))
        return self._call("int", "Range", zero, self.graph.call("Squeeze", self._one(n), self._index(0)), one)

    def full(self, sizes: Sequence[Size], value: float) -> Value:
        return self._call("float", "Expand", self.graph.constant(np.float32(value)), self._shape(sizes))

    def full_index(self, sizes: Sequence[Size], value: int) -> Value:
        return self._call("int", "Expand", self.graph.constant(np.int64(value)), self._shape(sizes))

    def reshape(self, x: Value, sizes: Sequence[Size]) -> Value:
        return self._call(x.kind, "Reshape", x.name, self._shape(sizes), allowzero=1)

    def unsqueeze(self, x: Value, axis: int) -> Value:
        return self._call(x.kind, "Unsqueeze", x.name, self._index(axis))

    def expand(self, x: Value, sizes: Sequence[Size]) -> Value:
        return self._call(x.kind, "Expand", x.name, self._shape(sizes))

    def concat(self, parts: Sequence[Value], axis: int) -> Value:
        return self._call(parts[0].kind, "Concat", *(part.name for part in parts), axis=axis)

    def head(self, x: Value, n: Size, axis: int) -> Value:
        return self._call(x.kind, "Slice", x.name, self._index(0), self._one(n), self._index(axis))

    def take(self, table: Value, index: Value) -> Value:
        taken = self._call(table.kind, "Gather", table.name, index.name, axis=0)
        return self._call("int", "Cast", taken.name, to=TensorProto.INT64) if table.kind == "int32" else taken

    def take_along(self, x: Value, index: Value) -> Value:
        return self._call(x.kind, "GatherElements", x.name, index.name, axis=-1)

    def take_rows(self, x: Value, index: Value) -> Value:
        return self._call(x.kind, "GatherND", x.name, self.unsqueeze(index, 2).name, batch_dims=1)

    def scatter(self, x: Value, index: Value, values: Value) -> Value:
        return self._call(x.kind, "ScatterElements", x.name, index.name, values.name, axis=1)

    def topk(self, x: Value, k: Size) -> tuple[Value, Value]:
        names = self.graph.names("top", 2)
        self.graph.call("TopK", x.name, self._one(k), outputs=names, axis=-1)
        return Value(self.graph, names[0], x.kind), Value(self.graph, names[1], "int")

    def where(self, condition: Value, a: Value | float, b: Value | float) -> Value:
        pattern = a if isinstance(a, Value) else b
        assert isinstance(pattern, Value)
        return self._call(pattern.kind, "Where", condition.name, pattern._other(a), pattern._other(b))

    def minimum(self, a: Size, b: Size) -> Size:
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        return self._call("int", "Min", *(x.name if isinstance(x, Value) else self._index(x) for x in (a, b)))

    def largest(self, x: Value) -> Value:
        return self._call(x.kind, "ReduceMax", x.name, self._index(-1), keepdims=0)

    def sum(self, x: Value) -> Value:
        return self._call(x.kind, "ReduceSum", x.name, self._index(-1), keepdims=0)

    def logsumexp(self, x: Value) -> Value:
        # x - log_softmax(x) is the same number for every finite x; the fused operator is several times faster than
        # ReduceLogSumExp
        return self.head(x, 1, -1) - self.head(self._call("float", "LogSoftmax", x.name, axis=-1), 1, -1)

    def count_columns(self, mask: Value) -> Value:
        counts = self._call("int", "ReduceSum", self._integer(mask).name, self._index(-1), keepdims=0)
        return self._call("int", "ReduceMax", counts.name, self._index(0), keepdims=1)

    def _integer(self, mask: Value) -> Value:
        return self._call("int", "Cast", mask.name, to=TensorProto.INT64)

    def unless_zero(
        self, n: Value, then: Callable[[], tuple[Value, Value]], otherwise: Callable[[], tuple[Value, Value]]
    ) -> tuple[Value, Value]:
        names = self.graph.names("chosen", 2)

        def branch(write: Callable[[], tuple[Value, Value]]) -> onnx.GraphProto:
            return self.graph.branch(lambda: [(KINDS[value.kind], value.name) for value in write()])

        branches = {"then_branch": branch(then), "else_branch": branch(otherwise)}
        self.graph.call("If", (n > 0).name, outputs=names, **branches)
        return Value(self.graph, names[0], "float"), Value(self.graph, names[1], "int")
