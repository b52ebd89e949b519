"""What texts claim, held against what a user wrote: by stems, by vectors, by features, and how alike texts are.

Pure functions of texts. FMR, FCR and DIV as NETE and PETER define them (Li, Zhang and Chen, CIKM 2020 and ACL 2021),
USR as both do. Knows neither models nor statements.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence, Set

import numpy as np
import numpy.typing as npt

from training.rationale.grounding import content_stems, units
from training.rationale.languages import Language

_SENTENCE = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])|\n+")
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


def precision_and_recall(said: Sequence[str], review: str, language: Language) -> tuple[float, float]:
    """(share of the claims' content stems that the review has, share of the review's content stems that are claimed).

    Repeats count in the first and not in the second; saying nothing scores 0, as does a review without content.
    """
    claims = [stem for text in said for stem in content_stems(text, language)]
    wrote = set(units(review, language))
    content = set(content_stems(review, language))
    return (
        sum(stem in wrote for stem in claims) / len(claims) if claims else 0.0,
        len(content & set(claims)) / len(content) if content else 0.0,
    )


def sentences(text: str) -> list[str]:
    """A text's sentences that hold a letter."""
    return [part.strip() for part in _SENTENCE.split(text) if _WORD.search(part)]


def nearness(said: npt.NDArray[np.float32], review: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Precision and recall by vectors of length one: mean cosine of each claim (n, D) with its nearest sentence (m, D),
    and of each sentence with its nearest claim; 0 where either is empty."""
    if not len(said) or not len(review):
        return 0.0, 0.0
    cosines = said @ review.T
    return float(cosines.max(axis=1).mean()), float(cosines.max(axis=0).mean())


def features_in(text: str, features: Collection[str]) -> frozenset[str]:
    """Which features a text names, as words."""
    return frozenset(_WORD.findall(text.lower())) & frozenset(features)


def feature_metrics(
    named: Sequence[Set[str]], wanted: Sequence[Set[str]], features: Collection[str]
) -> dict[str, float]:
    """FMR, FCR and DIV of texts that name the features `named`, where users named `wanted`.

    FMR: of the texts whose user named any feature, the share that names one of those (the papers have one a sentence).
    FCR: share of all features that some text names. DIV: features that two texts share, the mean over all pairs of
    texts; the fewer, the more diverse. NaN where nothing can be divided.
    """
    asked = [bool(own & theirs) for own, theirs in zip(named, wanted, strict=True) if theirs]
    counts = Counter(feature for own in named for feature in own)
    pairs = len(named) * (len(named) - 1) / 2
    return {
        "FMR": sum(asked) / len(asked) if asked else float("nan"),
        "FCR": len(counts) / len(features) if features else float("nan"),
        "DIV": sum(n * (n - 1) / 2 for n in counts.values()) / pairs if pairs else float("nan"),
    }


def unique_ratio(texts: Sequence[object]) -> float:
    """USR: distinct ones over all; NaN of none."""
    return len(set(texts)) / len(texts) if texts else float("nan")


def share_of_own(texts: Sequence[str | None]) -> float:
    """Share of owners, a text each, who have one that nobody else has."""
    counts = Counter(texts)
    return sum(text is not None and counts[text] == 1 for text in texts) / len(texts) if texts else float("nan")
