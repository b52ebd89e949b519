"""From a checkpoint and its dataset to a bundle: the end of training, and all that the service ever reads.

Writes into a temporary folder that takes the bundle's name only when everything is there and every graph was checked.
Knows which parts a bundle has; what is in them is decided by the modules that make them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from rdrec_core.bundle import BundleWriter, Description, Manifest
from rdrec_core.catalog import Catalog, StringTable, Users
from rdrec_core.decoding.item_trie import ItemTrie
from rdrec_core.decoding.text_requests import text_rows
from rdrec_core.encoding import SourceEncoder, encode_words
from rdrec_core.engines.bundled import trie_group
from rdrec_core.exported.search_export import export_search_graphs
from rdrec_core.exported.text_export import export_text_graphs
from rdrec_core.filters import GROUP as COLUMNS
from rdrec_core.replacing import replacing_folder
from rdrec_core.statements import GROUP as STATEMENTS
from rdrec_core.text_rows import GROUP as TEXT_ROWS
from rdrec_core.types import ScoreMode, Strategy
from training.bundling.columns import columns_of
from training.bundling.signals import add_signals
from training.bundling.statements import statements_of
from training.data.dataset import SPLITS, Dataset, Split
from training.evaluation.gate import LEARNED_UNTIL
from training.learning.backbone import CatalogTokens
from training.learning.checkpoint import Checkpoint
from training.learning.examples import text_pools
from training.learning.targets import TargetRule

Say = Callable[[str], None]


def default_score_modes(checkpoint: Checkpoint) -> tuple[ScoreMode, ...]:
    """The distribution that training defined comes first; a trie-trained model has no other."""
    if checkpoint.info.config.loss == "trie":
        return (ScoreMode.TRIE,)
    return (ScoreMode.FULL, ScoreMode.TRIE)


def catalog_of(dataset: Dataset) -> Catalog:
    """All items, all available."""
    items = dataset.items
    return Catalog(
        item_ids=StringTable.from_strings(items["item_id"]),
        titles=StringTable.from_strings(items["title"].fill_null("")),
        labels=items["label"].cast(int).to_numpy(),
        available=np.ones(len(items), dtype=np.bool_),
    )


def users_of(dataset: Dataset, upto: Split) -> Users:
    """All users with their histories up to and with a split."""
    indptr, items = dataset.sequences(upto)
    return Users(StringTable.from_strings(dataset.users["user_id"]), indptr, items)


def export_bundle(
    checkpoint: Checkpoint,
    dataset: Dataset,
    out: Path,
    *,
    upto: Split = "test",
    score_modes: Sequence[ScoreMode] | None = None,
    strategy: Strategy | None = None,
    float16: bool = False,
    created_at: datetime,
    metrics: Mapping[str, float] | None = None,
    graph: Path | None = None,
    force: bool = False,
    say: Say = lambda _: None,
) -> Manifest:
    """Write the bundle `out`, whole or not at all.

    upto: which interactions the base histories and the item graph hold: "test" (all) to deploy, "train" to measure
    the bundle on held-out items. score_modes None: `default_score_modes`. strategy None: the faster of beam and exact.
    float16: ranking graphs in half precision besides, for GPUs.
    metrics: what else the manifest should say. graph: folder of `rdrec graph`, None to build it here. Raises
    BundleError where `out` exists without force, ExportCheckError where a graph disagrees with torch.
    """
    info, model, tokenizer = checkpoint.info, checkpoint.model.float().cpu().eval(), checkpoint.tokenizer
    modes = list(score_modes or default_score_modes(checkpoint))
    with replacing_folder(out, force=force) as folder:
        writer = BundleWriter(folder)
        say("model, tokenizer, items and users")
        model.save(folder)
        tokenizer.save(str(folder / "tokenizer.json"))
        writer.add_arrays("items", catalog_of(dataset).arrays())
        writer.add_arrays(COLUMNS, columns_of(dataset, upto).arrays())
        writer.add_arrays("users", users_of(dataset, upto).arrays())
        tokens = CatalogTokens.of(tokenizer, dataset.items["label"].to_list(), whole_labels=info.config.whole_labels)
        writer.add_tokens("item_words", tokens.item_words)
        writer.add_tokens("labels", tokens.labels)
        t5 = model.config.t5
        trie = ItemTrie.build(tokens.labels, eos_token_id=t5.eos_token_id, start_token_id=t5.pad_token_id)
        for collapsed in sorted({mode is not ScoreMode.FULL for mode in modes}):
            writer.add_arrays(trie_group(collapsed=collapsed), trie.arrays(collapsed=collapsed))
        if dataset.has_reviews:
            say("statements of reviews")
            statements = statements_of(checkpoint.path, dataset)
            writer.add_arrays(STATEMENTS, statements.arrays())
        say("item graph and text")
        fusion = add_signals(writer, checkpoint, dataset, upto, graph)
        if checkpoint.text_rows is not None:  # by which an item that comes later gets a row
            writer.add_arrays(TEXT_ROWS, checkpoint.text_rows.arrays())
        say(f"ranking graphs for {', '.join(modes)}, each compared with torch")
        graphs = folder / "onnx"
        graphs.mkdir()
        encoder = SourceEncoder(tokenizer, tokens.item_words, eos_token_id=t5.eos_token_id)
        ranking = export_search_graphs(
            model, encoder, trie, graphs, score_modes=modes, strategy=strategy, float16=float16
        )
        if info.text_tasks:
            say("text graphs, compared with torch")
            rows = text_rows(
                tokenizer, t5.vocab_size, eos_token_id=t5.eos_token_id, seen=written_tokens(checkpoint, dataset)
            )
            export_text_graphs(model, graphs, rows, int8=ScoreMode.TRIE_INT8 in modes)
        for file in folder.rglob("*"):
            if file.is_file():
                file.chmod(0o644)  # safetensors makes files that only their owner, perhaps not the service, can read
        return writer.finish(
            Description(
                name=info.dataset_name, created_at=created_at.isoformat(timespec="seconds"),
                recipe=info.config.model_dump(mode="json") | {"learned_upto": info.learned_upto},
                protocol=info.protocol, label_scheme=info.label_scheme,
                dataset_sha256=info.dataset_sha256, n_users=info.n_users, n_items=info.n_items, score_modes=modes,
                strategy=ranking.strategy, topn_task=info.topn_task, candidate_width=info.config.negatives + 1,
                text_tasks=info.text_tasks, fusion=fusion,
                metrics={
                    **{f"validation_loss.{name}": loss for name, loss in info.validation_loss.items()},
                    **learned_until(dataset, upto), **(metrics or {}),
                },
            )
        )  # fmt: skip


def learned_until(dataset: Dataset, upto: Split) -> dict[str, float]:
    """When the newest interaction was that a bundle up to and with a split holds; nothing where there are no times."""
    rows = dataset.interactions
    times = rows.timestamp[rows.split <= SPLITS.index(upto)]
    return {LEARNED_UNTIL: float(times.max())} if len(times) and times.max() >= 0 else {}


def written_tokens(checkpoint: Checkpoint, dataset: Dataset) -> list[int]:
    """Every token of a training target: a text may be written with these, not with item words, say."""
    info = checkpoint.info
    pools = text_pools(
        dataset, "train", info.text_tasks, lambda texts: encode_words(checkpoint.tokenizer, texts),
        TargetRule.of(info.config),
    )  # fmt: skip
    return np.unique(np.concatenate([pool.texts.tokens for pool in pools.values()])).tolist()
