"""From a raw answer to a verdict: ok, unparsed, ungrounded or other_language.

Pure; run anew on every distillation from the journal's raw answers, so that thresholds and the parser can change
without asking a teacher again.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from training.rationale.grounding import grounding
from training.rationale.languages import ENGLISH, Language, detect, word_count
from training.rationale.parse import Rationale

Verdict = Literal["ok", "unparsed", "ungrounded", "other_language"]


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
    reason: str
    """Empty for ok; else "no two sentences", "review too short", "not borne out" or "German instead of English"."""
    score: float | None
    use: bool


def judge(
    rationale: Rationale | None,
    review: str,
    title: str | None,
    thresholds: Thresholds,
    *,
    language: Language = ENGLISH,
    last_answer: str = "",
) -> Judgement:
    """Judge one review's rationale; None stands for an answer that could not be parsed, or was never asked for.

    language: the one that was asked for. last_answer: the raw words behind a rationale that could not be parsed.
    """
    if rationale is None and not thresholds.worth_asking(review):
        return Judgement(verdict="ungrounded", reason="review too short", score=None, use=False)
    text = last_answer if rationale is None else f"{rationale.user_preference} {rationale.item_attributes}"
    written = detect(text)
    if written is not None and written is not language:
        reason = f"{written.name} instead of {language.name}"
        return Judgement(verdict="other_language", reason=reason, score=None, use=False)
    if rationale is None:
        return Judgement(verdict="unparsed", reason="no two sentences", score=None, use=False)
    short = thresholds.too_short(review)
    score = grounding(text, review, title or "", language=language)
    if short or score < thresholds.min_grounding:
        reason = "review too short" if short else "not borne out"
        return Judgement(verdict="ungrounded", reason=reason, score=score, use=thresholds.keep_ungrounded)
    return Judgement(verdict="ok", reason="", score=score, use=True)
