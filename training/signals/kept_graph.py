"""The channels of purchases and of text, built apart and kept in a folder, so that a large catalogue's are built once.

The folder says what they were made of; nothing else is made from it. Knows files, and which of them a channel is of.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path

import numpy as np

from rdrec_core.errors import InputError
from rdrec_core.file_hash import file_sha256
from rdrec_core.item_graph import ItemGraph
from rdrec_core.item_texts import RowRule
from training.data.dataset import Dataset, Split
from training.signals.graph import CHANNELS, GraphConfig, Sequences, graph_of
from training.signals.profiles import FIELDS, TABLES
from training.signals.remembered import RememberedVectors, TextEncoder
from training.signals.text import KINDS, TextChannel, channel_name, only_channels, text_channels, text_fields
from training.workers import Blocks

_ORIGIN = "graph.json"
_TEXTS = "text channels"
"""Name -> rule of a row, null where there is no text."""


def keep_graph(
    folder: Path, dataset: Dataset, upto: Split, config: GraphConfig, texts: Collection[str] = (),
    encoder: TextEncoder | None = None, blocks: Blocks | None = None,
) -> dict[str, int]:  # fmt: skip
    """Build and write into a folder the channels of purchases and these of text; returns the entries of each.

    One field is written before the next is read. Blocks compute rows, and the vectors of a sentence encoder;
    histories, profiles and vectors by TF-IDF are this process's work.
    """
    if isinstance(encoder, RememberedVectors):
        encoder = encoder.by(blocks)
    graph = graph_of(Sequences.of(dataset, upto), config, blocks)
    _write(folder, graph)
    entries = {name: len(channel.items) for name, channel in graph.channels.items()}
    graph = ItemGraph(graph.popularity, {}, order=graph.order)
    rules: dict[str, RowRule] = {}
    for field in FIELDS:
        own = {channel_name(field, kind) for kind in KINDS} & set(texts)
        fields = text_fields(dataset, upto, encoder, only=own) if own else []
        for name, each in text_channels(fields, config, only=own, blocks=blocks).items():
            _write(folder, ItemGraph(graph.popularity, {name: each.channel}, order=graph.order))
            rules[name], entries[name] = each.rule, len(each.channel.items)
    kept = {name: (rule.n, rule.power, rule.scale) if (rule := rules.get(name)) else None for name in texts}
    origin = {**_origin(dataset, upto, config, texts, encoder), _TEXTS: kept}
    (folder / _ORIGIN).write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
    return entries


def kept_graph(
    folder: Path, dataset: Dataset, upto: Split, config: GraphConfig, texts: Collection[str] = (),
    encoder: TextEncoder | None = None,
) -> tuple[ItemGraph, dict[str, TextChannel]]:  # fmt: skip
    """The channels of purchases, and these of text, that `keep_graph` wrote.

    InputError naming what differs where one of them was made of something else, or is not there.
    """
    try:
        kept = json.loads((folder / _ORIGIN).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--graph {folder} is no folder of `rdrec graph`: {error}", field="graph") from error
    rules = kept.get(_TEXTS, {})
    if missing := [name for name in texts if name not in rules]:
        raise InputError(
            f"--graph {folder} was built without {', '.join(missing)}; build it again by `rdrec graph --checkpoint`",
            field="graph",
        )
    for name, wanted in _origin(dataset, upto, config, texts, encoder).items():
        if kept.get(name) != wanted:
            raise InputError(
                f"--graph {folder} has {name} {kept.get(name)}, needed is {wanted}; build it again by `rdrec graph`",
                field="graph",
            )
    graph = ItemGraph.from_arrays({file.stem: np.load(file, mmap_mode="r") for file in sorted(folder.glob("*.npy"))})
    found = {name: TextChannel(graph.channels[name], RowRule(*rules[name])) for name in texts if rules[name]}
    return only_channels(graph, CHANNELS), found


def _write(folder: Path, graph: ItemGraph) -> None:
    for name, array in graph.arrays().items():
        np.save(folder / f"{name}.npy", array)


def _origin(
    dataset: Dataset, upto: Split, config: GraphConfig, texts: Collection[str], encoder: TextEncoder | None
) -> dict[str, object]:
    """What the channels of purchases and these of text are made of; tables and encoder where a channel reads them."""
    digest = hashlib.sha256(dataset.info.model_dump_json().encode()).hexdigest()
    out: dict[str, object] = {"dataset": digest, "interactions up to": upto, "settings": config.to_fusion()}
    fields = {field for field in FIELDS for kind in KINDS if channel_name(field, kind) in texts}
    for table in sorted({TABLES[field] for field in fields}):
        file = dataset.path / f"{table}.parquet"
        out[table] = file_sha256(file) if file.is_file() else None
    if encoder is not None and any(channel_name(field, "dense") in texts for field in FIELDS):
        out["text encoder"] = encoder.fingerprint
    return out
