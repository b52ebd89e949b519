"""Which language a review is asked about in, and how long a text is where no blanks part its words."""

from __future__ import annotations

import pytest

from rdrec_core.errors import InputError
from training.rationale.languages import (
    ENGLISH,
    LANGUAGES,
    Languages,
    detect,
    language_named,
    languages_for,
    word_count,
)
from training.rationale.prompt import SYSTEM, question

TEXTS = {
    "en": "These strings stay in tune and sound bright.",
    "de": "Die Saiten klingen hell und bleiben lange gestimmt.",
    "fr": "Les cordes restent accordées et sonnent très clair.",
    "es": "Las cuerdas se mantienen afinadas y suenan muy bien.",
    "it": "Le corde restano accordate e suonano molto bene.",
    "pl": "Struny długo trzymają strój i brzmią bardzo jasno.",
    "ru": "Струны долго держат строй и звучат ярко.",
    "zh": "琴弦音色明亮，很久都不走音。",
    "ja": "この弦は音が明るく、長い間チューニングが狂いません。",
    "ko": "이 줄은 소리가 밝고 오랫동안 음이 맞습니다.",
    "th": "สายนี้เสียงใสและตั้งสายได้นานมาก",
}


@pytest.mark.parametrize(("code", "text"), TEXTS.items(), ids=list(TEXTS))
def test_plain_texts_are_told(code: str, text: str) -> None:
    assert detect(text) is LANGUAGES[code]
    assert f"two short sentences in {LANGUAGES[code].name}" in question(text, language=LANGUAGES[code]).system


@pytest.mark.parametrize("text", ["", "Super", "Great gift", "5/5", ":-)", "OK ok ok"])
def test_nobody_can_tell_of_a_few_words(text: str) -> None:
    assert detect(text) in (None, ENGLISH)
    assert Languages(LANGUAGES["de"], by_review=True).of(text) in (LANGUAGES["de"], ENGLISH)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("ດີຫຼາຍ", 3), ("ល្អណាស់", 4), ("ดีมาก", 3), ("人々の", 2), ("すごーい", 2), ("音質が良い。5点", 5), ("ดี ๕ ดาว", 4),
        ("It's two", 2),
    ],
)  # fmt: skip
def test_two_characters_of_a_script_without_blanks_are_a_word_and_digits_are_one_each(text: str, count: int) -> None:
    assert word_count(text) == count


def test_auto_takes_the_shops_language_for_what_is_too_short_and_each_reviews_own() -> None:
    german = languages_for("auto", [TEXTS["de"], TEXTS["de"], "Super", TEXTS["en"]])
    assert german.main is LANGUAGES["de"]
    assert german.of("Super") is LANGUAGES["de"]
    assert german.of(TEXTS["en"]) is ENGLISH
    assert languages_for("auto", []).of(TEXTS["de"]) is LANGUAGES["de"]
    assert languages_for("auto", ["Super"]).main is ENGLISH


@pytest.mark.parametrize("name", ["de", "German", " GERMAN "])
def test_a_name_fixes_it(name: str) -> None:
    fixed = languages_for(name, [TEXTS["en"]])
    assert fixed.of(TEXTS["en"]) is LANGUAGES["de"]


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(InputError, match=r"'Klingon'.*auto.*de \(German\)"):
        language_named("Klingon")


def test_the_english_question_is_the_one_that_old_journals_know() -> None:
    assert question("Nice.", language=ENGLISH) == question("Nice.")
    assert question("Nice.").system == SYSTEM
