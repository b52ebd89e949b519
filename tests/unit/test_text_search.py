"""Diverse beam search against a slow, literal restatement; plain beam search against every sequence there is."""

import itertools
import math

import numpy as np
import pytest

from rdrec_core.decoding.text_search import GREEDY, TextSearch, extend_ancestors, search_text
from rdrec_core.errors import InputError

START, EOS = 0, 1
Prefix = tuple[int, ...]


class TableDecoder:
    """Proposes from a table of next-token log-probabilities of each (request, prefix); follows parents literally."""

    def __init__(self, vocabulary: int, requests: int, seed: int, sharpness: float = 1.0) -> None:
        self.vocabulary, self.seed, self.sharpness = vocabulary, seed, sharpness
        self.rows = list(range(requests))
        self.beams: list[list[Prefix]] | None = None
        self.steps = 0

    def next_log_probs(self, request: int, prefix: Prefix) -> np.ndarray:
        logits = np.random.default_rng([self.seed, request, *prefix]).normal(size=self.vocabulary) * self.sharpness
        return logits - math.log(np.exp(logits).sum())

    def step(self, tokens: np.ndarray, parents: np.ndarray, n_candidates: int) -> tuple[np.ndarray, np.ndarray]:
        self.steps += 1
        old = self.beams or [[()]] * len(self.rows)
        assert tokens.shape == parents.shape
        self.beams = [
            [(*(old[row][parent] if self.steps > 1 else ()), int(token)) for token, parent in zip(*pair, strict=True)]
            for row, pair in enumerate(zip(tokens, parents, strict=True))
        ]
        table = np.array(
            [
                [self.next_log_probs(request, p) for p in beams]
                for request, beams in zip(self.rows, self.beams, strict=True)
            ]
        )
        ids = np.argsort(-table, axis=-1)[..., :n_candidates]
        return np.take_along_axis(table, ids, axis=-1).astype(np.float32), ids

    def keep(self, rows: np.ndarray) -> None:
        assert self.beams is not None
        self.rows = [self.rows[row] for row in rows]
        self.beams = [self.beams[row] for row in rows]


def literal_group_beam_search(decoder: TableDecoder, request: int, search: TextSearch) -> list[tuple[float, Prefix]]:
    """Group beam search of one request as its description reads, over Python lists and the whole vocabulary."""
    g = search.beam_width // search.groups
    beams: list[list[tuple[float, Prefix]]] = [[(0.0, (START,))] for _ in range(search.groups)]
    finished: list[list[tuple[float, Prefix]]] = [[] for _ in range(search.groups)]
    done = [False] * search.groups
    for length in range(1, search.max_tokens + 1):
        chosen_now: list[int] = []
        for group in range(search.groups):
            if done[group]:
                continue
            continuations = []
            for score, prefix in beams[group]:
                log_probs = decoder.next_log_probs(request, prefix)
                for token in range(decoder.vocabulary):
                    written = (*prefix[1:], token)
                    n = search.no_repeat
                    if n and written[-n:] in [written[i : i + n] for i in range(len(written) - n)]:
                        continue
                    penalty = search.diversity_penalty * chosen_now.count(token)
                    continuations.append((score + log_probs[token] - penalty, (*prefix, token)))
            continuations.sort(key=lambda c: -c[0])
            going_on = []
            for rank, (score, prefix) in enumerate(continuations[: 2 * g]):
                if prefix[-1] != EOS:
                    if len(going_on) < g:
                        going_on.append((score, prefix))
                elif rank < g:
                    finished[group].append((score / length**search.length_penalty, prefix[1:-1]))
            finished[group] = sorted(finished[group], key=lambda f: -f[0])[:g]
            beams[group] = going_on
            if len(finished[group]) == g:
                best_live = going_on[0][0] / length**search.length_penalty if going_on else -math.inf
                done[group] = search.early_stopping or finished[group][-1][0] >= best_live
            if not done[group]:
                chosen_now += [prefix[-1] for _, prefix in going_on]
    for group in range(search.groups):
        if not done[group]:
            finished[group] += [
                (score / search.max_tokens**search.length_penalty, prefix[1:]) for score, prefix in beams[group]
            ]
            finished[group] = sorted(finished[group], key=lambda f: -f[0])[:g]
    return sorted((f for pool in finished for f in pool), key=lambda f: -f[0])


SEARCHES = [
    TextSearch(beam_width=6, groups=3, max_tokens=5),
    TextSearch(beam_width=6, groups=3, max_tokens=5, early_stopping=False),
    TextSearch(beam_width=6, groups=2, max_tokens=6, diversity_penalty=0.3, length_penalty=0.5),
    TextSearch(beam_width=8, groups=4, max_tokens=4, diversity_penalty=5.0, early_stopping=False),
    TextSearch(beam_width=3, groups=3, max_tokens=5),
    TextSearch(beam_width=5, groups=1, max_tokens=5, length_penalty=0.0),
    TextSearch(beam_width=21, groups=3, max_tokens=4),
    GREEDY,
    TextSearch(beam_width=1, groups=1, max_tokens=9, no_repeat=2),
    TextSearch(beam_width=6, groups=3, max_tokens=8, no_repeat=1),
    TextSearch(beam_width=4, groups=1, max_tokens=8, no_repeat=2),
]


