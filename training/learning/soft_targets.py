"""Soft targets: items that the item graph would answer after a history, drawn at random in proportion to its score.

A channel's answer is a mixture over the history's items and their neighbours, so that drawing from it is two draws of
an index, whatever the catalogue's size, and nothing is kept for each history. The model so learns which items are like
the one that was bought, as the graph knows from purchases and words, and overfits later. Knows the graph and examples,
not tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from rdrec_core.item_graph import TEXT_PREFIX, Channel, ItemGraph, Mix
from training.data.dataset import Dataset
from training.learning.examples import TrainingExample
from training.signals.graph import GraphConfig, channel
from training.signals.text import build_graph

DRAWS = 4
"""Items drawn for each target and step."""
TEACHER = {"ridge": 0.7, "text.title.sparse": 0.2, "text.catalogue.sparse": 0.1}
"""How loud each channel is. Chosen on Beauty's validation users, with the power (docs/experiments.md)."""
POWER = 2.5
"""Weights are raised to it, so that the nearest items are drawn the most."""
_CONFIG = GraphConfig(row_damping=0.6, text_decay=0.5)


class SoftTargets:
    """Draws items for each target of an example. Stateless: what is drawn follows from the generator."""

    def __init__(self, graph: ItemGraph, mix: Mix, draws: int = DRAWS) -> None:
        """mix: how loud each channel is; popularity is left out."""
        self._draws = draws
        self._channels = [(graph.channels[name], weight) for name, weight in mix.channels.items() if weight > 0]
        self._sums = [np.concatenate([[0.0], np.cumsum(each.weights, dtype=np.float64)]) for each, _ in self._channels]

    @classmethod
    def of(cls, dataset: Dataset) -> SoftTargets | None:
        """From training purchases and the catalogue's words; None where it has no words."""
        graph = build_graph(dataset, "train", _CONFIG, only=TEACHER)
        loud = {name: weight for name, weight in TEACHER.items() if name in graph.channels}
        if not any(name.startswith(TEXT_PREFIX) for name in loud):
            return None
        channels = {name: _sharpened(each) for name, each in graph.channels.items()}
        return cls(ItemGraph(graph.popularity, channels, order=graph.order), Mix(0.0, loud))

    def draw(
        self, examples: Sequence[TrainingExample], n_targets: int, rng: np.random.Generator
    ) -> npt.NDArray[np.int64]:
        """(B, n_targets, S) item indices; -1 where there is no target, or the draw fell on an item of the history."""
        out = np.full((len(examples), n_targets, self._draws), -1, dtype=np.int64)
        row = np.repeat(np.arange(len(examples)), [len(example.prefixes) for example in examples])
        target = np.concatenate([np.arange(len(example.prefixes)) for example in examples])
        history = _histories(examples, row)
        loud = np.concatenate(
            [
                weight * _recency(history, each.decay, each.window) * _masses(history, each.indptr, sums)
                for (each, weight), sums in zip(self._channels, self._sums, strict=True)
            ],
            axis=1,
        ).cumsum(axis=1)
        spoken = np.flatnonzero(loud[:, -1] > 0)
        row, target, history, loud = row[spoken], target[spoken], history[spoken], loud[spoken]
        at = rng.random((len(spoken), self._draws)) * loud[:, -1:]
        kind, step = np.divmod((at[:, :, None] >= loud[:, None, :]).sum(axis=2), history.shape[1])
        speaker = np.take_along_axis(history, step, axis=1)
        drawn = np.full(at.shape, -1, dtype=np.int64)
        for number, ((each, _), sums) in enumerate(zip(self._channels, self._sums, strict=True)):
            begin, end = (each.indptr[speaker[kind == number] + more] for more in (0, 1))
            within = sums[begin] + rng.random(len(begin)) * (sums[end] - sums[begin])
            entry = np.clip(np.searchsorted(sums, within, side="right") - 1, begin, end - 1)
            drawn[kind == number] = each.items[entry]
        bought = (drawn[:, :, None] == history[:, None, :]).any(axis=2)
        out[row, target] = np.where(bought, -1, drawn)
        return out


def _sharpened(given: Channel) -> Channel:
    """Weights to a power, again as loud as rows were on average."""
    shape = (len(given.indptr) - 1,) * 2
    matrix = csr_array((given.weights**POWER, given.items, given.indptr), shape=shape)
    return channel(matrix, given.decay, given.window)


def _histories(examples: Sequence[TrainingExample], row: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """What each target sees, (M, L), latest first and then -1; row (M,): the example of each target."""
    items = np.full((len(examples), max(len(example.items) for example in examples)), -1, dtype=np.int64)
    for number, example in enumerate(examples):
        items[number, : len(example.items)] = example.items
    prefix = np.concatenate([np.asarray(example.prefixes, dtype=np.int64) for example in examples])
    place = prefix[:, None] - 1 - np.arange(items.shape[1])
    return np.where(place >= 0, items[row[:, None], np.maximum(place, 0)], -1)


def _recency(history: npt.NDArray[np.int64], decay: float, window: int) -> npt.NDArray[np.float64]:
    """How much each place of a history counts, adding up to one."""
    steps = np.arange(history.shape[1])
    weights = np.where((history >= 0) & (steps < window), decay ** steps.astype(np.float64), 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def _masses(
    history: npt.NDArray[np.int64], indptr: npt.NDArray[np.int64], sums: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The sum of each item's row of a channel."""
    items = np.maximum(history, 0)
    return np.where(history >= 0, sums[indptr[items + 1]] - sums[indptr[items]], 0.0)
