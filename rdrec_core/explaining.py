"""Why this item for this user: statements chosen, worded by frames, and a written text let through if they bear it out.

The same for the service, which answers with it, and for the evaluation, which measures it. Knows statements, titles and
which items of the history speak for the item; neither HTTP nor the model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rdrec_core.frames import Frames, KindFrames
from rdrec_core.statements import PERSONAL, Kind, Statement, Statements, pair_codes
from rdrec_core.words import words

Basis = Literal["statements", "model", "catalogue"]
Refusal = Literal["empty", "not whole", "first person", "names another item", "contradicts", "not borne out"]
CAUTION_SHARE = 0.1
"""A complaint is told from this share of the reviews on."""
MAX_TEXT_WORDS = 60
_PRIOR = 8.0
"""Reviews that speak as the whole shop does, added to an item's own: one buyer of one is less than seven of nine."""
_AFFINITY = 1.0
"""How much louder a statement is that meets what the user wants most; both chosen on validation reviews."""
_MOST = 3
"""Statements in a list of preferences or attributes."""
_WHOLE = re.compile(r"^[^\W_].*[.!?。！？…][\"'»”)]*$", re.DOTALL)
_TITLE_ENDS = re.compile(r"\s+[-–|(\[]\s*|\s*[(\[|,;]\s*|\s+with\s+")
_LONG_TITLE = 60


@dataclass(frozen=True, slots=True)
class Used:
    """A statement that an explanation speaks from."""

    about: Literal["user", "item"]
    statement: Statement


@dataclass(frozen=True, slots=True)
class Explained:
    """An answer in words. refused: why the model's text was not taken; None where there was none or it was."""

    text: str
    basis: Basis
    used: tuple[Used, ...]
    user_preference: str | None
    item_attributes: str | None
    caution: str | None
    refused: Refusal | None = None


