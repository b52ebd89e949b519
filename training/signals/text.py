"""Text signals: each field of item texts as vectors, and each kind of vectors as a channel of the item graph.

    text.<field>.sparse    the nearest items by TF-IDF
    text.<field>.dense     the nearest items by a sentence encoder

What text says alike needs no purchases, so an item that nobody has bought yet is reached through these channels, and
only through them. Knows profiles and vectors, not what weighs the channels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from rdrec_core.item_graph import TEXT_PREFIX, Channel, ItemGraph
from rdrec_core.item_texts import CATALOGUE, FieldTexts, ItemTexts, RowRule
from rdrec_core.text_rows import TextPlaces
from rdrec_core.text_vectors import Projection, Rows, SparseVectors, TextIndex
from training.data.dataset import Dataset, Split
from training.signals.graph import GraphConfig, Sequences, channel, channel_decay, graph_of, mean_row_sum
from training.signals.nearest import nearest_dense, nearest_sparse
from training.signals.profiles import FIELDS, item_profiles
from training.signals.remembered import TextEncoder
from training.workers import Blocks

KINDS = ("sparse", "dense")


@dataclass(frozen=True)
class TextField:
    """One field of N items: its vocabulary, sparse vectors, and dense ones (N, D) of length one where encoded."""

    name: str
    vectors: SparseVectors
    rows: Rows
    dense: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class TextChannel:
    """A channel, and by what rule a text that is not among the items would get a row of it."""

    channel: Channel
    rule: RowRule


def channel_name(field: str, kind: str) -> str:
    """What the channel of a field and a kind of vectors is called."""
    return f"{TEXT_PREFIX}{field}.{kind}"


def text_fields(
    dataset: Dataset, upto: Split, encoder: TextEncoder | None = None, *, only: Collection[str] | None = None
) -> list[TextField]:
    """The fields that have any text, from reviews and rationales up to and with a split.

    only: names of channels; fields and vectors that none of them needs are left out.
    """
    out = []
    wanted = [f for f in FIELDS if only is None or any(channel_name(f, kind) in only for kind in KINDS)]
    for name, texts in item_profiles(dataset, upto, only=wanted).items():
        sparse, dense = (only is None or channel_name(name, kind) in only for kind in KINDS)
        if sparse or (dense and encoder is not None):
            vectors, rows = SparseVectors.from_texts(texts)
            out.append(TextField(name, vectors, rows, encoder.encode(texts) if dense and encoder is not None else None))
    return out


def text_channels(
    fields: list[TextField], config: GraphConfig, *, only: Collection[str] | None = None, blocks: Blocks | None = None
) -> dict[str, TextChannel]:
    """`text.<field>.<kind>` -> channel, of these names; without those that reach nothing.

    blocks: who looks for the nearest items, by default this process; they are the same.
    """
    out = {}
    for field in fields:
        for kind, power in (("sparse", config.text_sparse_power), ("dense", config.text_dense_power)):
            name = channel_name(field.name, kind)
            if (only is not None and name not in only) or (kind == "dense" and field.dense is None):
                continue
            if field.dense is not None and kind == "dense":
                near = nearest_dense(field.dense, config.text_neighbours, blocks=blocks)
            else:
                near = nearest_sparse(field.rows, len(field.vectors), config.text_neighbours, blocks=blocks)
            near.data **= power
            if near.nnz:
                rule = RowRule(config.text_neighbours, power, mean_row_sum(near))
                out[name] = TextChannel(channel(near, channel_decay(name, config), config.window), rule)
    return out


def build_graph(
    dataset: Dataset, upto: Split = "train", config: GraphConfig | None = None, encoder: TextEncoder | None = None,
    *, only: Collection[str] | None = None,
) -> ItemGraph:  # fmt: skip
    """The graph of all interactions up to and with a split, and of what text says by then; of these channels alone.

    "train" sees nothing that is evaluated.
    """
    config = config or GraphConfig()
    fields = text_fields(dataset, upto, encoder, only=only)
    graph = with_channels(graph_of(Sequences.of(dataset, upto), config), text_channels(fields, config, only=only))
    return graph if only is None else only_channels(graph, only)


def only_channels(graph: ItemGraph, names: Collection[str]) -> ItemGraph:
    """The same graph with these of its channels."""
    kept = {name: each for name, each in graph.channels.items() if name in names}
    return ItemGraph(graph.popularity, kept, order=graph.order)


def with_channels(graph: ItemGraph, channels: Mapping[str, TextChannel]) -> ItemGraph:
    """The same graph with more channels."""
    more = {name: each.channel for name, each in channels.items()}
    return ItemGraph(graph.popularity, {**graph.channels, **more}, order=graph.order)


def item_texts(fields: list[TextField], channels: Mapping[str, TextChannel], n_items: int) -> ItemTexts:
    """What a bundle holds of these fields, so that a service can read new words."""
    out = {}
    for field in fields:
        rules = {kind: channels[name].rule for kind in KINDS if (name := channel_name(field.name, kind)) in channels}
        index = TextIndex.of(field.rows, len(field.vectors))
        out[field.name] = FieldTexts(field.vectors, index, field.dense, rules)
    return ItemTexts(out, n_items)


def fit_projection(rows: Rows, n_terms: int, width: int, *, seed: int = 0) -> Projection:
    """The truncated SVD of sparse vectors: the map to `width` numbers that keeps most of their cosines.

    Narrower where there are fewer terms or texts; of no width where there is none.
    """
    from sklearn.decomposition import TruncatedSVD

    width = min(width, n_terms - 1, len(rows) - 1)
    if width < 1:
        return Projection(np.zeros((n_terms, 0), dtype=np.float32))
    matrix = csr_array((rows.weights, rows.terms, rows.indptr), shape=(len(rows), n_terms))
    fitted = TruncatedSVD(width, random_state=seed).fit(matrix)
    return Projection(np.ascontiguousarray(fitted.components_.T, dtype=np.float32))


def placed_texts(dataset: Dataset) -> list[str]:
    """The words by which items are placed among each other, "" where an item has none.

    The catalogue's, or those of training reviews where it has no words.
    """
    for field in (CATALOGUE, "reviews"):
        if texts := item_profiles(dataset, "train", only=(field,)).get(field):
            return texts
    return [""] * dataset.info.n_items


def text_places(dataset: Dataset, width: int, seed: int) -> tuple[TextPlaces, npt.NDArray[np.float32]] | None:
    """Where words place the items, and the places (N, P), P up to `width`; None where the items have no words."""
    texts = placed_texts(dataset)
    if not any(texts):
        return None
    vectors, rows = SparseVectors.from_texts(texts)
    places = TextPlaces(vectors, fit_projection(rows, len(vectors), width, seed=seed))
    return (places, places.of_rows(rows)) if places.projection.width else None
