"""Is the new model fit to take the place of the one that is served? Both answer the newest questions, pairwise.

The served bundle answers as it stands, with its own graph, of a catalogue that may have grown since; the new model with
everything that is known before the questions. The final fit will learn from the questions too, and nobody can measure
it: so a day that the new model foresees far worse than the days before is taken for a day of false events. Knows
bundles and checkpoints, not how either is put into service.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rdrec_core.bundle import Bundle
from rdrec_core.engines.onnx_engine import OnnxEngine
from rdrec_core.errors import DatasetError
from rdrec_core.ranking import Ranker
from rdrec_core.types import RankRequest
from training.data.dataset import SPLITS, Dataset, Split
from training.evaluation.measure import Answers, rank_sequential
from training.evaluation.metrics import per_user, summary
from training.evaluation.protocol import Questions, questions
from training.evaluation.significance import Difference, by_user, interval, paired_difference
from training.evaluation.systems import fused_graph, load_system
from training.learning.ranks import LIST_LENGTH, rank_in_list

METRIC = "NDCG@10"
LEARNED_UNTIL = "learned_until"
"""In a bundle's metrics: the time of the newest interaction that is in it, in unix seconds."""
_AT_ONCE = 256
_REFERENCE_USERS = 2000
_DAY = 86_400
_BEAM_WIDTH = 20


@dataclass(frozen=True)
class Rule:
    """When the new model stays outside.

    It is worse where the paired 95 % interval of NDCG@10, new minus served, lies below -bound. Nothing can be told
    where the interval reaches below -doubt, or of fewer than min_questions. max_fall: by which part a day's NDCG@10 may
    be below that of the days before; more, at 95 %, and the day is not trusted.
    """

    bound: float = 0.01
    doubt: float = 0.1
    max_fall: float = 0.5
    min_questions: int = 20


@dataclass(frozen=True)
class Verdict:
    """Whether the new model may be served, with every reason against it, and both sides' figures by group."""

    passed: bool
    reasons: tuple[str, ...]
    n_questions: int
    difference: Difference
    reference: float
    """NDCG@10 of the new model on the days before, which it had not seen either."""
    rows: dict[str, dict[str, Any]]
    """Group of questions (all, new items, new users, known) -> n and, by system, its metrics."""

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "passed": self.passed, "reasons": list(self.reasons), "n_questions": self.n_questions,
            "difference": self.difference.record(), "reference": self.reference, "rows": self.rows,
        }  # fmt: skip


def compare(new: Path, served: Path, dataset: Dataset, rule: Rule, *, seed: int = 0) -> Verdict:
    """The new checkpoint beside the served bundle, on the dataset's test interactions.

    Raises DatasetError where the served bundle is of other numbers, or has learned from what it would be asked.
    """
    bundle = Bundle.open(served)
    require_earlier(bundle, dataset)
    asked = questions(dataset, "test", seed=seed)
    answers = {"served": rank_served(bundle, asked), "new": rank_new(new, dataset, asked, "val")}
    before = rank_new(new, dataset, questions(dataset, "val", limit=_REFERENCE_USERS, seed=seed), "train")
    rows = dataset.interactions
    return judged(
        answers, asked, rule, known=(bundle.manifest.n_users, bundle.manifest.n_items), seed=seed,
        times=rows.timestamp[rows.split == SPLITS.index("test")], reference=summary(before.ranks)[METRIC],
    )  # fmt: skip


def rank_new(checkpoint: Path, dataset: Dataset, asked: Questions, upto: Split) -> Answers:
    """A checkpoint's answers, with graph and text of everything up to and with a split."""
    system = load_system(checkpoint, dataset)
    ranker = system.ranker(fused_graph(dataset, upto, system.fusion, system.encoder), system.fusion)
    fused = system.fusion is not None
    return rank_sequential(ranker, asked, fusion=fused, beam_width=_BEAM_WIDTH, progress=lambda _: None)


def rank_served(bundle: Bundle, asked: Questions, *, fusion: bool = True) -> Answers:
    """The bundle's answers as it serves them; of users and items that came after it, it knows nothing.

    fusion False: its model alone.
    """
    n_users, n_items = bundle.manifest.n_users, bundle.manifest.n_items
    ranker = Ranker.of_bundle(bundle, OnnxEngine.from_bundle(bundle))
    ranks = np.full(len(asked), np.inf)
    lists = np.full((len(asked), LIST_LENGTH), -1, dtype=np.int64)
    for start in range(0, len(asked), _AT_ONCE):
        batch = range(start, min(len(asked), start + _AT_ONCE))
        requests = []
        for q in batch:
            user, history, seen = asked.user(q), asked.history(q), asked.seen(q)
            requests.append(
                RankRequest(
                    user if user is not None and user < n_users else None, tuple(history[history < n_items].tolist()),
                    n_items=LIST_LENGTH, exclude=tuple(seen[seen < n_items].tolist()), beam_width=_BEAM_WIDTH,
                )
            )  # fmt: skip
        for q, answer in zip(batch, ranker.recommend(requests, fusion=[fusion] * len(requests)), strict=True):
            lists[q, : len(answer.item_indices)] = answer.item_indices
            ranks[q] = rank_in_list(int(asked.targets[q]), answer.item_indices)
    return Answers(ranks, lists, 0.0)


