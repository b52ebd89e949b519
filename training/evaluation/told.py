"""What one way of explaining tells about held-out purchases, and the table's columns for it.

A `Told` is one explanation: the text as shown and, apart from frames and titles, what it claims of the item. Knows the
training reviews as evidence; what tells it is `explanations.py`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from rdrec_core.explaining import Explainer
from rdrec_core.statements import pair_codes
from rdrec_core.titles import short_title
from rdrec_core.whole_texts import is_whole
from training.data.dataset import Dataset
from training.data.explanations import feature_words
from training.evaluation.claims import (
    feature_metrics,
    features_in,
    nearness,
    precision_and_recall,
    sentences,
    share_of_own,
    unique_ratio,
)
from training.evaluation.text_metrics import score_texts
from training.rationale.grounding import content_stems, units
from training.rationale.languages import Language, languages_for
from training.signals.remembered import TextEncoder
from training.signals.statements import finder_for

_SAMPLE = 100_000


@dataclass(frozen=True)
class Told:
    """text: as shown; said: what it claims of the item; of_user: what it says that the user said.

    preference: None where nothing is known of the user.
    """

    text: str
    said: tuple[str, ...]
    of_user: tuple[str, ...] = ()
    preference: str | None = None
    basis: str = "text"


@dataclass(frozen=True)
class Asked:
    """Held-out purchases: user_index, item_index, text (the review), explanation (its sentence); and the histories."""

    rows: pl.DataFrame
    histories: tuple[np.ndarray, np.ndarray]
    """(indptr, items), as `Dataset.sequences`."""

    def __len__(self) -> int:
        return len(self.rows)

    def history(self, user: int) -> list[int]:
        """The user's items before the question, oldest first."""
        indptr, items = self.histories
        return items[indptr[user] : indptr[user + 1]].tolist()  # type: ignore[no-any-return]


