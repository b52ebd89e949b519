"""Profiles never see what is asked for; nearest items and channels against brute force."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rdrec_core.errors import InputError
from rdrec_core.item_graph import Eligible, ItemGraph, Mix
from rdrec_core.text_vectors import Rows, SparseVectors
from tests.small_dataset import write_small_dataset
from training.data.dataset import RATIONALES, REVIEWS, Dataset, Split
from training.evaluation.fusion import START_TEXT, start_of
from training.signals.graph import CHANNELS, GraphConfig
from training.signals.kept_graph import keep_graph, kept_graph
from training.signals.nearest import nearest_dense, nearest_sparse
from training.signals.profiles import FIELDS, item_profiles
from training.signals.text import (
    TextChannel,
    TextField,
    build_graph,
    fit_projection,
    item_texts,
    only_channels,
    text_channels,
    text_fields,
    with_channels,
)
from training.workers import Blocks, blocks_by

WORDS = ("soap", "brush", "oil", "rose", "red", "blue", "dry", "hair", "nail", "cream", "sun", "kids")


def made_up_texts(n: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(0, 6))) for _ in range(n)]


def telling_dataset(folder: Path, *, protocol: str = "clean", splits_of_texts: str | None = None) -> Dataset:
    """The small dataset, in which each review and rationale has words of its own."""
    data = write_small_dataset(folder)
    reviews = pl.read_parquet(folder / "reviews.parquet")
    pair = pl.format("u{}i{}", "user_index", "item_index")
    reviews = reviews.with_columns(text=pl.format("review {}", pair))
    if splits_of_texts is not None:
        reviews = reviews.with_columns(split=pl.lit(splits_of_texts).cast(REVIEWS["split"]))
    reviews.write_parquet(folder / "reviews.parquet")
    rationales = reviews.select(
        "user_index", "item_index", user_preference=pl.format("wants {}", pair),
        item_attributes=pl.format("has {}", pair),
        verdict=pl.lit("ok"), use=pl.col("user_index") % 3 > 0, grounding=pl.lit(1.0), teacher=pl.lit("t"),
        prompt_version=pl.lit("1"), prompt_tokens=pl.lit(0), completion_tokens=pl.lit(0), cost=pl.lit(0.0),
    ).cast(RATIONALES)  # fmt: skip
    rationales.write_parquet(folder / "rationales.parquet")
    info = data.info.model_copy(update={"protocol": protocol})
    (folder / "dataset.json").write_text(info.model_dump_json())
    return Dataset(folder)


@pytest.mark.parametrize(("protocol", "splits_of_texts"), [("clean", None), ("paper", "train")])
@pytest.mark.parametrize("upto", ["train", "val", "test"])
def test_profiles_hold_what_is_known_by_a_split_and_nothing_later(
    tmp_path: Path, protocol: str, splits_of_texts: str | None, upto: Split
) -> None:
    data = telling_dataset(tmp_path / "d", protocol=protocol, splits_of_texts=splits_of_texts)
    profiles = item_profiles(data, upto)
    assert tuple(profiles) == FIELDS[1:], "the title is all that this catalogue says"
    rows = data.interactions
    last = ("train", "val", "test").index(upto)
    for item in range(data.info.n_items):
        assert profiles["catalogue"][item] == data.items["title"][item]
        mine = (rows.item_index == item) & (rows.split <= last)
        users = sorted(rows.user_index[mine].tolist())
        assert profiles["reviews"][item] == "\n".join(f"review u{u}i{item}" for u in users)
        used = [u for u in users if u % 3 > 0]
        assert profiles["attributes"][item] == "\n".join(f"has u{u}i{item}" for u in used)
        assert profiles["preferences"][item] == "\n".join(f"wants u{u}i{item}" for u in used)


def test_a_long_profile_is_cut_and_a_field_without_text_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.signals.profiles.MAX_CHARACTERS", 10)
    data = write_small_dataset(tmp_path / "d")
    assert max(map(len, item_profiles(data, "train")["reviews"])) == 10
    plain = write_small_dataset(tmp_path / "plain", reviews=False)
    assert set(item_profiles(plain, "train")) == {"catalogue"}


def dense_cosines(rows: Rows, n_terms: int) -> np.ndarray:
    matrix = np.zeros((len(rows), n_terms))
    for i in range(len(rows)):
        terms, weights = rows.row(i)
        matrix[i, terms] = weights
    cosines = matrix @ matrix.T
    np.fill_diagonal(cosines, 0.0)
    return cosines


@pytest.mark.parametrize("n", [1, 8, 500])
def test_nearest_by_sparse_vectors_are_those_of_brute_force(n: int) -> None:
    vectors, rows = SparseVectors.from_texts(made_up_texts(150))
    found = nearest_sparse(rows, len(vectors), n).toarray()
    cosines = dense_cosines(rows, len(vectors))
    np.testing.assert_allclose(np.sort(found, axis=1), kept_largest(cosines, n), atol=1e-6)
    np.testing.assert_allclose(found[found > 0], cosines[found > 0], atol=1e-6)


def kept_largest(cosines: np.ndarray, n: int) -> np.ndarray:
    """Rows sorted, all but the n largest positive numbers set to zero."""
    rows = np.sort(np.maximum(cosines, 0.0), axis=1)
    if n < rows.shape[1]:
        rows[:, : rows.shape[1] - n] = 0.0
    return rows


@pytest.mark.parametrize("n", [1, 10])
def test_the_rarest_terms_lead_to_the_items_of_which_the_nearest_are_taken(
    n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.signals.nearest._COLUMNS_AT_ONCE", 150)
    monkeypatch.setattr("training.signals.nearest._ROWS_AT_ONCE", 70)
    vectors, rows = SparseVectors.from_texts(made_up_texts(400))
    cosines = dense_cosines(rows, len(vectors))
    postings = np.bincount(rows.terms)
    near = nearest_sparse(rows, len(vectors), n, most_met=80).toarray()
    found = 0
    for item in range(400):
        terms = rows.row(item)[0]
        terms = terms[np.argsort(postings[terms], kind="stable")]
        leading = terms[: max(1, int((np.cumsum(postings[terms]) <= 80).sum()))]
        met = [other for other in range(400) if other != item and np.isin(leading, rows.row(other)[0]).any()]
        assert set(np.flatnonzero(near[item])) <= set(met)
        assert (near[item] > 0).sum() == min(n, len(met))
        np.testing.assert_allclose(near[item][near[item] > 0], cosines[item][near[item] > 0], atol=1e-6)
        found += int((near[item] >= np.sort(cosines[item])[-n] - 1e-6).sum())
    assert found > 0.8 * 400 * n  # of the very nearest


def test_no_more_items_than_may_be_met_are_compared_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.signals.nearest.CANDIDATES", 1)
    vectors, rows = SparseVectors.from_texts(made_up_texts(150))
    cosines = kept_largest(dense_cosines(rows, len(vectors)), 8)
    found = nearest_sparse(rows, len(vectors), 8, most_met=150).toarray()
    np.testing.assert_allclose(np.sort(found, axis=1), cosines, atol=1e-6)
    found = nearest_sparse(rows, len(vectors), 8, most_met=149).toarray()
    assert np.abs(np.sort(found, axis=1) - cosines).max() > 0.01  # the terms lead to more than that


def clustered_vectors(n: int, width: int = 16) -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(n // 25, width))
    vectors = centres[rng.integers(len(centres), size=n)] + 0.3 * rng.normal(size=(n, width))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[rng.random(n) < 0.1] = 0.0
    return vectors.astype(np.float32)


@pytest.mark.parametrize("n", [1, 10, 1000])
def test_nearest_by_dense_vectors_are_those_of_brute_force(n: int) -> None:
    vectors = clustered_vectors(300)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, 0.0)
    found = nearest_dense(vectors, n).toarray()
    np.testing.assert_allclose(np.sort(found, axis=1), kept_largest(cosines, n), atol=1e-5)
    np.testing.assert_allclose(found[found > 0], cosines[found > 0], atol=1e-5)


def test_in_large_catalogues_groups_that_lie_near_hold_nearly_all_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.signals.nearest.GROUP", 50)
    vectors = clustered_vectors(4000)
    exact, found = nearest_dense(vectors, 10), nearest_dense(vectors, 10, whole=100)
    assert found.shape == exact.shape
    assert not np.diff(found.indptr)[~vectors.any(axis=1)].any()
    both = (exact.toarray() > 0) & (found.toarray() > 0)
    assert both.sum() > 0.9 * exact.nnz
    monkeypatch.setattr("training.signals.nearest.NEAR_GROUPS", 1)  # a group's own members, however small its centre
    alone = nearest_dense(vectors[:1000], 10, whole=100).tocoo()
    assert (alone.row != alone.col).all()
    np.testing.assert_allclose(alone.data, (vectors[alone.row] * vectors[alone.col]).sum(axis=1), atol=1e-5)


def test_neighbours_are_the_same_to_the_byte_whoever_looks_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.signals.graph._ROWS_AT_ONCE", 70)
    monkeypatch.setattr("training.signals.nearest._CELLS_AT_ONCE", 20_000)  # so that groups are divided, too
    sparse, rows = SparseVectors.from_texts(made_up_texts(300))
    dense = clustered_vectors(700)

    def found(blocks: Blocks | None) -> list[bytes]:
        near = (
            nearest_sparse(rows, len(sparse), 10, most_met=60, blocks=blocks),
            nearest_dense(dense, 10, blocks=blocks),
            nearest_dense(dense, 10, whole=100, blocks=blocks),
        )
        return [part.tobytes() for each in near for part in (each.data, each.indices, each.indptr)]

    here = found(None)
    assert found(Blocks()) == here
    with blocks_by(2, tmp_path) as blocks:
        assert isinstance(blocks, Blocks)
        assert found(blocks) == here
    assert not list(tmp_path.iterdir())


def test_a_kept_graph_names_what_differs_from_what_is_needed(tmp_path: Path) -> None:
    data, config = write_small_dataset(tmp_path / "d"), GraphConfig()
    texts = ["text.title.sparse", "text.catalogue.sparse", "text.attributes.sparse", "text.catalogue.dense"]
    (tmp_path / "kept").mkdir()
    encoder = Letters()
    entries = keep_graph(tmp_path / "kept", data, "val", config, texts, encoder)
    assert list(entries) == [*CHANNELS, "text.catalogue.sparse", "text.catalogue.dense", "text.attributes.sparse"]

    def read(names: list[str], upto: Split = "val", by: Letters = encoder) -> tuple[ItemGraph, dict[str, TextChannel]]:
        return kept_graph(tmp_path / "kept", data, upto, config, names, by)

    purchases, found = read(texts)
    expected = text_channels(text_fields(data, "val", encoder, only=texts), config, only=texts)
    assert {name: each.rule for name, each in found.items()} == {name: each.rule for name, each in expected.items()}
    built = build_graph(data, "val", config, encoder, only=[*CHANNELS, *texts]).arrays()
    again = with_channels(purchases, found).arrays()
    assert {name: array.tobytes() for name, array in again.items()} == {n: a.tobytes() for n, a in built.items()}

    with pytest.raises(InputError, match=r"built without text\.reviews\.sparse"):
        read(["text.reviews.sparse"])
    with pytest.raises(InputError, match="interactions up to val, needed is test"):
        read(texts, "test")
    with pytest.raises(InputError, match="text encoder letters, needed is others"):
        read(texts, by=Letters("others"))
    read(["text.catalogue.sparse"], by=Letters("others"))
    rationales = pl.read_parquet(data.rationales_path)
    rationales.with_columns(item_attributes=pl.lit("It has dice.")).write_parquet(data.rationales_path)
    with pytest.raises(InputError, match="has rationales"):
        read(texts)
    read(["text.catalogue.sparse"])  # of which they are no part


class Letters:
    """Texts by how often they have a letter."""

    def __init__(self, fingerprint: str = "letters") -> None:
        self.fingerprint = fingerprint

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        counts = np.asarray([[text.count(letter) for letter in "abcdeiop"] for text in texts], dtype=np.float32)
        return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)


def test_no_text_gives_no_neighbours_and_no_channel() -> None:
    vectors, rows = SparseVectors.from_texts(["", "once", ""])
    assert nearest_sparse(rows, len(vectors), 5).shape == (3, 3)
    assert nearest_dense(np.zeros((3, 4), dtype=np.float32), 5).nnz == 0
    assert text_channels([TextField("catalogue", vectors, rows)], GraphConfig()) == {}


def test_a_text_outside_the_catalogue_gets_the_row_that_it_would_have_in_it() -> None:
    texts = made_up_texts(120)
    vectors, rows = SparseVectors.from_texts(texts)
    fields = [TextField("catalogue", vectors, rows)]
    channels = text_channels(fields, GraphConfig(text_neighbours=500, text_sparse_power=2.0))
    opened = item_texts(fields, channels, len(texts))
    channel = channels["text.catalogue.sparse"].channel
    for item in range(len(texts)):
        row = slice(channel.indptr[item], channel.indptr[item + 1])
        expected = dict(zip(channel.items[row].tolist(), channel.weights[row].tolist(), strict=True))
        items, cosine = opened.cosines(texts[item]).get("text.catalogue.sparse", (np.empty(0, dtype=int), np.empty(0)))
        found = opened.fields["catalogue"].rules["sparse"].row(cosine, items)
        assert (np.diff(found[0]) > 0).all()
        own = dict(zip(found[0].tolist(), found[1].tolist(), strict=True))
        own.pop(item, None)
        assert own == pytest.approx(expected, rel=1e-4)


def test_an_item_that_nobody_bought_is_found_through_its_text(tmp_path: Path) -> None:
    data = write_small_dataset(tmp_path / "d")
    graph = build_graph(data, "train", GraphConfig())
    twins = [i for i in range(40) if i % 4 == 2]
    popularity = graph.popularity.copy()
    popularity[twins[0]] = 0.0
    cold = ItemGraph(popularity, only_channels(graph, ["text.catalogue.sparse"]).channels)
    best = cold.prior([twins[1]], Mix(0.0, {"text.catalogue.sparse": 1.0})).best(
        len(twins), Eligible(exclude=[twins[1]])
    )
    assert twins[0] in best.tolist()


def test_channels_are_built_by_name_and_start_with_a_say(tmp_path: Path) -> None:
    data = write_small_dataset(tmp_path / "d")
    names = {"next", "ridge", "previous", "reach"}
    everything = build_graph(data, "train", GraphConfig())
    assert set(everything.channels) > names
    assert {name for name in everything.channels if name.startswith("text.")} <= {f"text.{f}.sparse" for f in FIELDS}
    some = {"next", "text.catalogue.sparse"}
    assert set(build_graph(data, "train", GraphConfig(), only=some).channels) == some
    start = start_of(everything).mix.channels
    assert set(start) == set(everything.channels)
    assert sum(v for name, v in start.items() if name.startswith("text.")) == pytest.approx(START_TEXT)
    config = GraphConfig(text_decay=0.4, decay=0.9)
    channels = with_channels(everything, text_channels(text_fields(data, "train"), config)).channels
    assert channels["text.catalogue.sparse"].decay == 0.4


def test_a_projection_as_wide_as_the_vocabulary_keeps_cosines_and_a_narrow_one_the_largest() -> None:
    vectors, rows = SparseVectors.from_texts(made_up_texts(200))
    wide = fit_projection(rows, len(vectors), len(vectors))
    dense = wide.project(rows)
    np.testing.assert_allclose(wide.components.T @ wide.components, np.eye(wide.width), atol=1e-4)
    cosines = dense_cosines(rows, len(vectors))
    products = dense @ dense.T
    np.fill_diagonal(products, 0.0)
    np.testing.assert_allclose(products, cosines, atol=0.05)  # one component short of all
    narrow = fit_projection(rows, len(vectors), 5).project(rows)
    assert narrow.shape == (200, 5)
    assert (narrow**2).sum() < (dense**2).sum()
    assert fit_projection(*(SparseVectors.from_texts([""])[1], 0), 8).width == 0


def test_the_title_is_a_field_of_its_own_where_the_catalogue_says_more(tmp_path: Path) -> None:
    data = telling_dataset(tmp_path / "d", protocol="clean", splits_of_texts=None)
    n = data.info.n_items
    items = pl.read_parquet(data.path / "items.parquet")
    more = {
        "brand": pl.Series(["Acme"] * n),
        "categories": pl.Series([["Toys"]] * n),
        "description": pl.Series([None] * n, dtype=pl.String),
        "features": pl.Series([None] * n, dtype=pl.List(pl.String)),
    }
    items.with_columns(**more).write_parquet(data.path / "items.parquet")
    profiles = item_profiles(Dataset(data.path), "train")
    title = items["title"][0]
    assert profiles["title"][0] == f"{title}\nAcme"
    assert profiles["catalogue"][0] == f"{title}\nAcme\nToys"


def test_fields_that_nobody_asks_for_are_not_read(tmp_path: Path) -> None:
    data = telling_dataset(tmp_path / "d", protocol="clean", splits_of_texts=None)
    whole = item_profiles(data, "train")
    (data.path / "reviews.parquet").unlink()
    (data.path / "rationales.parquet").write_bytes(b"no table")
    assert item_profiles(data, "train", only=("catalogue",)) == {"catalogue": whole["catalogue"]}
