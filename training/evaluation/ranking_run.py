"""One ranking evaluation put together: questions, systems, outcomes, record. Called by `rdrec evaluate` and by tests.

Every system of a table answers the same questions, and everything that counts co-purchases is fitted on the same
interactions: training ones, or with refit training and validation ones. A table never mixes the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console

from rdrec_core.errors import InputError
from rdrec_core.fusion import FusionWeights
from rdrec_core.item_graph import ItemGraph, Mix
from training.data.cold_items import purchases_by_item
from training.data.dataset import Dataset, Split
from training.evaluation import baselines
from training.evaluation.measure import (
    Answers,
    Ints,
    Progress,
    Scorer,
    rank_by_scorer,
    rank_candidates,
    rank_sequential,
)
from training.evaluation.metrics import summary
from training.evaluation.protocol import PAPER_WARNING, Questions, candidate_lists, questions
from training.evaluation.results import Measured, ranking_record
from training.evaluation.systems import System, fused_graph
from training.evaluation.tables import progress_bar
from training.evaluation.target_groups import by_purchases
from training.signals.graph import GraphConfig, Sequences
from training.signals.text import channel_name, text_channels, text_fields

GRAPH = "graph alone"
CATALOGUE_CHANNEL = channel_name("catalogue", "sparse")
Run = Callable[[Progress], Answers]
Step = Callable[[str, Run], Answers]
VALIDATION_USERS = 3000
"""Validation users after whom SASRec stops."""


@dataclass(frozen=True)
class RankingOptions:
    """What is asked of a ranking evaluation. task: sequential or topn."""

    task: str
    split: Split = "test"
    fusion: bool = True
    refit: bool = False
    with_baselines: bool = False
    with_sasrec: bool = True
    limit_users: int | None = None
    seed: int = 0
    trials: int = 1
    beam_width: int = 20

    def check(self) -> None:
        """Raise InputError where the options contradict each other."""
        if self.refit and self.split == "val":
            raise InputError("--refit fits on validation interactions, so it needs --split test", field="refit")
        if self.trials > 1 and self.task == "sequential":
            raise InputError(
                "--trials draws candidates anew, which only top-N has; for trials of the training give several runs to"
                " `rdrec report`", field="trials",
            )  # fmt: skip


def evaluate_ranking(
    system: System, dataset: Dataset, options: RankingOptions, console: Console
) -> tuple[Measured, dict[str, Any]]:
    """Measure a model's ranking; returns the outcomes and the record."""
    options.check()
    upto: Split = "val" if options.refit else "train"
    asked = questions(dataset, options.split, limit=options.limit_users, seed=options.seed)
    candidates = candidate_lists(dataset, asked, seed=options.seed) if options.task == "topn" else None
    graph = fused_graph(dataset, upto, system.fusion, system.encoder)
    fused = options.fusion and system.fusion is not None
    ranker = system.ranker(graph, system.fusion)
    main = "fused" if fused else "model alone"

    def by_ranker(fusion: bool, lists: list[Ints] | None) -> Run:
        if lists is None:
            return lambda progress: rank_sequential(
                ranker, asked, fusion=fusion, beam_width=options.beam_width, progress=progress
            )
        return lambda progress: rank_candidates(ranker, asked, lists, fusion=fusion, progress=progress)

    with _steps(console, asked) as step:
        outcomes = {main: step(main, by_ranker(fused, candidates))}
        trials = [summary(outcomes[main].ranks)]
        for trial in range(1, options.trials):
            drawn = candidate_lists(dataset, asked, seed=options.seed + trial)
            trials.append(summary(step(f"trial {trial + 1}", by_ranker(fused, drawn)).ranks))
        if options.with_baselines:
            if fused and system.fusion is not None:
                outcomes["model alone"] = step("model alone", by_ranker(False, candidates))
                weights = FusionWeights.from_manifest(system.fusion)
                mix = (weights.topn if options.task == "topn" else weights.sequential).mix
                outcomes[GRAPH] = step(GRAPH, _by_scorer(baselines.graph_alone(graph, mix), asked, candidates))
            outcomes |= _measure_baselines(dataset, options, asked, candidates, step, console)
    measured = Measured(asked, outcomes, main, graph.popularity.astype(np.float64))
    record = {"fusion": system.fusion, "path": str(system.path), **system.facts}
    record |= _record(measured, dataset, options)
    if options.trials > 1:
        record["trials"] = {"n": options.trials, "rows": {main: _spread(trials)}}
    return measured, record


