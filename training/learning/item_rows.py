"""Rows of items in the embedding table as a free part plus a shared, trained map of the item's text.

The free part is dropped at random in training, so that the map alone learns to place an item; an item without purchases
has no free part at all. A checkpoint and a bundle hold finished rows, so decoding costs what it did. Knows rows and
places, not where the words come from.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from rdrec_core.model import RDRecModel

_TABLE = "weight"
_PARTS = "t5.shared.parametrizations."


class RowsFromText(nn.Module):
    """A parametrization of the table (V, D), of which the rows from `first` on belong to N items."""

    text: Tensor
    bought: Tensor

    def __init__(
        self, first: int, text: npt.NDArray[np.float32], bought: npt.NDArray[np.bool_], width: int, dropped: float,
        generator: torch.Generator,
    ) -> None:  # fmt: skip
        """text (N, P): places of the items by their words; bought (N,): whether an item has training purchases.

        dropped: share of steps in which an item does without its free part.
        """
        super().__init__()
        self._first, self._dropped = first, dropped
        self.register_buffer("text", torch.from_numpy(text), persistent=False)
        self.register_buffer("bought", torch.from_numpy(bought)[:, None].float(), persistent=False)
        self.map = nn.Parameter(torch.empty(text.shape[1], width))
        # an orthogonal map keeps every likeness, so that before its first step the model finds items of like words
        nn.init.orthogonal_(self.map, generator=generator)

    def forward(self, table: Tensor) -> Tensor:
        """The finished table."""
        keep = self.bought
        if self.training and self._dropped > 0:
            keep = keep * (torch.rand(keep.shape, device=keep.device) >= self._dropped)
        return torch.cat([table[: self._first], table[self._first :] * keep + self.text @ self.map])


def attach(model: RDRecModel, rows: RowsFromText) -> None:
    """From now on the model's item rows have two parts; inside `parametrize.cached()` they are added up once."""
    parametrize.register_parametrization(model.t5.shared, _TABLE, rows, unsafe=True)


def finished_state(model: RDRecModel) -> dict[str, Tensor]:
    """The model's tensors with plain rows in place of their parts, in whichever mode the model is."""
    state = {name: value for name, value in model.state_dict().items() if not name.startswith(_PARTS)}
    was_training = model.t5.shared.training
    model.t5.shared.eval()  # no free part is dropped from what is kept
    whole = model.t5.shared.weight
    model.t5.shared.train(was_training)
    return {**state, f"t5.shared.{_TABLE}": whole}


def map_of(model: RDRecModel) -> npt.NDArray[np.float32] | None:
    """The trained map (P, D), None where rows are plain."""
    if not parametrize.is_parametrized(model.t5.shared, _TABLE):
        return None
    rows = model.t5.shared.parametrizations[_TABLE][0]
    assert isinstance(rows, RowsFromText)
    return rows.map.detach().cpu().numpy()
