"""The channels of purchases, built apart and kept in a folder, so that a large catalogue's are built once and anywhere.

The folder says of which dataset, interactions and settings they are; nothing else is made from it. Knows files, not how
a graph is built.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from rdrec_core.errors import InputError
from rdrec_core.item_graph import ItemGraph
from training.data.dataset import Dataset, Split
from training.signals.graph import GraphConfig

_ORIGIN = "graph.json"


def keep_graph(folder: Path, graph: ItemGraph, dataset: Dataset, upto: Split, config: GraphConfig) -> None:
    """Write the arrays and what they are of into an empty folder."""
    for name, array in graph.arrays().items():
        np.save(folder / f"{name}.npy", array)
    text = json.dumps(_origin(dataset, upto, config), indent=2)
    (folder / _ORIGIN).write_text(text + "\n", encoding="utf-8")


def kept_graph(folder: Path, dataset: Dataset, upto: Split, config: GraphConfig) -> ItemGraph:
    """Read what `keep_graph` wrote. InputError where it is not of this dataset, these interactions and settings."""
    try:
        kept = json.loads((folder / _ORIGIN).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--graph {folder} is no folder of `rdrec graph`: {error}", field="graph") from error
    for name, wanted in _origin(dataset, upto, config).items():
        if kept.get(name) != wanted:
            raise InputError(
                f"--graph {folder} has {name} {kept.get(name)}, needed is {wanted}; build it again by `rdrec graph`",
                field="graph",
            )
    return ItemGraph.from_arrays({file.stem: np.load(file, mmap_mode="r") for file in sorted(folder.glob("*.npy"))})


def _origin(dataset: Dataset, upto: Split, config: GraphConfig) -> dict[str, object]:
    digest = hashlib.sha256(dataset.info.model_dump_json().encode()).hexdigest()
    return {"dataset": digest, "interactions up to": upto, "settings": config.to_fusion()}
