"""Searches of fixed shape, recorded once as CUDA graphs and replayed: a launch for a whole search, not one a kernel.

A graph fixes every shape, so `FixedShapeOps` keeps beams that can win nothing more instead of dropping them, which
changes no answer, and the engine rounds the sizes of its arrays up so that few shapes occur. Without CUDA the same
calls run unrecorded. Knows functions of tensors, not what they search.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rdrec_core.eager.torch_ops import TorchOps

_MOST_GRAPHS = 64
_WARM_UPS = 3

Function = Callable[..., Sequence[Tensor]]
"""Of a list of tensors and of sizes."""


class FixedShapeOps(TorchOps):
    """`TorchOps` whose shapes follow from the inputs' shapes alone, and that never waits for the device."""

    def count_columns(self, mask: Tensor) -> int:
        return mask.shape[-1]


class GraphCache:
    """Recorded graphs by function, sizes and shapes; those used longest ago go first. Not for several threads."""

    def __init__(self, *, records: bool) -> None:
        """records: needs a CUDA device; False calls the functions as they are."""
        self._records = records
        self._graphs: OrderedDict[tuple[object, ...], _Recorded] = OrderedDict()

    def __call__(self, function: Function, tensors: Sequence[Tensor], *sizes: int) -> Sequence[Tensor]:
        """function(tensors, *sizes); the result is overwritten by the next call."""
        if not self._records:
            return function(tensors, *sizes)
        key = (function, sizes, *((tensor.shape, tensor.dtype) for tensor in tensors))
        if key not in self._graphs:
            self._graphs[key] = _Recorded(function, tensors, sizes)
            if len(self._graphs) > _MOST_GRAPHS:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(key)
        return self._graphs[key](tensors)


class _Recorded:
    """One graph with the tensors that it reads and writes."""

    def __init__(self, function: Function, tensors: Sequence[Tensor], sizes: Sequence[int]) -> None:
        self._inputs = [tensor.clone() for tensor in tensors]
        # libraries allocate on their first calls, which may not be recorded
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                function(self._inputs, *sizes)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs = function(self._inputs, *sizes)

    def __call__(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        for mine, given in zip(self._inputs, tensors, strict=True):
            mine.copy_(given)
        self._graph.replay()
        return self._outputs
