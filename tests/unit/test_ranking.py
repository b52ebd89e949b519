"""Fused lists against brute force over every item, with an engine whose log-probabilities are a table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rdrec_core.errors import BundleError
from rdrec_core.fusion import FusionWeights, TaskWeights
from rdrec_core.graph_ranking import Evidence
from rdrec_core.item_graph import ItemGraph, Mix
from rdrec_core.ranking import Ranker
from rdrec_core.types import RankedItems, RankRequest, ScoreMode, ScoreRequest, Task, Wish
from tests.unit.test_item_graph import TEXT, World

WEIGHTS = FusionWeights(
    sequential=TaskWeights(0.7, Mix(0.2, {"near": 1.0, TEXT: 0.8, "wide": 0.5})),
    topn=TaskWeights(1.5, Mix(0.6, {"wide": 1.0})),
)


class TableEngine:
    """Log-probabilities that depend on user, last item and task; remembers what it was asked."""

    score_mode = ScoreMode.TRIE

    def __init__(self, n: int, seed: int) -> None:
        self.table = {
            task: np.log(np.random.default_rng(seed + task).dirichlet(np.full(n, 0.3), (5, n + 1)) + 1e-9)
            for task in (Task.SEQUENTIAL, Task.TOPN)
        }
        self.scored: list[ScoreRequest] = []
        self.also: list[tuple[int, ...]] = []

    def row(self, task: Task, user: int | None, history: tuple[int, ...]) -> np.ndarray:
        return self.table[task][4 if user is None else user, history[-1] if history else -1]

    def recommend(self, requests: list[RankRequest]) -> list[RankedItems]:
        answers = []
        for r in requests:
            scores = self.row(Task.SEQUENTIAL, r.user_index, r.history)
            allowed = [
                i
                for i in range(len(scores))
                if i not in r.exclude
                and (r.include is None or i in r.include)
                and (r.among is None or r.among.items[i])
                and i not in UNAVAILABLE
            ]
            best = sorted(allowed, key=lambda i: -scores[i])[: r.n_items]
            self.also.append(r.also)
            answers.append(
                RankedItems(
                    np.asarray(best, dtype=np.int64),
                    scores[best].astype(np.float32),
                    scores[list(r.also)].astype(np.float32),
                )
            )
        return answers

    def score(self, requests: list[ScoreRequest]) -> list[np.ndarray]:
        self.scored += requests
        assert all(len(set(r.candidates)) == len(r.candidates) > 0 for r in requests)
        return [self.row(r.task, r.user_index, r.history)[list(r.candidates)].astype(np.float32) for r in requests]

    def generate_text(self, requests: object) -> list[str]:
        raise AssertionError("ranking writes no text")


UNAVAILABLE = {6, 11}
AFFINITY = {2: 0.4, 6: 1.0, 13: 0.9, 17: 1.0}


class OneWord:
    """Knows the word "blue", which items hold more or less."""

    def affinity(self, text: str) -> np.ndarray | None:
        row = np.zeros(25, dtype=np.float32)
        row[list(AFFINITY)] = list(AFFINITY.values())
        return row if "blue" in text else None


def ranker(world: World, engine: TableEngine, weights: FusionWeights | None = WEIGHTS, **options: int) -> Ranker:
    available = np.ones(world.n, dtype=bool)
    available[list(UNAVAILABLE)] = False
    return Ranker(engine, world.graph, weights, texts=OneWord(), available=available, **options)  # type: ignore[arg-type]


def steered(world: World, history: list[int], mix: Mix, weight: float) -> np.ndarray:
    """The graph's log scores of all items when words are weighed in."""
    words = np.zeros(world.n)
    words[list(AFFINITY)] = np.float32(list(AFFINITY.values()))
    return np.log(np.exp(world.log_scores(history, mix)) + weight * words)


