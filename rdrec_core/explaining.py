"""Why this item for this user: statements chosen, worded by frames, and a written text let through if they bear it out.

The same for the service, which answers with it, and for the evaluation, which measures it. Knows statements, titles and
which items of the history speak for the item; neither HTTP nor the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rdrec_core.frames import Frames, KindFrames
from rdrec_core.statements import PERSONAL, Kind, Statement, Statements, pair_codes
from rdrec_core.titles import shared_words, short_title
from rdrec_core.whole_texts import is_whole
from rdrec_core.withdrawing import Withdrawn
from rdrec_core.words import words

Basis = Literal["statements", "model", "catalogue"]
Refusal = Literal["empty", "not whole", "first person", "names another item", "contradicts", "not borne out"]
CAUTION_SHARE = 0.1
"""A complaint is told from this share of the reviews on."""
_PRIOR = 6.0
"""Reviews that speak as the whole shop does, added to an item's own: one buyer of one is less than seven of nine."""
_SILENT = 4.0
"""Reviews that speak of a thing without praising it, added likewise."""
_AFFINITY = 2.0
"""How much louder a statement is that meets what the user wants most; these were chosen on validation reviews."""
_SECOND = 0.5
"""A second statement follows where it tells at least so much of what the first one does."""
_MOST = 3
"""Statements in a list of preferences or attributes."""


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
        self.withdrawn = Withdrawn(statements.sources)
        """Whose reviews no longer count."""

    def about(self, item: int) -> list[Statement]:
        """What still counts of what is said of an item, the most telling first."""
        return self.statements.of_item(item, self.withdrawn)

    def explain(
        self,
        item: int,
        user: int | None,
        history: Sequence[int],
        support: Sequence[int] = (),
        written: str | None = None,
    ) -> Explained:
        """support: items of the history that speak for the item, the strongest first; written: the model's text."""
        about_item = self.about(item)
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

    def praise(self, item: int, statement: Statement) -> str:
        """The sentence that tells one statement of an item."""
        return self._fill(self._frames.praised, item, statement)

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
            nearest = {h: self.about(h) for h in others}
            own = self.weights([s for rows in nearest.values() for s in rows])
        ranked = self.ranked(about_item, own)
        if not ranked:
            return (), ""
        best = ranked[0]
        met = next((u for u in about_user if u.polarity > 0 and set(u.stems) == set(best.stems)), None) or next(
            (u for u in about_user if u.polarity > 0 and self._meets(u, best)), None
        )
        enough = _SECOND * self._telling(best, {})
        apart = (s for s in ranked[1:] if s.count > 1 and not set(s.stems) & set(best.stems))
        second = next((s for s in apart if self._telling(s, {}) >= enough), None)
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
        """What may be said for an item, the most telling first: spoken of by many, praised by those, and wanted."""
        blamed: dict[tuple[int, ...], int] = {s.stems: s.count for s in about_item if s.polarity < 0}
        praise = [s for s in about_item if s.polarity > 0 and s.count > blamed.get(s.stems, 0) and s.stems]
        return sorted(praise, key=lambda s: -self._telling(s, wanted))

    def _telling(self, statement: Statement, wanted: Mapping[int, float]) -> float:
        stems = statement.stems
        usual = sum(float(self.statements.rate[stem]) for stem in stems) / len(stems)
        spoken_of = (statement.heard + _PRIOR * usual) / (statement.total + _PRIOR)
        # what everybody mentions and hardly anybody praises is what the item is, such as «strings»
        praised = (statement.count + 0.5) / (statement.heard + _SILENT)
        top = max(wanted.values(), default=1.0)
        meets = sum(wanted.get(stem, 0.0) for stem in stems) / (top * len(stems))
        return float(spoken_of * praised**0.5 * (1 + _AFFINITY * meets))

    def _meets(self, of_user: Statement, of_item: Statement) -> bool:
        """Whether two phrases are about one thing: what one of them names last is in both."""
        shared = set(of_user.stems) & set(of_item.stems)
        if not shared:  # nearly always, and looking words up costs more than all else
            return False
        heads = self.statements.claims(of_user.text)[-1:] + self.statements.claims(of_item.text)[-1:]
        return not shared.isdisjoint(heads)

    # ---- wording ----------------------------------------------------------------------------------------------------

    def _met(self, item: int, best: Statement, met: Statement, history: Sequence[int]) -> str:
        frames = self._frames
        same, alike = set(met.stems) == set(best.stems), met.kind is best.kind
        if (
            same
            and alike
            and met.kind is Kind.FEATURE
            and met.item in history
            and met.item != item
            and best.count > 1
            and self._title(met.item)
        ):
            return _sentence(
                frames.same_as_said, liked=f"the {met.text}", other=self._name(met.item), who=self._who(best),
                item=self._name(item),
            )  # fmt: skip
        frame = frames.wanted
        if same and met.kind is Kind.WANT:
            frame = frames.sought
        elif same and alike:
            frame = frames.same_as_wanted if best.count > 1 else frames.same_as_wanted_alone
        return self._fill(frame, item, best, want=_worded(frames.want, met))

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
        frames = self._frames
        frame = frames.who if statement.count > 1 else frames.who_alone if statement.total > 1 else frames.who_only
        return frame.format(count=statement.count, total=statement.total)

    def _claim(self, statement: Statement) -> str:
        return _worded(self._frames.claim if statement.count > 1 else self._frames.claim_alone, statement)

    def _name(self, item: int, *, another: bool = False) -> str:
        title = self._title(item)
        return short_title(title) if title else self._frames.another_item if another else self._frames.this_item

    def _preference(self, about_user: Sequence[Statement]) -> str | None:
        liked = self._apart([s for s in about_user if s.polarity > 0])
        if not liked:
            return None
        return _sentence(self._frames.preference, list=self._listed(self._frames.liking, liked, counted=False))

    def _attributes(self, about_item: Sequence[Statement]) -> str | None:
        praise = self._apart(self.ranked(about_item, {}))
        if not praise:
            return None
        return _sentence(self._frames.attributes, list=self._listed(self._frames.attribute, praise, counted=True))

    def _apart(self, statements: Sequence[Statement]) -> list[Statement]:
        """The first few that are each about something else."""
        kept: list[Statement] = []
        for statement in statements:
            if len(kept) < _MOST and not any(self._meets(statement, other) for other in kept):
                kept.append(statement)
        return kept

    def _listed(self, table: KindFrames, statements: Sequence[Statement], *, counted: bool) -> str:
        """Statements as a list in which those of a kind stand together and share their verb."""
        kinds: dict[Kind, list[str]] = {}
        for statement in statements:
            group = kinds.setdefault(statement.kind, [])
            text = _worded(self._frames.more if group else table, statement)
            group.append(
                self._frames.counted.format(text=text, count=statement.count, total=statement.total)
                if counted
                else text
            )
        return self._list([self._list(group) for group in kinds.values()])

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
        if not (spoken := words(text)):
            return "empty"
        if not is_whole(text):
            return "not whole"
        if any(code == PERSONAL for code in self.statements.codes(spoken)):
            return "first person"
        if self.statements.named(text) - set(pair_codes(self._title(item) or "")):
            return "names another item"
        claims = self.statements.claims(text)
        if self.contradicts(claims, about_item):
            return "contradicts"
        praised = {stem for s in about_item if s.polarity > 0 for stem in s.stems}
        if not claims or any(claim is None or claim not in praised for claim in claims):
            return "not borne out"
        return None

    def contradicts(self, claims: Sequence[int | None], about_item: Sequence[Statement]) -> bool:
        """Whether some claim is blamed, of this item or by its own words, and praised by nobody."""
        blamed = {stem for s in about_item if s.polarity < 0 for stem in s.stems}
        praised = {stem for s in about_item if s.polarity > 0 for stem in s.stems}
        known = {claim for claim in claims if claim is not None} - praised
        return any(claim in blamed or self.statements.tone[claim] < 0 for claim in known)


def _says(rows: Sequence[Statement], statement: Statement) -> bool:
    return any(s.polarity > 0 and s.stems == statement.stems and s.count > 1 for s in rows)


def _worded(table: KindFrames, statement: Statement) -> str:
    frame: str = getattr(table, statement.kind.name.lower())
    return frame.format(text=statement.text)


def _sentence(frame: str, **places: str | None) -> str:
    text = frame.format(**{name: value for name, value in places.items() if value is not None})
    return text[0].upper() + text[1:]
