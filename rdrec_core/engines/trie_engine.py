"""What both engines share: checking requests, encoding them, index arrays, batches of similar length, and back.

Subclasses only run arrays through the network. Knows NumPy, neither torch nor ONNX Runtime.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np

from rdrec_core.decoding.item_trie import ItemTrie
from rdrec_core.decoding.path_arrays import (
    Availability,
    BoolArray,
    Paths,
    closed_edges,
    open_edges,
    paths_of,
    stacked,
    stacked_paths,
)
from rdrec_core.encoding import EncodedSource, RaggedTokens, SourceBatch, SourceEncoder, pad_sources, rounded_up
from rdrec_core.errors import EngineError, InputError
from rdrec_core.types import (
    FloatArray,
    IntArray,
    ItemMask,
    RankedItems,
    RankRequest,
    ScoreMode,
    ScoreRequest,
    Strategy,
    Task,
    TextRequest,
)

TEXT_ROWS = "onnx/text_rows.npy"
"""The bundle's text vocabulary; absent where the model was trained without texts."""
_MAX_SLOTS = 8192
"""Decoder slots of one candidate batch; bounds memory where requests bring many candidates."""


@dataclass(frozen=True, eq=False)
class BeamArrays:
    """One beam-search batch. Closed or opened edges as in `beam_search.Eligibility`; n_items (B,)."""

    sources: SourceBatch
    allowed_by_default: FloatArray
    state: IntArray
    offset: IntArray
    n_items: IntArray
    beam_width: int


@dataclass(frozen=True, eq=False)
class ExactArrays:
    """One exact batch over the whole catalogue. Excepted leaves (B, X), N where the list is shorter; also (B, A)."""

    sources: SourceBatch
    allowed_by_default: FloatArray
    leaf: IntArray
    n_items: int
    also: IntArray
    """Leaves whose scores are wanted besides; 0 where the list is shorter."""


@dataclass(frozen=True, eq=False)
class _Eligible:
    """One request's items: `leaves` are the only ones (listed) or are taken out (not listed); sorted, available."""

    listed: bool
    leaves: IntArray
    count: int


class TextWriter(Protocol):
    """Writes texts; `torch_text.TorchTextGenerator` and `onnx_text.OnnxTextGenerator`."""

    def generate(self, requests: Sequence[TextRequest]) -> list[str]:
        """One text a request, in order."""
        ...


