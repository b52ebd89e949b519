"""English first person to third, for the extractive teacher: clause in, "The user ..." or "The item ..." out.

Pure string rules, no parser: wrong now and then on words that are noun and verb at once, right on what reviews mostly
say. Knows nothing of which clause is best beyond the strength that it reports.
"""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_STRONG = _words(
    "love loves loved like likes liked enjoy enjoys enjoyed prefer prefers preferred want wants wanted need needs "
    "needed adore adores adored hate hates hated dislike dislikes disliked collect collects wish wished appreciate "
    "appreciated recommend miss missed"
)
_DEEDS = _words(
    "bought buy buying gave give giving got get getting use used using ordered order purchased purchase chose choose "
    "play played sent send went go eat ate plan keep kept put try tried thought think find found had have"
)
_PAST = _words(
    "was had did bought gave got thought found went made sent took knew saw came put read paid felt ate kept chose "
    "told said wrote left brought let hit cut spent lost won sold met heard ran sat stood began"
)
_MODAL = _words("can could will would should may might must cannot can't couldn't won't wouldn't shouldn't didn't")
_ADVERB = re.compile(
    r"^(?:really|just|always|also|only|absolutely|truly|totally|never|ever|often|usually|still|personally|actually|"
    r"recently|originally|finally|especially|simply|even|now|mostly|both|all|first|\w+ly)\s+",
    re.IGNORECASE,
)
_SUBJECTLESS = re.compile(
    r"^(?:(?:really|just|absolutely|always|simply)\s+)?"
    r"(?P<verb>love|loved|like|liked|enjoy|enjoyed|prefer|hate|bought|purchased|ordered|gave|got|used|needed|wanted|"
    r"pleased|happy|satisfied|thrilled|disappointed|looking)\s+(?P<rest>\S.*)$",
    re.IGNORECASE,
)
_KIN = (
    "son|sons|daughter|daughters|kid|kids|child|children|grandson|grandsons|granddaughter|granddaughters|grandchild|"
    "grandchildren|grandkids|niece|nieces|nephew|nephews|wife|husband|mother|mom|father|dad|sister|brother|friend|friends|"
    "family|boyfriend|girlfriend|fiance|boss|teacher|parents|cousin|aunt|uncle|toddler|baby|boys|girls|group"
)
_FAMILY = re.compile(
    rf"^(?:my|our)\s+(?:[\w'-]+\s+){{0,3}}?(?:{_KIN})\b(?:\s+and\s+(?:i|(?:my\s+)?(?:{_KIN})))?\s+(?P<verb>[a-z']+)",
    re.IGNORECASE,
)
_FIRST = re.compile(r"^(?:i|we)(?P<contraction>'m|'ve|'d|'ll|'re)?\s+(?P<rest>\S.*)$", re.IGNORECASE)
_COPULA = r"is|are|was|were|isn't|aren't|wasn't|weren't|'s"
_DOES = (
    "looks?|looked|works?|worked|has|have|had|comes?|came|makes?|made|arrived|arrives?|fits?|tastes?|smells?|feels?|holds?|"
    "keeps?|offers?|includes?|goes|plays?|lasts?|teaches|saves?|lets?|allows?|gives?|takes?|needs?|requires?|provides?|"
    "features?|runs?|rewards?|brings?|doesn't|don't|didn't|won't|can|would|could|will|do|does|did"
)
_ITEM = re.compile(
    r"^(?P<subject>it|this|these|they|that|(?:this|these|that)\s+[\w'-]+|the\s+(?:[\w'$.&-]+\s+){0,3}?[\w'-]+)"
    rf"(?P<verb>\s+(?-i:{_COPULA}|{_DOES})|'s|'re)\s+(?P<rest>\S.*)$",
    re.IGNORECASE,
)
_THE_ITEM_ITSELF = re.compile(
    r"^(?:the\s+)?(?:[\w'-]+\s+)?(?:item|product|card|cards|gift|game|toy|book|puzzle|set|kit|one|thing|doll|box)$",
    re.IGNORECASE,
)
_PERSON_SUBJECT = re.compile(
    rf"^(?:the|this|these|that)\s+(?:(?!{_COPULA})[\w'-]+\s+){{0,2}}?(?:{_KIN}|receivers?|recipients?|person|people|guy|lady|seller|man|woman|staff)\b",
    re.IGNORECASE,
)
_PRONOUN = re.compile(r"^(?:it|this|these|they|that)\b", re.IGNORECASE)
_BARE_VERB = re.compile(
    r"^(?P<verb>works?|worked|looks?|looked|makes?|made|arrived|came|comes?|fits?|tastes?|has|feels?|holds?)\s+(?P<rest>\S.*)$",
    re.IGNORECASE,
)
_ADJECTIVE = (
    "great|good|perfect|nice|beautiful|easy|excellent|awesome|cute|fun|wonderful|amazing|lovely|convenient|fast|quick|"
    "attractive|pretty|best|fantastic|simple|sturdy|durable|soft|cheap|expensive|handy|useful|thoughtful|fine|fresh|"
    "adorable|small|large|big|tasty|delicious|poor|bad|terrible|ideal|solid|clever|challenging|colorful|colourful|"
    "reliable|accurate|classy|unique|heavy|light|lightweight|safe|bright|high|low|well|super|terrific|neat|gorgeous"
)
_FRAGMENT = re.compile(
    rf"^(?P<degree>(?:(?:a|an|the|very|so|such|really|always|pretty|super|quite|absolutely|just|a very|such a)\s+)*)"
    rf"(?P<body>(?:{_ADJECTIVE})\b.*)$",
    re.IGNORECASE,
)
_AFTER_ADJECTIVE = _words("to for and or in on as at with but if when enough too")
_MASS = _words(
    "quality value price food service packaging selection fun delivery shipping taste flavor flavour variety design "
    "customer fit fabric material coverage size gameplay artwork art replay"
)
# A feature that is named because it pleased: "won me over with the soft scents", "the clever twists stood out".
_A_FEATURE = (
    r"(?P<feature>(?:[\w'-]+\s+){0,5}?[\w'-]+(?:\s+and\s+(?!praised|admired)(?:the\s+)?(?:[\w'-]+\s+){0,3}?[\w'-]+)?)"
)
_IMPRESSION = (
    re.compile(
        r"\b(?:won (?:me|us|them|everybody|everyone) over with|gave (?:me|us|them)|stands? out for|stood out for|"
        r"thanks to|"
        r"(?:came|comes|delivered|delivers|scores?|shines?) with|love about (?:it|this) (?:is|are)|"
        rf"(?:admired|praised|liked best|appreciated)) (?:the|its|a) {_A_FEATURE}"
        r"(?=$|,| (?:in|just|here|there|again|and (?:it|we|they|i|praised|admired)\b))",
        re.IGNORECASE,
    ),
    re.compile(
        r"^what (?:i|we) (?:really )?(?:love|like|enjoy)d? (?:most|best)?.*\b(?:is|are|was|were) "
        rf"(?:the |its )?{_A_FEATURE}$",
        re.IGNORECASE,
    ),
    re.compile(
        rf"^(?:the|its) {_A_FEATURE}(?: (?:in|of|from) .{{1,60}}?)? (?:(?:stood|stands?) out|impressed|impresses|"
        r"delighted|won (?:me|us)|(?:made|makes)\b.*\b(?:happy|favou?rite|smile|special|worth it))\b",
        re.IGNORECASE,
    ),
)
_AS_A = re.compile(r"^as (?P<kind>an? [^,]+)$", re.IGNORECASE)
_FINITE = re.compile(
    r"\b(?:is|are|was|were|has|had|have|made|makes|impressed|stood|came|comes|loved?|loves|liked|likes|worked|works|"
    r"looked|looks|came|gave|arrived|delivered|brought|said|bought|do|did|does|can|will|would)\b",
    re.IGNORECASE,
)
_ITEM_NOUN = re.compile(r"\b(?:it|this one|this|these|them)$", re.IGNORECASE)
_PERSON = (
    (r"\bI am\b|\bI'm\b", "they are"),
    (r"\bI was\b", "they were"),
    (r"\bI've\b|\bwe've\b", "they have"),
    (r"\bI'd\b|\bwe'd\b", "they would"),
    (r"\bI'll\b|\bwe'll\b", "they will"),
    (r"\bwe're\b", "they are"),
    (r"\bmyself\b|\bourselves\b", "themselves"),
    (r"(?-i:\bmine\b|\bours\b)", "theirs"),  # "Copper Mine" and "the US" are names
    (r"\bmy\b|\bour\b", "their"),
    (r"(?-i:\bme\b|\bus\b)", "them"),
    (r"\bi\b|\bwe\b", "they"),
)


