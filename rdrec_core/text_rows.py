"""The embedding row of an item from its words: how a trained model places items that it never saw.

Text -> TF-IDF -> a few hundred numbers -> a row of the T5's table, all by arrays that training fitted. Knows neither
the model nor the catalogue; written by `training/learning/`, read by whoever adds an item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rdrec_core.catalog import Arrays
from rdrec_core.text_vectors import Projection, Rows, SparseVectors

Floats = npt.NDArray[np.float32]
GROUP = "text_rows"
"""The bundle's array group."""


@dataclass(frozen=True)
class TextPlaces:
    """Items among each other by their words: sparse vectors brought to P numbers of mean square one."""

    vectors: SparseVectors
    projection: Projection

    def of_rows(self, rows: Rows) -> Floats:
        """Places of sparse vectors, (M, P); zeros where a text has no known word."""
        places = self.projection.project(rows)
        lengths = np.linalg.norm(places, axis=1, keepdims=True)
        unit = np.divide(places, lengths, out=np.zeros_like(places), where=lengths > 1e-6)
        return np.asarray(unit * np.float32(self.projection.width**0.5), dtype=np.float32)

    def of_texts(self, texts: Sequence[str]) -> Floats:
        """Places of any texts, (M, P)."""
        return self.of_rows(self.vectors.transform(texts))


@dataclass(frozen=True)
class TextRows:
    """A trained map (P, D) of places to rows of the embedding table."""

    places: TextPlaces
    map: Floats

    def rows(self, texts: Sequence[str]) -> Floats:
        """(M, D); zeros where a text has no known word."""
        out: Floats = self.places.of_texts(texts) @ self.map
        return out

    def arrays(self) -> Arrays:
        """Everything, for safetensors or `BundleWriter.add_arrays`."""
        return {**self.places.vectors.arrays(), "components": self.places.projection.components, "map": self.map}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> TextRows:
        """Read what `arrays` wrote."""
        projection = Projection(arrays["components"])  # type: ignore[arg-type]
        return cls(TextPlaces(SparseVectors.from_arrays(arrays), projection), arrays["map"])  # type: ignore[arg-type]
