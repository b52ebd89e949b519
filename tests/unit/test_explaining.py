"""Explanations from hand-made statements: which are chosen, how they are worded, what a written text must bear."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rdrec_core.catalog import StringTable
from rdrec_core.errors import InputError
from rdrec_core.explaining import Explainer
from rdrec_core.frames import Frames
from rdrec_core.statements import FUNCTION_WORD, PERSONAL, Kind, Rows, Statements, pair_codes
from rdrec_core.titles import shared_words, short_title
from rdrec_core.whole_texts import is_whole

TITLES = ("Luna Owl Plush", "Little Harbour Set", "Pocket Pirates: Second Deck", "Pocket Pirates: Night Deck", None)
STEMS = ("sturdi", "make", "tone", "work", "light")
TEXTS = (("sturdy make", (0, 1)), ("clear tone", (2,)), ("works well", (3,)), ("light", (4,)), ("sturdy", (0,)))


def rows(n: int, *given: tuple[int, int, Kind, int, int, int]) -> Rows:
    """(owner, text, kind, polarity, count, item), by owner; everybody has ten reviews."""
    owners = np.asarray([row[0] for row in given], dtype=np.int64)
    columns = list(zip(*[row[1:] for row in given], strict=True)) or [()] * 5
    text, kind, polarity, count, item = columns
    return Rows(
        np.searchsorted(owners, np.arange(n + 1)).astype(np.int64), np.asarray(text, dtype=np.int32),
        np.asarray(kind, dtype=np.int8), np.asarray(polarity, dtype=np.int8), np.asarray(count, dtype=np.uint16),
        np.asarray(count, dtype=np.float32), np.full(len(given), 4.5, dtype=np.float32),
        np.asarray(item, dtype=np.int32),
        np.full(len(given), -1, dtype=np.int32), np.full(n, 10, dtype=np.uint16),
    )  # fmt: skip


def made(users: Rows, items: Rows) -> Statements:
    lexicon = ["sturdy", "make", "tone", "works", "light", "the", "i", "clear", "owl"]
    codes = [0, 1, 2, 3, 4, FUNCTION_WORD, PERSONAL, 2, FUNCTION_WORD]
    indptr = np.concatenate([[0], np.cumsum([len(stems) for _, stems in TEXTS])]).astype(np.int64)
    return Statements(
        users, items, StringTable.from_strings(text for text, _ in TEXTS),
        (indptr, np.asarray([s for _, stems in TEXTS for s in stems], dtype=np.int32)),
        np.ones(len(STEMS), dtype=np.float32), StringTable.from_strings(lexicon), np.asarray(codes, dtype=np.int32),
        np.zeros(len(STEMS), dtype=np.int8), np.sort(np.asarray(pair_codes("Pocket Pirates"), dtype=np.int64)),
        StringTable.from_strings(()),
    )  # fmt: skip


F, D, Q = Kind.FEATURE, Kind.DOES, Kind.QUALITY
ITEMS = rows(
    5, (0, 0, F, 1, 4, -1), (0, 1, F, 1, 5, -1), (0, 3, Q, -1, 2, -1), (1, 0, F, 1, 6, -1), (2, 2, D, 1, 1, -1)
)
USERS = rows(2, (0, 0, F, 1, 3, 1))


@pytest.fixture
def explainer() -> Explainer:
    return Explainer(made(USERS, ITEMS), Frames(), lambda item: TITLES[item], lambda item: (0.95, 0.5, 0, 0, 0)[item])


def test_what_the_user_said_of_another_item_speaks_for_this_one(explainer: Explainer) -> None:
    answer = explainer.explain(0, 0, [1])
    assert answer.text.startswith(
        "You liked the sturdy make of Little Harbour Set; 4 of 10 buyers say the same of Luna Owl Plush."
    )
    assert answer.text.endswith("5 of 10 buyers praise the clear tone.")
    assert answer.basis == "statements"
    assert [(u.about, u.statement.text, u.statement.count) for u in answer.used] == [
        ("user", "sturdy make", 3), ("item", "sturdy make", 4), ("item", "clear tone", 5),
    ]  # fmt: skip
    assert answer.user_preference == "Likes the sturdy make."
    assert answer.caution == "2 of 10 buyers find it light."


def test_an_item_that_is_not_in_the_history_is_not_named(explainer: Explainer) -> None:
    text = explainer.explain(0, 0, [2]).text  # the history of the request holds no Little Harbour
    assert "Little Harbour" not in text
    assert text.startswith("You like the sturdy make of other items; 4 of 10 buyers say the same of Luna Owl Plush.")


W = Kind.WANT


@pytest.mark.parametrize(
    ("of_user", "of_item", "text"),
    [
        # the same of another item, by many and by one; sought; about one thing; about another
        ((0, 3, D, 1, 2, 2), (2, D, 4), "You like what light; 4 of 10 buyers say the same of Luna Owl Plush."),
        ((0, 3, D, 1, 2, 2), (2, D, 1), "You like what light; one of 10 buyers says the same of Luna Owl Plush."),
        ((0, 0, W, 1, 2, 2), (0, F, 4), "You look for sturdy make: 4 of 10 buyers of Luna Owl Plush found just that."),
        ((0, 4, Q, 1, 2, 2), (0, F, 4),
         "You like what is sturdy: 4 of 10 buyers of Luna Owl Plush praise the sturdy make."),
        ((0, 1, F, 1, 2, 2), (0, F, 1), "One of 10 buyers of Luna Owl Plush praises the sturdy make."),
    ],
)  # fmt: skip
def test_how_what_is_wanted_meets_what_is_said(
    of_user: tuple[int, int, Kind, int, int, int], of_item: tuple[int, Kind, int], text: str
) -> None:
    place, kind, count = of_item
    place = 3 if kind is D else place
    told = made(rows(2, of_user), rows(5, (0, place, kind, 1, count, -1)))
    assert Explainer(told, Frames(), lambda item: TITLES[item]).explain(0, 0, [1]).text == text


def test_one_reviewer_is_no_crowd() -> None:
    items = replace(rows(5, (0, 0, F, 1, 1, -1)), total=np.ones(5, dtype=np.uint16))
    answer = Explainer(made(USERS, items), Frames(), lambda item: TITLES[item]).explain(0, None, [])
    assert answer.text == "The only reviewer of Luna Owl Plush praises the sturdy make."


def test_a_list_says_a_verb_once_and_a_thing_once() -> None:
    users = rows(2, (0, 0, F, 1, 3, 1), (0, 4, F, 1, 3, 1), (0, 2, D, 1, 2, 1), (0, 1, F, 1, 2, 1))
    told = made(users, ITEMS)
    answer = Explainer(told, Frames(), lambda item: TITLES[item]).explain(0, 0, [])
    assert answer.user_preference == "Likes the sturdy make and the clear tone and likes what works well."


def test_a_history_alone_speaks_through_its_own_items(explainer: Explainer) -> None:
    answer = explainer.explain(0, None, [1])
    assert answer.text.startswith(
        "As with Little Harbour Set, which you chose, 4 of 10 buyers of Luna Owl Plush praise"
    )
    assert answer.user_preference is None


def test_of_nobody_known_the_most_praised_is_told(explainer: Explainer) -> None:
    answer = explainer.explain(0, None, [])
    assert answer.text.startswith("5 of 10 buyers of Luna Owl Plush praise the clear tone.")
    assert answer.item_attributes == "Buyers praise the clear tone (5 of 10) and the sturdy make (4 of 10)."
    assert (
        explainer.explain(2, None, []).text
        == "One of 10 buyers of Pocket Pirates: Second Deck says that it works well."
    )


def test_without_statements_the_catalogue_speaks(explainer: Explainer) -> None:
    answer = explainer.explain(3, None, [2], support=[2])
    assert answer.text == "Customers who chose Pocket Pirates: Second Deck often choose Pocket Pirates: Night Deck too."
    assert (answer.basis, answer.used, answer.item_attributes) == ("catalogue", (), None)
    answer = explainer.explain(3, None, [2])
    assert answer.text.endswith("which you chose, Pocket Pirates: Night Deck is about “Pocket Pirates”.")
    assert explainer.explain(4, None, []).text == "Nobody has written about this item yet."


def test_a_controversial_statement_is_no_praise() -> None:
    items = rows(5, (0, 0, F, 1, 2, -1), (0, 0, F, -1, 2, -1))
    answer = Explainer(made(USERS, items), Frames(), lambda item: TITLES[item]).explain(0, 0, [1])
    assert answer.basis == "catalogue"
    assert answer.caution == "2 of 10 buyers are not content with the sturdy make."


def test_what_everybody_speaks_of_and_few_praise_is_told_after_what_is_praised_whenever_spoken_of() -> None:
    items = rows(1, (0, 1, F, 1, 2, -1), (0, 3, Q, 1, 2, -1))
    told = made(USERS, replace(items, heard=np.asarray([9, 2], dtype=np.float32)))
    by_words = [s.text for s in Explainer(told, Frames(), lambda item: TITLES[item]).ranked(told.of_item(0), {})]
    assert by_words == ["clear tone", "light"]  # nine of ten speak of the tone
    told = made(USERS, replace(items, heard=np.asarray([4, 2], dtype=np.float32), count=np.asarray([1, 2], np.uint16)))
    by_words = [s.text for s in Explainer(told, Frames(), lambda item: TITLES[item]).ranked(told.of_item(0), {})]
    assert by_words == ["light", "clear tone"]


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("It works well.", True), ("«Works» as it should!", True), ("works and works and", False),
        ("I have a to to use.", False),
        ("The tone of the tone of the tone.", False), ("You like the lid of others: 3 of 9 praise the lid.", True),
        ("音質が良いと多くの人が言います。", True), ("良い良い良い音です。", False), ("Good.", False),
        ("- it works well.", False),
        ("Die Verarbeitung ist sehr gut.", True), ("¡La calidad es muy buena!", True), ("声音很好，做工也很好。", True),
        ("声音很好，做工也", False), ("word " * 61 + ".", False),
    ],
)  # fmt: skip
def test_a_whole_text_begins_and_ends_and_does_not_go_round_in_circles(text: str, whole: bool) -> None:
    assert is_whole(text) is whole


@pytest.mark.parametrize(
    ("written", "refused"),
    [
        ("The sturdy make, the clear tone.", None),
        ("", "empty"),
        ("The sturdy make and the", "not whole"),
        ("The tone the tone the tone.", "not whole"),
        ("The sturdy make won I.", "first person"),
        ("The sturdy make of Pocket Pirates.", "names another item"),
        ("The light make, the tone.", "contradicts"),
        ("The sturdy make works.", "not borne out"),
        ("The sturdy make, the gizmo.", "not borne out"),
    ],
)
def test_a_written_text_is_served_only_where_statements_bear_it_out(
    explainer: Explainer, written: str, refused: str | None
) -> None:
    answer = explainer.explain(0, 0, [1], written=written)
    assert answer.refused == refused
    assert answer.basis == ("model" if refused is None else "statements")
    assert (answer.text == written) is (refused is None)


def test_a_shop_brings_its_own_frames(tmp_path: Path) -> None:
    table = Frames().model_dump()
    table |= {"who": "{count} von {total} Kunden", "praised": "{who} von {item} {claim}."}
    table["claim"]["feature"] = "loben: {text}"
    path = tmp_path / "frames.json"
    path.write_text(Frames.model_validate(table).model_dump_json(), encoding="utf-8")
    answer = Explainer(made(USERS, ITEMS), Frames.read(path), lambda item: TITLES[item]).explain(0, None, [])
    assert answer.text.startswith("5 von 10 Kunden von Luna Owl Plush loben: clear tone.")


@pytest.mark.parametrize(
    ("content", "message"),
    [("nothing", "is not a JSON file"), ("{}", "lacks the frames .*also"),
     (None, "caution has no place {whom}; its places are claim, who")],
)  # fmt: skip
def test_a_table_that_is_wrong_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "frames.json"
    path.write_text(
        content or Frames().model_dump_json().replace('"caution":"{who}', '"caution":"{whom}'), encoding="utf-8"
    )
    with pytest.raises(InputError, match=message):
        Frames.read(path)


def test_titles_are_named_as_one_says_them() -> None:
    long = "Acoustic Guitar Strings, Phosphor Bronze, Light, 12-53, Set of Three with Extra Long Winds"
    assert short_title(long) == "Acoustic Guitar Strings"
    assert short_title("Luna Owl Plush") == "Luna Owl Plush"
    assert shared_words("Luna Owl Plush Set", "The luna owl Plush") == "Luna Owl Plush"
    assert shared_words("Luna Owl", "Owl Luna") == ""