def first_to_third(text: str) -> str:
    """First-person words inside a sentence whose subject is already the user, in the third person."""
    for pattern, word in _PERSON:
        text = re.sub(pattern, word, text, flags=re.IGNORECASE)
    return text


def user_predicate(clause: str) -> tuple[float, str] | None:
    """(strength, "The user ...") when the clause says what the reviewer likes, wants or does; else None."""
    if match := _FAMILY.match(clause):
        kin = re.sub(r"^(?:my|our)\s+", "", clause, flags=re.IGNORECASE)
        return _strength(match["verb"], kin) + 0.3, f"The user's {_name_item(kin)}"
    if match := _SUBJECTLESS.match(clause):
        verb = match["verb"].lower()
        state = verb in {"pleased", "happy", "satisfied", "thrilled", "disappointed", "looking"}
        head = f"is {verb}" if state else _third(verb)
        return _strength("like" if state else verb, match["rest"]), f"The user {head} {_name_item(match['rest'])}"
    if match := _FIRST.match(clause):
        rest = match["rest"]
        spelled = {"'m": "am ", "'re": "am ", "'ve": "have ", "'d": "would ", "'ll": "will "}
        rest = spelled.get((match["contraction"] or "").lower(), "") + rest
        lead = ""
        while adverb := _ADVERB.match(rest):
            lead, rest = lead + adverb[0], rest[adverb.end() :]
        verb, _, tail = rest.partition(" ")
        if not tail:
            return None
        weight = (
            "like"
            if re.search(r"\b(?:look for|looking for|fan of|happy|glad|into|love|like|need|want)\b", rest, re.I)
            else verb
        )
        return _strength(weight, tail), f"The user {lead.lower()}{_third(verb)} {_name_item(tail)}"
    return None


