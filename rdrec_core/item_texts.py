"""What text says of the items of a bundle, open for new words: whom a text is like, in every field and kind of vectors.

    arrays/text/<field>.*              vocabulary, idf, postings; dense.npy (N, D); <kind>.row for rows of the graph
    text/encoder.onnx tokenizer encoder.json    only where a sentence encoder made dense vectors

Serves words that a user types (`affinity`) and items that the training never saw (`growth.py`). Knows
neither requests nor how the graph weighs its channels; written by `training/bundling/`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from rdrec_core.bundle import Bundle
from rdrec_core.catalog import Arrays
from rdrec_core.item_graph import Row
from rdrec_core.text_encoder import GRAPH_FILE, SETTINGS_FILE, TOKENIZER_FILE, OnnxTextEncoder
from rdrec_core.text_vectors import NO_ROWS, Rows, SparseVectors, TextIndex
from rdrec_core.types import IntArray

GROUP = "text"
FOLDER = "text"
CATALOGUE, TITLE = "catalogue", "title"
"""The fields that a new item has."""
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RowRule:
    """How cosines become a row of a channel: the n greatest, to a power, over the scale of the channel."""

    n: int
    power: float
    scale: float

    def row(self, cosine: npt.NDArray[np.floating], items: IntArray) -> tuple[IntArray, Floats]:
        """(items ascending, weights), fewer than n where fewer cosines are positive; equal ones go by item index."""
        best = np.lexsort((items, -cosine))[: self.n] if len(items) > self.n else np.arange(len(items))
        best = best[cosine[best] > 0]
        order = best[np.argsort(items[best])]
        return items[order], (cosine[order].astype(np.float64) ** self.power / self.scale).astype(np.float32)


@dataclass(frozen=True)
class NewTexts:
    """One field's vectors of M items: sparse, of no entries where an item has no text of the field; dense (M, D)."""

    rows: Rows
    dense: Floats | None = None

    def then(self, more: NewTexts) -> NewTexts:
        """These and behind them some more."""
        parts = [part for part in (self.dense, more.dense) if part is not None]
        return NewTexts(self.rows.then(more.rows), np.concatenate(parts) if parts else None)


@dataclass(frozen=True)
class FieldTexts:
    """One field: its vocabulary and postings, dense vectors (N, D) of length one or none; rules by kind of vectors."""

    vectors: SparseVectors
    index: TextIndex
    dense: Floats | None = None
    rules: Mapping[str, RowRule] = field(default_factory=dict)
    more: NewTexts = field(default_factory=lambda: NewTexts(NO_ROWS))
    """Vectors of the items that came after the index was made."""

    def cosines(self, vector: Row, dense: Floats | None) -> dict[str, tuple[IntArray, npt.NDArray[np.float64]]]:
        """Kind -> (items ascending, cosine) of the items that are at all like a vector of each kind."""
        items, cosine = self.index.scores(*vector)
        late, late_cosine = self.more.rows.cosines(*vector)
        found = {"sparse": (np.concatenate([items, self.index.n_items + late]), np.concatenate([cosine, late_cosine]))}
        if self.dense is not None and dense is not None:
            parts = [self.dense] if self.more.dense is None else [self.dense, self.more.dense]
            every = np.concatenate([part @ dense for part in parts]).astype(np.float64)
            positive = np.flatnonzero(every > 0)
            found["dense"] = (positive, every[positive])
        return {kind: pair for kind, pair in found.items() if len(pair[0])}

    def rows_of(self, items: IntArray) -> Rows:
        """The items' sparse vectors."""
        late = items >= self.index.n_items
        if not late.any():
            return self.index.rows_of(items)
        found = self.index.rows_of(items[~late]).then(self.more.rows.of(items[late] - self.index.n_items))
        place = np.empty(len(items), dtype=np.int64)
        place[np.concatenate([np.flatnonzero(~late), np.flatnonzero(late)])] = np.arange(len(items))
        return found.of(place)

    def arrays(self, name: str) -> Arrays:
        """Everything, to be written under the field's name."""
        out = {**self.vectors.arrays(), **self.index.arrays()}
        if self.dense is not None:
            out["dense"] = self.dense
        for kind, rule in self.rules.items():
            out[f"{kind}.row"] = np.asarray([rule.n, rule.power, rule.scale], dtype=np.float64)
        return {f"{name}.{key}": array for key, array in out.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]], name: str, n_items: int) -> FieldTexts:
        """Read what `arrays` wrote."""
        own = {key.removeprefix(f"{name}."): array for key, array in arrays.items() if key.startswith(f"{name}.")}
        rules = {}
        for key in own:
            if key.endswith(".row"):
                n, power, scale = own[key].tolist()
                rules[key.removesuffix(".row")] = RowRule(int(n), power, scale)
        return cls(
            SparseVectors.from_arrays(own), TextIndex.from_arrays(own, n_items), own.get("dense"), rules  # type: ignore[arg-type]
        )  # fmt: skip


