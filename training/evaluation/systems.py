"""What is measured: a checkpoint or a bundle, loaded as engine and ranker, with the facts that a table must state.

The item graph is always built anew from the interactions that the protocol allows, never taken from the bundle, whose
graph may know every purchase: a bundle that is fit to deploy is not fit to be measured by its own graph.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rdrec_core.bundle import MANIFEST_FILE, Bundle
from rdrec_core.decoding.item_trie import ItemTrie
from rdrec_core.encoding import SourceEncoder
from rdrec_core.engines.base import Engine
from rdrec_core.errors import CheckpointError, DatasetError
from rdrec_core.item_graph import ItemGraph
from rdrec_core.ranking import FusionWeights, Ranker
from rdrec_core.types import ScoreMode, Strategy, Task
from training.data.dataset import Dataset, Split
from training.learning.checkpoint import load_checkpoint
from training.signals.graph import GraphConfig, build_graph

FUSION_FILE = "fusion.json"


@dataclass(frozen=True)
class System:
    """A loaded model. fusion: the flat weights of `rdrec fuse`, None where it was never run."""

    path: Path
    engine: Engine
    fusion: dict[str, float] | None
    topn_task: Task
    candidate_width: int
    text_tasks: list[Task]
    facts: dict[str, Any] = field(default_factory=dict)

    def ranker(self, graph: ItemGraph | None, fusion: dict[str, float] | None) -> Ranker:
        """The product's ranking over a graph; fusion None ranks by the model alone."""
        weights = FusionWeights.from_manifest(fusion) if fusion is not None else None
        return Ranker(
            self.engine, graph, weights, topn_task=self.topn_task, candidate_width=self.candidate_width
        )  # fmt: skip


def load_system(
    path: Path, dataset: Dataset, *, mode: ScoreMode | None = None, strategy: Strategy | None = None
) -> System:
    """A bundle runs as it is served (ONNX Runtime), a checkpoint in torch; None takes the path's own defaults.

    Raises CheckpointError or DatasetError where the path is neither or belongs to another catalogue.
    """
    if (path / MANIFEST_FILE).is_file():
        return _bundle(path, dataset, mode, strategy)
    return _checkpoint(path, dataset, mode, strategy)


def fused_graph(dataset: Dataset, upto: Split, fusion: dict[str, float] | None) -> ItemGraph:
    """The graph as `rdrec fuse` chose to build it, from interactions up to and with a split."""
    return build_graph(dataset, upto, GraphConfig.from_fusion(fusion or {}))


def _bundle(path: Path, dataset: Dataset, mode: ScoreMode | None, strategy: Strategy | None) -> System:
    from rdrec_core.engines.onnx_engine import OnnxEngine

    bundle = Bundle.open(path)
    ids = dataset.items["item_id"]
    catalog = bundle.catalog
    if len(catalog) != len(ids) or any(catalog.item_ids[i] != item for i, item in enumerate(ids)):
        raise DatasetError(f"{dataset.path} has another catalogue than the bundle {path}; pass the bundle's dataset")
    if not np.array_equal(catalog.labels, dataset.items["label"].cast(int).to_numpy()):
        raise DatasetError(f"{dataset.path} has other labels than the bundle {path}; pass the bundle's dataset")
    manifest = bundle.manifest
    engine = OnnxEngine.from_bundle(bundle, score_mode=mode, strategy=strategy)
    facts = {
        "system": manifest.model_version, "kind": "bundle", "protocol": manifest.protocol,
        "label_scheme": manifest.label_scheme, "score_mode": engine.score_mode.value, "strategy": engine.strategy.value,
        "recipe": manifest.recipe, "dataset_sha256": manifest.dataset_sha256,
    }  # fmt: skip
    return System(
        path, engine, manifest.fusion, manifest.topn_task, manifest.candidate_width, list(manifest.text_tasks), facts
    )


def _checkpoint(path: Path, dataset: Dataset, mode: ScoreMode | None, strategy: Strategy | None) -> System:
    import torch

    from rdrec_core.eager.torch_text import TorchTextGenerator
    from rdrec_core.engines.torch_engine import TorchEngine
    from training.learning.backbone import CatalogTokens

    checkpoint = load_checkpoint(path)
    checkpoint.dataset(dataset.path)  # the labels must be the ones that the model learned
    info = checkpoint.info
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = checkpoint.model.to(device)
    tokens = CatalogTokens.of(
        checkpoint.tokenizer, dataset.items["label"].to_list(), whole_labels=info.config.whole_labels
    )
    t5 = model.config.t5
    encoder = SourceEncoder(checkpoint.tokenizer, tokens.item_words, eos_token_id=t5.eos_token_id)
    engine = TorchEngine(
        model, encoder, ItemTrie.build(tokens.labels, eos_token_id=t5.eos_token_id, start_token_id=t5.pad_token_id),
        score_mode=mode or (ScoreMode.TRIE if info.config.loss == "trie" else ScoreMode.FULL),
        strategy=strategy or Strategy.BEAM, max_batch=64,
        text=TorchTextGenerator(model, encoder, checkpoint.tokenizer) if info.text_tasks else None,
    )  # fmt: skip
    facts = {
        "system": f"{path.name} (epoch {info.epoch})", "kind": "checkpoint", "protocol": info.protocol,
        "label_scheme": info.label_scheme, "score_mode": engine.score_mode.value, "strategy": engine.strategy.value,
        "recipe": info.config.model_dump(mode="json"), "dataset_sha256": info.dataset_sha256,
    }  # fmt: skip
    return System(
        path, engine, read_fusion(path), info.topn_task, info.config.negatives + 1, info.text_tasks, facts
    )  # fmt: skip


def read_fusion(checkpoint: Path) -> dict[str, float] | None:
    """The weights that `rdrec fuse` stored in a checkpoint folder, or None."""
    file = checkpoint / FUSION_FILE
    if not file.is_file():
        return None
    try:
        return {str(name): float(value) for name, value in json.loads(file.read_text(encoding="utf-8")).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file} should map names to numbers; make it again with `rdrec fuse`") from error
