"""A phrase: what a review says in a few words, whichever finder found it."""

from __future__ import annotations

from dataclasses import dataclass

from rdrec_core.statements import Kind


@dataclass(frozen=True, slots=True)
class Phrase:
    """polarity: of the words alone, 1, 0 or -1; is_wish: about the reviewer alone."""

    kind: Kind
    text: str
    polarity: int
    is_wish: bool = False
