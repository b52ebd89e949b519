"""Items that came after the export are what they would be had they been there: rows, neighbours, scores, searches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rdrec_core.decoding.item_trie import ItemTrie
from rdrec_core.encoding import SourceEncoder
from rdrec_core.engines.onnx_engine import OnnxEngine
from rdrec_core.engines.torch_engine import TorchEngine
from rdrec_core.engines.trie_engine import TrieEngine
from rdrec_core.errors import InputError
from rdrec_core.exported.search_export import export_search_graphs, teacher_forced
from rdrec_core.fusion import FusionWeights, TaskWeights
from rdrec_core.growth import Grower, Growth, ItemWords
from rdrec_core.item_graph import Channel, ItemGraph, Mix
from rdrec_core.item_texts import FieldTexts, ItemTexts, RowRule
from rdrec_core.model import RDRecModel
from rdrec_core.ranking import Ranker
from rdrec_core.text_rows import TextPlaces, TextRows
from rdrec_core.text_vectors import Cuts, Projection, Rows, SparseVectors, TextIndex
from rdrec_core.types import RankRequest, ScoreMode, ScoreRequest, Strategy, Task
from tests import ranking_world as world
from training.data.catalogue import catalogue_text
from training.signals.nearest import nearest_sparse

# ---- the engine: a row more in the table is a token more in the vocabulary ------------------------------------------

N_BEFORE, N_AFTER, FIRST = 9, 13, 40
LABELS = [(FIRST + n,) for n in range(N_BEFORE)]
MODEL = world.model(3, vocab_size=FIRST + N_BEFORE, starts_from_source=True)
ROWS = np.random.default_rng(0).normal(size=(N_AFTER - N_BEFORE, 16)).astype(np.float32) * 3


def whole_encoder(n: int) -> SourceEncoder:
    """Items are read and written as the same one token."""
    return SourceEncoder(world.tokenizer(), world.ragged([(FIRST + item,) for item in range(n)]))


def whole_trie(n: int) -> ItemTrie:
    return ItemTrie.build(world.ragged([(FIRST + item,) for item in range(n)]))


def as_if_exported_later() -> RDRecModel:
    """The model with the new rows in its vocabulary."""
    built = world.model(3, vocab_size=FIRST + N_AFTER, starts_from_source=True)
    state = MODEL.state_dict()
    state["t5.shared.weight"] = torch.cat([state["t5.shared.weight"], torch.from_numpy(ROWS)])
    built.load_state_dict(state)
    return built.eval()


LATER = as_if_exported_later()


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    export_search_graphs(MODEL, whole_encoder(N_BEFORE), whole_trie(N_BEFORE), folder, score_modes=list(ScoreMode))
    return folder


def engine_of(kind: str, graphs: Path, mode: ScoreMode, strategy: Strategy) -> TrieEngine:
    encoder, trie = whole_encoder(N_BEFORE), whole_trie(N_BEFORE)
    if kind == "onnx":
        return OnnxEngine(graphs, encoder, trie, score_mode=mode, strategy=strategy, threads=1)
    own = world.model(3, vocab_size=FIRST + N_BEFORE, starts_from_source=True)
    return TorchEngine(own, encoder, trie, score_mode=mode, strategy=strategy)


REQUESTS = [
    RankRequest(4, (1, 10, 3, 12), 6, exclude=(2, 11), beam_width=20, also=(9, 0)),
    RankRequest(None, (12,), 13, beam_width=20),
    RankRequest(2, (0, 5), 3, include=(1, 9, 10, 12), beam_width=20),
]


@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize(
    ("kind", "mode"), [(kind, mode) for kind in ("onnx", "torch") for mode in (ScoreMode.FULL, ScoreMode.TRIE)]
)
def test_a_grown_engine_answers_as_one_exported_with_the_items(
    kind: str, mode: ScoreMode, strategy: Strategy, graphs: Path
) -> None:
    engine = engine_of(kind, graphs, mode, strategy)
    assert engine.can_grow
    engine.grow(ROWS[:1])  # in two steps, the second behind the first
    engine.grow(ROWS[1:])
    available = np.ones(N_AFTER, dtype=bool)
    available[[3, 11]] = False
    engine.set_available(available)
    encoder, trie = whole_encoder(N_AFTER), whole_trie(N_AFTER)
    for request, answer in zip(REQUESTS, engine.recommend(REQUESTS), strict=True):
        exact = teacher_forced(LATER, encoder, trie, request, range(N_AFTER), mode)
        allowed = world.eligible(N_AFTER, request, available)
        world.assert_is_the_exact_answer(answer.item_indices, answer.log_probs, exact, allowed, request.n_items)
        np.testing.assert_allclose(answer.also_log_probs, exact[list(request.also)], atol=1e-4)
        asked = ScoreRequest(request.user_index, tuple(range(N_AFTER)), request.history, Task.SEQUENTIAL)
        np.testing.assert_allclose(engine.score([asked])[0], exact, atol=1e-4)


def test_eight_bits_grow_too(graphs: Path) -> None:
    engine = engine_of("onnx", graphs, ScoreMode.TRIE_INT8, Strategy.EXACT)
    engine.grow(ROWS)
    exact = teacher_forced(
        LATER, whole_encoder(N_AFTER), whole_trie(N_AFTER), REQUESTS[1], range(N_AFTER), ScoreMode.TRIE
    )
    (answer,) = engine.recommend([REQUESTS[1]])
    assert set(answer.item_indices.tolist()) == set(range(N_AFTER))
    assert np.abs(exact[answer.item_indices] - answer.log_probs).max() < 0.5


def test_labels_of_several_tokens_do_not_grow(tmp_path: Path) -> None:
    labels = [(10, 11), (10, 12), (13,)]
    model, encoder, trie = world.model(1), world.encoder(labels), ItemTrie.build(world.ragged(labels))
    export_search_graphs(model, encoder, trie, tmp_path, score_modes=[ScoreMode.TRIE])
    for engine in (OnnxEngine(tmp_path, encoder, trie, threads=1), TorchEngine(model, encoder, trie)):
        assert not engine.can_grow
        with pytest.raises(InputError, match="takes no further items"):
            engine.grow(ROWS)


# ---- words: the neighbours that training would have found -----------------------------------------------------------

KNOWN = [
    ItemWords("Red soap", "Fresh", ("Bath", "Soap"), "Smells of roses"),
    ItemWords("Blue soap", "Fresh", ("Bath", "Soap"), None),
    ItemWords("Red brush", "Comb", ("Hair",), "For long red hair"),
    ItemWords("Sun cream", None, ("Sun",), "For kids"),
    ItemWords(None, None, (), None),
    ItemWords("Sun cream for kids", "Sol", ("Sun", "Kids"), "Smells of coconut"),
    ItemWords("Green soap", "Fresh", ("Bath",), None),
]
NEW = [
    ItemWords("Yellow soap", "Fresh", ("Bath", "Soap"), "Smells of lemons"),
    ItemWords("Sun hat for kids", "Sol", ("Sun", "Hair"), None),
    ItemWords("zebra", None, (), None),
    ItemWords("Lemon cream", "Fresh", (), "Smells of lemons and soap"),
]
REVIEWS = ["smells of roses", "", "good for red hair", "", "", "my kids smell of coconut", "soap"]


def field_of(texts: list[str], n: int) -> tuple[FieldTexts, Rows]:
    vectors, rows = SparseVectors.from_texts(texts, Cuts(min_count=1, max_share=1.0))
    return FieldTexts(vectors, TextIndex.of(rows, len(vectors)), rules={"sparse": RowRule(n, 1.5, 0.7)}), rows


def channel_of(rows: Rows, n_terms: int, rule: RowRule) -> Channel:
    """What training makes of all vectors at once."""
    near = nearest_sparse(rows, n_terms, rule.n)
    near.data **= rule.power
    weights = (near.data / rule.scale).astype(np.float32)
    return Channel(near.indptr.astype(np.int64), near.indices.astype(np.int32), weights, 0.8, 20)


def graph_over(each: FieldTexts, rows: Rows, name: str = "catalogue") -> ItemGraph:
    """Items that are equally popular, by one channel of text."""
    popularity = np.full(len(KNOWN), 1 / len(KNOWN), dtype=np.float32)
    return ItemGraph(popularity, {f"text.{name}.sparse": channel_of(rows, len(each.vectors), each.rules["sparse"])})


def catalogue_field(n: int) -> tuple[FieldTexts, Rows]:
    return field_of([words.fields()["catalogue"] for words in KNOWN], n)


@pytest.mark.parametrize("n", [2, 3, 50])
def test_neighbours_are_those_that_training_finds_with_the_item_there(n: int) -> None:
    each, rows = catalogue_field(n)
    rule = each.rules["sparse"]
    before = channel_of(rows, len(each.vectors), rule)
    graph = ItemGraph(np.array([1, 0, 2, 0, 0, 1, 0], dtype=np.float32), {"text.catalogue.sparse": before})
    grower = Grower(graph, ItemTexts({"catalogue": each}, len(KNOWN)), None)
    growths = [grower.grow(NEW[:3]), grower.grow(NEW[3:])]
    after = graph
    for growth in growths:
        after = after.grown(growth.n, growth.channels)
    every = each.vectors.transform([words.fields()["catalogue"] for words in [*KNOWN, *NEW]])
    oracle = channel_of(every, len(each.vectors), rule)
    for item in range(len(KNOWN) + len(NEW)):
        for graph_now in (after, grower.graph):
            items, weights = graph_now.channels["text.catalogue.sparse"].row(item)
            own = slice(oracle.indptr[item], oracle.indptr[item + 1])
            assert items.tolist() == oracle.items[own].tolist(), item
            np.testing.assert_allclose(weights, oracle.weights[own], rtol=1e-5)
    whole = ItemGraph(np.append(graph.popularity, np.zeros(4, dtype=np.float32)), {"text.catalogue.sparse": oracle})
    mix = Mix(0.01, {"text.catalogue.sparse": 1.0})
    mine, theirs = after.prior((7, 1, 4, 10), mix), whole.prior((7, 1, 4, 10), mix)
    everything = np.arange(len(whole))
    np.testing.assert_allclose(mine.log_scores(everything), theirs.log_scores(everything), rtol=1e-6)
    assert after.order.tolist() == whole.order.tolist()


def test_words_are_written_as_training_writes_them() -> None:
    everything = [*KNOWN, *NEW]
    texts = pl.List(pl.String)
    table = pl.DataFrame(
        {
            "title": [words.title for words in everything], "brand": [words.brand for words in everything],
            "categories": [list(words.categories) or None for words in everything],
            "features": [None] * len(everything), "description": [words.description for words in everything],
        },
        schema={name: texts if name in ("categories", "features") else pl.String
                for name in ("title", "brand", "categories", "features", "description")},
    )  # fmt: skip
    assert [words.fields()["catalogue"] for words in [*KNOWN, *NEW]] == catalogue_text(table)
    assert ItemWords("a\n\nb", "", ("c",), "\n").fields() == {"title": "a\nb", "catalogue": "a\nb\nc"}


def test_of_what_nobody_wrote_yet_the_items_own_words_stand_in() -> None:
    catalogue, _ = catalogue_field(5)
    reviews, rows = field_of(REVIEWS, 5)
    texts = ItemTexts({"catalogue": catalogue, "reviews": reviews}, len(KNOWN))
    graph = graph_over(reviews, rows, "reviews")
    growth = Grower(graph, texts, None).grow([ItemWords("coconut", None, (), "for kids")])
    changed = growth.channels["text.reviews.sparse"]
    assert 5 in changed[len(KNOWN)][0]  # whose review speaks of coconut
    assert len(KNOWN) in changed[5][0]  # and the other way round
    after = texts.grown(growth.n, growth.texts)
    found = after.cosines("coconut")
    assert len(KNOWN) in found["text.catalogue.sparse"][0]
    assert len(KNOWN) not in found["text.reviews.sparse"][0]  # nobody wrote that in a review
    affinity = after.affinity("kids coconut")
    assert affinity is not None
    assert affinity.shape == (len(KNOWN) + 1,)
    assert affinity[-1] > 0


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(["red", "blue", "soap", "sun", "kids"]), max_size=5), min_size=1, max_size=6),
    st.integers(1, 4),
)
def test_one_by_one_or_all_at_once(texts: list[list[str]], n: int) -> None:
    each, rows = catalogue_field(n)
    graph = graph_over(each, rows)
    words = [ItemWords(" ".join(text)) for text in texts]
    together, alone = (Grower(graph, ItemTexts({"catalogue": each}, len(KNOWN)), None) for _ in range(2))
    growth = together.grow(words)
    for one in words:
        alone.grow([one])
    replayed = graph.grown(growth.n, growth.channels).channels["text.catalogue.sparse"]
    for item in range(len(KNOWN) + len(words)):
        for (items, weights), (others, theirs) in (
            (replayed.row(item), alone.graph.channels["text.catalogue.sparse"].row(item)),
            (replayed.row(item), together.graph.channels["text.catalogue.sparse"].row(item)),
        ):
            assert items.tolist() == others.tolist()
            assert weights.tolist() == theirs.tolist()


def test_rows_of_the_t5_are_those_of_the_map() -> None:
    vectors, rows = SparseVectors.from_texts([w.fields()["catalogue"] for w in KNOWN], Cuts(min_count=1, max_share=1.0))
    rng = np.random.default_rng(1)
    places = TextPlaces(vectors, Projection(rng.normal(size=(len(vectors), 4)).astype(np.float32)))
    text_rows = TextRows(places, rng.normal(size=(4, 16)).astype(np.float32))
    growth = Grower(ItemGraph(np.ones(len(KNOWN), dtype=np.float32), {}), None, text_rows).grow(KNOWN)
    # as `RowsFromText` finishes the row of an item without purchases: the place by the map, and no free part
    np.testing.assert_allclose(growth.rows, places.of_rows(rows) @ text_rows.map, rtol=1e-5)


# ---- the ranking: items that the model has no row for live from the graph --------------------------------------------


def test_items_without_a_row_are_ranked_by_words_alone() -> None:
    each, rows = catalogue_field(5)
    labels = [(10 + n, 20) for n in range(len(KNOWN))]
    engine = TorchEngine(world.model(2, vocab_size=60), world.encoder(labels), ItemTrie.build(world.ragged(labels)))
    graph = graph_over(each, rows)
    weights = TaskWeights(1.0, Mix(0.01, {"text.catalogue.sparse": 1.0}))
    ranker = Ranker(
        engine,
        graph,
        FusionWeights(weights, weights),
        texts=ItemTexts({"catalogue": each}, len(KNOWN)),
        available=np.ones(len(KNOWN), dtype=bool),
    )
    grown = ranker.grown(Grower(graph, each_texts(each), None).grow(NEW))
    yellow, hat = len(KNOWN), len(KNOWN) + 1
    history = (0, 6, hat)
    (answer,) = grown.recommend([RankRequest(3, history, 20, exclude=history, also=())])
    assert yellow in answer.item_indices
    place = answer.item_indices.tolist().index(yellow)
    assert np.isnan(answer.log_probs[place])
    assert np.isfinite(answer.log_scores).all()
    assert (np.diff(answer.log_scores) <= 0).all()
    assert hat not in answer.item_indices
    (top,) = grown.topn([ScoreRequest(3, (1, 3, yellow), history)])
    assert sorted(top.item_indices.tolist()) == [1, 3, yellow]
    assert yellow in grown.similar([0], 5).item_indices
    available = np.ones(len(KNOWN) + len(NEW), dtype=bool)
    available[yellow] = False
    shut = grown.with_available(available)
    (answer,) = shut.recommend([RankRequest(3, history, 20, exclude=history)])
    assert yellow not in answer.item_indices
    assert yellow not in shut.similar([0], 9).item_indices
    assert yellow not in shut.candidates(history, 20)
    assert yellow not in shut.at_once(RankRequest(None, (), 20)).item_indices  # type: ignore[union-attr]
    assert yellow not in shut.without_model(RankRequest(3, history, 20)).item_indices
    (alone,) = grown.recommend([RankRequest(3, history, 20)], fusion=[False])
    assert alone.item_indices.max() < len(KNOWN)


def each_texts(each: FieldTexts) -> ItemTexts:
    return ItemTexts({"catalogue": each}, len(KNOWN))


def test_words_of_new_items_count_as_often_as_fitted() -> None:
    each, rows = catalogue_field(5)
    grown = Grower(graph_over(each, rows), each_texts(each), None)
    grown.grow(NEW)
    mix = Mix(0.01, {"text.catalogue.sparse": 0.25})
    known, new = np.arange(len(KNOWN)), np.arange(len(KNOWN), len(KNOWN) + len(NEW))
    plain, loud = (grown.graph.prior((0,), each) for each in (mix, replace(mix, unbought=3.0)))
    np.testing.assert_array_equal(loud.log_scores(known), plain.log_scores(known))
    np.testing.assert_allclose(loud.parts(new)[1], 3.0 * plain.parts(new)[1])
    assert plain.parts(new)[1].max() > 0


def test_a_growth_of_nothing_changes_nothing() -> None:
    graph = ItemGraph(
        np.ones(3, dtype=np.float32),
        {"a": Channel(np.array([0, 1, 1, 1]), np.array([1], dtype=np.int32), np.ones(1, dtype=np.float32), 0.5, 3)},
    )
    same = graph.grown(0, Growth(0).channels)
    assert len(same) == 3
    assert same.channels["a"].gather(np.array([0]))[0].tolist() == [1]
    assert same.grown(1, {}).channels["a"].gather(np.array([3, 0]))[0].tolist() == [1]  # the new one has no row
