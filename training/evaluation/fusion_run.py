"""One fit of the fused ranking put together: graph settings, tables of signals, weights, and where they are kept.

Sees training interactions and validation targets only. The graph's settings are chosen first, by the graph alone, one
setting at a time; then the weights, with the model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from rdrec_core.bundle import MANIFEST_FILE, Bundle, Description, manifest_of
from rdrec_core.item_graph import ItemGraph, Mix
from rdrec_core.ranking import FusionWeights
from rdrec_core.replacing import replacing_file
from rdrec_core.signing import SIGNATURE_FILE
from rdrec_core.types import Task
from training.data.dataset import Dataset
from training.evaluation.baselines import graph_alone
from training.evaluation.fusion import START, fit, known, look_up, quality
from training.evaluation.measure import rank_by_scorer
from training.evaluation.metrics import summary
from training.evaluation.protocol import Questions, candidate_lists, questions
from training.evaluation.systems import FUSION_FILE, System
from training.evaluation.tables import progress_bar
from training.signals.graph import GraphConfig, Sequences, graph_of, with_decays

GRID: dict[str, tuple[float, ...]] = {
    "half_life_days": (0.0, 60.0, 180.0, 365.0, 1000.0),
    "decay": (0.4, 0.6, 0.8),
    "wide_decay": (0.5, 0.7, 0.9),
    "row_damping": (0.0, 0.3, 0.6),
    "column_damping": (0.0, 0.15, 0.3),
}
"""Settings tried, in this order; the first one only where the source has timestamps."""
TUNING_USERS = 2000
_TOLD_APART = 1e-4


@dataclass(frozen=True)
class Fitted:
    """Flat weights, and for each task the validation metrics of model alone, graph alone and fused."""

    flat: dict[str, float]
    quality: dict[str, dict[str, dict[str, float]]]
    n_users: int


def fit_system(
    system: System, dataset: Dataset, *, limit_users: int, tune_graph: bool, seed: int, console: Console
) -> Fitted:
    """Choose graph settings and weights on validation users."""
    asked = questions(dataset, "val", limit=limit_users, seed=seed)
    sequences = Sequences.of(dataset, "train")
    if tune_graph and not (system.path / MANIFEST_FILE).is_file():
        config = tuned_graph(sequences, questions(dataset, "val", limit=TUNING_USERS, seed=seed), console)
    else:  # a bundle holds its graph already, built as its manifest says
        config = GraphConfig.from_fusion(system.fusion or {})
    graph = graph_of(sequences, config)
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
            found, alone = fit(table, graph), fit(table, graph, model=0.0)
        weights[name] = found.weights
        no_graph = table.ranks(replace(found.weights, graph=0.0))
        metrics[name] = {
            "model alone": summary(no_graph), "graph alone": summary(table.ranks(alone.weights, model=0.0)),
            "fused": summary(table.ranks(found.weights)),
        }  # fmt: skip
    flat = FusionWeights(weights["sequential"], weights["topn"]).to_manifest() | config.to_fusion()
    return Fitted(flat, metrics, len(asked))


def fit_graph_alone(dataset: Dataset, config: GraphConfig, task: str, *, limit_users: int, seed: int) -> Mix:
    """The mix of channels that ranks validation items best without a model, for the baselines' table."""
    asked = questions(dataset, "val", limit=limit_users, seed=seed)
    graph = graph_of(Sequences.of(dataset, "train"), config)
    candidates = candidate_lists(dataset, asked, seed=seed) if task == "topn" else None
    table = look_up(None, graph, asked, Task[task.upper()], candidates, progress=lambda _: None)
    return fit(table, graph, model=0.0).weights.mix


def tuned_graph(sequences: Sequences, asked: Questions, console: Console) -> GraphConfig:
    """Graph settings that rank validation items best by the graph alone, one setting after the other."""

    built: dict[GraphConfig, ItemGraph] = {}

    def measure(config: GraphConfig) -> float:
        plain = config.model_copy(update={name: getattr(GraphConfig(), name) for name in ("decay", "wide_decay")})
        if plain not in built:
            built[plain] = graph_of(sequences, plain)
        graph = with_decays(built[plain], config)
        return quality(rank_by_scorer(graph_alone(graph, known(START, graph).mix), asked, None, lambda _: None).ranks)

    best = GraphConfig()
    with progress_bar(console) as bar:
        grid = {
            name: values for name, values in GRID.items() if name != "half_life_days" or sequences.times is not None
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


def store_fusion(path: Path, flat: dict[str, float]) -> Path:
    """Keep the weights: `fusion.json` in a checkpoint, the manifest of a bundle; returns the file.

    A bundle's model version changes with its weights, and a signature over the old manifest no longer holds, so it is
    removed: sign the bundle again.
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
    text = json.dumps(flat, indent=2) + "\n"
    with replacing_file(path / FUSION_FILE) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path / FUSION_FILE
