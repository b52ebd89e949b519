"""What a distillation yielded, for people: counts by verdict, the scores' histogram, samples of each verdict.

Fed row by row, keeps a bounded sample (reservoir sampling with a given generator). Renders to the terminal and to
Markdown; judges nothing.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from training.rationale.judging import Judgement
from training.rationale.parse import Rationale

SAMPLES = 20
BINS = 10
_REVIEW_CHARS = 300


@dataclass(frozen=True)
class JudgedReview:
    """One judged review as the report shows it."""

    review: str
    rationale: Rationale | None
    judgement: Judgement


@dataclass
class Report:
    """Accumulates; `rng` picks the samples."""

    rng: random.Random
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    used: int = 0
    histogram: list[int] = field(default_factory=lambda: [0] * BINS)
    samples: dict[tuple[str, str], list[JudgedReview]] = field(default_factory=dict)

    def add(self, sample: JudgedReview) -> None:
        """Count one row."""
        judgement = sample.judgement
        kind = (judgement.verdict, judgement.reason)
        self.counts[kind] += 1
        self.used += judgement.use
        if judgement.score is not None:
            self.histogram[min(int(judgement.score * BINS), BINS - 1)] += 1
        kept = self.samples.setdefault(kind, [])
        if len(kept) < SAMPLES:
            kept.append(sample)
        elif (place := self.rng.randrange(self.counts[kind])) < SAMPLES:
            kept[place] = sample

    @property
    def rows(self) -> int:
        """All rows judged."""
        return self.counts.total()

    def _kinds(self) -> list[tuple[tuple[str, str], int]]:
        return sorted(self.counts.items())

    def _bars(self, width: int) -> list[tuple[str, int, str]]:
        top = max(self.histogram) or 1
        return [
            (f"{n / BINS:.1f} to {(n + 1) / BINS:.1f}", count, "█" * round(width * count / top))
            for n, count in enumerate(self.histogram)
        ]

    def print(self, console: Console, samples: int = 3) -> None:
        """Verdicts and histogram, and the first few samples of each verdict."""
        verdicts = Table(
            "verdict", "why", "reviews", "share", title=f"{self.rows:,} reviews judged, {self.used:,} to train on"
        )
        for (verdict, reason), count in self._kinds():
            verdicts.add_row(verdict, reason, f"{count:,}", f"{count / self.rows:.1%}")
        scores = Table("grounding", "reviews", "", title="How much of a rationale the review bears out")
        for label, count, bar in self._bars(30):
            scores.add_row(label, f"{count:,}", bar)
        texts = []
        for (verdict, _), kept in sorted(self.samples.items()):
            for sample in kept[:samples]:
                texts.append(Text(f"{verdict:>10}  “{_cut(sample.review, 120)}”", style="dim"))
                if sample.rationale is not None:
                    texts.append(
                        Text(f"{'':>10}  {sample.rationale.user_preference} {sample.rationale.item_attributes}")
                    )
        console.print(Group(verdicts, scores, *texts))

    def markdown(self, title: str) -> str:
        """The whole report with SAMPLES samples of each verdict. Holds review text: mind where it goes."""
        lines = [f"# {title}", "", f"{self.rows} training reviews judged, {self.used} rationales to train on.", ""]
        lines += ["| verdict | why | reviews | share |", "|---|---|---:|---:|"]
        lines += [f"| {v} | {r} | {n} | {n / self.rows:.1%} |" for (v, r), n in self._kinds()]
        lines += ["", "| grounding | reviews | |", "|---|---:|---|"]
        lines += [f"| {label} | {count} | {bar} |" for label, count, bar in self._bars(20)]
        for (verdict, reason), kept in sorted(self.samples.items()):
            lines += ["", f"## {verdict}{': ' + reason if reason else ''}", ""]
            lines += ["| review | user_preference | item_attributes | score |", "|---|---|---|---:|"]
            for sample in kept:
                halves = sample.rationale or Rationale("", "")
                score = "" if sample.judgement.score is None else f"{sample.judgement.score:.2f}"
                cells = (_cut(sample.review, _REVIEW_CHARS), halves.user_preference, halves.item_attributes, score)
                lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |")
        return "\n".join(lines) + "\n"


def _cut(text: str, chars: int) -> str:
    return text if len(text) <= chars else f"{text[:chars].rsplit(' ', 1)[0]} …"