class Judge:
    """Holds explanations against held-out reviews and against the evidence, the same for every row of a table."""

    def __init__(
        self, dataset: Dataset, asked: Asked, explainer: Explainer, encoder: TextEncoder | None = None
    ) -> None:
        """explainer: whose statements tell the lexicon, the names and the polarities of the items."""
        self._asked, self._explainer, self._encoder = asked, explainer, encoder
        reviews = dataset.reviews().filter(pl.col("split") == "train")
        sample = reviews.select("text").head(_SAMPLE).collect(engine="streaming")["text"].to_list()
        self._language: Language = languages_for("auto", iter(sample)).main
        self._features = feature_words(sample)
        self._finder, _ = finder_for(dataset)
        self._wrote = {
            side: dict(
                reviews.filter(pl.col(f"{side}_index").is_in(asked.rows[f"{side}_index"].unique().to_list()))
                .group_by(f"{side}_index")
                .agg("text")
                .collect(engine="streaming")
                .iter_rows()
            )
            for side in ("item", "user")
        }
        self._titles = dataset.items["title"]
        self._evidence: dict[tuple[str, int], frozenset[str]] = {}

    def columns(self, told: Sequence[Told]) -> tuple[dict[str, float], pl.DataFrame]:
        """The metrics, and a row a purchase: text, basis, precision, recall, and what is wrong with it.

        BLEU and ROUGE in percent against the user's sentence; all else as shares. Statement precision and recall are
        means over the purchases whose item has training reviews, saying nothing scoring 0.
        """
        rows = self._asked.rows
        scores = [
            precision_and_recall(t.said, text, self._language) for t, text in zip(told, rows["text"], strict=True)
        ]
        pairs = list(zip(told, rows["user_index"], rows["item_index"], rows["text"], strict=True))
        table = pl.DataFrame(
            {
                "user_index": rows["user_index"], "item_index": rows["item_index"],
                "explanation": rows["explanation"],
                "written": [t.text for t in told], "basis": [t.basis for t in told],
                "precision": [score[0] for score in scores], "recall": [score[1] for score in scores],
                "reviewed": [item in self._wrote["item"] for item in rows["item_index"]],
                "whole": [self._is_whole(t.text, user, item) for t, user, item, _ in pairs],
                "grounded": [self._is_grounded(t, user, item) for t, user, item, _ in pairs],
                "other_item": [self._names_another(t.text, user, item) for t, user, item, _ in pairs],
                "contradicts": [self._contradicts(t, item) for t, _, item, _ in pairs],
                "disputed": [self._is_disputed(t, text) for t, _, _, text in pairs],
            }
        )  # fmt: skip
        asked = table.filter("reviewed")
        named = [features_in(" ".join(t.said), self._features) for t in told]
        wanted = [features_in(text, self._features) for text in rows["explanation"]]
        preferences = dict(zip(rows["user_index"], (t.preference for t in told), strict=True))
        metrics: dict[str, float] = {
            **score_texts([t.text for t in told], rows["explanation"].to_list()),
            "statement precision": _mean(asked["precision"]), "statement recall": _mean(asked["recall"]),
            **(self._by_vectors(told, table["reviewed"]) if self._encoder is not None else {}),
            **feature_metrics(named, wanted, self._features),
            "USR": unique_ratio([t.text for t in told]), "USR of claims": unique_ratio([t.said for t in told]),
            "grounded": _mean(table["grounded"]), "whole": _mean(table["whole"]),
            "other items named": _mean(table["other_item"]), "contradictions": _mean(table["contradicts"]),
            "disputed by the review": _mean(table["disputed"]),
            "preference of their own": share_of_own(list(preferences.values())),
        }  # fmt: skip
        return metrics, table

    def facts(self) -> dict[str, Any]:
        """What the figures rest on."""
        reviewed = sum(item in self._wrote["item"] for item in self._asked.rows["item_index"])
        return {"language": self._language.code, "n_features": len(self._features), "n_reviewed": reviewed}

    def _by_vectors(self, told: Sequence[Told], reviewed: pl.Series) -> dict[str, float]:
        assert self._encoder is not None
        said = [list(t.said) for t in told]
        wrote = [sentences(text) for text in self._asked.rows["text"]]
        place: dict[str, int] = {}
        for text in (text for group in (*said, *wrote) for text in group):
            place.setdefault(text, len(place))
        vectors = self._encoder.encode(list(place))
        scores = [
            nearness(vectors[[place[text] for text in own]], vectors[[place[text] for text in theirs]])
            for own, theirs, counts in zip(said, wrote, reviewed, strict=True)
            if counts
        ]
        means = np.asarray(scores).mean(axis=0) if scores else (float("nan"), float("nan"))
        return {"precision by vectors": float(means[0]), "recall by vectors": float(means[1])}

    def _known_of(self, side: str, index: int) -> frozenset[str]:
        if (side, index) not in self._evidence:
            texts: list[str] = self._wrote[side].get(index, [])
            self._evidence[side, index] = frozenset(unit for text in texts for unit in units(text, self._language))
        return self._evidence[side, index]

    def _is_grounded(self, told: Told, user: int, item: int) -> bool:
        """Whether training reviews of the item (of what a user said, the user's) have every content word."""
        title = units(self._titles[item] or "", self._language)
        of_item, of_user = self._known_of("item", item) | frozenset(title), self._known_of("user", user)
        return _holds(of_item, told.said, self._language) and _holds(of_user, told.of_user, self._language)

    def _is_whole(self, text: str, user: int, item: int) -> bool:
        for place in (item, *self._asked.history(user)):  # whose titles may repeat words
            if title := self._titles[place]:
                text = text.replace(short_title(title), "it")
        return is_whole(text)

    def _names_another(self, text: str, user: int, item: int) -> bool:
        titles = " . ".join(self._titles[place] or "" for place in (item, *self._asked.history(user)))
        return bool(self._explainer.statements.named(text) - set(pair_codes(titles)))

    def _contradicts(self, told: Told, item: int) -> bool:
        statements = self._explainer.statements
        claims = [claim for text in told.said for claim in statements.claims(text)]
        return self._explainer.contradicts(claims, self._explainer.about(item))

    def _is_disputed(self, told: Told, review: str) -> bool:
        """Whether the held-out review blames what is told."""
        if not told.said:
            return False
        blamed = [self._stems(phrase.text) for phrase in self._finder.phrases(review) if phrase.polarity < 0]
        said = [self._stems(text) for text in told.said]
        return any(own and stems and (own <= stems or stems <= own) for own in said for stems in blamed)

    def _stems(self, text: str) -> set[int]:
        return {claim for claim in self._explainer.statements.claims(text) if claim is not None}


def _holds(evidence: frozenset[str], texts: Sequence[str], language: Language) -> bool:
    """A text without content words, such as «quality», must stand there word for word; an empty one stands nowhere."""
    spoken = [content_stems(text, language) or units(text, language) for text in texts]
    return all(stems and evidence.issuperset(stems) for stems in spoken)


def _mean(values: pl.Series) -> float:
    return float(values.cast(pl.Float64).mean() or 0.0) if len(values) else float("nan")  # type: ignore[arg-type]
