"""The parser against what models of many makers write for this prompt: what a reader would take from each answer."""

# ruff: noqa: E501 - answers stand on one line, as a table

from __future__ import annotations

import pytest

from training.rationale.parse import Rationale, parse

SOFT = ("The user prefers soft toys for her daughter.", "The item is a plush bear with soft fur.")
GIFT = ("The user needs a last-minute gift.", "The item arrives by e-mail within minutes.")

# (which model writes so, the answer, the two sentences)
UNDERSTOOD = [
    ("plain, as asked", f"{SOFT[0]} {SOFT[1]}", SOFT),
    ("two lines", f"{SOFT[0]}\n{SOFT[1]}", SOFT),
    ("blank line between", f"\n\n{SOFT[0]}\n\n{SOFT[1]}\n", SOFT),
    ("gpt-4o, JSON mode", f'{{"user_preference": "{SOFT[0]}", "item_attributes": "{SOFT[1]}"}}', SOFT),
    ("gpt-4, fenced JSON", f'```json\n{{\n  "user_preference": "{SOFT[0]}",\n  "item_attributes": "{SOFT[1]}"\n}}\n```', SOFT),
    ("mistral, JSON after a preamble", f'Here is the JSON:\n{{"user_preference": "{GIFT[0]}", "item_attributes": "{GIFT[1]}"}}\nHope this helps!', GIFT),
    ("phi, Python dictionary", "{'user_preference': 'The user needs a last-minute gift.', 'item_attributes': 'The item arrives by e-mail within minutes.'}", GIFT),
    ("qwen, other keys", f'{{"User Preference": "{GIFT[0]}", "Item Attributes": "{GIFT[1]}"}}', GIFT),
    ("gemma, short keys", f'{{"user": "{GIFT[0]}", "item": "{GIFT[1]}"}}', GIFT),
    ("nested JSON", f'{{"answer": {{"user_preference": "{GIFT[0]}", "item_attributes": "{GIFT[1]}"}}}}', GIFT),
    ("JSON array", f'["{GIFT[0]}", "{GIFT[1]}"]', GIFT),
    ("array of two objects", f'[{{"user_preference": "{GIFT[0]}"}}, {{"item_attributes": "{GIFT[1]}"}}]', GIFT),
    ("attributes as a list", '{"user_preference": "The user wants a small gift.", "item_attributes": ["cute tin", "free shipping"]}',
     ("The user wants a small gift.", "Cute tin, free shipping.")),
    ("JSON with raw newlines", f'{{"user_preference": "{GIFT[0]}\n", "item_attributes": "{GIFT[1]}\n"}}', GIFT),
    ("llama-2-chat, numbered with preamble", f"Sure! Here are two sentences that explain the user's preference and the item's attributes:\n\n1. {SOFT[0]}\n2. {SOFT[1]}", SOFT),
    ("llama-2-chat, of course", f"Of course! Based on the review, here are two sentences:\n{SOFT[0]}\n{SOFT[1]}", SOFT),
    ("numbered with brackets", f"1) {SOFT[0]}\n2) {SOFT[1]}", SOFT),
    ("numbered on one line", f"1. {SOFT[0]} 2. {SOFT[1]}", SOFT),
    ("bulleted", f"- {SOFT[0]}\n- {SOFT[1]}", SOFT),
    ("bulleted with dots", f"• {SOFT[0]}\n• {SOFT[1]}", SOFT),
    ("list without subjects", "* Prefers soft toys for her daughter\n* Plush bear with soft fur",
     ("Prefers soft toys for her daughter.", "Plush bear with soft fur.")),
    ("labelled", f"User preference: {SOFT[0]}\nItem attributes: {SOFT[1]}", SOFT),
    ("labelled in bold", f"**User's Preference:** {SOFT[0]}\n\n**Item's Attributes:** {SOFT[1]}", SOFT),
    ("numbered bold labels", f"1. **User preference**: {SOFT[0]}\n2. **Item attributes**: {SOFT[1]}", SOFT),
    ("headings", f"### User Preference:\n{SOFT[0]}\n### Item Attributes:\n{SOFT[1]}", SOFT),
    ("labels on one line", f"User preference: {SOFT[0]} Item attributes: {SOFT[1]}", SOFT),
    ("strict form", f"USER: {SOFT[0]}\nITEM: {SOFT[1]}", SOFT),
    ("sentence labels", f"Sentence 1: {SOFT[0]}\nSentence 2: {SOFT[1]}", SOFT),
    ("line labels", f"Line 1: {SOFT[0]}\nLine 2: {SOFT[1]}", SOFT),
    ("label with bullets", "User preference:\n- soft toys\n- gifts for a daughter\nItem attributes:\n- plush bear\n- soft fur",
     ("Soft toys, gifts for a daughter.", "Plush bear, soft fur.")),
    ("one sentence, and", "The user prefers soft toys for her daughter, and the item is a plush bear with soft fur.",
     ("The user prefers soft toys for her daughter.", "The item is a plush bear with soft fur.")),
    ("one sentence, while", "The user needs a last-minute gift, while the item arrives by e-mail within minutes.", GIFT),
    ("one sentence, semicolon", "The user needs a last-minute gift; the item arrives by e-mail within minutes.", GIFT),
    ("one sentence, and it", "The user needs a last-minute gift, and it arrives by e-mail within minutes.",
     ("The user needs a last-minute gift.", "It arrives by e-mail within minutes.")),
    ("deepseek-r1, thinking", f"<think>The review says that the daughter loves it. The user likes it.</think>\n\n{SOFT[0]} {SOFT[1]}", SOFT),
    ("qwq, opening tag lost", f"Okay, the user likes it. The item is soft.\n</think>\n{SOFT[0]} {SOFT[1]}", SOFT),
    ("end-of-turn tokens", f"{SOFT[0]} {SOFT[1]}<|im_end|>", SOFT),
    ("llama leftovers", f"[/INST] {SOFT[0]} {SOFT[1]} </s>", SOFT),
    ("quoted", f'"{SOFT[0]} {SOFT[1]}"', SOFT),
    ("based on the review", f"Based on the review, the user needs a last-minute gift. {GIFT[1]}",
     ("Based on the review, the user needs a last-minute gift.", GIFT[1])),
    ("the other way round", f"{SOFT[1]} {SOFT[0]}", SOFT),
    ("numbered the other way round", f"1. {SOFT[1]}\n2. {SOFT[0]}", SOFT),
    ("three sentences", f"{GIFT[0]} They want it quickly. {GIFT[1]}", GIFT),
    ("chatter after it", f"{GIFT[0]} {GIFT[1]}\n\nLet me know if you need anything else!", GIFT),
    ("note after it", f"{GIFT[0]}\n{GIFT[1]}\n\nNote: The review is short, so this is a guess.", GIFT),
    ("customer and product", "The customer enjoys strategy games with friends. The product offers quick rounds and simple rules.",
     ("The customer enjoys strategy games with friends.", "The product offers quick rounds and simple rules.")),
    ("the item by its name", "The user values easy online shopping. The gift card works at every store.",
     ("The user values easy online shopping.", "The gift card works at every store.")),
    ("abbreviation", "The user wants a gift for Mr. Smith, e.g. a card. The item costs approx. $25.",
     ("The user wants a gift for Mr. Smith, e.g. a card.", "The item costs approx. $25.")),
    ("curly apostrophes", "The user’s kids love dinosaurs. The item is a dinosaur puzzle.",
     ("The user's kids love dinosaurs.", "The item is a dinosaur puzzle.")),
    ("flan-t5, no full stop", "The user likes board games. The item is easy to learn",
     ("The user likes board games.", "The item is easy to learn.")),
    ("spare white space", f"  {SOFT[0]}   \t {SOFT[1]}  ", SOFT),
    ("response label", f"Response:\n{SOFT[0]} {SOFT[1]}", SOFT),
]  # fmt: skip

