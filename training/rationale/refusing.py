"""Whether a sentence, taken whole, declines to answer or reports that the review says nothing.

Told by the sentence's shape, by how it begins and what it is about, never by a word somewhere in it: «a top coat with
no bubbles that dries clear» is an attribute, «no attributes are given» is none. Pure.
"""

from __future__ import annotations

import re

_PERSON = r"(?:user|buyer|customer|reviewer|purchaser|shopper|consumer|person|author|writer)"
_THING = r"(?:item|product|purchase)"
_TEXT = (
    r"(?:(?:given |provided |original |customer(?:'s)? |user(?:'s)? )?"
    r"(?:review|text|statement|comment|feedback|description|quote|message|input|sentence))"
)
_NOUN = (
    r"(?:preferences?|attributes?|features?|characteristics|information|specifics|details?|properties|needs?|reasons?)"
)
_SAID = (
    r"(?:mentioned|specified|stated|provided|given|described|indicated|known|discussed|explained|detailed|determined"
    r"|expressed|evident|explicit|available|applicable|listed|inferred|derived|identified|disclosed|clarified|clear"
    r"|addressed|revealed|deduced|extracted|defined)"
)
_COPULA = r"(?:is|are|was|were|has|have|remains?|can|could|do|does)"
_ADVERBS = r"(?:\w+ly\s+|further\s+|also\s+|even\s+)*"
_END = r"(?:\s*(?:,|;|\b(?:in|by|from|within|based|given|so|as|and|or|beyond|here)\b).*)?\W*$"