class Explainer:
    """One for a bundle; any thread may ask."""

    def __init__(
        self,
        statements: Statements,
        frames: Frames,
        title: Callable[[int], str | None],
        popularity: Callable[[int], float] = lambda _: 0.0,
    ) -> None:
        """popularity: 1 for the most chosen item of the catalogue, 0 for one that nobody chose."""
        self.statements, self._frames, self._title, self._popularity = statements, frames, title, popularity

    def explain(
        self,
        item: int,
        user: int | None,
        history: Sequence[int],
        support: Sequence[int] = (),
        written: str | None = None,
    ) -> Explained:
        """support: items of the history that speak for the item, the strongest first; written: the model's text."""
        about_item = self.statements.of_item(item)
        about_user = self.statements.of_user(user)
        used, text = self._from_statements(item, about_item, about_user, history, support)
        basis: Basis = "statements" if used else "catalogue"
        refused = None if written is None else self.refusal(written, item, about_item)
        if written is not None and refused is None:
            basis, text = "model", written.strip()
            said = {claim for claim in self.statements.claims(written) if claim is not None}
            used = tuple(Used("item", s) for s in about_item if said & set(s.stems))
        return Explained(
            text or self._from_catalogue(item, history, support), basis, used, self._preference(about_user),
            self._attributes(about_item), self._caution(about_item), refused,
        )  # fmt: skip

    # ---- choosing ---------------------------------------------------------------------------------------------------

    def _from_statements(
        self,
        item: int,
        about_item: Sequence[Statement],
        about_user: Sequence[Statement],
        history: Sequence[int],
        support: Sequence[int],
    ) -> tuple[tuple[Used, ...], str]:
        own = self.weights(about_user)
        nearest = {}
        if not own:
            others = [h for h in dict.fromkeys([*support, *reversed(history)]) if h != item][:10]
            nearest = {h: self.statements.of_item(h) for h in others}
            own = self.weights([s for rows in nearest.values() for s in rows])
        ranked = self.ranked(about_item, own)
        if not ranked:
            return (), ""
        best = ranked[0]
        met = next((u for u in about_user if u.polarity > 0 and set(u.stems) == set(best.stems)), None) or next(
            (u for u in about_user if u.polarity > 0 and set(u.stems) & set(best.stems)), None
        )
        second = next((s for s in ranked[1:] if s.count > 1 and not set(s.stems) & set(best.stems)), None)
        used = [Used("item", best)]
        if met is not None:
            used.insert(0, Used("user", met))
            text = self._met(item, best, met, history)
        else:
            alike = next((h for h, rows in nearest.items() if _says(rows, best)), None)
            frame = self._frames.praised if alike is None else self._frames.as_with
            text = self._fill(frame, item, best, other=None if alike is None else alike)
        if second is not None:
            used.append(Used("item", second))
            text += " " + self._also(second)
        return tuple(used), text

    def weights(self, wanted: Sequence[Statement]) -> dict[int, float]:
        """What somebody wants, as stems with weights that add up to one."""
        out: dict[int, float] = {}
        for statement in wanted:
            if statement.polarity > 0:
                for stem in statement.stems:
                    out[stem] = out.get(stem, 0.0) + statement.count * float(self.statements.idf[stem])
        total = sum(out.values())
        return {stem: weight / total for stem, weight in out.items()} if total else {}

    def ranked(self, about_item: Sequence[Statement], wanted: Mapping[int, float]) -> list[Statement]:
        """What may be said for an item, the most telling first: said by many, and of what is wanted."""
        blamed: dict[tuple[int, ...], int] = {s.stems: s.count for s in about_item if s.polarity < 0}
        praise = [s for s in about_item if s.polarity > 0 and s.count > blamed.get(s.stems, 0) and s.stems]
        top = max(wanted.values(), default=1.0)

        def telling(statement: Statement) -> float:
            stems = statement.stems
            usual = sum(float(self.statements.rate[stem]) for stem in stems) / len(stems)
            said = (statement.count + _PRIOR * usual) / (statement.total + _PRIOR)
            meets = sum(wanted.get(stem, 0.0) for stem in stems) / (top * len(stems))
            return said * (1 + _AFFINITY * meets)

        return sorted(praise, key=lambda s: -telling(s))

    # ---- wording ----------------------------------------------------------------------------------------------------

    def _met(self, item: int, best: Statement, met: Statement, history: Sequence[int]) -> str:
        frames = self._frames
        same = set(met.stems) == set(best.stems) and met.kind is Kind.FEATURE and best.kind is Kind.FEATURE
        if same and met.item in history and met.item != item and best.count > 1 and self._title(met.item):
            return _sentence(
                frames.same_as_said, liked=f"the {met.text}", other=self._name(met.item), who=self._who(best),
                item=self._name(item),
            )  # fmt: skip
        return self._fill(frames.wanted, item, best, want=_worded(frames.want, met))

    def _fill(
        self, frame: str, item: int, statement: Statement, *, other: int | None = None, want: str | None = None
    ) -> str:
        return _sentence(
            frame, who=self._who(statement), item=self._name(item), claim=self._claim(statement), want=want,
            other=None if other is None else self._name(other, another=True),
        )  # fmt: skip

    def _also(self, statement: Statement) -> str:
        return _sentence(self._frames.also, who=self._who(statement), claim=self._claim(statement))

    def _who(self, statement: Statement) -> str:
        frame = self._frames.who if statement.count > 1 else self._frames.who_alone
        return frame.format(count=statement.count, total=statement.total)

    def _claim(self, statement: Statement) -> str:
        return _worded(self._frames.claim if statement.count > 1 else self._frames.claim_alone, statement)

    def _name(self, item: int, *, another: bool = False) -> str:
        title = self._title(item)
        return short_title(title) if title else self._frames.another_item if another else self._frames.this_item

    def _preference(self, about_user: Sequence[Statement]) -> str | None:
        liked = [s for s in about_user if s.polarity > 0][:_MOST]
        if not liked:
            return None
        return _sentence(self._frames.preference, list=self._list([_worded(self._frames.liking, s) for s in liked]))

    def _attributes(self, about_item: Sequence[Statement]) -> str | None:
        praise = self.ranked(about_item, {})[:_MOST]
        if not praise:
            return None
        counted = [
            self._frames.counted.format(text=_worded(self._frames.attribute, s), count=s.count, total=s.total)
            for s in praise
        ]
        return _sentence(self._frames.attributes, list=self._list(counted))

    def _list(self, parts: Sequence[str]) -> str:
        *first, last = parts
        return self._frames.list_pair.format(first=self._frames.list_comma.join(first), last=last) if first else last

    def _caution(self, about_item: Sequence[Statement]) -> str | None:
        blame = [s for s in about_item if s.polarity < 0 and s.share >= CAUTION_SHARE]
        if not blame:
            return None
        worst = max(blame, key=lambda s: s.count)
        table = self._frames.complaint if worst.count > 1 else self._frames.complaint_alone
        return _sentence(self._frames.caution, who=self._who(worst), claim=_worded(table, worst))

    def _from_catalogue(self, item: int, history: Sequence[int], support: Sequence[int]) -> str:
        frames, name = self._frames, self._name(item)
        for other in support:
            return _sentence(frames.bought_together, other=self._name(other, another=True), item=name)
        title = self._title(item)
        for other in reversed(history):
            shared = shared_words(title, self._title(other)) if other != item else ""
            if shared:
                return _sentence(frames.shared_words, words=shared, other=self._name(other), item=name)
        popularity = self._popularity(item)
        frame = (
            frames.many_choose if popularity > 0.9 else frames.some_chose if popularity > 0 else frames.nothing_known
        )
        return _sentence(frame, item=name)

    # ---- the model's own words --------------------------------------------------------------------------------------

    def refusal(self, text: str, item: int, about_item: Sequence[Statement]) -> Refusal | None:
        """Why a written text may not be served, or None where the statements bear all of it out."""
        spoken = words(text)
        if not spoken:
            return "empty"
        pairs = pair_codes(text)
        if not _WHOLE.match(text.strip()) or not 3 <= len(spoken) <= MAX_TEXT_WORDS or len(set(pairs)) < len(pairs):
            return "not whole"
        if any(code == PERSONAL for code in self.statements.codes(spoken)):
            return "first person"
        if self.statements.named(text) - set(pair_codes(self._title(item) or "")):
            return "names another item"
        claims = self.statements.claims(text)
        blamed = {stem for s in about_item if s.polarity < 0 for stem in s.stems}
        praised = {stem for s in about_item if s.polarity > 0 for stem in s.stems}
        if any(c is not None and (c in blamed - praised or self.statements.tone[c] < 0) for c in claims):
            return "contradicts"
        if not claims or any(claim is None or claim not in praised for claim in claims):
            return "not borne out"
        return None


def _says(rows: Sequence[Statement], statement: Statement) -> bool:
    return any(s.polarity > 0 and s.stems == statement.stems and s.count > 1 for s in rows)


def _worded(table: KindFrames, statement: Statement) -> str:
    frame: str = getattr(table, statement.kind.name.lower())
    return frame.format(text=statement.text)


def _sentence(frame: str, **places: str | None) -> str:
    text = frame.format(**{name: value for name, value in places.items() if value is not None})
    return text[0].upper() + text[1:]


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
