"""Statements: what training reviews say of items and of users, in short phrases, counted, as flat arrays.

Built by `training/signals/statements.py`. An owner (an item, or a user) has a bounded number of rows, the most telling
first. A phrase is about some stems; two phrases that share stems speak of alike things, whatever their language: the
stems are numbers here. Knows neither how phrases are found nor how an answer is worded (`explaining.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from rdrec_core.bundle import Bundle
from rdrec_core.catalog import Arrays, StringTable
from rdrec_core.withdrawing import Sources, Withdrawn
from rdrec_core.words import words

GROUP = "statements"
"""The bundle's array group."""
FUNCTION_WORD, PERSONAL = -1, -2
"""In the lexicon, instead of a stem: a word that claims nothing; one of a first person."""
_NONE = np.empty(0, dtype=np.int32)


class Kind(IntEnum):
    """What part of a sentence a phrase can be."""

    FEATURE = 0
    """A noun phrase without article: «clear tone»."""
    QUALITY = 1
    """What the item is: «easy to use»."""
    DOES = 2
    """What the item does: «works well»."""
    WANT = 3
    """What somebody looks for: «toys that survive rough hands»."""
    MENTION = 4
    """Words that recur, of a language whose grammar is not known here."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One row: `count` of `total` reviews say it; polarity 1 praises, -1 blames.

    total: the owner's reviews with text. heard: how many of those speak of it, whatever they say, the mean over its
    stems. item: where a user said it last, -1 unknown.
    """

    text: str
    kind: Kind
    polarity: int
    count: int
    total: int
    heard: float
    rating: float | None
    stems: tuple[int, ...]
    item: int = -1
    quote: str | None = None

    @property
    def share(self) -> float:
        """Of the reviews with text."""
        return self.count / self.total


@dataclass(frozen=True)
class Rows:
    """The statements of one side, n owners and R rows, as CSR.

    indptr (n + 1,) int64; text, item, quote (R,) int32 (-1 for none); kind, polarity (R,) int8; count (R,) uint16;
    heard, rating (R,) float32, NaN unknown; total (n,) uint16.
    """

    indptr: npt.NDArray[np.int64]
    text: npt.NDArray[np.int32]
    kind: npt.NDArray[np.int8]
    polarity: npt.NDArray[np.int8]
    count: npt.NDArray[np.uint16]
    heard: npt.NDArray[np.float32]
    rating: npt.NDArray[np.float32]
    item: npt.NDArray[np.int32]
    quote: npt.NDArray[np.int32]
    total: npt.NDArray[np.uint16]

    NAMES = ("indptr", "text", "kind", "polarity", "count", "heard", "rating", "item", "quote", "total")

    def __len__(self) -> int:
        return len(self.total)

    @classmethod
    def empty(cls) -> Rows:
        """Of nobody."""
        kinds = (
            np.int64, np.int32, np.int8, np.int8, np.uint16, np.float32, np.float32, np.int32, np.int32, np.uint16,
        )  # fmt: skip
        return cls(*(np.zeros(int(n == 0), dtype=kind) for n, kind in enumerate(kinds)))


