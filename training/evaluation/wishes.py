"""How loud words that a user types should be: fitted on validation users, whose words are drawn from the next title.

Each user is given one to three words of the title of what they bought next, in their order, as if they had typed them;
the weight that then ranks that item best is kept. Knows the ranking's formula through `rdrec_core`, not files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rdrec_core.engines.base import Engine
from rdrec_core.fusion import WORDS_WEIGHT, TaskWeights
from rdrec_core.graph_ranking import Texts
from rdrec_core.item_graph import Eligible, ItemGraph
from rdrec_core.types import ScoreRequest, Task
from rdrec_core.words import words
from training.evaluation.protocol import Questions
from training.learning.ranks import gains, rank_by_score

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 5.0, 10.0)
"""What is tried; 0 shows what the words are worth."""
USERS = 1000
MOST_WORDS = 3
CANDIDATES = 50
"""Of the best items a user without the words, and as many with them."""
_TOLD_APART = 1e-4


@dataclass(frozen=True)
class WishFit:
    """The weight, NDCG@10 of each weight that was tried, and how many users had a title with a known word."""

    weight: float
    quality: Mapping[float, float]
    n_users: int


def drawn_words(title: str, rng: np.random.Generator) -> str:
    """One to three words of a title, in their order; "" for a title without words."""
    found = words(title)
    if not found:
        return ""
    n = min(len(found), int(rng.integers(1, MOST_WORDS + 1)))
    return " ".join(found[place] for place in sorted(rng.choice(len(found), n, replace=False)))


def fit_wishes(
    engine: Engine, graph: ItemGraph, texts: Texts, titles: Sequence[str | None], asked: Questions,
    weights: TaskWeights, *, seed: int, limit: int = USERS,
) -> WishFit:  # fmt: skip
    """Choose among WEIGHTS by NDCG@10 of the target in sequential lists; between equals the smaller one.

    titles (N,). Where no target has a title with a known word, WORDS_WEIGHT.
    """
    rng = np.random.default_rng(seed)
    requests: list[ScoreRequest] = []
    targets: list[int] = []
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    for q in range(min(limit, len(asked))):
        target = int(asked.targets[q])
        affinity = texts.affinity(drawn_words(titles[target] or "", rng))
        if affinity is None:
            continue
        history = tuple(asked.history(q).tolist())
        reached = np.flatnonzero(affinity > 0)
        plain = graph.prior(history, weights.mix)
        steered = graph.prior(history, weights.mix, words=(reached, affinity[reached].astype(np.float64)))
        items = np.unique(np.concatenate([p.best(CANDIDATES, Eligible(exclude=history)) for p in (plain, steered)]))
        requests.append(ScoreRequest(int(asked.users[q]), tuple(items.tolist()), history, Task.SEQUENTIAL))
        place = np.flatnonzero(items == target)
        targets.append(int(place[0]) if len(place) else -1)
        parts.append((np.exp(plain.log_scores(items)), affinity[items].astype(np.float64)))
    if not requests:
        return WishFit(WORDS_WEIGHT, {}, 0)
    shape = (len(requests), max(len(request.candidates) for request in requests))
    model, known, liked = np.full(shape, -np.inf), np.ones(shape), np.zeros(shape)
    for row, (log_probs, (base, likeness)) in enumerate(zip(engine.score(requests), parts, strict=True)):
        model[row, : len(log_probs)], known[row, : len(base)], liked[row, : len(likeness)] = log_probs, base, likeness
    target_at = np.asarray(targets)

    def quality(weight: float) -> float:
        ranks = rank_by_score(model + weights.graph * np.log(known + weight * liked), target_at)
        return float(gains(np.where(target_at >= 0, ranks, np.inf), 10).mean())

    found = {weight: quality(weight) for weight in WEIGHTS}
    best = max(found.values())
    chosen = next(weight for weight in WEIGHTS if weight > 0 and found[weight] >= best - _TOLD_APART)
    return WishFit(chosen, found, len(requests))
