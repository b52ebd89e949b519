"""The kinds of answers that models give, written by rule: thought in every usual form, JSON in every usual state,
refusals by the whole answer's shape, and languages."""

# ruff: noqa: E501 - answers stand on one line, as a table

from __future__ import annotations

import json

import pytest

from training.rationale.final_words import final_words
from training.rationale.judging import Thresholds, judge
from training.rationale.languages import ENGLISH, LANGUAGES
from training.rationale.parse import Rationale, parse

USER = "The user wants strings that stay in tune."
ITEM = "The item is a set of coated strings with a bright tone."
GOOD = Rationale(USER, ITEM)
PROSE = f"{USER} {ITEM}"
JSON = json.dumps({"user_preference": USER, "item_attributes": ITEM})
# A thought that would pass for an answer, with a draft in it.
THOUGHT = (
    'We need two sentences. The user seems to be a drummer. The item seems to be a cymbal. Or {"user_preference": '
    '"The user seems to be a drummer.", "item_attributes": "The item seems to be a cymbal."}? No, strings.'
)

# (how a model marks its thought: what stands before it, what between thought and answer, what after the answer)
MARKS = [
    ("<think>\n", "\n</think>\n\n", ""),
    ("", "\n</think>\n", ""),  # the opening was part of the prompt
    ("<think>One thought.</think><think>", "</think>", ""),
    ("<think>Outer <think>inner</think> ", "</think>", ""),
    ("<THINKING>", "</THINKING>", ""),
    ('<thinking time="3s">', "</thinking>", ""),
    ("<thought>", "</thought>", ""),
    ("<reasoning>", "</reasoning>", ""),
    ("<analysis>", "</analysis>", ""),
    ("<reflection>", "</reflection>", ""),
    ("<scratchpad>", "</scratchpad>", ""),
    ("<seed:think>", "</seed:think>", ""),
    ("[THINK]", "[/THINK]", ""),
    ("◁think▷", "◁/think▷", ""),
    ("<|begin_of_thought|>", "<|end_of_thought|><|begin_of_solution|>", "<|end_of_solution|>"),
    ("<|START_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ("&lt;think&gt;", "&lt;/think&gt;", ""),
    ("<think>", "</think><answer>", "</answer>"),
    ("```thinking\n", "\n```\n", ""),
    ("Thinking...\n", "\n...done thinking.\n\n", ""),
    ('<details type="reasoning" done="true">\n<summary>Thought for 3 seconds</summary>\n', "\n</details>\n", ""),
    ("<details>\n<summary>Reasoning</summary>\n", "\n</details>\n", ""),
    ("**Reasoning:**\n", "\n\n**Final answer:**\n", ""),
    ("Thought: ", "\nFinal Answer: ", ""),
    ("### Thinking process\n", "\n### Answer\n", ""),
    ("Okay, let me see. ", "\n\n", ""),
    ("Hmm, so the user review is short. ", "\n\nFinal answer: ", ""),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>", "<|return|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>", ""),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>commentary<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>", ""),
    ("analysis", "assistantfinal", ""),
    ("analysis\n", "\nassistant\nfinal", ""),
    ("assistantanalysis", "assistantfinal", ""),
]  # fmt: skip


@pytest.mark.parametrize(("before", "between", "after"), MARKS, ids=[f"{b[:12]!r}-{n}" for n, (b, _, _) in enumerate(MARKS)])  # fmt: skip
@pytest.mark.parametrize("answer", [PROSE, JSON], ids=["prose", "json"])
def test_thought_is_taken_off_and_a_cut_one_is_nothing(before: str, between: str, after: str, answer: str) -> None:
    assert parse(f"{before}{THOUGHT}{between}{answer}{after}") == GOOD
    if before:  # without any mark nobody can tell; a thought between marks that was cut is nothing
        drafted = (
            f"{before}We need two sentences. The user seems to be a drummer. The item seems to be a cymbal. Let me"
        )
        assert parse(drafted, truncated=True) is None
        assert parse(drafted) is None


def test_a_thought_in_the_middle_or_behind_takes_only_itself() -> None:
    assert parse(f"{USER} <think>hm</think> {ITEM}") == GOOD
    assert parse(f"{PROSE} <think>Is that right? The user") == GOOD
    assert parse(f"{PROSE}<|im_end|>\n<|im_start|>user\nThe user likes cymbals. The item is loud.") == GOOD
    assert final_words("<think>only thought</think>") == ""


