"""Text search: greedy, beam and diverse (group) beam search over candidate tokens, in NumPy.

One algorithm. The W beams of a request are split into G groups of g = W / G. At each step the groups choose one
after the other: a group scores every continuation of its beams by accumulated log-probability, minus
`diversity_penalty` for each time that an earlier group chose the same token at this step (Hamming diversity;
Vijayakumar et al. 2018), and goes on with the best g continuations that do not end. The penalty stays in the
accumulated score. These are the semantics of Hugging Face's group beam search, which transformers 5 no longer
carries:

- of the best 2g continuations of a group, an EOS among the first g ends its hypothesis there; a later EOS is dropped;
- a hypothesis of n tokens, EOS included, scores its sum / n ** length_penalty; a group keeps its best g;
- a group is done when it has g hypotheses (early_stopping), or, without early_stopping, when the best live beam
  divided by its present n ** length_penalty beats none of them;
- after max_tokens steps the live beams of groups that are not done become hypotheses as they stand;
- the answer is the best hypothesis of all groups.

Where Hugging Face feeds pad tokens to a done group, and lets later groups be penalised for them, a done group here
counts no more. G = 1 is plain beam search, W = 1 greedy search. Knows neither the model nor the vocabulary: a
`TextDecoder` proposes the most likely tokens of each beam.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rdrec_core.errors import InputError
from rdrec_core.types import FloatArray, IntArray

_DEAD = -1
"""Token of a beam that does not exist: its score is -inf."""


@dataclass(frozen=True, slots=True)
class TextSearch:
    """How to search. The defaults are the paper's (section 4.1): 21 beams in 3 groups, 20 tokens."""

    beam_width: int = 21
    groups: int = 3
    diversity_penalty: float = 1.0
    length_penalty: float = 1.0
    early_stopping: bool = True
    max_tokens: int = 20
    """Decoder steps: the tokens of the text, or fewer and EOS."""
    no_repeat: int = 0
    """No sequence of so many tokens comes twice in a text (Hugging Face's no_repeat_ngram_size); 0: any may."""

    def __post_init__(self) -> None:
        if self.groups < 1 or self.beam_width < 1 or self.beam_width % self.groups:
            raise InputError(
                f"beam_width must be a multiple of groups, not {self.beam_width} and {self.groups}", field="beam_width"
            )
        if self.diversity_penalty < 0:
            raise InputError(
                f"diversity_penalty must not be negative: {self.diversity_penalty}", field="diversity_penalty"
            )
        if self.max_tokens < 1:
            raise InputError(f"max_tokens must be at least 1, not {self.max_tokens}", field="max_tokens")

    @property
    def group_width(self) -> int:
        """g, beams of one group."""
        return self.beam_width // self.groups

    @property
    def n_candidates(self) -> int:
        """Tokens of each beam that suffice for an exact search.

        A group takes at most 2g tokens of one beam, and earlier groups chose at most (G - 1) g tokens. A token among
        the best 2g after the penalty has fewer than 2g better ones that are not penalised and at most (G - 1) g that
        are. A text of T tokens forbids fewer than T.
        """
        forbidden = self.max_tokens if self.no_repeat else 0
        return 2 * self.group_width + (self.beam_width - self.group_width) + forbidden


PAPER_SEARCH = TextSearch()
GREEDY = TextSearch(beam_width=1, groups=1, no_repeat=3)
"""Without beams to leave it by, a loop would go on to the end of the text."""


@dataclass(frozen=True, slots=True)
class TextHypothesis:
    """One finished text: token ids without start and EOS, and its length-normalised score."""

    tokens: tuple[int, ...]
    score: float