class ItemTexts:
    """The fields of N items. Immutable; any thread may ask."""

    def __init__(
        self, fields: Mapping[str, FieldTexts], n_items: int, *, encoder: OnnxTextEncoder | None = None
    ) -> None:
        """encoder: must be there where a field has dense vectors."""
        self.fields, self.n_items, self._encoder = dict(fields), n_items, encoder

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> ItemTexts | None:
        """What the bundle holds, memory-mapped; None where it holds no text. Raises BundleError for a bad encoder."""
        arrays = bundle.arrays(GROUP)
        if not arrays:
            return None
        n_items = bundle.manifest.n_items
        names = sorted(key.removesuffix(".idf") for key in arrays if key.endswith(".idf"))
        encoder = None
        if bundle.has(f"{FOLDER}/{GRAPH_FILE}"):
            encoder = OnnxTextEncoder(
                *(bundle.file(f"{FOLDER}/{name}") for name in (GRAPH_FILE, TOKENIZER_FILE, SETTINGS_FILE))
            )
        return cls({name: FieldTexts.from_arrays(arrays, name, n_items) for name in names}, n_items, encoder=encoder)

    def arrays(self) -> Arrays:
        """Everything but the encoder's files, for `BundleWriter.add_arrays(GROUP, ...)`."""
        out: Arrays = {}
        for name, each in self.fields.items():
            out |= each.arrays(name)
        return out

    def cosines(self, text: str) -> dict[str, tuple[IntArray, npt.NDArray[np.float64]]]:
        """`text.<field>.<kind>` -> (items ascending, cosine) of the items that are at all like the text."""
        out: dict[str, tuple[IntArray, npt.NDArray[np.float64]]] = {}
        dense = self.encoded([text])
        for name, each in self.fields.items():
            found = each.cosines(each.vectors.transform([text]).row(0), None if dense is None else dense[0])
            out |= {f"text.{name}.{kind}": pair for kind, pair in found.items()}
        return out

    def encoded(self, texts: Sequence[str]) -> Floats | None:
        """Dense vectors (M, D) of texts, zeros for blank ones; None where the bundle brought no encoder."""
        return None if self._encoder is None else self._encoder.encode(texts)

    def grown(self, n: int, vectors: Mapping[str, NewTexts]) -> ItemTexts:
        """With n more items, whose vectors are given for every field."""
        fields = {name: replace(each, more=each.more.then(vectors[name])) for name, each in self.fields.items()}
        return ItemTexts(fields, self.n_items + n, encoder=self._encoder)

    def affinity(self, text: str) -> Floats | None:
        """How well each item suits words that a user typed, (N,) from 0 to 1; None where no word of them is known.

        The mean over fields and kinds of vectors of the cosine, each divided by its greatest, so that a field in which
        all items are alike does not drown the others. A text without a known word moves nothing, even by an encoder.
        """
        found = self.cosines(text)
        if not any(name.endswith(".sparse") for name in found):
            return None
        total = np.zeros(self.n_items)
        for items, cosine in found.values():
            total[items] += cosine / cosine.max()
        return (total / len(found)).astype(np.float32)

    def rows_of(self, items: IntArray) -> Rows | None:
        """The vectors of the items' catalogue words; of the first field where there are no such, None without any."""
        known = self.fields.get(CATALOGUE) or next(iter(self.fields.values()), None)
        return None if known is None else known.rows_of(items)

    def alike(self, items: IntArray) -> tuple[IntArray, npt.NDArray[np.float64]]:
        """(items ascending, cosine) of the items whose words are like those of these, each of which counts the same."""
        rows = self.rows_of(items)
        if rows is None or not len(rows.terms):
            return np.empty(0, dtype=np.int64), np.empty(0)
        terms, place = np.unique(rows.terms, return_inverse=True)
        weights = np.bincount(place, weights=rows.weights)
        weights = weights / np.linalg.norm(weights)
        known = self.fields.get(CATALOGUE) or next(iter(self.fields.values()))
        found = known.cosines((terms, weights.astype(np.float32)), None)
        return found.get("sparse", (np.empty(0, dtype=np.int64), np.empty(0)))
