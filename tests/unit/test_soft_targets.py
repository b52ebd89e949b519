"""Soft targets: what is drawn against the graph's own answer, and the loss against a sum by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from rdrec_core.item_graph import Channel, ItemGraph, Mix
from rdrec_core.prompts import bare_template
from rdrec_core.types import Task
from tests.ranking_dataset import chained_histories, write_dataset
from tests.small_dataset import write_small_dataset
from training.data.dataset import Dataset
from training.learning.backbone import build
from training.learning.batching import SampledSoftmax
from training.learning.config import load_config
from training.learning.examples import TrainingExample
from training.learning.losses import target_nll
from training.learning.run import materials
from training.learning.soft_targets import SoftTargets
from training.signals.graph import GraphConfig, Sequences, graph_of

N = 24
CPU = torch.device("cpu")


def example(items: tuple[int, ...], prefixes: tuple[int, ...]) -> TrainingExample:
    targets = tuple(0 for _ in prefixes)
    return TrainingExample(Task.SEQUENTIAL, None, items, bare_template(Task.SEQUENTIAL), targets, prefixes)


def test_items_are_drawn_in_proportion_to_the_graphs_score(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "d", chained_histories(np.random.default_rng(1), 80, N), N)
    graph = graph_of(Sequences.of(data, "train"), GraphConfig())
    mix = Mix(0.0, {"next": 0.7, "ridge": 0.3, "reach": 0.0})
    soft = SoftTargets(graph, mix, draws=200)
    history = (3, 4, 9, 5)
    examples = [example(history, (1, 2, 4)), example((7, 8), (2,))]
    drawn = np.concatenate([soft.draw(examples, 3, np.random.default_rng(seed)) for seed in range(100)], axis=2)
    assert drawn.shape == (2, 3, 20_000)
    assert (drawn[1, 1:] == -1).all()  # absent targets
    for row, target, seen in ((0, 0, history[:1]), (0, 1, history[:2]), (0, 2, history), (1, 0, (7, 8))):
        expected = np.exp(graph.prior(seen, mix).log_scores(np.arange(N))) - graph.floor
        expected /= expected.sum()
        found = drawn[row, target]
        assert not set(found.tolist()) & set(seen)
        lost = expected[list(seen)].sum()  # draws that fell on what they have already
        assert (found == -1).mean() == pytest.approx(lost, abs=0.02)
        expected[list(seen)] = 0.0
        np.testing.assert_allclose(np.bincount(found[found >= 0], minlength=N) / len(found), expected, atol=0.02)


def test_a_history_of_which_the_graph_knows_nothing_has_no_soft_targets() -> None:
    empty = np.zeros(N + 1, dtype=np.int64)
    data = ItemGraph(np.full(N, 1 / N, dtype=np.float32), {})
    graph = ItemGraph(data.popularity, {"next": _channel(empty)})
    drawn = SoftTargets(graph, Mix(0.0, {"next": 1.0})).draw([example((1, 2), (1, 2))], 2, np.random.default_rng(0))
    assert (drawn == -1).all()


def _channel(indptr: np.ndarray) -> Channel:  # type: ignore[type-arg]
    return Channel(indptr, np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32), 0.5, 20)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return write_small_dataset(tmp_path / "d")


def test_the_loss_shares_itself_between_the_item_and_its_soft_targets(dataset: Dataset) -> None:
    options = {"tasks": "sequential", "text_rows": False, "sampled_children": 12, "soft_targets": 0.75}
    config = load_config("scratch", None, options)
    model, tokenizer = build(config, dataset, None)
    model.eval()
    parts = materials(config, dataset, tokenizer)
    examples = parts.epochs.examples(parts.epochs.plan(0), 0)[:6]

    def sampled() -> SampledSoftmax:
        return SampledSoftmax(12, np.random.default_rng(3))

    batch = parts.batcher.batch(examples, sample=sampled())
    choices = batch.choices
    assert choices is not None
    assert choices.soft is not None
    assert (choices.soft >= 0).any()
    plain = target_nll(model, batch, CPU, smoothing=0.1, soft_share=0.0)
    mixed = target_nll(model, batch, CPU, smoothing=0.1, soft_share=0.75)
    assert torch.isfinite(mixed).all()
    for choice, owner in enumerate(choices.owner):
        soft = choices.soft[choice][choices.soft[choice] >= 0]
        hard = plain.flatten()[owner].item()
        if not len(soft):
            assert mixed.flatten()[owner].item() == pytest.approx(hard, abs=1e-6)
            continue
        # the loss of a soft target is that of the item itself, asked for in the same place among the same rivals
        alone = []
        for column in soft:
            columns = choices.columns.copy()
            columns[choice] = column
            asked = replace(batch, choices=replace(choices, columns=columns, soft=None))
            alone.append(target_nll(model, asked, CPU).flatten()[owner].item())
        assert mixed.flatten()[owner].item() == pytest.approx(0.25 * hard + 0.75 * np.mean(alone), abs=1e-4)

    # a missing draw is none of the first column, which may not be allowed at all
    allowed, some = choices.allowed.copy(), choices.soft.copy()
    allowed[choices.columns != 0, 0] = False
    some[:, 0], some[some == 0] = -1, -1
    blocked = replace(batch, choices=replace(choices, allowed=allowed, soft=some))
    assert torch.isfinite(target_nll(model, blocked, CPU, soft_share=0.75)).all()

    # drawn for training steps alone, and not in place of the rivals that all processes share
    assert parts.batcher.batch(examples).choices.soft is None  # type: ignore[union-attr]
    again = parts.batcher.batch(examples, sample=sampled())
    np.testing.assert_array_equal(again.choices.soft, choices.soft)  # type: ignore[union-attr, arg-type]


def test_without_words_or_with_labels_of_several_tokens_there_are_none(dataset: Dataset) -> None:
    assert SoftTargets.of(dataset) is not None
    items = pl.read_parquet(dataset.path / "items.parquet")
    items.with_columns(title=pl.lit(None, dtype=pl.String)).write_parquet(dataset.path / "items.parquet")
    assert SoftTargets.of(Dataset(dataset.path)) is None
    items.write_parquet(dataset.path / "items.parquet")
    config = load_config("scratch", None, {"tasks": "sequential", "whole_labels": False, "starts_from_source": False})
    parts = materials(config, dataset, build(config, dataset, None)[1])
    examples = parts.epochs.examples(parts.epochs.plan(0), 0)[:6]
    choices = parts.batcher.batch(examples, sample=SampledSoftmax(5, np.random.default_rng(0))).choices
    assert choices is not None
    assert choices.soft is None