class TextDecoder(Protocol):
    """Runs the decoder for B requests a step at a time; remembers what it was given. W' is 1 at first, then W."""

    def step(self, tokens: IntArray, parents: IntArray, n_candidates: int) -> tuple[FloatArray, IntArray]:
        """Append a token to beams.

        tokens (B, W'); parents (B, W'): which beam of the step before each one continues (0 at the first step).
        Returns log-probabilities and token ids of the C = min(n_candidates, vocabulary) most likely next tokens, (B,
        W', C) each, best first.
        """
        ...

    def keep(self, rows: IntArray) -> None:
        """Go on with these requests only, in this order."""
        ...


def extend_ancestors(ancestors: npt.NDArray[np.bool_] | None, parents: IntArray) -> npt.NDArray[np.bool_]:
    """Which slots the new ones may attend to, where each step puts W' slots behind the earlier ones, in any order.

    ancestors (B, W, P): what the step before could attend to, None at the first step; parents (B, W'). Returns
    (B, W', P + W'): the ancestors of the parent, and the slot itself.
    """
    batch, width = parents.shape
    own = np.broadcast_to(np.eye(width, dtype=np.bool_), (batch, width, width))
    if ancestors is None:
        return own
    return np.concatenate([ancestors[np.arange(batch)[:, None], parents], own], axis=2)


class _Finished:
    """The best `size` hypotheses of one group of one request."""

    def __init__(self, size: int, length_penalty: float) -> None:
        self._size, self._length_penalty = size, length_penalty
        self.best: list[TextHypothesis] = []

    def normalised(self, log_prob: float, length: int) -> float:
        return log_prob / float(length**self._length_penalty)

    def add(self, tokens: IntArray, log_prob: float, length: int) -> None:
        """length counts EOS where there is one."""
        self.best.append(TextHypothesis(tuple(tokens.tolist()), self.normalised(log_prob, length)))
        self.best.sort(key=lambda hypothesis: -hypothesis.score)
        del self.best[self._size :]

    def is_done(self, search: TextSearch, best_live: float, length: int) -> bool:
        if len(self.best) < self._size:
            return False
        return search.early_stopping or self.best[-1].score >= self.normalised(best_live, length)


@dataclass(frozen=True, slots=True)
class _Choice:
    """What one group chose at one step: arrays (B, g); beam is relative to the group; best first, dead ones last."""

    log_probs: npt.NDArray[np.float64]
    tokens: IntArray
    beams: IntArray


def _rank(
    log_probs: FloatArray,
    tokens: IntArray,
    scores: npt.NDArray[np.float64],
    chosen: IntArray,
    penalty: float,
    width: int,
) -> _Choice:
    """The best 2g continuations of a group.

    log_probs, tokens (B, g', C); scores (B, g'); chosen: what earlier groups chose at this step.
    """
    batch, beams, candidates = tokens.shape
    total = scores[:, :, None] + log_probs
    if chosen.shape[1] and penalty:
        total -= penalty * (tokens[..., None] == chosen[:, None, None, :]).sum(axis=-1)
    # a first step over a tiny vocabulary has fewer than 2g: dead ones make up the number
    flat = np.concatenate([total.reshape(batch, -1), np.full((batch, 2 * width), -np.inf)], axis=1)
    ids = np.concatenate([tokens.reshape(batch, -1), np.full((batch, 2 * width), _DEAD)], axis=1)
    owner = np.concatenate([np.repeat(np.arange(beams), candidates), np.zeros(2 * width, dtype=np.int64)])
    order = np.argsort(-flat, axis=1, kind="stable")[:, : 2 * width]
    best = np.take_along_axis(flat, order, axis=1)
    return _Choice(best, np.where(best > -np.inf, np.take_along_axis(ids, order, axis=1), _DEAD), owner[order])


def _repeated(texts: IntArray, candidates: IntArray, n: int) -> npt.NDArray[np.bool_]:
    """Which candidates (B, W, C) would end a sequence of n tokens that texts (B, W, L) hold already."""
    length = texts.shape[2]
    repeated = np.zeros(candidates.shape, dtype=np.bool_)
    for start in range(length - n + 1):
        same = (texts[..., start : start + n - 1] == texts[..., length - n + 1 :]).all(axis=2)
        repeated |= same[..., None] & (candidates == texts[..., start + n - 1, None])
    return repeated


