"""How loud texts should be for items that nobody has bought: fitted on validation users, from whom items are hidden.

Some items lose their purchases, their channels of purchases, their place in the histories and the learned
part of their rows, and stand among those that nobody has bought in truth; some validation users then ask for one of
them, the others for what has been bought all along.
Knows the ranking's formula through `rdrec_core`, not files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rdrec_core.engines.base import Engine
from rdrec_core.fusion import TaskWeights
from rdrec_core.item_graph import TEXT_PREFIX, ItemGraph
from rdrec_core.types import IntArray, Task
from training.data.cold_items import hidden_items
from training.evaluation.fusion import look_up
from training.evaluation.measure import Progress
from training.evaluation.protocol import Questions
from training.learning.ranks import gains

SHARE = 0.03
"""Of the items that were bought, hidden: enough to ask for. What showing new items costs depends on how many there are,
so that the catalogue's own are the crowd among which they are asked for."""
FACTORS = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.8, 2.0, 2.5, 3.0, 4.0)
_CANDIDATES_BY = 2.0
"""Under this factor the graph's best are looked up, so that neither kind crowds out the other."""


@dataclass(frozen=True)
class UnboughtFit:
    """The factor that was chosen; of each, NDCG@10 of questions for hidden items, and of the other questions."""

    factor: float
    quality: Mapping[float, tuple[float, float]]
    n_hidden: int


def fit_unbought(
    forgetting: Callable[[IntArray], Engine], graph: ItemGraph, asked: Questions, weights: TaskWeights, *,
    price: float, seed: int, limit: int, progress: Progress,
) -> UnboughtFit:  # fmt: skip
    """The largest of FACTORS that costs the other questions at most `price`, a share of their NDCG@10 under factor 1.

    forgetting: items -> an engine that has learned nothing of them but their words. limit: at most so many questions of
    either kind.
    """
    bought = np.flatnonzero(graph.popularity > 0)
    hidden = np.zeros(len(graph), dtype=np.bool_)
    if len(bought):  # of these alone: a dataset that hides items has drawn them in the same way
        hidden[bought[hidden_items(len(bought), SHARE, seed)]] = True
    left = _without(asked, hidden)
    rng = np.random.default_rng([seed, 17])
    new = np.flatnonzero(hidden[left.targets])
    old = np.flatnonzero(~hidden[left.targets])
    if not len(new) or not len(old):
        return UnboughtFit(1.0, {}, 0)
    new, old = (np.sort(rng.permutation(some)[:limit]) for some in (new, old))
    mix = replace(weights.mix, unbought=_CANDIDATES_BY)
    table = look_up(
        forgetting(np.flatnonzero(hidden)), without_purchases(graph, hidden), left.take(np.concatenate([new, old])),
        Task.SEQUENTIAL, None, progress=progress, start=replace(weights, mix=mix),
    )  # fmt: skip
    quality = {}
    for factor in FACTORS:
        found = gains(table.ranks(replace(weights, mix=replace(weights.mix, unbought=factor))), 10)
        quality[factor] = (float(found[: len(new)].mean()), float(found[len(new) :].mean()))
    least = (1 - price) * quality[1.0][1]
    return UnboughtFit(max(f for f in FACTORS if quality[f][1] >= least), quality, len(new))


def without_purchases(graph: ItemGraph, items: npt.NDArray[np.bool_]) -> ItemGraph:
    """The graph in which nobody has bought these items, (N,), that are then reached by texts alone."""
    channels = {}
    for name, channel in graph.channels.items():
        if not name.startswith(TEXT_PREFIX):
            kept = ~(items[channel.items] | np.repeat(items, np.diff(channel.indptr)))
            indptr = np.concatenate([[0], np.cumsum(kept)])[channel.indptr]
            channel = replace(channel, indptr=indptr, items=channel.items[kept], weights=channel.weights[kept])
        channels[name] = channel
    popularity = np.where(items, 0.0, graph.popularity)
    return ItemGraph((popularity / max(popularity.sum(), 1e-12)).astype(np.float32), channels)


def _without(asked: Questions, hidden: npt.NDArray[np.bool_]) -> Questions:
    """The questions whose histories hold anything else, without the hidden items in them."""
    kept = ~hidden[asked.items]
    lengths = np.bincount(np.repeat(np.arange(len(asked)), asked.lengths())[kept], minlength=len(asked))
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    stripped = replace(asked, items=asked.items[kept], indptr=indptr)
    return stripped.take(np.flatnonzero(lengths > 0))