def praised_feature(clause: str) -> str | None:
    """The feature that a clause names as what pleased, without its article."""
    for pattern in _IMPRESSION:
        if match := pattern.search(clause):
            return re.sub(r"\b(?:the|its)\s+", "", _plain(match["feature"]), flags=re.IGNORECASE)
    return None


def item_predicate(clause: str) -> tuple[float, str] | None:
    """(strength, "The item ...") when the clause says what the item is, has or does; else None."""
    if _PERSON_SUBJECT.match(clause):
        return None
    if match := _AS_A.match(clause):
        return 0.5 + _substance(match["kind"]), f"The item is {_plain(match['kind'])}"
    if match := _ITEM.match(clause):
        verb = _singular(match["verb"].strip().lower())
        if _PRONOUN.match(clause):
            return 0.5 + _substance(match["rest"]), f"The item {verb} {_plain(match['rest'])}"
        part = re.sub(r"^the\s+", "", match["subject"], flags=re.IGNORECASE)
        if _THE_ITEM_ITSELF.match(match["subject"]):
            return 0.4 + _substance(match["rest"]), f"The item {verb} {_plain(match['rest'])}"
        was = match["verb"].strip().lower()  # a part may be plural: its verb stays as it is
        return 0.2 + _substance(match["rest"]), f"The item's {part} {was} {_plain(match['rest'])}"
    if match := _BARE_VERB.match(clause):
        return 0.3 + _substance(match["rest"]), f"The item {_singular(match['verb'].lower())} {_plain(match['rest'])}"
    if (match := _FRAGMENT.match(clause)) and not _FINITE.search(
        re.split(r"\b(?:that|which|who|and|when|if|because|as)\b", match["body"])[0]
    ):
        degree = re.sub(r"\b(?:a|an|the|such|just|always)\b", "", match["degree"], flags=re.IGNORECASE).lower().split()
        body = _plain(match["body"])
        words = re.findall(r"[\w'-]+", body.lower())
        rest = words[1:]
        while rest and re.fullmatch(_ADJECTIVE, rest[0]):
            rest = rest[1:]
        phrase = " ".join([*degree, body[0].lower() + body[1:]])
        if not rest or rest[0] in _AFTER_ADJECTIVE:
            return 0.4 + _substance(body), f"The item is {phrase}"
        noun_end = next((n for n, word in enumerate(rest) if word in _AFTER_ADJECTIVE | {"of", "that"}), len(rest))
        noun = rest[max(noun_end - 1, 0)]
        if rest[0] in _MASS or noun in _MASS or (noun.endswith("s") and not noun.endswith("ss")):
            return 0.4 + _substance(body), f"The item offers {phrase}"
        article = "the" if words[0] == "best" else "an" if phrase[0] in "aeiou" else "a"
        return 0.4 + _substance(body), f"The item is {article} {phrase}"
    return None


def _strength(verb: str, tail: str) -> float:
    word = verb.lower()
    base = 1.0 if word in _STRONG else 0.5 if word in _DEEDS else 0.2
    return base + _substance(tail)


def _substance(tail: str) -> float:
    """More words say more, up to ten; a clause of pronouns only says nothing."""
    words = [w for w in re.findall(r"[a-z']+", tail.lower()) if len(w) > 3]
    return 0.1 * min(len(words), 6)


def _name_item(tail: str) -> str:
    return _ITEM_NOUN.sub("the item", _plain(tail))


def _plain(text: str) -> str:
    """Shouting lowered, stray marks dropped."""
    text = re.sub(r"\s+", " ", text.replace('"', "").replace("*", "")).strip(" .,!?")
    return text.lower() if text.isupper() and len(text) > 4 else text


def _third(verb: str) -> str:
    """The verb as it follows "The user"."""
    word = verb.lower()
    fixed = {
        "am": "is",
        "are": "is",
        "have": "has",
        "do": "does",
        "don't": "does not",
        "haven't": "has not",
        "were": "was",
    }
    if word in fixed:
        return fixed[word]
    if word in _PAST or word in _MODAL or word.endswith(("ed", "n't")):
        return word
    if word.endswith(("ss", "sh", "ch", "x", "z", "o")):
        return f"{word}es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return f"{word[:-1]}ies"
    return word if word.endswith("s") else f"{word}s"


def _singular(verb: str) -> str:
    """The verb as it follows "The item"."""
    fixed = {
        "'s": "is", "'re": "is", "are": "is", "were": "was", "isn't": "is not", "aren't": "is not", "wasn't": "was not",
        "weren't": "was not", "have": "has", "don't": "does not", "doesn't": "does not", "didn't": "did not",
    }  # fmt: skip
    if verb in fixed:
        return fixed[verb]
    past = {"had", "made", "came"}
    if verb in past or verb.endswith("ed") or verb in _MODAL or verb.endswith("s"):
        return verb
    return f"{verb}s"
