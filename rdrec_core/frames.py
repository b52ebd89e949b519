"""Sentence frames: how an explanation is worded. English here; a shop may bring its own table as a JSON file.

A frame is a text with places in braces. `explaining.py` decides which one is taken; which there are, and which places
each may use, is fixed here, so that another table is checked when it is read and not when a customer asks.
"""

from __future__ import annotations

import json
from pathlib import Path
from string import Formatter
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from rdrec_core.errors import InputError

_PLACES = {
    "who": {"count", "total"}, "who_alone": {"total"}, "who_only": set(), "praised": {"who", "item", "claim"},
    "also": {"who", "claim"}, "same_as_said": {"liked", "other", "who", "item"},
    "wanted": {"want", "who", "item", "claim"},
    "sought": {"want", "who", "item"}, "same_as_wanted": {"want", "who", "item"},
    "same_as_wanted_alone": {"want", "who", "item"},
    "as_with": {"other", "who", "item", "claim"}, "bought_together": {"other", "item"},
    "shared_words": {"words", "other", "item"}, "many_choose": {"item"}, "some_chose": {"item"},
    "nothing_known": {"item"},
    "caution": {"who", "claim"}, "attributes": {"list"}, "preference": {"list"}, "counted": {"text", "count", "total"},
    "list_pair": {"first", "last"},
}  # fmt: skip
_BY_KIND = ("claim", "claim_alone", "complaint", "complaint_alone", "attribute", "want", "liking", "more")


class KindFrames(BaseModel):
    """One way to speak, for each kind of phrase; `{text}` is the phrase."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    feature: str
    quality: str
    does: str
    want: str = "{text}"
    mention: str


class Frames(BaseModel):
    """The table. Names with `_alone` are for one single buyer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    who: str = "{count} of {total} buyers"
    who_alone: str = "one of {total} buyers"
    who_only: str = "the only reviewer"
    praised: str = "{who} of {item} {claim}."
    also: str = "{who} {claim}."
    same_as_said: str = "You liked {liked} of {other}; {who} say the same of {item}."
    wanted: str = "You {want}: {who} of {item} {claim}."
    sought: str = "You {want}: {who} of {item} found just that."
    same_as_wanted: str = "You {want}; {who} say the same of {item}."
    same_as_wanted_alone: str = "You {want}; {who} says the same of {item}."
    as_with: str = "As with {other}, which you chose, {who} of {item} {claim}."
    bought_together: str = "Customers who chose {other} often choose {item} too."
    shared_words: str = "Like {other}, which you chose, {item} is about “{words}”."
    many_choose: str = "{item} is one of the items that customers choose most."
    some_chose: str = "{item} was chosen by other customers of this shop."
    nothing_known: str = "Nobody has written about {item} yet."
    caution: str = "{who} {claim}."
    attributes: str = "Buyers {list}."
    preference: str = "{list}."
    counted: str = "{text} ({count} of {total})"
    list_pair: str = "{first} and {last}"
    list_comma: str = ", "
    this_item: str = "this item"
    another_item: str = "an earlier purchase of yours"

    claim: KindFrames = KindFrames(
        feature="praise the {text}", quality="find it {text}", does="say that it {text}", mention="mention “{text}”"
    )
    claim_alone: KindFrames = KindFrames(
        feature="praises the {text}", quality="finds it {text}", does="says that it {text}", mention="mentions “{text}”"
    )
    complaint: KindFrames = KindFrames(
        feature="are not content with the {text}", quality="find it {text}", does="say that it {text}",
        mention="complain of “{text}”",
    )  # fmt: skip
    complaint_alone: KindFrames = KindFrames(
        feature="is not content with the {text}", quality="finds it {text}", does="says that it {text}",
        mention="complains of “{text}”",
    )  # fmt: skip
    attribute: KindFrames = KindFrames(
        feature="praise the {text}", quality="find it {text}", does="say that it {text}", mention="mention “{text}”"
    )
    want: KindFrames = KindFrames(
        feature="like the {text} of other items", quality="like what is {text}", does="like what {text}",
        want="look for {text}", mention="often mention “{text}”",
    )  # fmt: skip
    liking: KindFrames = KindFrames(
        feature="likes the {text}", quality="likes what is {text}", does="likes what {text}", want="looks for {text}",
        mention="often mentions “{text}”",
    )  # fmt: skip

    more: KindFrames = KindFrames(
        feature="the {text}", quality="{text}", does="{text}", want="{text}", mention="“{text}”"
    )  # fmt: skip
    """In a list, behind another of its kind: «likes the tone and the lid»."""

    @model_validator(mode="after")
    def _places(self) -> Self:
        for name, allowed in _PLACES.items():
            _check(name, getattr(self, name), allowed)
        for name in _BY_KIND:
            for kind, text in getattr(self, name).model_dump().items():
                _check(f"{name}.{kind}", text, {"text"})
        return self

    @classmethod
    def read(cls, path: Path) -> Frames:
        """A table from a JSON file; it must hold every frame, lest two languages meet in one sentence.

        Raises InputError naming the frame and what would be right.
        """
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path} is not a JSON file of sentence frames: {error}", field="explain_frames"
            ) from error
        missing = sorted(set(cls.model_fields) - set(table)) if isinstance(table, dict) else []
        if missing:
            raise InputError(f"{path} lacks the frames {', '.join(missing)}", field="explain_frames")
        try:
            return cls.model_validate(table)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"]) or "frames"
            raise InputError(f"{path}: {name}: {first['msg']}", field="explain_frames") from error


def _check(name: str, text: str, allowed: set[str]) -> None:
    used = {place for _, place, _, _ in Formatter().parse(text) if place is not None}
    if used - allowed:
        wrong, right = ", ".join(sorted(used - allowed)), ", ".join(sorted(allowed))
        raise ValueError(f"{name} has no place {{{wrong}}}; its places are {right}")
