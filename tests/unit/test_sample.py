import gzip
import json
from collections import Counter, defaultdict

import numpy as np
import pytest

from training.cli import main
from training.data import sample_shop as shop
from training.data.dataset import Dataset
from training.data.prepare import PrepareConfig, prepare
from training.data.sample import METADATA_FILE, REVIEWS_FILE, write_sample


def read(path):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    write_sample(folder, seed=0)
    return folder


@pytest.fixture(scope="module")
def dataset(sample, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "dataset"
    prepare(PrepareConfig(out=out, reviews=(sample / REVIEWS_FILE,), metadata=(sample / METADATA_FILE,)))
    return Dataset(out)


def test_600_users_and_240_items_with_readable_titles(sample):
    reviews, metadata = read(sample / REVIEWS_FILE), read(sample / METADATA_FILE)
    assert len({review["reviewerID"] for review in reviews}) == 600
    assert {review["asin"] for review in reviews} == {item["asin"] for item in metadata}
    titles = [item["title"] for item in metadata]
    assert len(set(titles)) == len(titles) == 240
    lengths = Counter(review["reviewerID"] for review in reviews).values()
    assert (min(lengths) >= 8, max(lengths) <= 30) == (True, True)
    assert len({(review["reviewerID"], review["asin"]) for review in reviews}) == len(reviews)


def test_the_seed_decides_every_byte(tmp_path, sample):
    folders = [tmp_path / "same", tmp_path / "other"]
    for seed, folder in enumerate(folders):
        folder.mkdir()
        write_sample(folder, seed)
    for name in (REVIEWS_FILE, METADATA_FILE, "README.md"):
        assert (folders[0] / name).read_bytes() == (sample / name).read_bytes()
    assert (folders[1] / REVIEWS_FILE).read_bytes() != (sample / REVIEWS_FILE).read_bytes()


def test_reviews_are_one_to_three_sentences_without_gaps(sample):
    for review in read(sample / REVIEWS_FILE):
        text = review["reviewText"]
        if text:
            sentences = text.split(". ")
            assert 1 <= len(sentences) <= 3
            assert text.endswith(".")
            assert all(sentence[0].isupper() for sentence in sentences)
            assert not set(text) & set("{}_")


def test_reviews_show_the_hidden_traits_and_tastes(sample):
    """A delight that reviews name with pleasure belongs to the series, so that a series is praised for few of them."""
    kinds = {f"{kind.noun}": kind for kind in shop.KINDS}
    assert len(kinds) == 12
    title = {item["asin"]: item["title"] for item in read(sample / METADATA_FILE)}
    name_of = {
        asin: next(s.name for kind in shop.KINDS for s in kind.series if s.name in text) for asin, text in title.items()
    }
    praised, sought = defaultdict(set), defaultdict(Counter)
    for review in read(sample / REVIEWS_FILE):
        first = review["reviewText"].split(". ")[0]
        for key, delight in shop.DELIGHTS.items():
            if review["overall"] >= 4 and " won me over with " in first and any(word in first for word in delight.seen):
                praised[name_of[review["asin"]]].add(key)
            if any(f"I look for {word}" in first or f"I enjoy {word}" in first for word in delight.sought):
                sought[review["reviewerID"]][key] += 1
    assert len(praised) == 60
    assert all(len(keys) <= 3 for keys in praised.values()), "an item has three delights"
    assert all(len(keys) <= 3 for keys in sought.values()), "a user has three tastes"


def test_what_comes_next_can_be_learned_far_beyond_popularity(dataset):
    """Markov counts from training histories against popularity, HR@10 on the test items."""
    indptr, items = dataset.sequences("train")
    counts = np.zeros((dataset.info.n_items, dataset.info.n_items))
    for user in range(dataset.info.n_users):
        own = items[indptr[user] : indptr[user + 1]]
        np.add.at(counts, (own[:-1], own[1:]), 1)
    popularity = np.bincount(items, minlength=dataset.info.n_items)
    seen_ptr, seen = dataset.sequences("val")
    hits = np.zeros(2)
    for user, target in enumerate(dataset.targets("test")):
        history = seen[seen_ptr[user] : seen_ptr[user + 1]]
        for rule, scores in enumerate((popularity.astype(float), counts[history[-1]] + 1e-6 * popularity)):
            scores[history] = -1
            hits[rule] += target in np.argsort(-scores)[:10]
    popular, markov = hits / dataset.info.n_users
    assert popular < 0.2
    assert markov > 0.5


def test_prepare_finds_the_shops_words(dataset):
    assert dataset.info.n_items == 240
    assert dataset.items["title"].null_count() == 0
    assert dataset.info.n_reviews > 8000


def test_the_command_writes_once_and_again_only_by_force(tmp_path, capsys):
    out = tmp_path / "shop"
    assert main(["sample", "--out", str(out)]) == 0
    assert "600 users, 240 items" in capsys.readouterr().out
    assert main(["sample", "--out", str(out)]) == 2
    assert main(["sample", "--out", str(out), "--force", "--seed", "1"]) == 0
    assert main(["sample", "--out", str(tmp_path), "--force"]) == 2, (
        "a folder that holds something else is never replaced"
    )
