"""What a model says when it has done thinking: its final words, without thought, channel marks and markup.

Pure: text in, text out, empty where the answer never came. Knows the forms in which models think aloud, not what was
asked of them.
"""

from __future__ import annotations

import html
import re

_THOUGHT = (
    r"think(?:ing)?|thoughts?|reason(?:ing)?|analysis|reflection|scratch_?pad|inner_monologue|internal_thoughts?"
    r"|chain_of_thought|cot|deliberation|planning"
)
# <think>, [THINK], ◁think▷, <seed:think>, <|begin_of_thought|>, <|START_THINKING|>, with attributes or not.
_OPEN = re.compile(
    rf"(?:<\|?|◁)\s*(?:begin_of_|start_of_|start_|begin_)?(?:\w+:)?(?:{_THOUGHT})(?:\s[^<>]*)?\s*(?:\|?>|▷)"
    rf"|\[\s*(?:think|thinking|thought|reasoning)\s*\]",
    re.I,
)
_CLOSE = re.compile(
    rf"(?:<\|?|◁)\s*(?:/\s*(?:\w+:)?|end_of_|end_)(?:{_THOUGHT})\s*(?:\|?>|▷)"
    rf"|\[\s*/\s*(?:think|thinking|thought|reasoning)\s*\]",
    re.I,
)
_ESCAPED = re.compile(rf"&lt;(/?(?:{_THOUGHT})[^&]{{0,40}})&gt;", re.I)
_FOLDED = re.compile(
    rf"^(?P<fence>`{{3,}})(?:{_THOUGHT})\b.*?(?:^(?P=fence)\s*$|\Z)"
    r"|<details\b[^>]*(?:reasoning|thinking)[^>]*>.*?(?:</details>|\Z)"
    r"|<details[^>]*>\s*<summary>[^<]*(?:thought|thinking|reasoning)[^<]*</summary>.*?(?:</details>|\Z)"
    r"|\A\s*Thinking\.\.\.\s.*?(?:\.\.\.\s*done thinking\.|\Z)"
    r"|\A\s*Thought for [^\n]{1,40}\n",
    re.I | re.S | re.M,
)
_ANSWER = re.compile(
    r"<(answer|final_answer|final|output|response|result)>(?P<said>.*?)(?:</\1>|\Z)"
    r"|<\|begin_of_solution\|>(?P<solved>.*?)(?:<\|end_of_solution\|>|\Z)",
    re.I | re.S,
)
# gpt-oss: marked channels, or what is left of them when the marks were dropped.
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>", re.I)
_CHANNEL_END = re.compile(r"<\|(?:end|return|call|start|channel)\|>")
_BARE_ANALYSIS = re.compile(r"\A\W*(?:assistant\s*)?(?:analysis|commentary)(?=[A-Z\"'“(]|\s*\n|\s+[A-Z])")
_BARE_FINAL = re.compile(
    r"assistant\s*(?:\n\s*)?final\s*(?:json\s*(?=[{\[]))?|(?<=[.!?…\"'”)\s])final\s*(?:json\s*(?=[{\[]))?(?=[A-Z{\[\"“])"
)
# A turn that the model went on to play for the user is not its answer.
_NEXT_TURN = re.compile(
    r"<\|im_start\|>\s*user|<\|start_header_id\|>\s*user|<start_of_turn>\s*user|<\|user\|>|(?<=\S)\s*\[INST\]", re.I
)
_MARKUP = re.compile(
    r"<\|start_header_id\|>\s*assistant\s*<\|end_header_id\|>"
    r"|<\|begin_of_box\|>|<\|end_of_box\|>|\[/?INST\]|<</?SYS>>|</?s>|<pad>|<unk>"
    r"|<\|[^|>]{1,40}\|>(?:assistant\b)?|<(?:end|start)_of_turn>(?:model\b)?|</?(?:p|b|i|em|strong|br|li|ol|ul|code|pre)\s*/?>"
    r"|```\w*|\*\*|(?<![A-Za-z])__|__(?![A-Za-z])|^#+\s+|^>\s+",
    re.M | re.I,
)
_HEADED_THOUGHT = re.compile(
    r"\A\W*(?:reasoning|thinking(?: process)?|thoughts?(?: process)?|chain of thought"
    r"|step[- ]by[- ]step(?: reasoning)?)\W*(?::|\n)",
    re.I,
)
_HEADED_ANSWER = re.compile(
    r"(?:^|\n|(?<=[.!?]\s))\W*(?:(?:the\s+)?(?:my\s+)?final\s+(?:answer|response|output|sentences)|answer|response|output)"
    r"(?:\s+is)?\W*(?::|\n)\s*",
    re.I,
)
_MUSING = re.compile(
    r"\A\W*(?:(?:okay|ok|alright|right|hmm+|so|well|wait)\b[,.!… ]+"
    r"(?=(?:so|let|i|we|first|now|the (?:user|review|task))\b)"
    r"|(?:let me|let's|let us|we (?:need|have|must|should|are asked)|i (?:need|have|must|should|think)"
    r"|first,? (?:i|let|we))\b"
    r"|hmm+\b|the user (?:is asking|asks me|wants me|has asked|provided|has given))",
    re.I,
)


