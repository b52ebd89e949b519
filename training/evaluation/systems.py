"""What is measured: a checkpoint or a bundle, loaded as engine and ranker, with the facts that a table must state.

The item graph is always built anew from the interactions that the protocol allows, never taken from the bundle, whose
graph may know every purchase: a bundle that is fit to deploy is not fit to be measured by its own graph.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rdrec_core.bundle import MANIFEST_FILE, Bundle
from rdrec_core.decoding.item_trie import ItemTrie
from rdrec_core.encoding import SourceEncoder
from rdrec_core.engines.base import Engine
from rdrec_core.errors import CheckpointError, DatasetError
from rdrec_core.fusion import FusionWeights
from rdrec_core.item_graph import ItemGraph, channel_names
from rdrec_core.item_texts import CATALOGUE
from rdrec_core.item_texts import FOLDER as TEXT_FOLDER
from rdrec_core.ranking import Ranker
from rdrec_core.text_encoder import GRAPH_FILE, SETTINGS_FILE, TOKENIZER_FILE, OnnxTextEncoder
from rdrec_core.types import IntArray, ScoreMode, Strategy, Task
from training.data.dataset import SPLITS, Dataset, Split, learned_upto
from training.learning.checkpoint import ENCODER_FILE, FUSION_FILE, load_checkpoint, weights_sha256
from training.signals.graph import GraphConfig
from training.signals.profiles import item_profiles
from training.signals.remembered import RememberedVectors, TextEncoder
from training.signals.text import build_graph

WEIGHTS_KEY = "weights_sha256"
"""In `fusion.json`, beside the numbers: which weights they were fitted to."""
VECTORS_FOLDER = "text-vectors"
"""In a dataset folder: dense vectors of its texts, which may be deleted at any time."""


@dataclass(frozen=True)
class System:
    """A loaded model. fusion: the flat weights of `rdrec fuse`, None where it was never run.

    forgetting: items -> the engine as if it had never seen purchases of them, None where rows are not made of words;
    for a catalogue that has words. encoder: the sentence encoder that the dense channels of text are made with, None
    where there are none. channels: names of the channels that a bundle holds; None for a checkpoint, whose graph may
    have any.
    """

    path: Path
    engine: Engine
    fusion: dict[str, float] | None
    topn_task: Task
    candidate_width: int
    text_tasks: list[Task]
    encoder: TextEncoder | None = None
    channels: frozenset[str] | None = None
    forgetting: Callable[[IntArray], Engine] | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def ranker(self, graph: ItemGraph | None, fusion: dict[str, float] | None) -> Ranker:
        """The product's ranking over a graph; fusion None ranks by the model alone."""
        weights = FusionWeights.from_manifest(fusion) if fusion is not None else None
        return Ranker(
            self.engine, graph, weights, topn_task=self.topn_task, candidate_width=self.candidate_width
        )  # fmt: skip


def load_system(
    path: Path, dataset: Dataset, *, mode: ScoreMode | None = None, strategy: Strategy | None = None,
    with_fusion: bool = True, upto: Split = "train",
) -> System:  # fmt: skip
    """A bundle runs as it is served (ONNX Runtime), a checkpoint in torch; None takes the path's own defaults.

    with_fusion False leaves a checkpoint's own fusion weights unread, which may be those of an earlier model. upto: the
    last split that it may have learned from.

    Raises CheckpointError or DatasetError where the path is neither, belongs to another catalogue or learned from more.
    """
    if (path / MANIFEST_FILE).is_file():
        return _bundle(path, dataset, mode, strategy, upto)
    return _checkpoint(path, dataset, mode, strategy, upto, with_fusion=with_fusion)


def _refuse_what_learned_more(path: Path, learned: Split, upto: Split) -> None:
    if learned == "test":
        raise CheckpointError(
            f"{path} was trained with --all, on test interactions too, so nothing is left to measure or fuse it by; use"
            " the checkpoint that it was made like"
        )
    if SPLITS.index(learned) > SPLITS.index(upto):
        raise CheckpointError(
            f"{path} learned from validation interactions too (--keep-test): measure it by `rdrec evaluate --refit`,"
            " and fuse the checkpoint that it was made like"
        )


def fused_graph(
    dataset: Dataset, upto: Split, fusion: dict[str, float] | None, encoder: TextEncoder | None = None
) -> ItemGraph:
    """The graph as `rdrec fuse` chose to build it, from what is known up to and with a split.

    Without weights all channels are built, with weights those that have any.
    """
    only = None if fusion is None else FusionWeights.from_manifest(fusion).channels
    return build_graph(dataset, upto, GraphConfig.from_fusion(fusion or {}), encoder, only=only)


def open_encoder(source: str | None, dataset: Dataset) -> TextEncoder | None:
    """The sentence encoder of a folder or hub id, its vectors kept in the dataset's folder."""
    if source is None:
        return None
    from training.signals.sentence_encoder import SentenceEncoder

    return RememberedVectors(SentenceEncoder.open(source), dataset.path / VECTORS_FOLDER)


