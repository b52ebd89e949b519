"""Does a bundle answer as a shop may show it? Asked before it is served, whatever its figures were.

Opens the bundle as a service would and asks for lists: known users, strangers with a history, nobody at all. Knows
bundles and rankings, not where the bundle goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rdrec_core.bundle import Bundle
from rdrec_core.engines.onnx_engine import OnnxEngine
from rdrec_core.errors import RDRecError
from rdrec_core.ranked import Ranking
from rdrec_core.ranking import Ranker
from rdrec_core.types import RankRequest

N_USERS = 64
N_LISTED = 10
_DISTINCT = 2
"""So many times the length of a list must be shown over all users together: one list for everybody is no answer."""


@dataclass(frozen=True)
class Check:
    """One question to the bundle; detail says what was found."""

    name: str
    passed: bool
    detail: str


def checks(path: Path, *, seed: int = 0) -> list[Check]:
    """Every check, in order; the first ones fail where the bundle cannot be opened, and then no other is made."""
    try:
        bundle = Bundle.open(path)
        ranker = Ranker.of_bundle(bundle, OnnxEngine.from_bundle(bundle))
    except RDRecError as error:
        return [Check("opens", False, str(error))]
    found = [Check("opens", True, f"{len(bundle.manifest.files)} files as the manifest says, an engine from them")]
    try:
        return found + _answers(bundle, ranker, np.random.default_rng(seed))
    except Exception as error:  # whatever a bad bundle makes an engine raise
        return [*found, Check("answers", False, f"{type(error).__name__}: {error}")]


def _answers(bundle: Bundle, ranker: Ranker, rng: np.random.Generator) -> list[Check]:
    n_items = bundle.manifest.n_items
    n_listed = min(N_LISTED, n_items)
    users = rng.permutation(len(bundle.users))[:N_USERS]
    histories = {int(user): tuple(bundle.users.history(int(user)).tolist()) for user in users}
    known = [RankRequest(user, h, n_items=n_listed, exclude=tuple(set(h))) for user, h in histories.items()]
    strangers = [RankRequest(None, h, n_items=n_listed, exclude=tuple(set(h))) for h in histories.values() if h]
    nobody = [RankRequest(None, (), n_items=n_listed)]
    out = []
    shown: set[int] = set()
    for name, requests in (("known users", known), ("strangers with a history", strangers), ("nobody", nobody)):
        answers = ranker.recommend(requests) if requests else []
        faults = [fault for r, a in zip(requests, answers, strict=True) if (fault := _fault(r, a, n_items))]
        shown |= {int(item) for answer in answers for item in answer.item_indices}
        detail = f"{len(faults)} of {len(requests)}: {faults[0]}" if faults else f"{len(requests)} asked"
        out.append(Check(f"lists for {name}", not faults, detail))
    wanted = min(_DISTINCT * n_listed, n_items)
    out.append(
        Check(
            "lists differ", len(shown) >= wanted or len(users) < _DISTINCT,
            f"{len(shown)} items in the lists of {len(users)} users, at least {wanted} wanted",
        )
    )  # fmt: skip
    return out


def _fault(request: RankRequest, answer: Ranking, n_items: int) -> str | None:
    items, scores = answer.item_indices, answer.scores
    wanted = min(request.n_items, n_items - len(request.exclude))
    if len(items) < wanted:
        return f"{len(items)} items of {wanted}"
    if len(set(items.tolist())) < len(items):
        return "an item twice"
    if not np.isfinite(scores).all():
        return "a score that is no number"
    if np.isin(items, request.exclude).any():
        return "an item that was excluded"
    return None