class Statements:
    """See the module. Immutable; any thread may ask."""

    def __init__(
        self,
        users: Rows,
        items: Rows,
        texts: StringTable,
        text_stems: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]],
        idf: npt.NDArray[np.float32],
        lexicon: StringTable,
        lexicon_stems: npt.NDArray[np.int32],
        tone: npt.NDArray[np.int8],
        names: npt.NDArray[np.int64],
        quotes: StringTable,
        language: str = "und",
        sources: Sources | None = None,
    ) -> None:
        """texts: T phrases; text_stems: their stems as CSR; idf, tone (S,): how rare a stem is, and whether it praises
        (1) or blames (-1) by itself; lexicon: words with their stem, FUNCTION_WORD or PERSONAL; names:
        `pair_codes` of the words that name an item, ascending; language: ISO 639-1 of the reviews; sources: who said
        what of items, so that it can be taken out."""
        self.language = language
        self.sources = sources or Sources.empty()
        self.users, self.items, self.texts, self.quotes = users, items, texts, quotes
        self.text_stems, self.idf, self.tone, self.names = text_stems, idf, tone, names
        self.lexicon, self.lexicon_stems = lexicon, lexicon_stems
        self.rate = np.exp(-idf)
        """Share of all reviews that hold a stem, (S,)."""

    @classmethod
    def none(cls) -> Statements:
        """Of a bundle without any."""
        no_text = StringTable.from_strings(())
        stems = (np.zeros(1, dtype=np.int64), _NONE)
        return cls(
            Rows.empty(), Rows.empty(), no_text, stems, np.empty(0, dtype=np.float32), no_text, _NONE,
            np.empty(0, dtype=np.int8), np.empty(0, dtype=np.int64), no_text,
        )  # fmt: skip

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> Statements:
        """The bundle's statements, none where it has none."""
        return cls.from_arrays(bundle.arrays(GROUP))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> Statements:
        """Read what `arrays` wrote; no arrays are no statements."""
        if not arrays:
            return cls.none()
        earlier = {f"{side}.heard": arrays[f"{side}.count"].astype(np.float32) for side in ("users", "items")}
        known = {**earlier, **arrays}  # bundles from before have no `heard`
        users, items = (Rows(*(known[f"{side}.{name}"] for name in Rows.NAMES)) for side in ("users", "items"))  # type: ignore[arg-type]
        return cls(
            users, items, StringTable.from_arrays(arrays, "texts"),
            (arrays["text_stems.indptr"], arrays["text_stems.stems"]),  # type: ignore[arg-type]
            arrays["idf"], StringTable.from_arrays(arrays, "lexicon"), arrays["lexicon.stems"],  # type: ignore[arg-type]
            arrays["tone"], arrays["names"], StringTable.from_arrays(arrays, "quotes"),  # type: ignore[arg-type]
            bytes(arrays["language"].tolist()).decode(),
            Sources(*(arrays[f"sources.{name}"] for name in Sources.NAMES)) if "sources.said" in arrays else None,  # type: ignore[arg-type]
        )  # fmt: skip

    def arrays(self) -> Arrays:
        """Everything, for `BundleWriter.add_arrays(GROUP, ...)`."""
        sides = {
            f"{side}.{name}": getattr(rows, name)
            for side, rows in (("users", self.users), ("items", self.items))
            for name in Rows.NAMES
        }
        return {
            **sides, **self.texts.arrays("texts"), **self.lexicon.arrays("lexicon"), **self.quotes.arrays("quotes"),
            "text_stems.indptr": self.text_stems[0], "text_stems.stems": self.text_stems[1],
            "idf": self.idf, "tone": self.tone, "names": self.names, "lexicon.stems": self.lexicon_stems,
            "language": np.frombuffer(self.language.encode(), dtype=np.uint8),
            **{f"sources.{name}": getattr(self.sources, name) for name in Sources.NAMES},
        }  # fmt: skip

    def of_user(self, user_index: int | None) -> list[Statement]:
        """A user's statements, the most telling first; none of somebody unknown."""
        return self._of(self.users, user_index, None)

    def of_item(self, item_index: int, withdrawn: Withdrawn | None = None) -> list[Statement]:
        """An item's statements, the most telling first; without what only withdrawn reviews say, nor their share."""
        return self._of(self.items, item_index, withdrawn)

    def stems_of(self, text: int) -> npt.NDArray[np.int32]:
        """What a phrase is about, ascending."""
        indptr, stems = self.text_stems
        return stems[indptr[text] : indptr[text + 1]]

    def codes(self, spoken: Sequence[str]) -> list[int | None]:
        """The lexicon's number of each of some `words`; None for one that no training text holds."""
        places = [self.lexicon.find(word) for word in spoken]
        return [None if place is None else int(self.lexicon_stems[place]) for place in places]

    def claims(self, text: str) -> list[int | None]:
        """The stems of any text's content words, repeats included; None for a word that no training text holds."""
        spoken = [word for word in words(text) if not word.isdigit()]
        return [code for code in self.codes(spoken) if code is None or code >= 0]

    def named(self, text: str) -> set[int]:
        """`pair_codes` of a text that name some item."""
        return names_in(text, self.names)

    def _of(self, rows: Rows, owner: int | None, withdrawn: Withdrawn | None) -> list[Statement]:
        if owner is None or not 0 <= owner < len(rows):
            return []
        total = int(rows.total[owner]) - (withdrawn.reviews[owner] if withdrawn else 0)
        out = []
        for row in range(int(rows.indptr[owner]), int(rows.indptr[owner + 1])):
            gone = withdrawn.rows[row] if withdrawn else 0
            text, quote, rating = int(rows.text[row]), int(rows.quote[row]), float(rows.rating[row])
            if (count := int(rows.count[row]) - gone) <= 0:
                continue
            out.append(
                Statement(
                    self.texts[text], Kind(int(rows.kind[row])), int(rows.polarity[row]), count, max(total, count),
                    max(min(float(rows.heard[row]), total), count),
                    None if np.isnan(rating) else rating,
                    tuple(self.stems_of(text).tolist()), int(rows.item[row]),
                    None if quote < 0 or gone else self.quotes[quote],  # whose the quoted words are is not kept
                )
            )  # fmt: skip
        return out


def pair_codes(text: str) -> list[int]:
    """A number for each two words that stand together; names of items are known by them."""
    spoken = words(text)
    return [
        int.from_bytes(blake2b(f"{first} {second}".encode(), digest_size=8).digest(), "big", signed=True)
        for first, second in pairwise(spoken)
    ]


def names_in(text: str, names: npt.NDArray[np.int64]) -> set[int]:
    """`pair_codes` of a text that are among some names, which ascend."""
    codes = pair_codes(text)
    if not codes or not len(names):
        return set()
    at = np.minimum(np.searchsorted(names, codes), len(names) - 1)
    return set(np.asarray(codes)[names[at] == codes].tolist())