def _bundle(path: Path, dataset: Dataset, mode: ScoreMode | None, strategy: Strategy | None, upto: Split) -> System:
    from rdrec_core.engines.onnx_engine import OnnxEngine

    bundle = Bundle.open(path)
    ids = dataset.items["item_id"]
    catalog = bundle.catalog
    if len(catalog) != len(ids) or any(catalog.item_ids[i] != item for i, item in enumerate(ids)):
        raise DatasetError(f"{dataset.path} has another catalogue than the bundle {path}; pass the bundle's dataset")
    if not np.array_equal(catalog.labels, dataset.items["label"].cast(int).to_numpy()):
        raise DatasetError(f"{dataset.path} has other labels than the bundle {path}; pass the bundle's dataset")
    manifest = bundle.manifest
    learned = learned_upto(manifest.recipe)
    _refuse_what_learned_more(path, learned, upto)
    engine = OnnxEngine.from_bundle(bundle, score_mode=mode, strategy=strategy)
    facts = {
        "system": manifest.model_version, "kind": "bundle", "protocol": manifest.protocol,
        "label_scheme": manifest.label_scheme, "score_mode": engine.score_mode.value, "strategy": engine.strategy.value,
        "recipe": manifest.recipe, "dataset_sha256": manifest.dataset_sha256, "learned_upto": learned,
    }  # fmt: skip
    return System(
        path, engine, manifest.fusion, manifest.topn_task, manifest.candidate_width, list(manifest.text_tasks),
        _encoder_of(bundle, dataset), channel_names(bundle.arrays("graph")), facts,
    )  # fmt: skip


def _encoder_of(bundle: Bundle, dataset: Dataset) -> TextEncoder | None:
    if not bundle.has(f"{TEXT_FOLDER}/{GRAPH_FILE}"):
        return None
    files = (bundle.file(f"{TEXT_FOLDER}/{name}") for name in (GRAPH_FILE, TOKENIZER_FILE, SETTINGS_FILE))
    return RememberedVectors(OnnxTextEncoder(*files), dataset.path / VECTORS_FOLDER)


def _checkpoint(
    path: Path, dataset: Dataset, mode: ScoreMode | None, strategy: Strategy | None, upto: Split, *, with_fusion: bool
) -> System:
    import torch

    from rdrec_core.eager.torch_text import TorchTextGenerator
    from rdrec_core.engines.torch_engine import TorchEngine
    from training.learning.backbone import CatalogTokens

    checkpoint = load_checkpoint(path)
    checkpoint.dataset(dataset.path)  # the labels must be the ones that the model learned
    info = checkpoint.info
    _refuse_what_learned_more(path, info.learned_upto, upto)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = checkpoint.model.to(device)
    tokens = CatalogTokens.of(
        checkpoint.tokenizer, dataset.items["label"].to_list(), whole_labels=info.config.whole_labels
    )
    t5 = model.config.t5
    encoder = SourceEncoder(checkpoint.tokenizer, tokens.item_words, eos_token_id=t5.eos_token_id)
    trie = ItemTrie.build(tokens.labels, eos_token_id=t5.eos_token_id, start_token_id=t5.pad_token_id)
    score_mode = mode or (ScoreMode.TRIE if info.config.loss == "trie" else ScoreMode.FULL)
    engine = TorchEngine(
        model, encoder, trie, score_mode=score_mode, strategy=strategy or Strategy.BEAM, max_batch=64,
        text=TorchTextGenerator(model, encoder, checkpoint.tokenizer) if info.text_tasks else None,
    )  # fmt: skip
    forgetting = None
    if (rows := checkpoint.text_rows) is not None:

        def forgetting(items: IntArray) -> Engine:
            words = item_profiles(dataset, "train", only=(CATALOGUE,))[CATALOGUE]
            other = copy.deepcopy(model)
            table = other.t5.shared.weight
            with torch.no_grad():
                table[torch.from_numpy(tokens.labels.tokens[items].astype(np.int64))] = torch.from_numpy(
                    rows.rows([words[i] for i in items])
                ).to(table)
            return TorchEngine(other, encoder, trie, score_mode=score_mode, max_batch=64)

    facts = {
        "system": f"{path.name} (epoch {info.epoch})", "kind": "checkpoint", "protocol": info.protocol,
        "label_scheme": info.label_scheme, "score_mode": engine.score_mode.value, "strategy": engine.strategy.value,
        "recipe": info.config.model_dump(mode="json"), "dataset_sha256": info.dataset_sha256,
        "learned_upto": info.learned_upto,
    }  # fmt: skip
    fusion = read_fusion(path) if with_fusion else None
    return System(
        path, engine, fusion, info.topn_task, info.config.negatives + 1, info.text_tasks,
        open_encoder(read_text_encoder(path), dataset), forgetting=forgetting, facts=facts,
    )  # fmt: skip


def read_text_encoder(checkpoint: Path) -> str | None:
    """Folder or hub id of the sentence encoder that `rdrec fuse` was given for a checkpoint, or None."""
    file = checkpoint / ENCODER_FILE
    if not file.is_file():
        return None
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["text_encoder"])
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{file} should name a text_encoder; make it again with `rdrec fuse`") from error


def read_fusion(checkpoint: Path) -> dict[str, float] | None:
    """The weights that `rdrec fuse` stored in a checkpoint folder, or None.

    Raises CheckpointError where the model has changed since they were fitted, or the file is not what fuse writes.
    """
    file = checkpoint / FUSION_FILE
    if not file.is_file():
        return None
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        fitted_to = stored.pop(WEIGHTS_KEY, None)  # versions before this one did not store it
        flat = {str(name): float(value) for name, value in stored.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file} should map names to numbers; make it again with `rdrec fuse`") from error
    if fitted_to is not None and fitted_to != weights_sha256(checkpoint):
        raise CheckpointError(f"{file} was fitted to other weights than {checkpoint} holds now; run `rdrec fuse` again")
    return flat