CURLY = JSON.replace('{"', "{“").replace('": "', "”: “").replace('", "', "”, “").replace('"}', "”}")
JSONS = [
    f"Here is what I found. The user is nice. The item is fine.\n{JSON}\nThe user likes it. The item is good.",
    f"{JSON}\n{JSON}",
    json.dumps({"user_preference": "...", "item_attributes": "..."}) + JSON,
    CURLY,
    JSON.replace('"', "'"),
    JSON.replace('"user_preference"', "user_preference").replace('"item_attributes"', "item_attributes"),
    JSON[:-1] + ",}",
    JSON[:-1],  # only the brace is missing
    JSON.replace('", "', '" "'),  # the comma was forgotten
    JSON.replace("stay in tune", 'stay \\"in tune\\"').replace("\\", "").replace('"in tune"', "in tune"),
    json.dumps({"answer": {"user_preference": USER, "item_attributes": ITEM}}),
    json.dumps({"reasoning": "It says so.", "user_preference": USER, "item_attributes": ITEM}),
    json.dumps({"name": "rationale", "arguments": JSON}),  # a function call
    json.dumps({"name": "rationale", "parameters": {"user_preference": USER, "item_attributes": ITEM}}),
    json.dumps(JSON),  # a string that holds it
    json.dumps([USER, ITEM]),
    json.dumps([{"user_preference": USER}, {"item_attributes": ITEM}]),
    json.dumps({"User's Preference": USER, "Item's Attributes": ITEM}),
    json.dumps({"userPreference": USER, "itemAttributes": ITEM}),
    json.dumps({"sentence_1": USER, "sentence_2": ITEM}),
    json.dumps({"first_sentence": USER, "second_sentence": ITEM}),
    json.dumps({"user": {"preference": USER}, "item": {"attributes": ITEM}}),
    json.dumps({"user_preference": [USER], "item_attributes": [ITEM]}),
    f"```json\n{JSON}\n```",
    f"```\n{json.dumps(json.loads(JSON), indent=2)}\n```\nNote: I kept to the review.",
    f"json\n{JSON}",
    f"{{{JSON}}}",
    JSON.replace("}", "  // as asked\n}"),
    JSON.replace(USER, USER + "\n"),
]


@pytest.mark.parametrize("answer", JSONS, ids=range(len(JSONS)))
def test_json_in_any_state_beats_what_stands_around_it(answer: str) -> None:
    assert parse(answer) == GOOD


LABELLED = [
    f"| User preference | Item attributes |\n|---|---|\n| {USER} | {ITEM} |",
    f"| Aspect | Explanation |\n|:--|:--|\n| User's preference | {USER} |\n| Item's attributes | {ITEM} |",
    f"User preference | {USER}\nItem attributes | {ITEM}",
    f"[User Preference]: {USER}\n[Item Attributes]: {ITEM}",
    f"【User preference】：{USER}\n【Item attributes】：{ITEM}",
    f"user_preference: {USER}\nitem_attributes: {ITEM}",
    f'"user_preference": "{USER}",\n"item_attributes": "{ITEM}"',
    f"<user_preference>{USER}</user_preference>\n<item_attributes>{ITEM}</item_attributes>",
    f"USER PREFERENCE - {USER}\nITEM ATTRIBUTES - {ITEM}",
    f"First sentence: {USER}\nSecond sentence: {ITEM}",
    f"User needs: {USER}\nProduct features: {ITEM}",
    f"① {USER}\n② {ITEM}",
]


@pytest.mark.parametrize("answer", LABELLED, ids=range(len(LABELLED)))
def test_labels_tags_and_tables(answer: str) -> None:
    assert parse(answer) == GOOD


CUT = [
    JSON[: len(JSON) - 12],  # within the second value
    '{"user_preference": "The user wants strings."' + " \n" * 50,
    "{" + "\n \n" * 80,
]


@pytest.mark.parametrize("answer", CUT, ids=range(len(CUT)))
def test_json_that_the_limit_cut_is_nothing(answer: str) -> None:
    assert parse(answer, truncated=True) is None


# What a small model writes for most reviews: its question's words, and the review in quotation marks.
NAMED = [
    (
        "The user's preference is to play every week, and the item's attributes are a good cable at a fair price.",
        ("The user's preference is to play every week.", "The item's attributes are a good cable at a fair price."),
    ),
    (
        'The user\'s preference is "Sturdy, easy to use." The item\'s attributes are "Sturdy and easy to use."',
        ('The user\'s preference is "Sturdy, easy to use."', 'The item\'s attributes are "Sturdy and easy to use."'),
    ),
    (
        'The user\'s preference is "Use it a lot. It ends noise." and the item\'s attributes are "It ends noise."',
        ('The user\'s preference is "Use it a lot. It ends noise."', 'The item\'s attributes are "It ends noise."'),
    ),
]


