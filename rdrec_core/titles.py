"""Titles of items as sentences name them, and what two of them share."""

from __future__ import annotations

import re

_TITLE_ENDS = re.compile(r"\s+[-–|(\[]\s*|\s*[(\[|,;]\s*|\s+with\s+")
_LONG_TITLE = 60


def short_title(title: str) -> str:
    """A title as one says it: without what stands in brackets or behind a dash, where it is long."""
    if len(title) <= _LONG_TITLE:
        return title
    head = _TITLE_ENDS.split(title)[0].strip()
    if 8 <= len(head) <= _LONG_TITLE:
        return head
    return title[:_LONG_TITLE].rsplit(" ", 1)[0].rstrip(" ,;:-–")


def shared_words(first: str | None, second: str | None) -> str:
    """The longest run of words (two at least) that two titles share, as the first one writes it."""
    if not first or not second:
        return ""
    own, other = first.split(), [word.lower() for word in second.split()]
    best: list[str] = []
    for start in range(len(own)):
        for end in range(start + max(2, len(best) + 1), len(own) + 1):
            run = [word.lower() for word in own[start:end]]
            if any(other[at : at + len(run)] == run for at in range(len(other) - len(run) + 1)):
                best = own[start:end]
    return " ".join(best).strip(" ,;:-–")
