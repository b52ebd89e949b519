"""One fit of the fused ranking put together: graph settings, tables of signals, weights, and where they are kept.

Sees training interactions and validation targets only. The graph's settings are chosen first, by the graph alone, one
setting at a time; then the weights, with the model.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from rdrec_core.bundle import MANIFEST_FILE, Bundle, Description, manifest_of
from rdrec_core.fusion import FusionWeights, TaskWeights
from rdrec_core.item_graph import TEXT_PREFIX, ItemGraph, Mix
from rdrec_core.item_texts import CATALOGUE
from rdrec_core.replacing import replacing_file
from rdrec_core.signing import SIGNATURE_FILE
from rdrec_core.types import Task
from training.data.dataset import Dataset
from training.evaluation.baselines import graph_alone
from training.evaluation.fusion import fit, look_up, quality, start_of
from training.evaluation.measure import rank_by_scorer
from training.evaluation.metrics import summary
from training.evaluation.protocol import Questions, candidate_lists, questions
from training.evaluation.systems import WEIGHTS_KEY, System
from training.evaluation.tables import progress_bar
from training.evaluation.unbought import fit_unbought
from training.evaluation.wishes import fit_wishes
from training.learning.checkpoint import ENCODER_FILE, FUSION_FILE, weights_sha256
from training.signals.graph import GraphConfig, Sequences, graph_of, with_decays
from training.signals.profiles import FIELDS
from training.signals.remembered import TextEncoder
from training.signals.text import (
    KINDS,
    TextChannel,
    build_graph,
    channel_name,
    item_texts,
    only_channels,
    text_channels,
    text_fields,
    with_channels,
)

GRID: dict[str, tuple[float, ...]] = {
    "half_life_days": (0.0, 60.0, 180.0, 365.0, 1000.0),
    "decay": (0.4, 0.6, 0.8),
    "wide_decay": (0.5, 0.7, 0.9),
    "text_decay": (0.5, 0.7, 0.9),
    "row_damping": (0.0, 0.3, 0.6),
    "column_damping": (0.0, 0.15, 0.3),
}
"""Settings tried, in this order; the first one only where the source has timestamps."""
DECAYS = ("decay", "wide_decay", "text_decay")
"""Settings of the query alone, which need no new graph."""
TUNING_USERS = 2000
GRAPH_WEIGHTS = (0.5, 5.0)
"""With which what the graph found alone is searched on from, with the model."""
NEW_ITEMS_COST = 0.02
NEW_ITEMS_USERS = 1500
"""Of either kind, looked at to choose how loud texts are for items that nobody has bought."""
GRAPHS_BYTES = 1 << 31
"""What the graphs that the search for settings has built may take together, beside the one that it builds."""
_TOLD_APART = 1e-4


@dataclass(frozen=True)
class Fitted:
    """Flat weights, and for each task the validation metrics of model alone, graph alone and fused."""

    flat: dict[str, float]
    quality: dict[str, dict[str, dict[str, float]]]
    n_users: int


def fit_system(
    system: System, dataset: Dataset, *, limit_users: int, tune_graph: bool, seed: int, console: Console,
    new_items_cost: float = NEW_ITEMS_COST, without_fields: Collection[str] = (),
) -> Fitted:  # fmt: skip
    """Choose graph settings and weights on validation users.

    new_items_cost: what items that nobody has bought may cost the others, a share of NDCG@10.
    without_fields: fields of item texts whose channels are left out.
    """
    asked = questions(dataset, "val", limit=limit_users, seed=seed)
    sequences = Sequences.of(dataset, "train")
    with console.status("text: vectors and nearest items"):
        only = {channel_name(field, kind) for field in FIELDS if field not in without_fields for kind in KINDS}
        fields = text_fields(dataset, "train", system.encoder, only=only)
        text = text_channels(fields, GraphConfig())
    if tune_graph and system.channels is None:
        tuning = questions(dataset, "val", limit=TUNING_USERS, seed=seed)
        config = tuned_graph(sequences, tuning, console, text)
    else:  # a bundle holds its graph already, built as its manifest says
        config = GraphConfig.from_fusion(system.fusion or {})
    graph = with_decays(with_channels(graph_of(sequences, config), text), config)
    if system.channels is not None:
        graph = only_channels(graph, system.channels)
    weights, metrics = {}, {}
    for name in ("sequential", "topn"):
        candidates = candidate_lists(dataset, asked, seed=seed) if name == "topn" else None
        with progress_bar(console) as bar:
            row = bar.add_task(f"{name}: the signals of each user", total=len(asked))
            table = look_up(
                system.engine, graph, asked, Task[name.upper()], candidates,
                progress=lambda n, row=row: bar.advance(row, n), score_task=system.topn_task,
            )  # fmt: skip
        with console.status(f"{name}: fitting"):
            alone = fit(table, graph, model=0.0)
            found = fit(table, graph, also=[replace(alone.weights, graph=weight) for weight in GRAPH_WEIGHTS])
        weights[name] = found.weights
        no_graph = table.ranks(replace(found.weights, graph=0.0))
        metrics[name] = {
            "model alone": summary(no_graph), "graph alone": summary(table.ranks(alone.weights, model=0.0)),
            "fused": summary(table.ranks(found.weights)),
        }  # fmt: skip
    has_words = any(field.name == CATALOGUE for field in fields)
    unbought = _unbought(system, graph, dataset, weights["sequential"], new_items_cost, seed, console, has_words)
    weights = {name: replace(each, mix=replace(each.mix, unbought=unbought)) for name, each in weights.items()}
    fused = FusionWeights(weights["sequential"], weights["topn"])
    kept = [field for field in fields if field.name == CATALOGUE or held_by(field.name, fused.channels)]
    if kept:
        with console.status("words: how loud"):
            titles = dataset.items["title"].to_list()
            wishes = fit_wishes(
                system.engine, graph, item_texts(kept, text, len(titles)), titles, asked, fused.sequential, seed=seed
            )
        fused = replace(fused, words=wishes.weight)
        if wishes.quality:
            console.print(
                f"words of the next title, typed by {wishes.n_users:,} validation users: NDCG@10"
                f" {wishes.quality[0.0]:.4f} without them, {wishes.quality[wishes.weight]:.4f} with weight"
                f" {wishes.weight:g}",
                highlight=False,
            )
    flat = fused.to_manifest() | config.to_fusion()
    return Fitted(flat, metrics, len(asked))


def _unbought(
    system: System, graph: ItemGraph, dataset: Dataset, weights: TaskWeights, cost: float, seed: int, console: Console,
    has_words: bool,
) -> float:  # fmt: skip
    """How loud texts are for items that nobody has bought; as it was, or 1, where that cannot be asked.

    has_words: whether the catalogue says anything of its items.
    """
    has_texts = has_words and any(name.startswith(TEXT_PREFIX) for name in graph.channels)
    if system.forgetting is None or not has_texts:
        return float((system.fusion or {}).get("sequential.unbought", 1.0))
    asked = questions(dataset, "val")
    with progress_bar(console) as bar:
        row = bar.add_task("items that nobody has bought", total=None)
        found = fit_unbought(
            system.forgetting, graph, asked, weights, price=cost, seed=seed, limit=NEW_ITEMS_USERS,
            progress=lambda n: bar.advance(row, n),
        )  # fmt: skip
    if found.quality:
        (before, others), (after, others_after) = found.quality[1.0], found.quality[found.factor]
        console.print(
            f"items that nobody has bought, asked for by {found.n_hidden:,} validation users from whom they were"
            f" hidden: texts count {found.factor:g} times; NDCG@10 {before:.4f} -> {after:.4f}, of the other questions"
            f" {others:.4f} -> {others_after:.4f} (--new-items-cost)",
            highlight=False,
        )
    return found.factor


def held_by(field: str, channels: Collection[str]) -> bool:
    """Whether any of the channels is of the field."""
    return any(channel_name(field, kind) in channels for kind in KINDS)


def fit_graph_alone(
    dataset: Dataset, config: GraphConfig, task: str, *, limit_users: int, seed: int,
    encoder: TextEncoder | None = None, only: Collection[str] | None = None,
) -> Mix:  # fmt: skip
    """The mix of channels that ranks validation items best without a model, for the baselines' table.

    only: names of the channels that may have weight.
    """
    asked = questions(dataset, "val", limit=limit_users, seed=seed)
    graph = build_graph(dataset, "train", config, encoder, only=only)
    candidates = candidate_lists(dataset, asked, seed=seed) if task == "topn" else None
    table = look_up(None, graph, asked, Task[task.upper()], candidates, progress=lambda _: None)
    return fit(table, graph, model=0.0).weights.mix


class BuiltGraphs:
    """Graphs by how they are built, kept while they take less than GRAPHS_BYTES together.

    Those of a large catalogue are built again where the search comes back to them.
    """

    def __init__(self, build: Callable[[GraphConfig], ItemGraph]) -> None:
        self._build = build
        self._graphs: OrderedDict[GraphConfig, ItemGraph] = OrderedDict()

    def __getitem__(self, config: GraphConfig) -> ItemGraph:
        if config not in self._graphs:
            while self._graphs and self._bytes() * (len(self._graphs) + 1) > GRAPHS_BYTES * len(self._graphs):
                self._graphs.popitem(last=False)  # the next one takes about as much as each that is there
            self._graphs[config] = self._build(config)
        self._graphs.move_to_end(config)
        return self._graphs[config]

    def __len__(self) -> int:
        return len(self._graphs)

    def _bytes(self) -> int:
        return sum(array.nbytes for graph in self._graphs.values() for array in graph.arrays().values())


def tuned_graph(
    sequences: Sequences, asked: Questions, console: Console, text: Mapping[str, TextChannel] | None = None
) -> GraphConfig:
    """Graph settings that rank validation items best by the graph alone, one setting after the other.

    text: the channels of text that stand beside it, of which only the decay is a setting.
    """
    text = text or {}

    built = BuiltGraphs(lambda config: with_channels(graph_of(sequences, config), text))

    def measure(config: GraphConfig) -> float:
        plain = config.model_copy(update={name: getattr(GraphConfig(), name) for name in DECAYS})
        graph = with_decays(built[plain], config)
        return quality(rank_by_scorer(graph_alone(graph, start_of(graph).mix), asked, None, lambda _: None).ranks)

    best = GraphConfig()
    with progress_bar(console) as bar:
        grid = {
            name: values
            for name, values in GRID.items()
            if (name != "half_life_days" or sequences.times is not None) and (name != "text_decay" or text)
        }
        row = bar.add_task("graph settings", total=1 + sum(len(values) - 1 for values in grid.values()))
        top = measure(best)
        bar.advance(row)
        for name, values in grid.items():
            default = getattr(GraphConfig(), name)
            for value in values:
                if value == default:
                    continue
                option = best.model_copy(update={name: value})
                found = measure(option)
                bar.advance(row)
                if found > top + _TOLD_APART:
                    best, top = option, found
    return best


def store_fusion(path: Path, flat: dict[str, float], text_encoder: str | None = None) -> Path:
    """Keep the weights: `fusion.json` in a checkpoint, the manifest of a bundle; returns the file.

    text_encoder: which sentence encoder the channels were made with; kept beside `fusion.json`.

    A checkpoint's are bound to the weights that it holds now. A bundle's model version changes with its weights, and a
    signature over the old manifest no longer holds, so it is removed: sign the bundle again.
    """
    if (path / MANIFEST_FILE).is_file():
        bundle = Bundle.open(path)
        names = Description.model_fields
        kept = {name: value for name, value in bundle.manifest.model_dump().items() if name in names}
        description = Description.model_validate(kept | {"fusion": flat})
        text = manifest_of(description, bundle.manifest.files).model_dump_json(indent=2)
        (path / SIGNATURE_FILE).unlink(missing_ok=True)
        with replacing_file(path / MANIFEST_FILE) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return path / MANIFEST_FILE
    (path / ENCODER_FILE).unlink(missing_ok=True)
    if text_encoder is not None:
        with replacing_file(path / ENCODER_FILE) as temporary:
            temporary.write_text(json.dumps({"text_encoder": text_encoder}, indent=2) + "\n", encoding="utf-8")
    text = json.dumps({WEIGHTS_KEY: weights_sha256(path), **flat}, indent=2) + "\n"
    with replacing_file(path / FUSION_FILE) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path / FUSION_FILE
