"""Items that came after the export: their text vectors, their neighbours in every text channel, their rows of the T5.

`Grower` makes a `Growth` out of words, by the arrays that training fitted; whoever answers takes it over (`ItemGraph`,
`ItemTexts`, `Engine`), in this process or another, so that the work is done once. Items are only ever added: one whose
words change is a new item, and the old one is no longer available. Knows neither ids nor where words come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rdrec_core.item_graph import TEXT_PREFIX, Floats, ItemGraph, Row
from rdrec_core.item_texts import CATALOGUE, TITLE, ItemTexts, NewTexts, RowRule
from rdrec_core.text_rows import TextRows
from rdrec_core.types import FloatArray, IntArray

MAX_CHARACTERS = 20_000
"""Of what is joined for one item; a bestseller's ten thousandth review says what the hundredth said."""


@dataclass(frozen=True, slots=True)
class ItemWords:
    """What the catalogue says of an item."""

    title: str | None = None
    brand: str | None = None
    categories: tuple[str, ...] = ()
    description: str | None = None

    def fields(self) -> dict[str, str]:
        """Field of text -> the item's text of it, as `training/signals/profiles.py` writes them; "" where none."""
        return {
            TITLE: _lines(self.title, self.brand),
            CATALOGUE: _lines(self.title, self.brand, *self.categories, self.description),
        }


def _lines(*parts: str | None) -> str:
    text = "\n".join(part for part in parts if part is not None).strip("\n")
    while "\n\n" in text:
        text = text.replace("\n\n", "\n")
    return text[:MAX_CHARACTERS]


@dataclass(frozen=True)
class Growth:
    """M new items behind the last. texts: by field; channels: by name, rows that are new or not as before."""

    n: int
    texts: Mapping[str, NewTexts] = field(default_factory=dict)
    channels: Mapping[str, Mapping[int, Row]] = field(default_factory=dict)
    rows: FloatArray | None = None
    """(M, D), rows of the T5's table; None where the bundle has no map from words to rows."""


class Grower:
    """Keeps the graph and the texts as they are with all items so far. For one thread at a time."""

    def __init__(self, graph: ItemGraph, texts: ItemTexts | None, rows: TextRows | None) -> None:
        """rows None: the model cannot place new items; they live from the text channels alone."""
        self.graph, self.texts, self._rows = graph, texts, rows
        self._least: dict[str, Floats] = {}

    def grow(self, words: Sequence[ItemWords]) -> Growth:
        """Place items, one after the other, so that each may be the neighbour of those behind it."""
        changed: dict[str, dict[int, Row]] = {}
        vectors: dict[str, NewTexts] = {}
        for each in words:
            new_rows, new_vectors = self._place(each.fields())
            for name, rows in new_rows.items():
                changed.setdefault(name, {}).update(rows)
            vectors = {name: vectors[name].then(own) if name in vectors else own for name, own in new_vectors.items()}
        t5_rows = None if self._rows is None else self._rows.rows([each.fields()[CATALOGUE] for each in words])
        return Growth(len(words), vectors, changed, t5_rows)

    def _place(self, own: Mapping[str, str]) -> tuple[dict[str, dict[int, Row]], dict[str, NewTexts]]:
        """One item: the rows that it changes, by channel, and its vectors, by field."""
        index = len(self.graph)
        changed: dict[str, dict[int, Row]] = {}
        vectors: dict[str, NewTexts] = {}
        if self.texts is not None:
            # of what nobody wrote about it yet, its own words stand in
            spoken = {name: own.get(name) or own[CATALOGUE] for name in self.texts.fields}
            distinct = list(dict.fromkeys(spoken.values()))
            encoded = self.texts.encoded(distinct)
            for name, each in self.texts.fields.items():
                sparse = each.vectors.transform([spoken[name]])
                dense = None if encoded is None else encoded[distinct.index(spoken[name])]
                for kind, (items, cosine) in each.cosines(sparse.row(0), dense).items():
                    channel = f"{TEXT_PREFIX}{name}.{kind}"
                    if kind in each.rules and channel in self.graph.channels:
                        changed[channel] = self._neighbours(channel, each.rules[kind], index, items, cosine)
                has_text = bool(own.get(name))
                kept = dense if has_text or dense is None else np.zeros_like(dense)
                kept_rows = sparse if has_text else each.vectors.transform([""])
                vectors[name] = NewTexts(kept_rows, None if each.dense is None or kept is None else kept[None])
            self.texts = self.texts.grown(1, vectors)
        self.graph = self.graph.grown(1, changed)
        for name, rows in changed.items():
            self._note(name, rows)
        return changed, vectors

    def _neighbours(self, name: str, rule: RowRule, index: int, items: IntArray, cosine: Floats) -> dict[int, Row]:
        """The item's own row, and those of its neighbours in which it is among the nearest now."""
        channel = self.graph.channels[name]
        rows: dict[int, Row] = {}
        own_items, own_weights = rule.row(cosine, items)
        if len(own_items):
            rows[index] = own_items.astype(np.int32), own_weights
        weights = (np.maximum(cosine, 0.0) ** rule.power / rule.scale).astype(np.float32)
        near = (weights > 0) & (weights > self._least_of(name)[items])
        for item, weight in zip(items[near].tolist(), weights[near].tolist(), strict=True):
            rows[item] = _with(channel.row(item), index, weight, rule.n)
        return rows

    def _least_of(self, name: str) -> Floats:
        """What a weight must exceed to enter each row, (N,): the smallest of a full row, 0 where there is room."""
        if name not in self._least:
            channel = self.graph.channels[name]
            lengths = np.diff(channel.indptr)
            full = np.flatnonzero(lengths >= self._limit(name))
            least = np.zeros(len(lengths))
            if len(full):  # rows that are not full lie between: each full one is reduced up to its own end
                bounds = np.stack([channel.indptr[full], channel.indptr[full + 1]], axis=1).ravel()
                padded = np.append(channel.weights, np.float32(np.inf))
                least[full] = np.minimum.reduceat(padded, bounds)[::2]
            self._least[name] = least
        least, n = self._least[name], len(self.graph)
        if len(least) < n:
            least = self._least[name] = np.concatenate([least, np.zeros(n - len(least))])
        return least

    def _note(self, name: str, rows: Mapping[int, Row]) -> None:
        least, limit = self._least_of(name), self._limit(name)
        for item, (items, weights) in rows.items():
            least[item] = weights.min() if len(items) >= limit else 0.0

    def _limit(self, name: str) -> int:
        assert self.texts is not None
        _, field_name, kind = name.split(".")
        return self.texts.fields[field_name].rules[kind].n


def _with(row: Row, index: int, weight: float, n: int) -> Row:
    """The row with a neighbour behind all of its items; of more than n the weakest goes, of equals the last."""
    items, weights = np.append(row[0], np.int32(index)), np.append(row[1], np.float32(weight))
    if len(items) > n:
        weakest = np.flatnonzero(weights == weights.min())[-1]
        items, weights = np.delete(items, weakest), np.delete(weights, weakest)
    return items, weights