def evaluate_baselines(
    dataset: Dataset, options: RankingOptions, graph: ItemGraph, mix: Mix, console: Console
) -> tuple[Measured, dict[str, Any]]:
    """Measure the graph and the other systems that need no T5; returns the outcomes and the record."""
    options.check()
    asked = questions(dataset, options.split, limit=options.limit_users, seed=options.seed)
    candidates = candidate_lists(dataset, asked, seed=options.seed) if options.task == "topn" else None
    with _steps(console, asked) as step:
        outcomes = {GRAPH: step(GRAPH, _by_scorer(baselines.graph_alone(graph, mix), asked, candidates))}
        outcomes |= _measure_baselines(dataset, options, asked, candidates, step, console)
    measured = Measured(asked, outcomes, GRAPH, graph.popularity.astype(np.float64))
    return measured, {"system": GRAPH} | _record(measured, dataset, options)


def _measure_baselines(
    dataset: Dataset,
    options: RankingOptions,
    asked: Questions,
    candidates: list[Ints] | None,
    step: Step,
    console: Console,
) -> dict[str, Answers]:
    sequences = Sequences.of(dataset, "val" if options.refit else "train")
    made = _baselines(dataset, sequences, options, console)
    return {name: step(name, _by_scorer(make(), asked, candidates)) for name, make in made}


def _by_scorer(scorer: Scorer, asked: Questions, candidates: list[Ints] | None) -> Run:
    return lambda progress: rank_by_scorer(scorer, asked, candidates, progress)


def _baselines(
    dataset: Dataset, sequences: Sequences, options: RankingOptions, console: Console
) -> Iterator[tuple[str, Callable[[], Scorer]]]:
    yield "popularity", lambda: baselines.popularity(sequences)
    yield "co-purchase counts", lambda: baselines.copurchase_counts(sequences)
    yield "item-kNN", lambda: baselines.item_knn(sequences)
    if sequences.n_items <= baselines.EASE_MAX_ITEMS:
        yield "EASE + counts", lambda: baselines.ease_with_counts(sequences)
    else:
        console.print(f"note: no EASE, the catalogue has more than {baselines.EASE_MAX_ITEMS:,} items", style="yellow")
    only = [CATALOGUE_CHANNEL]
    text = text_channels(text_fields(dataset, "train", only=only), GraphConfig(), only=only)
    if text:
        yield "content-kNN", lambda: baselines.content_knn(sequences, text[CATALOGUE_CHANNEL].channel)
    if options.with_sasrec:
        yield "SASRec", lambda: _sasrec(dataset, sequences if options.refit else None, console)


def _sasrec(dataset: Dataset, refitted: Sequences | None, console: Console) -> Scorer:
    training, validation = Sequences.of(dataset, "train"), questions(dataset, "val", limit=VALIDATION_USERS)

    def report(epoch: int, loss: float, quality: float | None) -> None:
        found = "refitted" if quality is None else f"validation NDCG@10 {quality:.4f}"
        console.print(f"SASRec epoch {epoch}: loss {loss:.3f}, {found}", highlight=False)

    cache = dataset.path.with_name(f"{dataset.path.name}-baselines")
    return baselines.sasrec(training, refitted, validation, cache, report)


@contextmanager
def _steps(console: Console, asked: Questions) -> Iterator[Step]:
    with progress_bar(console) as bar:

        def step(name: str, run: Run) -> Answers:
            row = bar.add_task(name, total=len(asked))
            outcome = run(lambda n: bar.advance(row, n))
            bar.remove_task(row)
            return outcome

        yield step


def _record(measured: Measured, dataset: Dataset, options: RankingOptions) -> dict[str, Any]:
    info = dataset.info
    facts = {
        "task": options.task, "split": options.split, "dataset": info.name, "protocol": info.protocol,
        "label_scheme": info.label_scheme, "warning": PAPER_WARNING if info.protocol == "paper" else None,
        "fitted_on": "training and validation interactions" if options.refit else "training interactions",
        "refit": options.refit, "seed": options.seed, "limit_users": options.limit_users,
        "beam_width": options.beam_width, "n_items": info.n_items, "cold_items": info.cold_items,
        "source_sha256": info.source_sha256,
    }  # fmt: skip
    groups = by_purchases(measured.asked, measured.outcomes, purchases_by_item(dataset))
    return facts | ranking_record(measured, seed=options.seed) | {"groups": groups}


def _spread(trials: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    return {
        name: {
            "mean": float(np.mean([t[name] for t in trials])),
            "deviation": float(np.std([t[name] for t in trials], ddof=1)),
        }
        for name in trials[0]
    }