class TrieEngine(ABC):
    """Ranks and scores items for an ItemTrie in one score mode. See `engines.base.Engine` for the promises."""

    def __init__(
        self,
        encoder: SourceEncoder,
        trie: ItemTrie,
        *,
        score_mode: ScoreMode,
        strategy: Strategy,
        available: BoolArray | None,
        text: TextWriter | None,
        max_batch: int,
        round_to: int = 1,
    ) -> None:
        """available (N,) by item index, all where None; max_batch: most requests that run at once.

        round_to above 1 pads every array to multiples of it, and batches to powers of two, so that few shapes occur.
        """
        self._encoder = encoder
        self._text = text
        self._round_to = round_to
        self._score_mode = score_mode
        self.strategy = strategy
        self._max_batch = max_batch
        self._set_trie(trie, available)

    def _set_trie(self, trie: ItemTrie, available: BoolArray | None) -> None:
        self._trie = trie
        self._states = trie.states(collapsed=self._score_mode is not ScoreMode.FULL)
        alive = np.ones(len(trie), dtype=np.bool_) if available is None else np.asarray(available)[trie.order]
        self._availability = self._in_use = Availability(self._states, alive)
        self._narrowed: WeakKeyDictionary[ItemMask, Availability] = WeakKeyDictionary()

    def set_available(self, available: BoolArray) -> None:
        """Take items out of every answer, or bring them back: (N,) bool by item index. Scores do not change."""
        if len(available) != len(self._trie):
            raise InputError(
                f"availability is for {len(available)} items, the catalogue has {len(self._trie)}", field="available"
            )
        self._availability = Availability(self._states, np.asarray(available)[self._trie.order])
        self._narrowed.clear()
        self._use(self._availability)

    @property
    def can_grow(self) -> bool:
        """Whether items may be added: each is read and written as the same one token, so that it needs one row."""
        words, states = self._encoder.item_words, self._states
        if len(words.tokens) != len(words) or len(words) != len(self._trie):
            return False
        first = np.asarray(states.leaf_edge, dtype=np.int64)
        if self._score_mode is ScoreMode.FULL:  # a leaf's own edge is its EOS
            first = states.parent_edge[states.state_of_edge(first)].astype(np.int64)
        elif states.n_states > 1:
            return False
        written = self._trie.columns[states.edge_column[first]]
        return bool((first >= 0).all() and np.array_equal(written, words.tokens[self._trie.order]))

    def grow(self, rows: FloatArray) -> None:
        """Add M items behind the last, each by the embedding row (M, D) of its one token. They are available.

        Raises InputError where `can_grow` is False.
        """
        if not self.can_grow:
            raise InputError("this engine takes no further items: its labels have no row of their own", field="rows")
        words = self._encoder.item_words
        tokens = np.concatenate([words.tokens, self._n_rows + np.arange(len(rows), dtype=np.int32)])
        words = RaggedTokens(np.arange(len(tokens) + 1, dtype=np.int64), tokens)
        available = np.ones(len(words), dtype=np.bool_)
        available[self._trie.order] = self._availability.leaf_alive
        self._add_rows(rows)
        self._encoder = self._encoder.with_item_words(words)
        self._set_trie(ItemTrie.build(words, eos_token_id=self._encoder.eos_token_id), available)

    @property
    def score_mode(self) -> ScoreMode:
        """The definition of the log-probabilities that this engine returns."""
        return self._score_mode

    def recommend(self, requests: Sequence[RankRequest]) -> list[RankedItems]:
        """The best items of each request, min(n_items, number of eligible items) of them, best first."""
        for request in requests:
            self._check_rank(request)
        available = [self._available_to(request.among) for request in requests]
        eligible = [_eligible(request, self._trie, own) for request, own in zip(requests, available, strict=True)]
        sources = [self._encoder.encode(Task.SEQUENTIAL, r.user_index, r.history) for r in requests]
        results: list[RankedItems | None] = [None] * len(requests)
        alike: dict[tuple[int, Availability], list[int]] = {}
        for index, request in enumerate(requests):
            alike.setdefault((max(request.beam_width, request.n_items), available[index]), []).append(index)
        for (width, own), indices in alike.items():
            self._use(own)
            for chunk in _similar_lengths(indices, sources, self._max_batch):
                rows = self._filled(chunk)
                scores, leaves, also = self._rank(
                    [requests[i] for i in rows], [eligible[i] for i in rows], [sources[i] for i in rows], width
                )
                for row, index in enumerate(chunk):
                    k = min(requests[index].n_items, eligible[index].count)
                    items = self._trie.order[leaves[row, :k]].astype(np.int64)
                    results[index] = RankedItems(
                        items, scores[row, :k].astype(np.float32),
                        also[row][: len(requests[index].also)].astype(np.float32),
                    )  # fmt: skip
        return [result for result in results if result is not None]

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        """Log-probability of each candidate, in the order of the request's candidates."""
        for request in requests:
            self._check_score(request)
        sources = [
            self._encoder.encode(r.task, r.user_index, r.candidates if r.task is Task.TOPN else r.history)
            for r in requests
        ]
        n_columns = len(self._trie.columns)
        results: list[FloatArray | None] = [None] * len(requests)
        for chunk in _similar_lengths(range(len(requests)), sources, self._max_batch):
            paths = {
                i: paths_of(self._states, self._trie.leaf[np.asarray(requests[i].candidates)], n_columns) for i in chunk
            }
            slots = max(len(p.tokens) for p in paths.values())
            at_once = max(1, _MAX_SLOTS // slots)
            for start in range(0, len(chunk), at_once):
                part = chunk[start : start + at_once]
                rows = self._filled(part)
                scores = self._score_paths(
                    pad_sources([sources[i] for i in rows], multiple=self._round_to),
                    stacked_paths([paths[i] for i in rows], n_columns, self._round_to),
                )
                for row, index in enumerate(part):
                    results[index] = scores[row, : len(requests[index].candidates)].astype(np.float32)
        return [result for result in results if result is not None]

    def generate_text(self, requests: Sequence[TextRequest]) -> list[str]:
        """One text a request. Raises EngineError where the engine was made without a text writer."""
        if not requests:
            return []
        if self._text is None:
            raise EngineError("this engine writes no texts: the model was trained or exported without them")
        return self._text.generate(requests)

    @abstractmethod
    def _search(self, batch: BeamArrays) -> tuple[FloatArray, IntArray]:
        """Scores and leaves (B, at least max n_items), best first."""

    @abstractmethod
    def _search_exactly(self, batch: ExactArrays) -> tuple[FloatArray, IntArray, FloatArray]:
        """Scores and leaves (B, n_items), best first, and the scores (B, A) of `also`."""

    @abstractmethod
    def _score_paths(self, sources: SourceBatch, paths: Paths) -> FloatArray:
        """Scores (B, C)."""

    @property
    @abstractmethod
    def _n_rows(self) -> int:
        """Rows of the embedding table."""

    @abstractmethod
    def _add_rows(self, rows: FloatArray) -> None:
        """Put rows behind the embedding table's last."""

    @abstractmethod
    def _load(self, availability: Availability) -> None:
        """Search by these edges and leaves from now on."""

    def _use(self, availability: Availability) -> None:
        if availability is not self._in_use:
            self._load(availability)
            self._in_use = availability

    def _available_to(self, mask: ItemMask | None) -> Availability:
        """What of the catalogue a mask leaves; kept as long as the mask is."""
        if mask is None:
            return self._availability
        kept = self._narrowed.get(mask)
        if kept is None:
            alive = self._availability.leaf_alive & mask.items[self._trie.order]
            kept = self._narrowed[mask] = Availability(self._states, alive)
        return kept

    def _all_paths(self) -> Paths:
        """The paths of the whole catalogue, by leaf."""
        return paths_of(self._states, np.arange(len(self._trie)), len(self._trie.columns))

    def _filled(self, rows: list[int]) -> list[int]:
        """The rows of a batch, its last one repeated where the number of rows is rounded up."""
        if self._round_to == 1:
            return rows
        return rows + rows[-1:] * ((1 << (len(rows) - 1).bit_length()) - len(rows))

    def _rank(
        self, requests: list[RankRequest], eligible: list[_Eligible], sources: list[EncodedSource], beam_width: int
    ) -> tuple[FloatArray, IntArray, Sequence[FloatArray]]:
        default = np.array([[0.0 if e.listed else 1.0] for e in eligible], dtype=np.float32)
        padded = pad_sources(sources, multiple=self._round_to)
        if self.strategy is Strategy.EXACT:
            leaves = stacked([e.leaves for e in eligible], len(self._trie), self._round_to)
            n_items = min(rounded_up(max(r.n_items for r in requests), self._round_to), len(self._trie))
            also = [self._trie.leaf[np.asarray(r.also, dtype=np.int64)] for r in requests]
            scores, found, besides = self._search_exactly(
                ExactArrays(padded, default, leaves, n_items, stacked(also, 0, self._round_to))
            )
            return scores, found, list(besides)
        edges = [
            open_edges(self._states, e.leaves) if e.listed else closed_edges(self._states, self._in_use, e.leaves)
            for e in eligible
        ]
        states = [self._states.state_of_edge(e) for e in edges]
        offsets = [e - self._states.edge_start[s] for e, s in zip(edges, states, strict=True)]
        wanted = np.array([r.n_items for r in requests], dtype=np.int64)
        closed = stacked(states, -1, self._round_to), stacked(offsets, 0, self._round_to)
        scores, leaves = self._search(BeamArrays(padded, default, *closed, wanted, beam_width))
        asked = [ScoreRequest(r.user_index, r.also, r.history, Task.SEQUENTIAL) for r in requests if r.also]
        scored = iter(self.score(asked))
        return scores, leaves, [next(scored) if r.also else np.empty(0, dtype=np.float32) for r in requests]

    def _check_rank(self, request: RankRequest) -> None:
        self._check_items(request.history, "history")
        self._check_items(request.exclude, "exclude")
        self._check_items(request.include or (), "include")
        self._check_items(request.also, "also")
        if request.among is not None and len(request.among.items) != len(self._trie):
            raise InputError(
                f"among is for {len(request.among.items)} items, the catalogue has {len(self._trie)}", field="among"
            )
        self._check_user(request.user_index)
        for name in ("n_items", "beam_width"):
            if getattr(request, name) < 1:
                raise InputError(f"{name} is {getattr(request, name)}, it must be at least 1", field=name)

    def _check_score(self, request: ScoreRequest) -> None:
        self._check_items(request.history, "history")
        self._check_items(request.candidates, "candidates")
        self._check_user(request.user_index)
        if not request.candidates:
            raise InputError("candidates is empty, at least one is needed", field="candidates")
        if len(set(request.candidates)) < len(request.candidates):
            raise InputError("candidates must be distinct", field="candidates")
        if request.task not in (Task.TOPN, Task.SEQUENTIAL):
            raise InputError(f"task is {request.task.name}, it must be TOPN or SEQUENTIAL", field="task")

    def _check_items(self, items: Sequence[int], field: str) -> None:
        if items and not (min(items) >= 0 and max(items) < len(self._trie)):
            raise InputError(f"{field} holds an index outside the catalogue of {len(self._trie)} items", field=field)

    @staticmethod
    def _check_user(user_index: int | None) -> None:
        if user_index is not None and user_index < 0:
            raise InputError(f"user_index is {user_index}, it must be at least 0 or None", field="user_index")


def _eligible(request: RankRequest, trie: ItemTrie, availability: Availability) -> _Eligible:
    alive = availability.leaf_alive
    excluded = np.unique(trie.leaf[np.asarray(request.exclude, dtype=np.int64)]).astype(np.int64)
    if request.include is None:
        leaves = excluded[alive[excluded]]
        return _Eligible(False, leaves, availability.count - len(leaves))
    included = np.unique(trie.leaf[np.asarray(request.include, dtype=np.int64)]).astype(np.int64)
    leaves = np.setdiff1d(included[alive[included]], excluded, assume_unique=True)
    return _Eligible(True, leaves, len(leaves))


def _similar_lengths(indices: Sequence[int], sources: list[EncodedSource], size: int) -> list[list[int]]:
    """Chunks of at most `size` requests whose sources are about equally long, so that little is padded."""
    ordered = sorted(indices, key=lambda index: len(sources[index].token_ids))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]