@pytest.mark.parametrize(("answer", "halves"), NAMED, ids=range(len(NAMED)))
def test_a_quotation_does_not_end_the_sentence_around_it(answer: str, halves: tuple[str, str]) -> None:
    assert parse(answer) is not None
    found = parse(answer)
    assert found is not None
    assert tuple(half.replace('"', "") for half in (found.user_preference, found.item_attributes)) == tuple(
        half.replace('"', "") for half in halves
    )
    assert found.user_preference.count('"') % 2 == found.item_attributes.count('"') % 2 == 0


def test_a_preference_that_speaks_of_the_attributes_is_one_sentence() -> None:
    assert parse("The user's preference is that the item's attributes are worth the cost.") is None


# Everyday words of reviews that patterns for refusals and for «nothing said» hold.
GOOD_HALVES = [
    ("The user wants a polish with no streaks that dries clear.", "The item is a polish without any haze."),
    ("The user likes that no information is lost in the mix.", "The item is a mixer whose details are clear."),
    ("The user needs a manual that is not unclear.", "The item comes with clear, detailed instructions."),
    ("The user can't stand buzzing strings.", "The item is a pedal that won't buzz."),
    ('The user says "I don\'t have room for a drum kit" and plays pads.', "The item is a pad that needs no room."),
    ('The user writes "I\'m sorry I did not buy it sooner".', "The item is a tuner."),
    ("The user is unable to play without a capo.", "The item is a capo not given to slipping."),
    ("The user likes the long neck [65 cm].", "The item is a guitar < 3 kg and > 90 cm long."),
    ("The user asks the seller to please provide a case.", "The item is a violin without a case."),
    ("The user could not find the specified cable elsewhere.", "The item is a cable of unknown make that just works."),
    ("The user was not given the stand as a gift.", "The item is a stand with a clear acrylic top."),
    ("The user teaches how a language model writes songs.", "The item is a book about a language model."),
    ("The user does not mention any hum and enjoys the quiet.", "The item has no noticeable hum."),
    ("The user would need a second strap.", "The item is not described by the seller as it is: far better."),
    ("The user has no preference for brands but wants soft picks.", "The item is a set of soft picks."),
]


@pytest.mark.parametrize(("user", "item"), GOOD_HALVES, ids=range(len(GOOD_HALVES)))
def test_good_sentences_are_not_taken_for_refusals(user: str, item: str) -> None:
    for answer in (
        json.dumps({"user_preference": user, "item_attributes": item}),
        f"{user} {item}",
        f"User preference: {user}\nItem attributes: {item}",
    ):
        assert parse(answer) is not None, answer
    assert parse(json.dumps({"user_preference": user, "item_attributes": item})) == Rationale(user, item)


NOTHING_SAID = [
    "The user's preference is not specified.",
    "The user's preference is unclear.",
    "The user's preferences are not mentioned in the review.",
    "The item's attributes cannot be determined from the review.",
    "The attributes of the item are unknown.",
    "The specific attributes of the item are not explicitly stated.",
    "No attributes are mentioned.",
    "No specific preference is stated in the review.",
    "There is no information about the item.",
    "There is not enough information to determine the attributes.",
    "There are no specific attributes mentioned.",
    "The review does not mention the item.",
    "The review provides no details about the item.",
    "The user does not express any specific preference.",
    "The user did not provide any information about the item.",
    "The user has no stated preference.",
    "It is unclear what the user prefers.",
    "It is not possible to tell.",
    "Nothing is said about the item.",
    "The item is not described in the review.",
    "Not specified in the review.",
    "N/A.",
    "None",
    "Unknown.",
    "<what the review says about the item>",
    "The item [insert attributes here].",
    "I'm sorry, but I can't tell.",
    "I cannot determine the attributes.",
    "As an AI, I have no preferences.",
    "Unfortunately, I do not have enough information.",
    "Could you please provide the review?",
    "Please provide more details.",
]


@pytest.mark.parametrize("half", NOTHING_SAID)
def test_a_half_that_says_nothing_makes_no_rationale(half: str) -> None:
    assert parse(json.dumps({"user_preference": USER, "item_attributes": half})) is None
    assert parse(json.dumps({"user_preference": half, "item_attributes": ITEM})) is None
    assert parse(f"User preference: {USER}\nItem attributes: {half}") is None


# -- languages ---------------------------------------------------------------------------------------------------------

