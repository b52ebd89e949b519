"""Text vectors against scikit-learn's TfidfVectorizer and dense algebra."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import TfidfVectorizer

from rdrec_core import text_vectors
from rdrec_core.text_vectors import Cuts, Projection, Rows, SparseVectors, TextIndex
from rdrec_core.words import words

STEMS = ("rose", "oil", "5", "ml", "hair", "dry", "blue", "nail", "polish", "a", "crème", "x2")


def made_up_texts(n: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    shares = np.arange(len(STEMS), 0, -1.0)
    texts = [" ".join(rng.choice(STEMS, rng.integers(0, 9), p=shares / shares.sum())) for _ in range(n)]
    return [text.upper() if i % 3 == 0 else text.replace(" ", ", ") for i, text in enumerate(texts)]


def dense(rows: Rows, width: int) -> np.ndarray:
    return csr_array((rows.weights, rows.terms, rows.indptr), shape=(len(rows), width)).toarray()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("OPI Nail-Lacquer, 0.5 Fl.Oz", ["opi", "nail", "lacquer", "0", "5", "fl", "oz"]),
        ("Crème brûlée GROẞ ﬁne Ⅻ", ["creme", "brulee", "gross", "fine", "xii"]),
        ("茶", ["茶"]),
        ("iPhone手机壳 2個", ["iphone", "手", "机", "壳", "手机", "机壳", "手机壳", "2", "個"]),
        ("ﾊﾞｯｸﾞ", ["バ", "ッ", "グ", "バッ", "ッグ", "バッグ"]),  # half width with its mark apart
        ("แมว", ["แ", "ม", "ว", "แม", "มว", "แมว"]),
        ("हिन्दी किताब", ["हिन्दी", "किताब"]),  # vowel signs stay inside the word
        ("한국어 책", ["한국어", "책"]),
        ("_ -- \n\ud83d\ude00 ™", ["tm"]),
        ("", []),
    ],
)
def test_words_of_many_scripts(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_thai_tone_marks_are_kept() -> None:
    assert words("ม้า")[-1] == "ม้า"
    assert words("ม้า") != words("มา")


@pytest.mark.parametrize(
    "cuts", [Cuts(), Cuts(min_count=5, max_share=0.3), Cuts(pairs=False, min_count=1, max_share=1.0)]
)
def test_vectors_equal_those_of_scikit_learn(cuts: Cuts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_vectors, "_TEXTS_AT_ONCE", 17)  # so that counting over blocks is met
    texts = made_up_texts(120)
    oracle = TfidfVectorizer(
        analyzer=lambda text: [*(own := words(text)), *(map(" ".join, pairwise(own)) if cuts.pairs else ())],
        min_df=cuts.min_count, max_df=cuts.max_share, sublinear_tf=True,
    )  # fmt: skip
    expected = oracle.fit_transform(texts).toarray()
    vectors, rows = SparseVectors.from_texts(texts, cuts)
    columns = {
        vectors.spelled(t): t for t in range(len(vectors)) if vectors.idf(np.asarray([t], dtype=np.int32))[0] > 0
    }
    names = oracle.get_feature_names_out().tolist()
    assert sorted(columns) == names
    found = dense(rows, len(vectors))[:, [columns[name] for name in names]]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose((dense(rows, len(vectors)) ** 2).sum(axis=1), (expected**2).sum(axis=1), atol=1e-6)
    new = [*made_up_texts(60, seed=1), "never seen words", ""]
    for some in (new, new[-5:]):  # many by a dict, few by binary search
        fresh = SparseVectors.from_arrays(vectors.arrays())
        found = dense(fresh.transform(some), len(vectors))[:, [columns[name] for name in names]]
        np.testing.assert_allclose(found, oracle.transform(some).toarray(), atol=1e-6)


def test_terms_ascend_within_a_row_and_the_order_of_texts_does_not_matter() -> None:
    texts = made_up_texts(50)
    first, rows = SparseVectors.from_texts(texts)
    second, _ = SparseVectors.from_texts(texts[::-1])
    assert [first.spelled(t) for t in range(len(first))] == [second.spelled(t) for t in range(len(second))]
    for i in range(len(rows)):
        assert (np.diff(rows.row(i)[0]) > 0).all()


def test_a_small_vocabulary_keeps_what_is_most_frequent() -> None:
    texts = made_up_texts(200)
    counts = {}
    for text in texts:
        own = words(text)
        for term in {*own, *map(" ".join, pairwise(own))}:
            counts[term] = counts.get(term, 0) + 1
    for size in (1, 7, 15, 40):
        vectors, rows = SparseVectors.from_texts(texts, Cuts(max_size=size, max_share=1.0))
        kept = [counts[vectors.spelled(t)] for t in range(len(vectors))]
        assert sorted(kept, reverse=True) == sorted(counts.values(), reverse=True)[:size]
        again = SparseVectors.from_arrays(vectors.arrays()).transform(texts)
        np.testing.assert_array_equal(again.terms, rows.terms)
        np.testing.assert_array_equal(again.weights, rows.weights)


def test_characters_of_a_script_without_blanks_make_no_pairs() -> None:
    texts = ["手机壳 红色 case red"] * 3 + ["x"]
    vectors, _ = SparseVectors.from_texts(texts)
    spelled = [vectors.spelled(t) for t in range(len(vectors))]
    assert "case red" in spelled
    assert [term for term in spelled if " " in term] == ["case red"]
    assert "手机" in spelled


@pytest.mark.parametrize("texts", [[], [""], ["", "only once"]])
def test_nothing_to_learn_gives_empty_vectors(texts: list[str]) -> None:
    vectors, rows = SparseVectors.from_texts(texts)
    assert len(vectors) == 0
    assert len(rows) == len(texts)
    assert len(SparseVectors.from_arrays(vectors.arrays()).transform(["only once"]).terms) == 0


@pytest.mark.parametrize("filled", [0, 10**6])  # a small catalogue is one row, a large one a sorted list
def test_scores_and_neighbours_are_those_of_dense_algebra(filled: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_vectors, "_DENSE", filled)
    texts = made_up_texts(80)
    vectors, rows = SparseVectors.from_texts(texts)
    index = TextIndex.from_arrays(TextIndex.of(rows, len(vectors)).arrays(), len(texts))
    asked = vectors.transform([*texts[:30], "nothing of it", ""])
    cosine = dense(asked, len(vectors)) @ dense(rows, len(vectors)).T
    for i in range(len(asked)):
        items, found = index.scores(*asked.row(i))
        np.testing.assert_array_equal(items, np.flatnonzero(cosine[i]))
        np.testing.assert_allclose(found, cosine[i][items], atol=1e-6)
    for n in (1, 7, 500):
        for i, (items, found) in enumerate(index.neighbours(asked, n)):
            expected = sorted(np.flatnonzero(cosine[i]), key=lambda j: (-round(float(cosine[i, j]), 6), j))[:n]
            np.testing.assert_allclose(cosine[i][items], cosine[i][expected], atol=1e-6)
            np.testing.assert_allclose(found, cosine[i][items], atol=1e-6)
            assert len(items) == len(set(items.tolist())) == len(expected)


def test_projection_is_a_matrix_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_vectors, "_CELLS_AT_ONCE", 100)  # a few rows at a time
    texts = made_up_texts(60)
    vectors, rows = SparseVectors.from_texts(texts)
    components = np.random.default_rng(0).normal(size=(len(vectors), 6)).astype(np.float32)
    found = Projection(components).project(rows)
    np.testing.assert_allclose(found, dense(rows, len(vectors)) @ components, atol=1e-5)
    assert (np.diff(rows.indptr) == 0).any(), "the texts hold an empty one"