def fused(model: np.ndarray, weight: float, graph: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """The weighted mean of two log scores."""
    return (model + weight * graph) / (1 + weight)


def requests(rng: np.random.Generator, n: int, count: int) -> list[RankRequest]:
    out = []
    for i in range(count):
        history = tuple(rng.integers(0, n, int(rng.integers(1, 6))).tolist())
        include = tuple(rng.permutation(n)[:9].tolist()) if i % 3 == 0 else None
        user = None if i % 4 == 0 else i % 4
        out.append(RankRequest(user, history, n_items=6, exclude=history[:3], include=include, beam_width=8))
    return out


@pytest.mark.parametrize("seed", range(4))
def test_the_fused_list_is_the_best_of_the_union_and_every_item_is_scored_exactly(seed: int) -> None:
    world, engine = World(seed), TableEngine(25, seed)
    asked = requests(np.random.default_rng(seed), world.n, 7)
    answers = ranker(world, engine, graph_candidates=10).recommend(asked)
    for request, answer in zip(asked, answers, strict=True):
        model = engine.row(Task.SEQUENTIAL, request.user_index, request.history)
        graph = world.log_scores(list(request.history), WEIGHTS.sequential.mix)
        allowed = [
            i
            for i in range(world.n)
            if i not in request.exclude and i not in UNAVAILABLE and (request.include is None or i in request.include)
        ]
        beam = sorted(allowed, key=lambda i: -model[i])[:8]
        by_graph = sorted(allowed, key=lambda i: (-round(graph[i], 9), i))[:10]
        final = fused(model, 0.7, graph)
        expected = sorted({*beam, *by_graph}, key=lambda i: (-final[i], i))[:6]
        assert answer.item_indices.tolist() == expected
        np.testing.assert_allclose(answer.log_scores, final[expected], rtol=1e-5)
        shares = np.exp(final[expected]) / np.exp(final[list({*beam, *by_graph})]).sum()
        np.testing.assert_allclose(answer.scores, shares, rtol=1e-5)
        np.testing.assert_allclose(answer.log_probs, model[expected], rtol=1e-5)
        bought = world.bought(list(request.history), WEIGHTS.sequential.mix)
        np.testing.assert_allclose(answer.graph_scores, np.log(bought)[expected], rtol=1e-5)
        texts = world.texts(list(request.history), WEIGHTS.sequential.mix)[expected]
        np.testing.assert_allclose(np.nan_to_num(np.exp(answer.text_scores)), texts, rtol=1e-5)
        assert answer.fused
    assert not engine.scored, "the graph's items are scored along with the search"
    assert all(len(set(also)) == len(also) > 0 for also in engine.also)


def test_a_union_over_the_whole_catalogue_is_the_exact_fused_ranking() -> None:
    world, engine = World(7), TableEngine(25, 7)
    request = RankRequest(2, (3, 8), n_items=25, exclude=(3,))
    answer = ranker(world, engine, graph_candidates=25).recommend([request])[0]
    final = fused(engine.row(Task.SEQUENTIAL, 2, (3, 8)), 0.7, world.log_scores([3, 8], WEIGHTS.sequential.mix))
    expected = sorted(set(range(25)) - {3} - UNAVAILABLE, key=lambda i: -final[i])
    assert answer.item_indices.tolist() == expected


def test_fusion_is_switched_per_request_and_the_signals_stay_visible() -> None:
    world, engine = World(3), TableEngine(25, 3)
    request = RankRequest(1, (3, 8), n_items=5)
    on, off = ranker(world, engine).recommend([request, request], fusion=[True, False])
    alone = engine.recommend([request])[0]
    assert off.item_indices.tolist() == alone.item_indices.tolist()
    np.testing.assert_array_equal(off.log_scores, off.log_probs)
    beam = engine.recommend([RankRequest(1, (3, 8), n_items=20)])[0].log_probs
    np.testing.assert_allclose(off.scores, np.exp(off.log_probs) / np.exp(beam).sum(), rtol=1e-5)
    assert not off.fused
    assert on.fused
    np.testing.assert_allclose(
        off.graph_scores, np.log(world.bought([3, 8], WEIGHTS.sequential.mix))[off.item_indices], rtol=1e-5
    )
    without_weights = ranker(world, engine, None).recommend([request])[0]
    assert without_weights.item_indices.tolist() == alone.item_indices.tolist()


def test_a_stranger_without_history_gets_popular_items_and_the_model_is_not_asked() -> None:
    world, engine = World(4), TableEngine(25, 4)
    cold = RankRequest(None, (), n_items=4, exclude=(1, 2))
    known = RankRequest(1, (), n_items=4)
    answer, other = ranker(world, engine).recommend([cold, known])
    allowed = set(range(25)) - {1, 2} - UNAVAILABLE
    assert answer.item_indices.tolist() == sorted(allowed, key=lambda i: (-world.popularity[i], i))[:4]
    assert np.isnan(answer.log_probs).all()
    assert np.isnan(answer.text_scores).all()
    np.testing.assert_allclose(answer.scores, world.popularity[answer.item_indices], rtol=1e-3)
    assert len(other.item_indices) == 4
    assert np.isfinite(other.log_probs).all()
    topn = ranker(world, engine).topn([ScoreRequest(None, (4, 5, 9))])[0]
    assert topn.item_indices.tolist() == sorted((4, 5, 9), key=lambda i: (-world.popularity[i], i))
    bought = world.popularity[topn.item_indices]
    np.testing.assert_allclose(topn.scores, bought / bought.sum(), rtol=1e-3)


@pytest.mark.parametrize("weight", [None, 0.3, 50.0])
def test_words_are_one_more_channel_and_what_they_reach_enters_the_list(weight: float | None) -> None:
    world, engine = World(1), TableEngine(25, 1)
    row = engine.row(Task.SEQUENTIAL, 1, (3, 8))
    row[list(AFFINITY)] = -np.inf
    row[list(AFFINITY)] = np.sort(row)[-5] - 0.1  # the search finds none of them by itself
    request = RankRequest(1, (3, 8), n_items=5, exclude=(2,), beam_width=5, wish=Wish("blue", weight))
    answer, plain = ranker(world, engine, graph_candidates=2).recommend([request, replace(request, wish=None)])
    loud = WEIGHTS.words if weight is None else weight
    graph = steered(world, [3, 8], WEIGHTS.sequential.mix, loud)
    final = fused(engine.row(Task.SEQUENTIAL, 1, (3, 8)), 0.7, graph)
    assert answer.steered
    assert {13, 17} <= set(answer.item_indices.tolist()), "reached by the words alone"
    assert not {13, 17} & set(plain.item_indices.tolist()), "the case must need the words"
    assert not {2, 6} & set(answer.item_indices.tolist()), "excluded, and not available"
    np.testing.assert_allclose(answer.log_scores, final[answer.item_indices], rtol=1e-5)
    texts = world.texts([3, 8], WEIGHTS.sequential.mix)[17] + loud
    assert np.exp(answer.text_scores[answer.item_indices == 17]) == pytest.approx(texts, rel=1e-5)


@pytest.mark.parametrize("wish", [None, Wish("red"), Wish("blue", 0.0)])
def test_unknown_words_and_words_of_no_weight_change_nothing(wish: Wish | None) -> None:
    world, engine = World(3), TableEngine(25, 3)
    known, stranger = RankRequest(1, (3, 8), n_items=5, wish=wish), RankRequest(None, (), n_items=5, wish=wish)
    candidates = ScoreRequest(1, (2, 5, 13), (3, 8), wish=wish)
    for weights in (WEIGHTS, None):
        asked = ranker(world, engine, weights)
        found = [*asked.recommend([known, stranger]), *asked.topn([candidates])]
        bare = [*asked.recommend([replace(known, wish=None), replace(stranger, wish=None)])]
        bare += asked.topn([replace(candidates, wish=None)])
        for answer, without in zip(found, bare, strict=True):
            np.testing.assert_array_equal(answer.item_indices, without.item_indices)
            np.testing.assert_array_equal(answer.log_scores, without.log_scores)
            assert not answer.steered


def test_words_steer_topn_strangers_drawn_candidates_and_bundles_without_weights() -> None:
    world, engine = World(3), TableEngine(25, 3)
    wish = Wish("blue", 20.0)
    topn = ranker(world, engine).topn([ScoreRequest(1, (2, 5, 13, 20), (3, 8), wish=wish)])[0]
    final = fused(engine.row(Task.TOPN, 1, (3, 8)), 1.5, steered(world, [3, 8], WEIGHTS.topn.mix, 20.0))
    assert topn.item_indices.tolist() == sorted((2, 5, 13, 20), key=lambda i: -final[i])
    stranger = ranker(world, engine).recommend([RankRequest(None, (), n_items=3, wish=wish)])[0]
    assert stranger.item_indices.tolist() == [17, 13, 2]
    assert stranger.steered
    shares = np.exp(steered(world, [], WEIGHTS.sequential.mix, 20.0))
    np.testing.assert_allclose(stranger.scores, (shares / shares.sum())[stranger.item_indices], rtol=1e-5)
    drawn = ranker(world, engine).candidates([3, 8], 4, exclude=[3, 8], wish=wish)
    assert {17, 13, 2} <= set(drawn.tolist())
    unfitted = ranker(world, engine, None).recommend([RankRequest(1, (3, 8), n_items=25, wish=wish)])[0]
    final = fused(engine.row(Task.SEQUENTIAL, 1, (3, 8)), 0.5, steered(world, [3, 8], world.graph.default_mix(), 20.0))
    np.testing.assert_allclose(unfitted.log_scores, final[unfitted.item_indices], rtol=1e-5)
    assert unfitted.steered
    alone = ranker(world, engine).recommend([RankRequest(1, (3, 8), n_items=3, wish=wish)], fusion=[False])[0]
    assert not alone.steered


@pytest.mark.parametrize("seed", range(3))
def test_similar_items_are_those_that_the_channels_name_whatever_the_order(seed: int) -> None:
    world = World(seed)
    asked, mix = [4, 9, 13, 20], WEIGHTS.sequential.mix
    strength = {name: world.dense[name][asked].astype(np.float32).mean(axis=0) * w for name, w in mix.channels.items()}
    texts = strength.pop(TEXT)
    bought = sum(strength.values())
    allowed = set(np.flatnonzero(bought + texts).tolist()) - set(asked) - UNAVAILABLE - {7}
    expected = sorted(allowed, key=lambda i: (-(bought + texts)[i], i))
    found = ranker(world, TableEngine(25, seed)).similar(asked, 50, exclude=[7])
    assert found.item_indices.tolist() == expected
    assert set(expected) < set(range(25)), "the seed must leave something unreached"
    total = (bought + texts)[expected]
    np.testing.assert_allclose(found.scores, total / total.sum(), rtol=1e-5)
    np.testing.assert_allclose(np.nan_to_num(np.exp(found.graph_scores)), bought[expected], rtol=1e-5)
    np.testing.assert_allclose(np.nan_to_num(np.exp(found.text_scores)), texts[expected], rtol=1e-5)
    assert np.isnan(found.log_probs).all()
    again = ranker(world, TableEngine(25, seed)).similar([20, 4, 13, 9, 4], 3, exclude=[7], include=expected[1:])
    assert again.item_indices.tolist() == expected[1:4]


def test_topn_scores_chunks_no_wider_than_trained_and_fuses_them() -> None:
    world, engine = World(5), TableEngine(25, 5)
    rng = np.random.default_rng(5)
    asked = [ScoreRequest(2, tuple(rng.permutation(25)[:k].tolist()), history=(1, 4)) for k in (1, 7, 8, 23)]
    answers = ranker(world, engine, candidate_width=7).topn(asked)
    assert [len(r.candidates) for r in engine.scored] == [1, 7, 4, 4, 6, 6, 6, 5]
    assert {r.task for r in engine.scored} == {Task.TOPN}
    final = fused(engine.row(Task.TOPN, 2, (1, 4)), 1.5, world.log_scores([1, 4], WEIGHTS.topn.mix))
    for request, answer in zip(asked, answers, strict=True):
        assert answer.item_indices.tolist() == sorted(request.candidates, key=lambda i: (-final[i], i))
        np.testing.assert_allclose(answer.log_scores, final[answer.item_indices], rtol=1e-5)
        assert answer.scores.sum() == pytest.approx(1.0)
    alone = ranker(world, engine, candidate_width=30).topn(asked[-1:], fusion=[False])[0]
    model = engine.row(Task.TOPN, 2, (1, 4))
    assert alone.item_indices.tolist() == sorted(asked[-1].candidates, key=lambda i: -model[i])


def test_equal_scores_go_by_item_index() -> None:
    world = World(6)
    flat = ItemGraph(np.full(25, 0.04, dtype=np.float32), {})
    engine = TableEngine(25, 6)
    engine.table[Task.TOPN][:] = -1.0
    weights = FusionWeights(TaskWeights(1.0, Mix()), TaskWeights(1.0, Mix()))
    answer = Ranker(engine, flat, weights).topn([ScoreRequest(1, (9, 2, 17, 5))])[0]
    assert answer.item_indices.tolist() == [2, 5, 9, 17]
    assert len(world.graph) == 25


def test_evidence_names_the_items_that_speak_for_another_with_their_shares() -> None:
    world = World(1)
    history, mix = [4, 9, 13, 9, 20], WEIGHTS.sequential.mix
    found = ranker(world, TableEngine(25, 1)).evidence(history, 7, n=2)
    support = dict.fromkeys(history, 0.0)
    for name, weight in mix.channels.items():
        decay, window = world.recency[name]
        read = history[-window:]
        raw = np.array([decay ** (len(read) - 1 - i) for i in range(len(read))])
        for item, share in zip(read, raw / raw.sum(), strict=True):
            support[item] += weight * share * world.dense[name][item, 7]
    total = sum(support.values())
    expected = sorted(((i, s / total) for i, s in support.items() if s > 0), key=lambda p: (-p[1], p[0]))[:2]
    assert expected, "the seed must give evidence"
    assert [e.item_index for e in found] == [i for i, _ in expected]
    np.testing.assert_allclose([e.share for e in found], [s for _, s in expected], rtol=1e-5)
    assert ranker(world, TableEngine(25, 1)).evidence([], 7) == []
    assert isinstance(found[0], Evidence)


def test_candidates_fill_up_with_popular_items() -> None:
    world = World(2)
    ranked = ranker(world, TableEngine(25, 2))
    found = ranked.candidates([3, 4], 20, exclude=[3, 4])
    scores = world.log_scores([3, 4], WEIGHTS.topn.mix)
    allowed = set(range(25)) - {3, 4} - UNAVAILABLE
    assert found.tolist() == sorted(allowed, key=lambda i: (-round(scores[i], 9), i))[:20]


def test_weights_round_trip_through_the_manifest_and_wrong_ones_are_named() -> None:
    flat = WEIGHTS.to_manifest()
    assert FusionWeights.from_manifest(flat) == WEIGHTS
    louder = replace(WEIGHTS, words=2.5)
    assert FusionWeights.from_manifest(louder.to_manifest()) == louder
    assert FusionWeights.from_manifest({k: v for k, v in flat.items() if k != "words.weight"}) == WEIGHTS
    with pytest.raises(BundleError, match=r"topn\.graph"):
        FusionWeights.from_manifest({k: v for k, v in flat.items() if k != "topn.graph"})
    with pytest.raises(BundleError, match="surprise"):
        FusionWeights.from_manifest(flat | {"surprise": 1.0})
    with pytest.raises(BundleError, match="unheard"):
        Ranker(
            TableEngine(25, 0),
            World(0).graph,
            FusionWeights(WEIGHTS.sequential, TaskWeights(1.0, Mix(0.1, {"unheard": 1.0}))),
        )


def test_a_channel_without_weight_need_not_be_in_the_graph() -> None:
    world = World(1)

    def with_silent(weights: TaskWeights) -> TaskWeights:
        return replace(weights, mix=replace(weights.mix, channels={**weights.mix.channels, "unheard": 0.0}))

    silent = FusionWeights(with_silent(WEIGHTS.sequential), with_silent(WEIGHTS.topn))
    plain = ranker(world, TableEngine(25, 1))
    other = Ranker(TableEngine(25, 1), world.graph, silent)
    assert other.evidence([1, 2, 3], 7) == plain.evidence([1, 2, 3], 7)
    request = ScoreRequest(0, tuple(range(10)), history=(1, 2, 3))
    assert other.topn([request])[0].item_indices.tolist() == plain.topn([request])[0].item_indices.tolist()
