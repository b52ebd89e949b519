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
from rdrec_core.ranking import FusionWeights
from training.data.dataset import Dataset, Split
from training.evaluation import baselines
from training.evaluation.measure import (
    Ints,
    Outcome,
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
from training.graph import Sequences

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

    def check(self, system: System) -> None:
        """Raise InputError where the options contradict each other or the system."""
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
    """Measure; returns the outcomes and the record."""
    options.check(system)
    upto: Split = "val" if options.refit else "train"
    asked = questions(dataset, options.split, limit=options.limit_users, seed=options.seed)
    candidates = candidate_lists(dataset, asked, seed=options.seed) if options.task == "topn" else None
    graph = fused_graph(dataset, upto, system.fusion)
    fused = options.fusion and system.fusion is not None
    ranker = system.ranker(graph, system.fusion)
    names = {True: "fused", False: "model alone"}

    def by_ranker(fusion: bool, lists: list[Ints] | None) -> Callable[[Progress], Outcome]:
        if lists is None:
            return lambda progress: rank_sequential(
                ranker, asked, fusion=fusion, beam_width=options.beam_width, progress=progress
            )
        return lambda progress: rank_candidates(ranker, asked, lists, fusion=fusion, progress=progress)

    outcomes: dict[str, Outcome] = {}
    with _steps(console, asked) as step:
        outcomes[names[fused]] = step(names[fused], by_ranker(fused, candidates))
        if options.with_baselines:
            if fused:
                outcomes["model alone"] = step("model alone", by_ranker(False, candidates))
                assert system.fusion is not None
                weights = FusionWeights.from_manifest(system.fusion)
                mix = (weights.topn if options.task == "topn" else weights.sequential).mix
                scorer = baselines.graph_alone(graph, mix)
                outcomes["graph alone"] = step(
                    "graph alone", lambda progress: rank_by_scorer(scorer, asked, candidates, progress)
                )
            sequences = Sequences.of(dataset, upto)
            for name, make in _baselines(dataset, sequences, options, console):
                made = make()
                outcomes[name] = step(
                    name, lambda progress, made=made: rank_by_scorer(made, asked, candidates, progress)
                )
        trials = [{name: summary(outcome.ranks) for name, outcome in outcomes.items()}]
        for trial in range(1, options.trials):
            drawn = candidate_lists(dataset, asked, seed=options.seed + trial)
            again = step(f"trial {trial + 1}", by_ranker(fused, drawn))
            trials.append({names[fused]: summary(again.ranks)})
    measured = Measured(asked, outcomes, names[fused])
    record = _facts(system, dataset, options, upto) | ranking_record(
        measured, n_items=dataset.info.n_items, popularity=graph.popularity.astype(np.float64), seed=options.seed
    )
    if options.trials > 1:
        record["trials"] = {"n": options.trials, "rows": {names[fused]: _spread([t[names[fused]] for t in trials])}}
    return measured, record


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
    # SASRec stops by validation users, so it cannot be refitted on them, and a refitted table goes without it
    if options.with_sasrec and not options.refit:
        yield "SASRec", lambda: _sasrec(dataset, sequences, console)


def _sasrec(dataset: Dataset, sequences: Sequences, console: Console) -> Scorer:
    validation = questions(dataset, "val", limit=VALIDATION_USERS)

    def report(epoch: int, loss: float, quality: float) -> None:
        console.print(f"SASRec epoch {epoch}: loss {loss:.3f}, validation NDCG@10 {quality:.4f}", highlight=False)

    return baselines.sasrec(sequences, validation, dataset.path / "baselines", report)


@contextmanager
def _steps(console: Console, asked: Questions) -> Iterator[Callable[[str, Callable[[Progress], Outcome]], Outcome]]:
    with progress_bar(console) as bar:

        def step(name: str, run: Callable[[Progress], Outcome]) -> Outcome:
            row = bar.add_task(name, total=len(asked))
            outcome = run(lambda n: bar.advance(row, n))
            bar.remove_task(row)
            return outcome

        yield step


def _facts(system: System, dataset: Dataset, options: RankingOptions, upto: Split) -> dict[str, Any]:
    info = dataset.info
    return {
        "task": options.task, "split": options.split, "dataset": info.name, "protocol": info.protocol,
        "warning": PAPER_WARNING if info.protocol == "paper" else None,
        "fitted_on": "training and validation interactions" if upto == "val" else "training interactions",
        "refit": options.refit, "seed": options.seed, "limit_users": options.limit_users, "fusion": system.fusion,
        "beam_width": options.beam_width, "n_items": info.n_items, "source_sha256": info.source_sha256,
        "path": str(system.path), **system.facts,
    }  # fmt: skip


def _spread(trials: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    return {
        name: {
            "mean": float(np.mean([t[name] for t in trials])),
            "deviation": float(np.std([t[name] for t in trials], ddof=1)),
        }
        for name in trials[0]
    }