def search_text(
    decoder: TextDecoder, n_requests: int, search: TextSearch, *, start_token_id: int = 0, eos_token_id: int = 1
) -> list[list[TextHypothesis]]:
    """The finished hypotheses of each request, best first (at least one where the vocabulary has a token)."""
    width, group = search.beam_width, search.group_width
    finished = [[_Finished(group, search.length_penalty) for _ in range(search.groups)] for _ in range(n_requests)]
    rows = np.arange(n_requests)  # which request each row of the arrays below is
    done = np.zeros((n_requests, search.groups), dtype=np.bool_)
    scores = np.zeros((n_requests, search.groups), dtype=np.float64)  # (B, G g'), g' = 1 before the first step
    texts = np.empty((n_requests, search.groups, 0), dtype=np.int64)
    tokens = np.full((n_requests, 1), start_token_id, dtype=np.int64)
    parents = np.zeros((n_requests, 1), dtype=np.int64)
    for length in range(1, search.max_tokens + 1):
        log_probs, candidates = decoder.step(np.maximum(tokens, 0), parents, search.n_candidates)
        if search.no_repeat:
            log_probs = np.where(_repeated(texts, candidates, search.no_repeat), -np.inf, log_probs)
        live = scores.shape[1] // search.groups
        next_scores = np.full((len(rows), width), -np.inf)
        tokens = np.full((len(rows), width), _DEAD, dtype=np.int64)
        origin = np.zeros((len(rows), width), dtype=np.int64)  # column of `scores` that each new beam continues
        for index in range(search.groups):
            old = slice(index * live, (index + 1) * live)
            new = slice(index * group, (index + 1) * group)
            proposals = (
                slice(0, 1) if length == 1 else old
            )  # at the first step every group continues the one start slot
            ranked = _rank(
                log_probs[:, proposals], candidates[:, proposals], scores[:, old], tokens[:, : new.start],
                search.diversity_penalty, group,
            )  # fmt: skip
            ends = ranked.tokens == eos_token_id
            for row, place in np.argwhere(ends[:, :group] & ~done[:, index, None]):
                text = texts[row, old.start + ranked.beams[row, place]]
                finished[rows[row]][index].add(text, float(ranked.log_probs[row, place]), length)
            goes_on = np.argsort(ends, axis=1, kind="stable")[:, :group]
            next_scores[:, new] = np.take_along_axis(ranked.log_probs, goes_on, axis=1)
            tokens[:, new] = np.take_along_axis(ranked.tokens, goes_on, axis=1)
            origin[:, new] = old.start + np.take_along_axis(ranked.beams, goes_on, axis=1)
            for row in np.flatnonzero(~done[:, index]):
                done[row, index] = finished[rows[row]][index].is_done(search, next_scores[row, new.start], length)
            next_scores[done[:, index], new] = -np.inf
            tokens[done[:, index], new] = _DEAD
        texts = np.concatenate([np.take_along_axis(texts, origin[..., None], axis=1), tokens[..., None]], axis=2)
        scores = next_scores
        parents = np.zeros_like(origin) if length == 1 else origin
        running = np.flatnonzero((scores > -np.inf).any(axis=1))
        if len(running) < len(rows):
            rows, done, scores = rows[running], done[running], scores[running]
            texts, tokens, parents = texts[running], tokens[running], parents[running]
            if not len(rows):
                break
            if length < search.max_tokens:
                decoder.keep(running)
    for row, column in np.argwhere(scores > -np.inf):
        finished[rows[row]][column // group].add(texts[row, column], float(scores[row, column]), search.max_tokens)
    return [sorted((text for pool in pools for text in pool.best), key=lambda text: -text.score) for pools in finished]
