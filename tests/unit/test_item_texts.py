"""What a bundle holds of text: written as arrays, read memory-mapped, asked for words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rdrec_core.bundle import Bundle, BundleWriter, Description
from rdrec_core.item_texts import GROUP, FieldTexts, ItemTexts, RowRule
from rdrec_core.text_vectors import SparseVectors, TextIndex
from rdrec_core.types import ScoreMode

CATALOGUE = ["red soap", "blue soap", "red brush for hair", "sun cream", "", "sun cream for kids"] * 2
REVIEWS = ["smells nice", "", "", "greasy sun", "", "my kids love it, smells nice"] * 2


def field_of(texts: list[str]) -> FieldTexts:
    vectors, rows = SparseVectors.from_texts(texts)
    return FieldTexts(vectors, TextIndex.of(rows, len(vectors)), rules={"sparse": RowRule(3, 2.0, 0.5)})


def finished(writer: BundleWriter) -> Bundle:
    writer.finish(
        Description(
            name="x", created_at="now", recipe={}, protocol="clean", label_scheme="random", dataset_sha256={},
            n_users=1, n_items=len(CATALOGUE), score_modes=[ScoreMode.FULL], text_tasks=[],
        )
    )  # fmt: skip
    return Bundle.open(writer.folder)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    fields = {"catalogue": field_of(CATALOGUE), "reviews": field_of(REVIEWS)}
    writer = BundleWriter(tmp_path)
    writer.add_arrays(GROUP, ItemTexts(fields, len(CATALOGUE)).arrays())
    return finished(writer)


def opened(bundle: Bundle) -> ItemTexts:
    texts = ItemTexts.of_bundle(bundle)
    assert texts is not None
    return texts


def test_a_bundle_without_text_has_none(tmp_path: Path) -> None:
    assert ItemTexts.of_bundle(finished(BundleWriter(tmp_path))) is None


def test_words_place_the_items_that_speak_of_them_first(bundle: Bundle) -> None:
    scores = opened(bundle).affinity("Sun cream for my KIDS")
    assert scores is not None
    assert scores.shape == (len(CATALOGUE),)
    assert scores.min() == 0.0
    assert 0 < scores.max() <= 1.0
    assert set(np.argsort(-scores, kind="stable")[:2].tolist()) == {5, 11}  # in both fields
    assert scores[3] > 0 == scores[0]  # the catalogue alone, and neither


@pytest.mark.parametrize("text", ["", "   ", "zebra", "!?"])
def test_words_that_nobody_knows_say_nothing(bundle: Bundle, text: str) -> None:
    texts = opened(bundle)
    assert texts.affinity(text) is None
    assert texts.cosines(text) == {}


def test_rows_follow_the_rule(bundle: Bundle) -> None:
    found = opened(bundle).cosines("red soap")
    assert set(found) == {"text.catalogue.sparse"}
    every, cosine = found["text.catalogue.sparse"]
    items, weights = opened(bundle).fields["catalogue"].rules["sparse"].row(cosine, every)
    best = sorted(zip((-cosine).tolist(), every.tolist(), strict=True))[:3]
    assert items.tolist() == sorted(i for _, i in best)
    lookup = dict(zip(every.tolist(), cosine.tolist(), strict=True))
    assert weights.tolist() == pytest.approx([lookup[i] ** 2 / 0.5 for i in items.tolist()])
    assert lookup[0] == pytest.approx(1.0)


def test_arrays_stay_on_disk_until_they_are_asked_for(bundle: Bundle) -> None:
    postings = bundle.arrays(GROUP)["catalogue.postings.items"]
    assert isinstance(postings.base, np.memmap)
    assert not postings.flags.writeable
