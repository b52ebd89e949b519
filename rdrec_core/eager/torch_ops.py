"""`TensorOps` and `Network` executed by torch at once; the reference. See tensor_ops.py for what each must do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rdrec_core.t5 import T5, KeyValue

_ROWS_AT_ONCE = 256
"""Decoder states whose logits over the whole vocabulary are held at a time."""


class TorchOps:
    """Pure functions of torch tensors on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def size(self, x: Tensor, axis: int) -> int:
        return x.shape[axis]

    def arange(self, n: int) -> Tensor:
        return torch.arange(n, device=self.device)

    def full(self, sizes: Sequence[int], value: float) -> Tensor:
        return torch.full(tuple(sizes), value, device=self.device)

    def full_index(self, sizes: Sequence[int], value: int) -> Tensor:
        return torch.full(tuple(sizes), value, dtype=torch.int64, device=self.device)

    def reshape(self, x: Tensor, sizes: Sequence[int]) -> Tensor:
        return x.reshape(tuple(sizes))

    def unsqueeze(self, x: Tensor, axis: int) -> Tensor:
        return x.unsqueeze(axis)

    def expand(self, x: Tensor, sizes: Sequence[int]) -> Tensor:
        return x.expand(tuple(sizes))

    def concat(self, parts: Sequence[Tensor], axis: int) -> Tensor:
        return torch.cat(list(parts), dim=axis)

    def head(self, x: Tensor, n: int, axis: int) -> Tensor:
        return x.narrow(axis, 0, n)

    def take(self, table: Tensor, index: Tensor) -> Tensor:
        taken = table[index]
        return taken.long() if taken.dtype == torch.int32 else taken

    def take_along(self, x: Tensor, index: Tensor) -> Tensor:
        return x.gather(-1, index)

    def take_rows(self, x: Tensor, index: Tensor) -> Tensor:
        return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))

    def scatter(self, x: Tensor, index: Tensor, values: Tensor) -> Tensor:
        return x.scatter(1, index, values)

    def topk(self, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        values, indices = torch.topk(x, k, dim=-1)
        return values, indices

    def where(self, condition: Tensor, a: Tensor | float, b: Tensor | float) -> Tensor:
        return torch.where(condition, a, b)

    def minimum(self, a: Tensor | int, b: int) -> Tensor | int:
        return min(a, b) if isinstance(a, int) else a.clamp(max=b)

    def largest(self, x: Tensor) -> Tensor:
        return x.amax(-1)

    def sum(self, x: Tensor) -> Tensor:
        return x.sum(-1)

    def logsumexp(self, x: Tensor) -> Tensor:
        return torch.logsumexp(x, dim=-1, keepdim=True)

    def count_columns(self, mask: Tensor) -> int:
        return int(mask.sum(-1).max())

    def unless_zero(
        self, n: int, then: Callable[[], tuple[Tensor, Tensor]], otherwise: Callable[[], tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        return then() if n > 0 else otherwise()


Memory = tuple[list[KeyValue], Tensor, Tensor]
"""Cross-attention keys and values of each layer, the source mask (B, S), and what the decoder starts from (B,)."""


class TorchNetwork:
    """The decoder of a T5 and its output layer over a trie's columns (T,)."""

    def __init__(self, t5: T5, columns: Tensor) -> None:
        self._t5 = t5
        self._column_rows = t5.output_rows(columns).detach().T.contiguous()
        self._vocabulary_rows = t5.output_rows().detach().T

    def decode(
        self,
        tokens: Tensor,
        positions: Tensor,
        slot_mask: Tensor,
        memory: Memory,
        past: list[KeyValue] | None,
        past_positions: Tensor | None,
    ) -> tuple[Tensor, list[KeyValue]]:
        cross, source_mask, start = memory
        tokens = torch.where(positions == 0, start[:, None], tokens)
        return self._t5.decode(
            tokens, cross, source_mask,
            positions=positions, slot_mask=slot_mask, past=past, past_positions=past_positions,
        )  # fmt: skip

    def column_logits(self, hidden: Tensor) -> Tensor:
        return (hidden @ self._column_rows.to(hidden.dtype)).float()

    def vocabulary_logsumexp(self, hidden: Tensor) -> Tensor:
        rows = self._vocabulary_rows.to(hidden.dtype)
        flat = hidden.flatten(0, 1)
        parts = [torch.logsumexp((part @ rows).float(), -1, keepdim=True) for part in torch.split(flat, _ROWS_AT_ONCE)]
        return torch.cat(parts).reshape(*hidden.shape[:2], 1)