_DECLINES = re.compile(
    r"^\W*(?:(?:sorry|unfortunately|apologies|however|but|well|oh|hello|hi)\b[,.!:;\s]*)*"
    r"(?:as an? (?:ai|artificial|language model|assistant|text-based)\b"
    r"|i(?:'m| am) (?:(?:so |very |really |terribly )?sorry|unable|not able|afraid"
    r"|just an? |only an? |an? ai\b|an? assistant)"
    r"|i (?:really )?apologi[sz]e\b|my apologies\b|no review\b"
    r"|i (?:can(?:no|')t|can not|could(?: not|n't)|do(?: not|n't) (?:have|see|know|think)|won't|will not"
    r"|would (?:need|not)|need (?:more|the)|must decline|have no)\b"
    r"|(?:could|can|would|will) you (?:please )?(?:provide|share|clarify|give|tell|paste|send)\b"
    r"|please (?:provide|share|give me|clarify|paste|send|tell me)\b"
    r"|(?:what|which) (?:review|item|product)\b.*\?"
    r"|(?:it (?:seems|looks|appears)|there seems)[^,.]{0,30}\b(?:you|review|text)\b[^.]{0,40}"
    r"\b(?:not|n't|no|missing|empty|cut|incomplete)\b"
    r"|抱歉|对不起|對不起|很抱歉|我(?:无法|不能)|申し訳|すみません|죄송)",
    re.I,
)
_SAYS_NOTHING = [
    re.compile(pattern, re.I)
    for pattern in (
        # n/a, none, unclear, not specified
        r"^\W*(?:n/?a|nil|null|none|nothing|string|unknown|unclear|unspecified|undefined"
        rf"|(?:none|not|nothing)\s+{_ADVERBS}{_SAID}){_END}",
        # The user's preference is not specified. The attributes of the item are unknown, or cannot be determined.
        rf"^(?:the\s+|any\s+|specific\s+|exact\s+)*(?:(?:{_PERSON}|{_THING})(?:'s|s'|s)?\s+)?"
        rf"(?:(?:specific|exact|explicit|particular|actual)\s+)?{_NOUN}(?:\s+(?:and|or)\s+{_NOUN})?"
        rf"(?:\s+(?:of|for|about|regarding)\s+(?:the|this)\s+(?:{_PERSON}|{_THING}))?\s+"
        rf"(?:(?:{_COPULA}\s*(?:not|n't|never)|cannot|can't)\s+(?:be\s+|been\s+)?{_ADVERBS}{_SAID}"
        rf"|{_COPULA}\s+{_ADVERBS}(?:unclear|unknown|unspecified|unstated|undefined|n/?a|not applicable))\b",
        # The review does not mention ... (whatever follows: it is about the review)
        rf"^(?:the|this|that|your)\s+{_TEXT}(?:\s+itself)?\s+"
        r"(?:(?:does|do|did|has|have|is|was)\s*(?:not|n't)|can(?:not|'t)|never|lacks|fails to"
        r"|(?:gives|provides|contains|offers|has|mentions|states|specifies|says|includes|reveals|holds)\s+(?:no|nothing|little|insufficient|not))\b",
        # The user does not express any preference.
        rf"^(?:the|this)\s+{_PERSON}\s+(?:(?:does|did|has|have)\s*(?:not|n't)|never)\s+{_ADVERBS}"
        r"(?:mention|specify|state|provide|describe|indicate|give|say|express|reveal|explain|disclose|elaborate)(?:ed|d)?\b"
        rf"[^,;]{{0,40}}\b(?:{_NOUN}|anything|what|why|opinion)\b",
        # The user has no stated preference. The item has no attributes mentioned.
        rf"^(?:the|this)\s+{_PERSON}\s+(?:has|have|had|gives|states|expresses|mentions|shows|indicates|provides)\s+no\s+"
        rf"(?:[\w-]+\s+){{0,3}}(?:{_NOUN}|opinion){_END}",
        rf"^(?:the|this)\s+{_THING}\s+(?:has|have|comes with)\s+no\s+(?:[\w-]+\s+){{0,3}}{_NOUN}\s+{_ADVERBS}{_SAID}\b",
        # There is no information about ... No attributes are mentioned. Nothing is said about the item.
        r"^(?:there (?:is|are|was|were|'s)\s*(?:not|n't|no|little|insufficient)\s*(?:any|enough)?\s*"
        rf"(?:[\w-]+\s+){{0,4}}?{_NOUN}\b"
        rf"(?:[^,;]{{0,60}}\b(?:{_SAID}|to|about|regarding|on|in the {_TEXT}|given)\b|\W*$))",
        rf"^(?:no|not enough|insufficient)\s+(?:[\w-]+\s+){{0,4}}?{_NOUN}"
        rf"(?:\s+[\w'-]+){{0,6}}?\s+{_ADVERBS}{_SAID}\b",
        rf"^no\s+(?:[\w-]+\s+){{0,3}}(?:{_NOUN})\W*$",
        rf"^nothing\s+(?:[\w-]+\s+){{0,3}}(?:said|known|{_SAID})\b",
        # It is unclear what ... The item is not described in the review.
        rf"^it (?:is|'s|remains|was) (?:unclear|unknown|hard to (?:say|tell)|impossible|not (?:possible|{_SAID}))\b",
        rf"^(?:the|this)\s+(?:{_PERSON}|{_THING})\s+(?:is|was)\s+(?:not|n't)\s+{_ADVERBS}"
        rf"(?:mentioned|described|specified|stated|identified)(?:\s+(?:in|by|within|from)\s+(?:the|this)\s+{_TEXT}.*)?\W*$",
        # The question's own words and no others: The item's attributes are "The item" and "The user's preference".
        rf"^(?:\W*\b(?:the|this|that|an?|is|are|and|or|of|it|(?:{_PERSON}|{_THING})(?:'s)?|{_NOUN})\b)+\W*$",
        # The template's own placeholders.
        r"[<\[{](?:insert|what|the|your|user|item|preference|attribute|description|name|product|short|sentence|first|second)\b[^<>\[\]{}]{2,}[>\]}]",
        r"^\W*(?:use two sentences|a user bought an item and said)\b",
    )
]


def declines(sentence: str) -> bool:
    """Whether it begins as a refusal, an excuse or a question back, in the speaker's own person."""
    return _DECLINES.match(sentence) is not None


def says_nothing(sentence: str) -> bool:
    """Whether all that it reports of user or item is that nothing is known."""
    return any(pattern.search(sentence) for pattern in _SAYS_NOTHING)
