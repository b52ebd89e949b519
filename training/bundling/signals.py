"""Item graph and text of a bundle: built from what is known up to a split, as `rdrec fuse` chose, and written.

Knows which channels are worth their room, not how they are made.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rdrec_core.bundle import BundleWriter
from rdrec_core.fusion import FusionWeights
from rdrec_core.item_texts import CATALOGUE, FOLDER, GROUP
from training.data.dataset import Dataset, Split
from training.evaluation.systems import open_encoder, read_fusion, read_text_encoder
from training.learning.checkpoint import Checkpoint
from training.signals.graph import GraphConfig, Sequences, graph_of
from training.signals.kept_graph import kept_graph
from training.signals.profiles import FIELDS
from training.signals.remembered import RememberedVectors, TextEncoder
from training.signals.sentence_encoder import SentenceEncoder
from training.signals.text import (
    KINDS,
    channel_name,
    item_texts,
    only_channels,
    text_channels,
    text_fields,
    with_channels,
)


@dataclass(frozen=True)
class Chosen:
    """What `rdrec fuse` chose for a checkpoint; without weights or a checkpoint, every channel is there."""

    fusion: dict[str, float] | None = None
    encoder: TextEncoder | None = None

    @classmethod
    def of(cls, checkpoint: Path, dataset: Dataset) -> Chosen:
        """Read from a checkpoint's folder."""
        return cls(read_fusion(checkpoint), open_encoder(read_text_encoder(checkpoint), dataset))

    @cached_property
    def weighted(self) -> frozenset[str] | None:
        """The channels with weight in either task; None: all."""
        return None if self.fusion is None else frozenset(FusionWeights.from_manifest(self.fusion).channels)

    @property
    def config(self) -> GraphConfig:
        """How the graph is built."""
        return GraphConfig.from_fusion(self.fusion or {})

    @property
    def texts(self) -> list[str]:
        """Names of the channels of text, of those kinds that can be made."""
        kinds = KINDS if self.encoder is not None else ("sparse",)
        names = [channel_name(field, kind) for field in FIELDS for kind in kinds]
        return [name for name in names if self.weighted is None or name in self.weighted]


def add_signals(
    writer: BundleWriter, checkpoint: Checkpoint, dataset: Dataset, upto: Split, kept: Path | None = None
) -> dict[str, float] | None:
    """Write the arrays `graph` and `text`, and the sentence encoder where one is used; returns the fusion weights.

    A channel without weight in either task is left out, of the arrays and of the weights. The catalogue's words are
    kept in any case: they are what a service reads new words by. kept: folder of `rdrec graph`, None to build it here.
    Raises ExportCheckError where the encoder's graph disagrees with torch, InputError for a graph of something else.
    """
    chosen = Chosen.of(checkpoint.path, dataset)
    fusion, encoder, weighted = chosen.fusion, chosen.encoder, chosen.weighted
    found = None if kept is None else kept_graph(kept, dataset, upto, chosen.config, chosen.texts, encoder)
    held = None
    if fusion is not None and weighted is not None:
        held = weighted | {channel_name(CATALOGUE, kind) for kind in KINDS}
        fusion = {key: value for key, value in fusion.items() if _channel_of(key) in (None, *weighted)}
    fields = text_fields(dataset, upto, encoder, only=held)
    purchases, channels = found or (
        graph_of(Sequences.of(dataset, upto), chosen.config), text_channels(fields, chosen.config, only=weighted)
    )  # fmt: skip
    graph = with_channels(purchases, channels)
    writer.add_arrays("graph", (graph if weighted is None else only_channels(graph, weighted)).arrays())
    if fields:
        writer.add_arrays(GROUP, item_texts(fields, channels, dataset.info.n_items).arrays())
    if isinstance(encoder, RememberedVectors) and isinstance(encoder.encoder, SentenceEncoder):
        encoder.encoder.export(writer.folder / FOLDER)
    return fusion


def _channel_of(key: str) -> str | None:
    """The channel that a fusion weight is of, None for the other numbers."""
    return key.partition(".channel.")[2] or None