def require_earlier(bundle: Bundle, dataset: Dataset) -> None:
    """Raise DatasetError unless the dataset goes on from the bundle's and asks for what came after it."""
    info, manifest = dataset.info, bundle.manifest
    labels = dataset.items["label"].cast(int).to_numpy()[: manifest.n_items]
    same = manifest.n_items <= info.n_items and np.array_equal(bundle.catalog.labels, labels)
    ids = dataset.items["item_id"]
    if not same or any(bundle.catalog.item_ids[i] != ids[i] for i in range(manifest.n_items)):
        raise DatasetError(f"{dataset.path} does not go on from the dataset of {bundle.path}: other items or labels")
    until = manifest.metrics.get(LEARNED_UNTIL)
    if until is None:
        raise DatasetError(f"{bundle.path} does not say until when it has learned; export it again")
    if info.cut is None or until >= info.cut[1]:
        raise DatasetError(
            f"{bundle.path} has learned from what {dataset.path} would ask it; the test must begin after it was made"
            " (prepare --protocol temporal --cut 8d,1d)"
        )


def judged(
    answers: dict[str, Answers],
    asked: Questions,
    rule: Rule,
    *,
    known: tuple[int, int],
    times: npt.NDArray[np.int64],
    reference: float,
    seed: int = 0,
) -> Verdict:
    """The verdict over answers of `new` and `served` to the same questions.

    known: users and items of the bundle. times (Q,): of the questions, unix seconds. reference: see Verdict.
    """
    groups = by_novelty(asked, *known)
    rows = {
        name: {"n": int(mask.sum()), **{system: summary(each.ranks[mask]) for system, each in answers.items()}}
        for name, mask in groups.items()
    }
    values = {name: by_user(per_user(each.ranks)[METRIC], asked.users) for name, each in answers.items()}
    difference = paired_difference(values["new"], values["served"], np.random.default_rng(seed))
    reasons = []
    shown = f"{METRIC} {difference.mean:+.4f}, 95 % interval {difference.low:+.4f} to {difference.high:+.4f}"
    if len(asked) < rule.min_questions:
        reasons.append(f"{len(asked)} questions are too few to tell (gate.min_questions is {rule.min_questions})")
    if difference.high < -rule.bound:
        reasons.append(f"the new model is worse than the served one by more than gate.bound ({rule.bound:g}): {shown}")
    elif difference.low < -rule.doubt:
        reasons.append(f"a loss of more than gate.doubt ({rule.doubt:g}) cannot be excluded: {shown}")
    reasons += fallen_days(per_user(answers["new"].ranks)[METRIC], times, reference, rule, seed=seed)
    return Verdict(not reasons, tuple(reasons), len(asked), difference, reference, rows)


def fallen_days(
    values: npt.NDArray[np.float64], times: npt.NDArray[np.int64], reference: float, rule: Rule, *, seed: int = 0
) -> list[str]:
    """A sentence for each day (UTC) whose values (Q,) lie far below those of the days before."""
    floor = (1 - rule.max_fall) * reference
    found = []
    for day in np.unique(times // _DAY):
        own = values[times // _DAY == day]
        if len(own) < rule.min_questions:
            continue
        _, high = interval(own, np.random.default_rng(seed))
        if high < floor:
            found.append(
                f"{datetime.fromtimestamp(int(day) * _DAY, UTC):%Y-%m-%d} is not like the days before: {METRIC}"
                f" {own.mean():.4f} of {len(own)} questions, against {reference:.4f}, a fall of more than gate.max_fall"
                f" ({rule.max_fall:g}); if its events are false, name their batch under leave_out"
            )
    return found


def by_novelty(asked: Questions, n_users: int, n_items: int) -> dict[str, npt.NDArray[np.bool_]]:
    """Masks (Q,) over the questions: all, those for items that the bundle lacks, and those of users it lacks."""
    new_item, new_user = asked.targets >= n_items, asked.users >= n_users
    everything = np.ones(len(asked), dtype=np.bool_)
    return {"all": everything, "new items": new_item, "new users": new_user, "known": ~new_item & ~new_user}
