"""The fit's table of signals against the ranking that is served, and the search against what was planted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from rdrec_core.bundle import Bundle, BundleWriter, Description
from rdrec_core.errors import BundleError
from rdrec_core.fusion import WORDS_WEIGHT, FusionWeights, TaskWeights
from rdrec_core.item_graph import ItemGraph, Mix
from rdrec_core.ranking import Ranker
from rdrec_core.types import RankRequest, ScoreMode, Task, Wish
from tests.ranking_dataset import chained_histories, write_dataset
from tests.unit.test_ranking import TableEngine
from training.evaluation import fusion_run
from training.evaluation.fusion import START, fit, look_up, quality
from training.evaluation.fusion_run import BuiltGraphs, store_fusion
from training.evaluation.measure import rank_candidates, rank_sequential
from training.evaluation.protocol import candidate_lists, questions
from training.evaluation.wishes import drawn_words, fit_wishes
from training.signals.graph import GraphConfig, Sequences, channel, graph_of

N = 24
CHANNELS = {"next": 0.5, "ridge": 0.2, "previous": 0.1, "reach": 0.15}
WEIGHTS = TaskWeights(0.8, Mix(0.05, CHANNELS))


class AnyUserEngine(TableEngine):
    """The table engine for more users than it has rows."""

    def __init__(self) -> None:
        super().__init__(N, 0)

    def row(self, task: Task, user: int | None, history: tuple[int, ...]) -> np.ndarray:
        return super().row(task, None if user is None else user % 4, history)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tests.unit.test_ranking.UNAVAILABLE", set())
    data = write_dataset(tmp_path / "d", chained_histories(np.random.default_rng(1), 80, N), N)
    return data, graph_of(Sequences.of(data, "train"), GraphConfig())


def test_the_table_ranks_as_the_served_ranking_does(world) -> None:
    data, graph = world
    engine, asked = AnyUserEngine(), questions(data, "val")
    ranker = Ranker(engine, graph, FusionWeights(WEIGHTS, WEIGHTS), graph_candidates=N)
    table = look_up(engine, graph, asked, Task.SEQUENTIAL, None, progress=lambda _: None)
    served = rank_sequential(ranker, asked, fusion=True, beam_width=20, progress=lambda _: None)
    fitted = table.ranks(WEIGHTS)
    np.testing.assert_array_equal(np.where(fitted > 10, np.inf, fitted), served.ranks)

    lists = candidate_lists(data, asked, n=8)
    table = look_up(engine, graph, asked, Task.TOPN, lists, progress=lambda _: None)
    served = rank_candidates(ranker, asked, lists, fusion=True, progress=lambda _: None)
    np.testing.assert_array_equal(table.ranks(WEIGHTS), served.ranks)
    # with the graph silenced it is the model's own ranking
    alone = rank_candidates(ranker, asked, lists, fusion=False, progress=lambda _: None)
    np.testing.assert_array_equal(table.ranks(TaskWeights(0.0, WEIGHTS.mix)), alone.ranks)


def test_the_fit_never_ends_below_its_start_and_leaves_a_useless_model_behind(world) -> None:
    data, graph = world
    engine, asked = AnyUserEngine(), questions(data, "val")
    table = look_up(engine, graph, asked, Task.SEQUENTIAL, None, progress=lambda _: None)
    found = fit(table, graph)
    qualities = [value for _, value in found.steps]
    assert qualities == sorted(qualities)
    assert quality(table.ranks(found.weights)) == pytest.approx(qualities[-1], abs=1e-4)
    # the table of the engine is noise and the graph knows the chain: the fit turns the graph up
    noise = quality(table.ranks(TaskWeights(0.0, found.weights.mix)))
    assert qualities[-1] > 2 * noise
    assert found.weights.graph > START.graph
    assert sum(found.weights.mix.channels.values()) + found.weights.mix.popularity == pytest.approx(1.0, abs=1e-4)
    assert fit(table, graph) == found


def test_a_sentence_encoder_that_says_nothing_does_not_spoil_the_search(world) -> None:
    data, graph = world
    rng = np.random.default_rng(2)
    noise = {
        f"text.{field}.dense": channel(csr_array(rng.random((N, N)).astype(np.float32)), 0.7, 20)
        for field in ("title", "catalogue", "reviews")
    }
    noisy = ItemGraph(graph.popularity, {**graph.channels, **noise})
    engine, asked = AnyUserEngine(), questions(data, "val")
    found = fit(look_up(engine, noisy, asked, Task.SEQUENTIAL, None, progress=lambda _: None), noisy)
    plain = fit(look_up(engine, graph, asked, Task.SEQUENTIAL, None, progress=lambda _: None), graph)
    assert found.steps[-1][1] >= plain.steps[-1][1] - 0.01


def test_weights_go_into_a_bundle_whose_files_still_verify(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "model.json").write_text("{}")
    description = Description(
        name="shop", created_at="2026-01-01T00:00:00+00:00", recipe={}, protocol="clean", label_scheme="random",
        dataset_sha256={}, n_users=1, n_items=1, score_modes=[ScoreMode.TRIE], text_tasks=[],
    )  # fmt: skip
    before = BundleWriter(folder).finish(description)
    (folder / "manifest.sig").write_text("over the old manifest")
    flat = FusionWeights(WEIGHTS, WEIGHTS).to_manifest()
    store_fusion(folder, flat)
    after = Bundle.open(folder).manifest
    assert after.fusion == flat
    assert after.files == before.files
    assert after.model_version != before.model_version
    assert not (folder / "manifest.sig").exists()
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "model.json"]
    (folder / "model.json").write_text("{ }")
    with pytest.raises(BundleError, match=r"model\.json"):
        store_fusion(folder, flat)


class Planted:
    """Knows one word, "n7": item 7 alone is meant by it."""

    def affinity(self, text: str) -> np.ndarray | None:
        found = [int(word[1:]) for word in text.split() if word.startswith("n")]
        if not found:
            return None
        row = np.zeros(N, dtype=np.float32)
        row[found] = 1.0
        return row


def test_words_that_name_the_target_get_a_weight_that_ranks_it_first(world) -> None:
    data, graph = world
    asked = questions(data, "val")
    found = fit_wishes(AnyUserEngine(), graph, Planted(), [f"n{i}" for i in range(N)], asked, WEIGHTS, seed=0)
    assert found.n_users == len(asked)
    assert found.quality[found.weight] == pytest.approx(max(found.quality.values()), abs=1e-4)
    assert found.quality[found.weight] > 1.3 * found.quality[0.0]
    # without words the lists are those that are served, and so are those with the chosen weight
    weights = FusionWeights(WEIGHTS, WEIGHTS)
    ranker = Ranker(AnyUserEngine(), graph, weights, texts=Planted(), graph_candidates=N)
    history = tuple(asked.history(0).tolist())
    request = RankRequest(
        int(asked.users[0]), history, 5, exclude=tuple(set(history)), wish=Wish(f"n{asked.targets[0]}", found.weight)
    )
    assert ranker.recommend([request])[0].steered
    untitled = fit_wishes(AnyUserEngine(), graph, Planted(), [None] * N, asked, WEIGHTS, seed=0)
    assert (untitled.weight, untitled.n_users) == (WORDS_WEIGHT, 0)


def test_words_are_drawn_from_a_title_in_their_order() -> None:
    rng = np.random.default_rng(3)
    title = "Red Rubber Duck, for the Bath"
    places = ["red", "rubber", "duck", "for", "the", "bath"]
    drawn = [drawn_words(title, rng).split() for _ in range(40)]
    assert {len(each) for each in drawn} == {1, 2, 3}
    assert all([places.index(word) for word in each] == sorted(places.index(word) for word in each) for each in drawn)
    assert drawn_words("...", rng) == ""


def test_graphs_that_are_too_large_together_are_built_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def build(config: GraphConfig) -> ItemGraph:
        asked.append(config.window)
        return ItemGraph(np.zeros(1000, dtype=np.float32), {})

    def visit(order: list[int]) -> BuiltGraphs:
        asked.clear()
        graphs = BuiltGraphs(build)
        for window in order:
            assert len(graphs[GraphConfig(window=window)]) == 1000
        return graphs

    assert len(visit([5, 6, 7, 5, 6])) == 3
    assert asked == [5, 6, 7]
    one = sum(array.nbytes for array in build(GraphConfig()).arrays().values())
    monkeypatch.setattr(fusion_run, "GRAPHS_BYTES", 2 * one)
    assert len(visit([5, 6, 5, 7, 5, 6])) == 2
    assert asked == [5, 6, 7, 6], "of two that are kept the one asked for longest ago goes"
    monkeypatch.setattr(fusion_run, "GRAPHS_BYTES", 1)
    assert len(visit([5, 5, 6, 5])) == 1
    assert asked == [5, 6, 5]
