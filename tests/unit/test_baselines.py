"""Baselines against their definitions in plain loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rdrec_core.errors import InputError
from tests.ranking_dataset import chained_histories, write_dataset
from training.data.dataset import Dataset
from training.evaluation import baselines, measure
from training.evaluation.measure import rank_by_scorer
from training.evaluation.protocol import candidate_lists, questions
from training.evaluation.ranking_run import CATALOGUE_CHANNEL
from training.evaluation.sasrec import SASRecConfig, sasrec_scores, train_sasrec
from training.signals.graph import GraphConfig, Sequences
from training.signals.text import text_channels, text_fields

N = 12


def sequences(histories: list[list[int]]) -> Sequences:
    indptr = np.concatenate([[0], np.cumsum([len(h) for h in histories])]).astype(np.int64)
    return Sequences(indptr, np.concatenate(histories).astype(np.int32), N)


HISTORIES = chained_histories(np.random.default_rng(3), 30, N)
ASKED = [np.array([3, 7, 1]), np.arange(12)]


def test_counts_are_those_of_the_design_page() -> None:
    pairs = np.zeros((N, N))
    bought = np.zeros(N)
    for history in HISTORIES:
        for a, first in enumerate(history):
            bought[first] += 1
            for b in range(a + 1, min(len(history), a + 4)):
                pairs[first, history[b]] += 1 / (b - a)
                pairs[history[b], first] += 0.5 / (b - a)
    for history, found in zip(ASKED, baselines.copurchase_counts(sequences(HISTORIES))(ASKED), strict=True):
        expected = sum(
            0.8 ** (len(history[-10:]) - 1 - place) * pairs[item] / np.sqrt(np.maximum(bought, 1))
            for place, item in enumerate(history[-10:])
        )
        np.testing.assert_allclose(found, expected + 1e-6 * np.maximum(bought, 1) / bought.max(), rtol=1e-9)


def test_ease_solves_its_constrained_regression() -> None:
    matrix = np.zeros((len(HISTORIES), N))
    for user, history in enumerate(HISTORIES):
        matrix[user, history] = 1
    strength = 7.0
    weights = np.zeros((N, N))
    for item in range(N):  # ridge regression of one column on all the others: EASE's definition
        others = [i for i in range(N) if i != item]
        a = matrix[:, others]
        weights[others, item] = np.linalg.solve(a.T @ a + strength * np.eye(N - 1), a.T @ matrix[:, item])
    found = baselines.ease(sequences(HISTORIES), strength)([np.array([4])])[0]
    np.testing.assert_allclose(found, weights[4], atol=1e-4)


def test_dense_ease_refuses_a_catalogue_that_it_cannot_invert() -> None:
    wide = Sequences(np.array([0, 1]), np.array([0], dtype=np.int32), baselines.EASE_MAX_ITEMS + 1)
    with pytest.raises(InputError, match="20,001"):
        baselines.ease(wide)


def test_item_knn_is_the_cosine_over_users() -> None:
    matrix = np.zeros((len(HISTORIES), N))
    for user, history in enumerate(HISTORIES):
        matrix[user, history] = 1
    unit = matrix / np.linalg.norm(matrix, axis=0)
    cosine = unit.T @ unit
    np.fill_diagonal(cosine, 0)
    np.testing.assert_allclose(baselines.item_knn(sequences(HISTORIES))([np.array([2])])[0], cosine[2], atol=1e-5)


def test_content_knn_is_the_cosine_of_the_catalogue_s_words(tmp_path: Path) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = ["red", "blue", "wool", "cotton", "hat", "scarf", "warm", "light"]
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.permutation(words)[:3]) for _ in range(20)]
    histories = [rng.permutation(20)[:6].tolist() for _ in range(15)]
    data = write_dataset(tmp_path / "d", histories, 20)
    data.items.with_columns(pl.Series("title", texts)).write_parquet(data.path / "items.parquet")
    data = Dataset(data.path)
    only = [CATALOGUE_CHANNEL]
    text = text_channels(text_fields(data, "train", only=only), GraphConfig(), only=only)[CATALOGUE_CHANNEL].channel
    bought = Sequences.of(data, "train")
    asked = [np.array([4]), np.array([3, 9, 1])]
    found = np.asarray(baselines.content_knn(bought, text)(asked))
    # scikit-learn's weights over the same words and pairs of words
    rows = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2, max_df=0.5).fit_transform(texts)
    cosine = (rows @ rows.T).toarray()
    np.fill_diagonal(cosine, 0.0)
    for history, scores in zip(asked, found, strict=True):
        decays = GraphConfig().text_decay ** np.arange(len(history) - 1, -1, -1)
        expected = decays @ cosine[history]
        gaps = expected[:, None] - expected[None]
        wrong = (np.sign(gaps) != np.sign(scores[:, None] - scores[None])) & (np.abs(gaps) > 1e-3)
        assert not wrong.any()
    assert found[0].argmax() == cosine[4].argmax()


def test_scorers_are_ranked_over_everything_but_the_history_or_over_the_candidates(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "d", HISTORIES, N)
    asked = questions(data, "test")
    rng = np.random.default_rng(0)
    scores = rng.random((len(asked), N))
    by_history = {tuple(asked.history(q).tolist()): scores[q] for q in range(len(asked))}

    def scorer(histories: list[np.ndarray]) -> np.ndarray:
        return np.stack([by_history[tuple(h.tolist())] for h in histories])

    full = rank_by_scorer(scorer, asked, None, lambda _: None)
    lists = candidate_lists(data, asked, n=4)
    topn = rank_by_scorer(scorer, asked, lists, lambda _: None)
    for q in range(len(asked)):
        own, target = by_history[tuple(asked.history(q).tolist())], asked.targets[q]
        pool = sorted(set(range(N)) - set(asked.history(q).tolist()), key=lambda i: -own[i])
        assert full.ranks[q] == pool.index(target) + 1
        assert full.lists[q][full.lists[q] >= 0].tolist() == pool[:10]
        pool = sorted(lists[q].tolist(), key=lambda i: -own[i])
        assert topn.ranks[q] == pool.index(target) + 1
        assert topn.lists[q][topn.lists[q] >= 0].tolist() == pool


def test_sasrec_learns_a_chain_and_goes_on_after_a_kill_as_if_nothing_had_been(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    histories = [np.arange(start, start + int(rng.integers(4, 8))) % N for start in rng.integers(0, N, 60)]
    data = write_dataset(tmp_path / "d", [h.tolist() for h in histories], N)
    validation = questions(data, "val")
    config = SASRecConfig(
        width=16, layers=1, heads=1, length=8, dropout=0.1, batch_size=16, learning_rate=0.01, epochs=6
    )
    seen: list[int] = []
    whole, best = train_sasrec(histories, validation, N, config, tmp_path / "a", lambda epoch, *_: seen.append(epoch))
    assert seen == [1, 2, 3, 4, 5, 6]
    assert best in seen

    class KilledError(Exception):
        pass

    def die(epoch: int, *_: float | None) -> None:
        if epoch == 3:
            raise KilledError

    with pytest.raises(KilledError):
        train_sasrec(histories, validation, N, config, tmp_path / "b", die)
    resumed, _ = train_sasrec(histories, validation, N, config, tmp_path / "b", lambda *_: None)
    probe = [np.array([3, 4, 5]), np.array([8])]
    np.testing.assert_allclose(sasrec_scores(whole, probe), sasrec_scores(resumed, probe), atol=1e-5)
    assert sasrec_scores(whole, probe).argmax(axis=1).tolist() == [6, 9]
    cached: list[int] = []
    train_sasrec(histories, validation, N, config, tmp_path / "a", lambda epoch, *_: cached.append(epoch))
    assert cached == [], "a finished run is taken from the cache"


def test_sasrec_is_refitted_from_nothing_for_as_many_epochs_as_did_best(tmp_path: Path) -> None:
    histories = [(np.arange(start, start + 6) % N).tolist() for start in range(N)] * 3
    data = write_dataset(tmp_path / "d", histories, N)
    config = SASRecConfig(
        width=16, layers=1, heads=1, length=8, dropout=0.1, batch_size=16, learning_rate=0.01, epochs=5, patience=2
    )
    training, refitted = Sequences.of(data, "train"), Sequences.of(data, "val")
    seen: list[tuple[int, float | None]] = []

    def scores(of: Sequences | None) -> np.ndarray:
        def report(epoch: int, loss: float, quality: float | None) -> None:
            seen.append((epoch, quality))

        return np.asarray(baselines.sasrec(training, of, questions(data, "val"), tmp_path, report, config)(ASKED))

    plain = scores(None)
    qualities = [quality for _, quality in seen if quality is not None]
    best = 1 + int(np.argmax(qualities))
    assert len(qualities) == len(seen), "only training histories so far"
    seen.clear()
    anew = scores(refitted)
    assert seen == [(epoch, None) for epoch in range(1, best + 1)]
    assert not np.allclose(plain, anew)
    seen.clear()
    np.testing.assert_allclose(scores(refitted), anew, atol=1e-6)
    assert not seen, "both runs are taken from the cache"


def test_sasrec_sees_no_future_and_padding_changes_nothing() -> None:
    import torch

    from training.evaluation.sasrec import SASRec

    model = SASRec(N, SASRecConfig(width=16, layers=2, heads=2, length=8)).eval()
    with torch.inference_mode():
        states = model(torch.tensor([[3, 5, 2, 9, 0, 0]]))
        changed = model(torch.tensor([[3, 5, 7, 1, 4, 6]]))
    np.testing.assert_allclose(states[0, :2], changed[0, :2], atol=1e-6)
    alone = sasrec_scores(model, [np.array([2, 4])])
    padded = sasrec_scores(model, [np.array([2, 4]), np.arange(8)])
    np.testing.assert_allclose(alone[0], padded[0], atol=1e-5)


def test_sasrec_with_a_temperature_scores_by_cosines() -> None:
    import torch

    from training.evaluation.sasrec import SASRec

    model = SASRec(N, SASRecConfig(width=16, layers=1, heads=1, length=8, temperature=0.5)).eval()
    with torch.inference_mode():
        states = model(torch.tensor([[3, 5]]))
        logits = model.logits(states)
        plain = torch.nn.functional.cosine_similarity(states[..., None, :], model.items.weight[1:], dim=-1)
        np.testing.assert_allclose(logits, plain / 0.5, atol=1e-5)
        np.testing.assert_allclose(
            (states * model.rows(torch.tensor([7, 2]))).sum(-1)[0, 1], logits[0, 1, 1], atol=1e-5
        )


def test_a_large_catalogue_keeps_the_nearest_items_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = baselines.item_knn(sequences(HISTORIES))([np.array([item]) for item in range(N)])
    monkeypatch.setattr(baselines, "KNN_ALL_ITEMS", N - 1)
    monkeypatch.setattr(baselines, "KNN_NEAREST", 3)
    bounded = baselines.item_knn(sequences(HISTORIES))([np.array([item]) for item in range(N)])
    for every, few in zip(whole, bounded, strict=True):
        kept = np.flatnonzero(few > 1e-5)
        assert 0 < len(kept) <= 4
        np.testing.assert_allclose(few[kept], every[kept], rtol=1e-9)
        assert every[kept].min() >= np.sort(every)[-4] - 1e-9


def test_scores_of_a_block_stay_within_their_bound(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = questions(write_dataset(tmp_path / "d", HISTORIES, N), "test")
    plain = baselines.copurchase_counts(sequences(HISTORIES))
    sizes: list[int] = []

    def counting(histories: list[np.ndarray]) -> np.ndarray:
        sizes.append(len(histories))
        return np.asarray(plain(histories))

    at_once = rank_by_scorer(counting, asked, None, lambda _: None)
    assert sizes == [1, len(asked) - 1]
    sizes.clear()
    monkeypatch.setattr(measure, "SCORES_BYTES", 5 * N * 4 * 8)
    in_blocks = rank_by_scorer(counting, asked, None, lambda _: None)
    assert sizes[0] == 1
    assert max(sizes) == 5
    np.testing.assert_array_equal(in_blocks.ranks, at_once.ranks)
    np.testing.assert_array_equal(in_blocks.lists, at_once.lists)