NOT_UNDERSTOOD = [
    ("empty", ""),
    ("white space", " \n\t "),
    ("full stop", "."),
    ("refusal", "I'm sorry, but I can't assist with that request."),
    ("refusal, curly", "I’m sorry, but I can’t help with that."),
    ("as an AI", "As an AI language model, I do not have personal preferences. The item is a gift card."),
    ("asks back", "Could you please provide the full review? The user likes it. The item is nice."),
    ("not enough information", "There is not enough information in the review to determine the user's preference."),
    ("says that nothing is said", "The user's preference is not specified. The item's attributes are not mentioned in the review."),
    ("half of it unknown", "The user likes gift cards. The attributes of the item are not mentioned."),
    ("half of it the question's words", "The user's preference is \"Fast food\". The item's attributes are \"The user\" and \"The item\"."),
    ("only one sentence", "The user likes soft toys."),
    ("only the item", "The item is a plush bear with soft fur."),
    ("a review's echo", "Great gift! My daughter loved it."),
    ("thinking without an end", "<think>The user likes it. The item is soft."),
    ("empty JSON", "{}"),
    ("JSON with empty halves", '{"user_preference": "", "item_attributes": ""}'),
    ("JSON with nulls", '{"user_preference": null, "item_attributes": null}'),
    ("JSON, not applicable", '{"user_preference": "N/A", "item_attributes": "N/A"}'),
    ("JSON, half missing", '{"user_preference": "The user likes soft toys."}'),
    ("JSON of numbers", '{"user_preference": 5, "item_attributes": 4}'),
    ("JSON cut off", '{"user_preference": "The user likes soft toys.", "item_attri'),
    ("the schema's echo", '{"user_preference": "string", "item_attributes": "string"}'),
    ("template's placeholders", "The user <what the review says>. The item <what the review says about the item>."),
    ("preamble alone", "Sure! Here are two sentences that explain the user's preference and the item's attributes:"),
    ("the same twice", "The user likes it very much.\nThe user likes it very much."),
    ("endless repetition", "The user likes " + "very " * 80 + "soft toys. The item is soft."),
    ("prompt's echo", 'A user bought an item and said "nice". Use two sentences to explain the user\'s preference.'),
    ("gibberish of a random model", "the the of of , item , , user and and"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), [(t, e) for _, t, e in UNDERSTOOD], ids=[n for n, _, _ in UNDERSTOOD])
def test_understood(text: str, expected: tuple[str, str]) -> None:
    assert parse(text) == Rationale(*expected)


@pytest.mark.parametrize("text", [t for _, t in NOT_UNDERSTOOD], ids=[n for n, _ in NOT_UNDERSTOOD])
def test_not_understood(text: str) -> None:
    assert parse(text) is None


def test_a_sentence_that_the_token_limit_cut_does_not_count() -> None:
    text = "The user likes board games. The item is easy to learn and takes about"
    assert parse(text) is not None
    assert parse(text, truncated=True) is None
    assert parse("The user likes board games. The item is easy. It also", truncated=True) == Rationale(
        "The user likes board games.", "The item is easy."
    )


def test_at_least_forty_answers_are_understood() -> None:
    assert len(UNDERSTOOD) >= 40
    assert len({text for _, text, _ in UNDERSTOOD}) == len(UNDERSTOOD)
