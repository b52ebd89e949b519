"""Phrases out of reviews, counted into statements: hand-written reviews, numbers counted by hand."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from rdrec_core.explaining import Explainer
from rdrec_core.frames import Frames
from rdrec_core.statements import Kind, Statements, pair_codes
from rdrec_core.whole_texts import is_whole
from rdrec_core.withdrawing import Withdrawn
from tests.rationale_dataset import write_dataset
from training.data.dataset import RATIONALES, REVIEWS, Dataset
from training.signals import phrase_spill, statement_rows
from training.signals import statements as building
from training.signals.english import Lexicon
from training.signals.languages import (
    BLANKLESS,
    BY_CODE,
    ENGLISH,
    FRENCH,
    GERMAN,
    OTHER,
    SPANISH,
    Language,
    language_of,
)
from training.signals.phrase_spill import names_of_items
from training.signals.phrases import PhraseFinder
from training.signals.statements import StatementOptions, build_statements
from training.workers import Blocks


def dataset(
    path: Path, reviews: list[tuple[int, int, str, float | None, str]], titles: tuple[str | None, ...]
) -> Dataset:
    """(user, item, text, rating, split)"""
    write_dataset(path, [(text, split) for *_, text, _, split in reviews], titles)
    rows = [(user, item, text, rating, None, split) for user, item, text, rating, split in reviews]
    pl.DataFrame(rows, schema=REVIEWS, orient="row").write_parquet(path / "reviews.parquet")
    return Dataset(path)


def read(statements: Statements, item: int) -> dict[str, tuple[int, int, int]]:
    return {s.text: (s.polarity, s.count, s.total) for s in statements.of_item(item)}


TITLES = ("Pocket Pirates: Second Deck", "Luna Owl Plush")


@pytest.fixture
def shop(tmp_path: Path) -> Dataset:
    return dataset(
        tmp_path / "shop",
        [
            (0, 0, "I love it. The lid is sturdy. My son says the lid is sturdy.", 5.0, "train"),
            (1, 0, "A sturdy lid! Very easy to use.", 4.0, "train"),
            (2, 0, "It came with a clear window, but I missed the soft handle.", 2.0, "train"),
            (3, 0, "The lid is not sturdy.", 1.0, "train"),
            (4, 0, "Pocket Pirates won me over with the sturdy lid of Pocket Pirates.", 5.0, "test"),
            (0, 1, "I look for toys that survive rough hands, and it works well.", 5.0, "train"),
            (1, 1, "Works great. Luna Owl is sturdy.", None, "train"),
        ],
        TITLES,
    )


def test_alike_phrases_are_one_statement_counted_by_reviews(shop: Dataset) -> None:
    statements = build_statements(shop)
    about = read(statements, 0)
    assert about["sturdy lid"] in ((1, 2, 4), (-1, 1, 4))
    rows = [(s.text, s.polarity, s.count) for s in statements.of_item(0) if s.text == "sturdy lid"]
    assert ("sturdy lid", 1, 2) in rows  # twice in a review counts once; the test review is never read
    assert ("sturdy lid", -1, 1) in rows
    assert about["easy to use"] == (1, 1, 4)
    assert about["soft handle"] == (-1, 1, 4)
    # users 0, 1 and 3 speak of a lid and of something sturdy, whatever they think of it
    assert [s.heard for s in statements.of_item(0) if s.text == "sturdy lid"] == [3.0, 3.0]
    # «works well» and «works great» are about the same
    works = [s for s in statements.of_item(1) if s.kind is Kind.DOES]
    assert [(s.count, s.total, s.polarity) for s in works] == [(2, 2, 1)]


def test_a_user_keeps_what_they_praise_miss_and_look_for_and_where(shop: Dataset) -> None:
    statements = build_statements(shop)
    mine = {s.text: s for s in statements.of_user(0)}
    assert mine["toys that survive rough hands"].kind is Kind.WANT
    assert mine["sturdy lid"].item == 0
    assert mine["sturdy lid"].rating == 5.0
    missed = {(s.text, s.kind): s.polarity for s in statements.of_user(2)}
    assert missed["the soft handle", Kind.WANT] == 1  # what somebody misses is what they look for
    assert missed["soft handle", Kind.FEATURE] == -1
    assert statements.of_user(None) == statements.of_user(99) == []


def test_no_statement_has_a_first_person_or_the_name_of_an_item(shop: Dataset) -> None:
    statements = build_statements(shop)
    texts = [statements.texts[n] for n in range(len(statements.texts))]
    assert texts
    for text in texts:
        assert not {"i", "me", "my", "we", "son"} & set(text.split())
        assert "pocket" not in text
        assert "luna" not in text
    assert statements.named("won by Pocket Pirates")
    assert not statements.named("the sturdy lid")


def test_numbers_and_function_words_name_no_item() -> None:
    names = names_of_items(pl.Series(["Gift Card, Pack of 3", "Tin of Moon Tea"]), ENGLISH)
    assert set(pair_codes("gift card")) <= set(names.tolist())
    assert set(pair_codes("of moon tea")) <= set(names.tolist())
    assert not set(pair_codes("of 3")) & set(names.tolist())


def test_arrays_bring_everything_back(shop: Dataset) -> None:
    built = build_statements(shop, StatementOptions(quotes=True))
    again = Statements.from_arrays(built.arrays())
    assert again.of_item(0) == built.of_item(0)
    assert again.of_user(0) == built.of_user(0)
    assert any(s.quote for s in again.of_item(0))
    assert not any(s.quote for s in build_statements(shop).of_item(0))  # nobody's words unless asked for
    assert Statements.from_arrays({}).of_item(0) == []


def test_parts_and_runs_count_as_one_whoever_reads_them(
    shop: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_rationales(shop, (1, 0, "The user prefers a sturdy lid.", "The item is easy to use."))
    whole = build_statements(shop, StatementOptions(quotes=True)).arrays()
    monkeypatch.setattr(statement_rows, "PART_ROWS", 2)
    monkeypatch.setattr(phrase_spill, "BLOCK", 2)
    (tmp_path / "seen by all").mkdir()
    heard: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        blocks = Blocks(pool, 2, tmp_path / "seen by all")
        parted = build_statements(shop, StatementOptions(quotes=True), heard.append, blocks=blocks).arrays()
    assert {name: array.tobytes() for name, array in parted.items()} == {
        name: array.tobytes() for name, array in whole.items()
    }
    assert [line for line in heard if line.endswith("read")] == [f"{n} texts read" for n in (2, 4, 5, 6, 8)]
    assert list((tmp_path / "seen by all").iterdir()) == []


@pytest.mark.parametrize("language", [*BY_CODE.values(), OTHER])
def test_a_language_is_the_same_one_in_another_process(language: Language) -> None:
    assert pickle.loads(pickle.dumps(language)) is language


def test_what_a_user_alone_said_goes_with_them_and_of_the_rest_their_share(shop: Dataset) -> None:
    statements = Statements.from_arrays(build_statements(shop, StatementOptions(quotes=True)).arrays())
    assert any(s.quote for s in statements.of_item(0) if s.text == "sturdy lid")
    withdrawn = Withdrawn(statements.sources)
    withdrawn.add([1, 1])
    kept = {(s.text, s.polarity): s for s in statements.of_item(0, withdrawn)}
    assert ("easy to use", 1) not in kept  # user 1 alone
    assert (kept["sturdy lid", 1].count, kept["sturdy lid", 1].total) == (1, 3)  # user 0 is left
    assert kept["sturdy lid", 1].quote is None  # whose words they were is not known
    assert (kept["sturdy lid", -1].count, kept["soft handle", -1].count) == (1, 1)
    # user 1 reviewed item 1 too: «works well» said 0 and 1
    [works] = [s for s in statements.of_item(1, withdrawn) if s.kind is Kind.DOES]
    assert (works.count, works.total) == (1, 1)
    withdrawn.add([0, 2, 3, 99])
    assert statements.of_item(0, withdrawn) == statements.of_item(1, withdrawn) == []
    assert len(statements.of_item(0)) > 3  # the arrays stay as they are


def with_rationales(shop: Dataset, *rows: tuple[int, int, str, str]) -> Dataset:
    made = [(u, i, wish, item, "ok", True, 1.0, "t", "1", 0, 0, 0.0) for u, i, wish, item in rows]
    pl.DataFrame(made, schema=RATIONALES, orient="row").write_parquet(shop.rationales_path)
    return shop


def test_a_rationale_counts_with_its_review_and_only_in_the_review_s_words(shop: Dataset) -> None:
    told = with_rationales(
        shop,
        (1, 0, "The user prefers a sturdy lid.", "The item is easy to use."),
        (3, 0, "The user wants golden dragons.", "The lid is not sturdy. The item is beautiful."),
    )
    notes: list[str] = []
    statements = build_statements(told, note=notes.append)
    about = {(s.text, s.polarity): s.count for s in statements.of_item(0)}
    assert about["sturdy lid", 1] == 2  # user 1 says it in the review already
    assert about["sturdy lid", -1] == 1
    assert about["easy to use", 1] == 1
    # dragons and beauty are spoken of by nobody
    assert all("dragon" not in statements.texts[n] for n in range(len(statements.texts)))
    assert ("beautiful", 1) not in about
    assert {s.text: s.count for s in statements.of_user(1)}["sturdy lid"] == 1
    assert len(notes) == 1
    assert notes[0].startswith("2 phrases of rationales are left out")


def test_rows_of_an_owner_are_bounded(shop: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "MAX_ITEM_ROWS", 1)
    assert [(s.text, s.count) for s in build_statements(shop).of_item(0)] == [("sturdy lid", 2)]


FINDER = PhraseFinder(
    Lexicon(frozenset({"great", "sturdy", "clear", "easy", "bad", "small"}), frozenset({"tone", "lid", "bag"}))
)


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("The clear tone of it.", [("clear tone", 0)]),
        ("Great tone!", [("tone", 1)]),
        ("The tone is bad.", [("bad tone", -1)]),
        ("It is very easy to clean.", [("easy to clean", 0)]),
        ("This is too small.", [("too small", -1)]),
        ("It is not sturdy", [("not sturdy", -1)]),
        ("It would be sturdy if I had glued it.", []),
        ("It sounds great, and it doesn't work well.", [("sounds great", 1), ("does not work well", -1)]),
        ("Thanks to the light bag for all parts, it came along.", [("light bag for all parts", 1)]),
        ("What I loved most were the short rules and the red lid.", [("short rules", 1), ("red lid", 1)]),
        ("I like my mother.", []),
        ("I was looking for an easy start, so I took it.", [("an easy start", 1)]),
        ("Thanks to the facts we learned along the way, it came to the table.", [("facts", 1)]),
        ("It won me over with the cats hidden in every picture.", [("cats", 1)]),
        ("I enjoy things that are ready in five minutes, so it stays.", [("things that are ready in five minutes", 1)]),
    ],
)  # fmt: skip
def test_english_phrases(text: str, phrases: list[tuple[str, int]]) -> None:
    assert sorted((p.text, p.polarity) for p in FINDER.phrases(text)) == sorted(phrases)


LANGUAGES = [
    (["The sturdy lid is great.", "A sturdy lid!", "I like the sturdy lid of it."], ENGLISH, "sturdy lid"),
    (["Sehr gute Qualität, ich bin froh.", "Das hat eine gute Qualität.", "Wirklich gute Qualität, nicht teuer."],
     GERMAN, "gute qualität"),
    (["Une très bonne qualité pour moi.", "La bonne qualité de ce jouet.", "C'est une bonne qualité."], FRENCH,
     "bonne qualité"),
    (["La buena calidad del juguete.", "Es de buena calidad para mi.", "Muy buena calidad y no es caro."], SPANISH,
     "buena calidad"),
    (["音質が良い。私は好きです。", "とても音質が良いです。", "音質が良い、安い。"], BLANKLESS, "音質が良い"),
    (["音质很好，我喜欢。", "它的音质很好。", "音质很好，很便宜。"], BLANKLESS, "音质很好"),
]  # fmt: skip


@pytest.mark.parametrize(("texts", "language", "phrase"), LANGUAGES)
def test_reviews_of_any_language_give_whole_and_readable_explanations(
    tmp_path: Path, texts: list[str], language: Language, phrase: str
) -> None:
    assert language_of(texts) is language
    reviews = [(n, n // 3, text, 5.0, "train") for n, text in enumerate(texts * 2)]
    made = dataset(tmp_path / "d", reviews, (None, "Star Lamp"))
    statements = build_statements(made)
    first = max(statements.of_item(1), key=lambda statement: statement.count)
    assert (first.text, first.count, first.total, first.polarity) == (phrase, 3, 3, 1)
    explainer = Explainer(statements, Frames(), lambda item: (None, "Star Lamp")[item])
    for user in (0, None):
        answer = explainer.explain(1, user, [0])
        assert answer.basis == "statements"
        assert phrase in answer.text
        assert "3 of 3 buyers" in answer.text
        assert is_whole(answer.text)
        assert is_whole(answer.item_attributes or "")
    preference = explainer.explain(1, 0, [0]).user_preference
    assert preference is not None
    assert phrase in preference


def test_english_is_known_by_its_function_words() -> None:
    assert language_of(["This is the best of all the things that we have had."]) is ENGLISH
