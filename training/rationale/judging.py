"""From a raw answer to a verdict: ok, unparsed or ungrounded.

Pure; run anew on every distillation from the journal's raw answers, so that thresholds and the parser can change
without asking a teacher again.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from training.rationale.grounding import grounding, word_count
from training.rationale.parse import Rationale

Verdict = Literal["ok", "unparsed", "ungrounded"]


class Thresholds(BaseModel):
    """When a rationale is not to be trusted, and whether it may train all the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_review_words: int = Field(default=4, ge=0)
    """A teacher invents for shorter reviews (the paper's appendix A.2.1)."""
    min_grounding: float = Field(default=0.5, ge=0.0, le=1.0)
    keep_ungrounded: bool = False

    def worth_asking(self, review: str) -> bool:
        """A review too short to be used is not paid for, unless ungrounded rationales are kept."""
        return self.keep_ungrounded or not self.too_short(review)

    def too_short(self, review: str) -> bool:
        """Whether the review is under the length threshold."""
        return word_count(review) < self.min_review_words


class Judgement(BaseModel):
    """A verdict and why. `score` is None where there is no rationale to score."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: Verdict
    reason: Literal["", "no two sentences", "review too short", "not borne out"]
    score: float | None
    use: bool


def judge(rationale: Rationale | None, review: str, title: str | None, thresholds: Thresholds) -> Judgement:
    """Judge one review's rationale; None stands for an answer that could not be parsed, or was never asked for."""
    short = thresholds.too_short(review)
    if rationale is None:
        if not thresholds.worth_asking(review):
            return Judgement(verdict="ungrounded", reason="review too short", score=None, use=False)
        return Judgement(verdict="unparsed", reason="no two sentences", score=None, use=False)
    score = grounding(f"{rationale.user_preference} {rationale.item_attributes}", review, title or "")
    if short or score < thresholds.min_grounding:
        reason = "review too short" if short else "not borne out"
        return Judgement(verdict="ungrounded", reason=reason, score=score, use=thresholds.keep_ungrounded)
    return Judgement(verdict="ok", reason="", score=score, use=True)
