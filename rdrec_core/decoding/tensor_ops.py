"""The tensor operations and the network that a search is written with: one search, two ways to run it.

`TorchOps`/`TorchNetwork` execute at once; `OnnxOps`/`OnnxNetwork` record the same calls as nodes of a graph. A tensor
is whatever the implementation takes (torch.Tensor or a graph value) and understands + - * // % < <= >= == & and ~.
B batch, W beam, Q new slots, P past slots, T columns of the trie, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Tensor = Any
Size = Any
"""An int, or a graph's scalar where the size is only known when it runs."""


class TensorOps(Protocol):
    """Pure functions of tensors. Indices are int64; reductions are over the last axis."""

    def size(self, x: Tensor, axis: int) -> Size: ...
    def arange(self, n: Size) -> Tensor: ...
    def full(self, sizes: Sequence[Size], value: float) -> Tensor: ...
    def full_index(self, sizes: Sequence[Size], value: int) -> Tensor: ...
    def reshape(self, x: Tensor, sizes: Sequence[Size]) -> Tensor: ...
    def unsqueeze(self, x: Tensor, axis: int) -> Tensor: ...
    def expand(self, x: Tensor, sizes: Sequence[Size]) -> Tensor: ...
    def concat(self, parts: Sequence[Tensor], axis: int) -> Tensor: ...
    def head(self, x: Tensor, n: Size, axis: int) -> Tensor:
        """The first n along an axis."""
        ...

    def take(self, table: Tensor, index: Tensor) -> Tensor:
        """table[index] along axis 0; integer results are int64."""
        ...

    def take_along(self, x: Tensor, index: Tensor) -> Tensor:
        """x[..., index] with equal leading sizes: one look-up a position of `index`, along the last axis."""
        ...

    def take_rows(self, x: Tensor, index: Tensor) -> Tensor:
        """Rows of each batch: x (B, Q, D), index (B, W) -> (B, W, D)."""
        ...

    def scatter(self, x: Tensor, index: Tensor, values: Tensor) -> Tensor:
        """x with x[b, index[b, j]] = values[b, j]; all (B, ...)."""
        ...

    def topk(self, x: Tensor, k: Size) -> tuple[Tensor, Tensor]:
        """The k largest of the last axis, in descending order, and where they are."""
        ...

    def where(self, condition: Tensor, a: Tensor | float, b: Tensor | float) -> Tensor: ...
    def minimum(self, a: Size, b: Size) -> Size:
        """The smaller of two sizes, or elementwise."""
        ...

    def largest(self, x: Tensor) -> Tensor:
        """Maximum over the last axis, which goes."""
        ...

    def sum(self, x: Tensor) -> Tensor:
        """Sum over the last axis, which goes."""
        ...

    def logsumexp(self, x: Tensor) -> Tensor:
        """Over the last axis, which stays with size 1; the first number of each row must be finite."""
        ...

    def count_columns(self, mask: Tensor) -> Size:
        """For boolean (B, W) rows that are True up to some column: the longest such run."""
        ...

    def unless_zero(
        self, n: Size, then: Callable[[], tuple[Tensor, Tensor]], otherwise: Callable[[], tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """then() if n > 0 when this runs, else otherwise()."""
        ...


class Network(Protocol):
    """What a search asks of the model. `memory` and `past` are opaque to it."""

    def decode(
        self,
        tokens: Tensor,
        positions: Tensor,
        slot_mask: Tensor,
        memory: Any,
        past: Any,
        past_positions: Tensor | None,
    ) -> tuple[Tensor, Any]:
        """Run new slots. tokens, positions (1 or B, Q), slot_mask (1 or B, Q, P + Q) -> hidden (B, Q, D), new past."""
        ...

    def column_logits(self, hidden: Tensor) -> Tensor:
        """Logits of the trie's columns: (B, Q, D) -> (B, Q, T)."""
        ...

    def vocabulary_logsumexp(self, hidden: Tensor) -> Tensor:
        """(B, Q, D) -> (B, Q, 1), over all V logits."""
        ...


@dataclass(frozen=True)
class TrieTensors:
    """The arrays of `TrieStates` (at one granularity) that a search reads, as tensors; see there for shapes."""

    edge_start: Tensor
    inner_edges: Tensor
    edge_column: Tensor
    edge_target: Tensor
    edge_alive: Tensor
    """(E,) bool: an available item is below the edge."""
    position: Tensor
    length: Tensor
    tokens: Tensor
    root_tokens: Tensor
    fanout: tuple[Size, ...]
    inner_fanout: tuple[Size, ...]
    chain: int
    """M, width of `tokens`."""

    @property
    def n_levels(self) -> int:
        """L."""
        return len(self.fanout)