# (code, the two sentences, a review that bears them out, one that does not)
ABROAD = [
    ("de", "Der Nutzer möchte ein leises Spielzeug für lange Zugfahrten.", "Der Artikel ist eine weiche Tafel mit starken Magneten.",
     "Für die lange Zugfahrt gekauft, das Spielzeug war leise. Die Tafel ist weich, die Magnete sind stark.",
     "Der Kaffee schmeckt bitter und die Tasse hat einen Sprung."),
    ("fr", "L'utilisateur veut un jouet silencieux pour les longs voyages.", "L'article est un tableau souple avec des aimants puissants.",
     "Acheté pour un long voyage, ce jouet est silencieux. Le tableau est souple et les aimants sont puissants.",
     "Le café est amer et la tasse est fendue."),
    ("es", "El usuario quiere un juguete silencioso para viajes largos.", "El artículo es una pizarra blanda con imanes fuertes.",
     "Lo compré para un viaje largo y el juguete es silencioso. La pizarra es blanda y los imanes fuertes.",
     "El café es amargo y la taza llegó rota."),
    ("ru", "Пользователь хочет тихую игрушку для долгой поездки.", "Товар — мягкая доска с сильными магнитами.",
     "Купили игрушку для долгой поездки, она тихая. Доска мягкая, магниты сильные.",
     "Кофе горький, а чашка треснула."),
    ("zh", "用户想要一个在火车上安静的玩具。", "该商品是软板，磁铁很强，边角圆润。",
     "坐火车买的玩具，一路都很安静。板子很软，磁铁强，边角是圆的。", "咖啡太苦，杯子还裂了，再也不买。"),
    ("ja", "ユーザーは電車で静かに遊べるおもちゃを求めています。", "商品は柔らかいボードで、磁石が強力です。",
     "電車で遊べる静かなおもちゃを買いました。ボードは柔らかく、磁石も強力です。", "珈琲が苦くて、茶碗も割れていました。"),
    ("ko", "사용자는 기차에서 조용한 장난감을 원합니다.", "상품은 부드러운 보드이며 자석이 강합니다.",
     "기차에서 쓰려고 산 조용한 장난감입니다. 보드가 부드럽고 자석이 강합니다.", "커피가 쓰고 컵이 깨져서 왔어요."),
    ("th", "ผู้ใช้ต้องการของเล่นที่เงียบสำหรับนั่งรถไฟ", "สินค้าเป็นกระดานนุ่มและแม่เหล็กแรง",
     "ซื้อของเล่นไว้นั่งรถไฟ เงียบดีมาก กระดานนุ่ม แม่เหล็กแรง", "กาแฟขมมากและแก้วแตกตอนมาถึง"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "user", "item", "review", "other"), ABROAD, ids=[row[0] for row in ABROAD])
def test_rationales_in_the_language_that_was_asked_for(
    code: str, user: str, item: str, review: str, other: str
) -> None:
    language = LANGUAGES[code]
    answers = [json.dumps({"user_preference": user, "item_attributes": item}, ensure_ascii=False), f"{user}\n{item}"]
    if code != "th":  # Thai ends no sentence by a mark
        answers.append(f"{user} {item}" if code not in ("zh", "ja") else user + item)
    for answer in answers:
        found = parse(answer, language=language)
        assert found is not None, answer
        borne_out = judge(found, review, None, Thresholds(), language=language)
        assert (borne_out.verdict, borne_out.use) == ("ok", True), borne_out
        made_up = judge(found, other, None, Thresholds(), language=language)
        assert made_up.verdict == "ungrounded", made_up
        foreign = judge(found, "Bought it for a long train ride, it was quiet.", None, Thresholds())
        assert (foreign.verdict, foreign.use) == ("other_language", False)
        assert foreign.reason == f"{language.name} instead of English"


def test_prose_in_a_language_that_nobody_asked_for_is_told_from_words_that_say_nothing() -> None:
    german = f"{ABROAD[0][1]} {ABROAD[0][2]}"
    review = "Bought it for a long train ride, it was quiet."
    assert parse(german) is None
    judged = judge(parse(german), review, None, Thresholds(), language=ENGLISH, last_answer=german)
    assert (judged.verdict, judged.reason) == ("other_language", "German instead of English")
    judged = judge(None, review, None, Thresholds(), language=ENGLISH, last_answer="No.")
    assert judged.verdict == "unparsed"


def test_both_languages_and_full_width_stops() -> None:
    assert parse(f"{PROSE}\n\n{ABROAD[4][1]}{ABROAD[4][2]}") == GOOD
    assert parse(PROSE.replace(". ", "。").replace("tone.", "tone。")) == GOOD


def test_english_where_another_language_was_asked_for() -> None:
    found = parse(PROSE, language=LANGUAGES["de"])
    assert found == GOOD
    assert judge(found, ABROAD[0][3], None, Thresholds(), language=LANGUAGES["de"]).verdict == "other_language"
