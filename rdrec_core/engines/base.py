"""What an engine promises. Stands between the decoding code and whoever asks: ranking, evaluation, service.

The contract suite `tests/contract/test_engine_contract.py` runs over every implementation, the fake one included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rdrec_core.decoding.path_arrays import BoolArray
from rdrec_core.types import FloatArray, RankedItems, RankRequest, ScoreMode, ScoreRequest, TextRequest


class Engine(Protocol):
    """Computes answers for batches of requests in indices. Not thread-safe: one thread calls it at a time.

    Results come in the order of the requests, and batch-mates change no number by more than 1e-4. An index outside
    the catalogue raises InputError before anything is computed; a failure while computing raises EngineError.
    """

    @property
    def score_mode(self) -> ScoreMode:
        """The definition of the log-probabilities that this engine returns."""
        ...

    @property
    def device(self) -> str:
        """Where it computes: `cpu`, `cuda:0`, ..."""
        ...

    def recommend(self, requests: Sequence[RankRequest]) -> list[RankedItems]:
        """The best items a request, no duplicates, min(n_items, number of eligible items) of them, best first."""
        ...

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        """Log-probability of each candidate, (n_candidates,) float32, in the order of the request's candidates."""
        ...

    def generate_text(self, requests: Sequence[TextRequest]) -> list[str]:
        """One text a request, special tokens removed, stripped; may be empty if the model says nothing."""
        ...

    @property
    def can_grow(self) -> bool:
        """Whether `grow` may be called: each item is one token of its own, and the network's table is open."""
        ...

    def grow(self, rows: FloatArray) -> None:
        """Add M items behind the last, each by its embedding row, (M, D); they are available."""
        ...

    def set_available(self, available: BoolArray) -> None:
        """Which items may be answered, (N,) by item index. Scores do not change."""
        ...