def final_words(text: str) -> str:
    """The answer proper. Prose that muses without any mark is left in: see `without_musing`."""
    text = _channels(text)
    text = _NEXT_TURN.split(text, maxsplit=1)[0] or text
    text = _FOLDED.sub("", _ESCAPED.sub(r"<\1>", text))
    text = _unthought(text)
    if answers := [m["said"] or m["solved"] or "" for m in _ANSWER.finditer(text)]:
        text = answers[-1]
    if _HEADED_THOUGHT.match(text):
        found = list(_HEADED_ANSWER.finditer(text))
        brace = text.find("{")
        text = text[found[-1].end() :] if found else text[brace:] if brace >= 0 else ""
    text = _MARKUP.sub("", text)
    if re.search(r"&(?:quot|amp|#\d+|apos|lt|gt);", text):
        text = html.unescape(text)
    return text.replace("’", "'").strip()


def without_musing(text: str) -> str:
    """Prose whose first words are a thought keeps its last paragraph only; a single paragraph of thought is nothing."""
    if not _MUSING.match(text):
        return text
    paragraphs = [part for part in re.split(r"\n\s*\n", text) if part.strip()]
    if found := list(_HEADED_ANSWER.finditer(text)):
        return text[found[-1].end() :]
    return paragraphs[-1] if len(paragraphs) > 1 and not _MUSING.match(paragraphs[-1]) else ""


def _channels(text: str) -> str:
    """Only what stands in the last final channel; nothing where channels are used and the final one never came."""
    if "<|channel|>" in text.lower():
        said = ""
        for mark in _CHANNEL.finditer(text):
            if mark[1].lower() == "final":
                said = _CHANNEL_END.split(text[mark.end() :], maxsplit=1)[0]
        return said
    if _BARE_ANALYSIS.match(text):
        marks = list(_BARE_FINAL.finditer(text))
        return text[marks[-1].end() :] if marks else ""
    return re.sub(r"\A\s*(?:assistant)?final(?=[A-Z{\[])", "", text)


def _unthought(text: str) -> str:
    """Without what stands between marks of thought, nested or not. A closing mark whose opening was lost takes all
    before it; a thought that was cut takes all after it."""
    marks = sorted(
        [(m.start(), m.end(), 1) for m in _OPEN.finditer(text)]
        + [(m.start(), m.end(), -1) for m in _CLOSE.finditer(text)]
    )
    kept: list[str] = []
    depth = place = 0
    for start, end, step in marks:
        if start < place:
            continue
        if depth == 0:
            kept.append(text[place:start])
            if step < 0:
                kept.clear()
        depth = max(depth + step, 0)
        place = end
    if depth == 0:
        kept.append(text[place:])
    return "".join(kept)
