import polars as pl
import pytest

from training.data.explanations import choose_sentences, feature_words, fingerprint


def choose(text, features=("handle", "lid")):
    return choose_sentences(pl.Series([text]), features)[0]


def test_feature_words_are_nouns_that_several_reviews_name():
    reviews = [
        "The handle is loose. I love the handle.",
        "My handle, the nice handle and this lid!",
        "a handle for the lid",
        "It shines brightly and the shiny lid was stained.",
        "a gizmo",
    ]
    # handle: 3 reviews (named twice in one of them); lid: 3; gizmo: one review only
    assert feature_words(reviews) == ("handle", "lid")


@pytest.mark.parametrize("word", ["thing", "product", "time"])
def test_words_that_say_nothing_of_an_item_are_no_features(word):
    assert feature_words([f"the {word}."] * 5) == ()


def test_at_most_limit_words_most_named_first():
    assert feature_words(["the lid, the cup."] * 3 + ["the cup."], limit=1) == ("cup",)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("I was late. The handle and the lid fit. The handle.", "The handle and the lid fit."),
        ("The lid broke! The handle broke!", "The lid broke!"),  # the first of equals
        ("Nothing here. Nor here.", "Nothing here."),  # none: the first sentence
        ("LIDS are no lid. Handle, LID...", "Handle, LID..."),  # whole words, any case
        ("It has 3.5 stars for a handle. Bye.", "It has 3.5 stars for a handle."),
        ("... ?! Hello there", "Hello there"),  # a sentence has letters
        ("!!!", "!!!"),
        ("no punctuation but a lid", "no punctuation but a lid"),
        ("Größe passt. Der handle auch.", "Der handle auch."),
    ],
)
def test_the_sentence_that_speaks_most_of_the_item(text, sentence):
    assert choose(text) == sentence


def test_an_empty_text_has_no_explanation_and_rows_keep_their_places():
    texts = pl.Series(["A lid.", "", "One. The handle."])
    assert choose_sentences(texts, ("handle", "lid")).to_list() == ["A lid.", None, "The handle."]


def test_without_features_the_first_sentence_is_chosen():
    assert choose("First. The lid.", features=()) == "First."


def prints(*texts):
    return pl.DataFrame({"t": texts}).select(fingerprint(pl.col("t"))).to_series().to_list()


def test_fingerprints_ignore_case_space_and_punctuation_but_not_words():
    a, b, c = prints("A good lid, it fits!", "a GOOD  lid it fits", "A good lid, it fit!")
    assert a == b != c
    assert a != 0


def test_short_texts_have_no_fingerprint():
    assert prints("Five stars", "", "one two three four") == [0, 0, 0]