@pytest.mark.parametrize("search", SEARCHES, ids=str)
@pytest.mark.parametrize("vocabulary", [4, 9, 40])
@pytest.mark.parametrize("seed", range(4))
def test_group_beam_search_equals_its_literal_restatement(search: TextSearch, vocabulary: int, seed: int) -> None:
    decoder = TableDecoder(vocabulary, 3, seed, sharpness=1.5)
    found = search_text(decoder, 3, search, start_token_id=START, eos_token_id=EOS)
    for request in range(3):
        expected = literal_group_beam_search(decoder, request, search)
        assert [h.tokens for h in found[request]] == [prefix for _, prefix in expected]
        assert [h.score for h in found[request]] == pytest.approx([score for score, _ in expected], abs=1e-5)


def test_some_of_these_searches_are_diverse_and_stop_early() -> None:
    """Guards the test above against cases in which the rules make no difference."""
    diverse = TextSearch(beam_width=6, groups=3, max_tokens=5)
    plain = TextSearch(beam_width=6, groups=3, max_tokens=5, diversity_penalty=0.0)
    patient = TextSearch(beam_width=6, groups=3, max_tokens=5, early_stopping=False)
    found, without, later = (
        [search_text(TableDecoder(9, 3, seed, sharpness=1.5), 3, search) for seed in range(4)]
        for search in (diverse, plain, patient)
    )
    assert found != without
    assert found != later
    free, bound = (
        [search_text(TableDecoder(4, 3, seed, sharpness=1.5), 3, search) for seed in range(4)]
        for search in (TextSearch(beam_width=1, groups=1, max_tokens=9, no_repeat=n) for n in (0, 2))
    )
    assert free != bound


@pytest.mark.parametrize("seed", range(5))
def test_a_beam_that_covers_everything_finds_the_best_of_all_sequences(seed: int) -> None:
    vocabulary, length = 4, 4
    search = TextSearch(beam_width=vocabulary**length, groups=1, max_tokens=length, early_stopping=False)
    decoder = TableDecoder(vocabulary, 1, seed)
    [found] = search_text(decoder, 1, search, start_token_id=START, eos_token_id=EOS)

    others = [token for token in range(vocabulary) if token != EOS]
    scored: dict[Prefix, float] = {}
    for n in range(length + 1):
        for text in itertools.product(others, repeat=n):
            spelled = text if n == length else (*text, EOS)
            prefix: Prefix = (START,)
            total = 0.0
            for token in spelled:
                total += decoder.next_log_probs(0, prefix)[token]
                prefix = (*prefix, token)
            scored[text] = total / len(spelled)
    assert {h.tokens: h.score for h in found} == pytest.approx(scored, abs=1e-5)
    assert found[0].tokens == max(scored, key=lambda text: scored[text])


def test_batch_mates_do_not_change_a_result_whenever_they_finish() -> None:
    search = TextSearch(beam_width=6, groups=3, max_tokens=15)
    together = TableDecoder(6, 6, seed=5, sharpness=2.5)
    found = search_text(together, 6, search)
    alone = []
    for request in range(6):
        decoder = TableDecoder(6, 6, seed=5, sharpness=2.5)
        decoder.rows = [request]
        alone += search_text(decoder, 1, search)
    assert found == alone
    assert len(together.rows) < 6, "no request finished before the others: the test shows nothing"


def test_the_step_is_not_called_once_every_group_is_done() -> None:
    decoder = TableDecoder(3, 2, seed=1)
    search_text(decoder, 2, TextSearch(beam_width=1, groups=1, max_tokens=50))
    assert decoder.steps < 50


def test_ancestors_are_the_beams_own_past() -> None:
    first = extend_ancestors(None, np.array([[0]]))
    second = extend_ancestors(first, np.array([[0, 0]]))
    third = extend_ancestors(second, np.array([[1, 0]]))
    assert first.tolist() == [[[True]]]
    assert second.astype(int).tolist() == [[[1, 1, 0], [1, 0, 1]]]
    assert third.astype(int).tolist() == [[[1, 0, 1, 1, 0], [1, 1, 0, 0, 1]]]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"beam_width": 20, "groups": 3}, "beam_width"),
        ({"beam_width": 0}, "beam_width"),
        ({"diversity_penalty": -1.0}, "diversity_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
def test_an_impossible_search_is_refused_by_field(wrong: dict[str, float], field: str) -> None:
    with pytest.raises(InputError) as error:
        TextSearch(**wrong)  # type: ignore[arg-type]
    assert error.value.field == field
