"""One block of users to rows of the result, with the engine and the Ranker that the service uses.

Knows neither files nor processes. Users are answered in blocks of a fixed size at fixed places, because batch-mates may
move the last digits of a score: the same block gives the same rows, whoever computes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from rdrec_core.bundle import Bundle
from rdrec_core.engines import open_engine
from rdrec_core.ranking import Ranker
from rdrec_core.types import RankRequest, ScoreMode, Strategy
from training.batch_scoring.users import AskedUser

Block = tuple[int, list[AskedUser]]
"""A block's number and its users."""

RESULT_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("rank", pa.int32()),
        ("item_id", pa.string()),
        ("score", pa.float32()),
        ("model", pa.float32()),
        ("graph", pa.float32()),
        ("text", pa.float32()),
        ("model_version", pa.string()),
    ]
)
"""score: 0 to 1; model, graph, text: the signals behind it, null where one says nothing. As the service answers."""


class ScoringOptions(BaseModel):
    """What is asked for every user; the defaults are those of `POST /recommend/sequential`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_items: int = Field(10, ge=1)
    beam_width: int = Field(20, ge=1)
    exclude_seen: bool = True
    fusion: bool = True
    score_mode: ScoreMode | None = None
    strategy: Strategy | None = None


@dataclass(frozen=True)
class ScoredBlock:
    """rows: RESULT_SCHEMA, users in their order, ranks ascending.

    unknown_users: users without any history, who got the popular items. unknown_items: items of given histories that
    the catalogue does not hold; they were left out.
    """

    rows: pa.Table
    n_users: int
    unknown_users: int
    unknown_items: int


@dataclass
class Totals:
    """Blocks counted up."""

    users: int = 0
    unknown_users: int = 0
    unknown_items: int = 0

    def add(self, block: ScoredBlock) -> None:
        """Count a block in."""
        self.users += block.n_users
        self.unknown_users += block.unknown_users
        self.unknown_items += block.unknown_items


class BlockRanker:
    """Answers blocks of users from one bundle. One thread at a time."""

    def __init__(self, path: Path, options: ScoringOptions, threads: int) -> None:
        """threads: of the engine, 0 leaves their number to it."""
        self._path, self._options, self._threads = path, options, threads

    @cached_property
    def _bundle(self) -> Bundle:
        return Bundle.open(self._path)

    @cached_property
    def _ranker(self) -> Ranker:
        wanted = self._options
        engine = open_engine(
            self._bundle, score_mode=wanted.score_mode, strategy=wanted.strategy, threads=self._threads
        )
        return Ranker.of_bundle(self._bundle, engine)

    def rank(self, users: Sequence[AskedUser]) -> ScoredBlock:
        """The best items of each user. The first call verifies the bundle and opens its engine.

        Raises BundleError or EngineError.
        """
        unknown_items = 0
        requests = []
        for user in users:
            request, left_out = self._request(user)
            requests.append(request)
            unknown_items += left_out
        rankings = self._ranker.recommend(requests, fusion=[self._options.fusion] * len(requests))
        lengths = [len(ranking.item_indices) for ranking in rankings]
        found = [self._bundle.catalog.item_ids[int(i)] for ranking in rankings for i in ranking.item_indices]
        rows = pa.table(
            {
                "user_id": [user.user_id for user, n in zip(users, lengths, strict=True) for _ in range(n)],
                "rank": [rank for n in lengths for rank in range(1, n + 1)],
                "item_id": found,
                "score": _column([ranking.scores for ranking in rankings]),
                "model": _column([ranking.log_probs for ranking in rankings]),
                "graph": _column([ranking.graph_scores for ranking in rankings]),
                "text": _column([ranking.text_scores for ranking in rankings]),
                "model_version": [self._bundle.manifest.model_version] * len(found),
            },
            schema=RESULT_SCHEMA,
        )
        cold = sum(request.user_index is None and not request.history for request in requests)
        return ScoredBlock(rows, len(users), cold, unknown_items)

    def _request(self, user: AskedUser) -> tuple[RankRequest, int]:
        index = self._bundle.users.user_ids.find(user.user_id)
        left_out = 0
        if user.history is not None:
            known = [self._bundle.catalog.item_ids.find(item_id) for item_id in user.history]
            history = tuple(item for item in known if item is not None)
            left_out = len(known) - len(history)
        elif index is not None:
            history = tuple(self._bundle.users.history(index).tolist())
        else:
            history = ()
        seen = tuple(dict.fromkeys(history)) if self._options.exclude_seen else ()
        request = RankRequest(
            index, history, self._options.n_items, exclude=seen, beam_width=self._options.beam_width
        )  # fmt: skip
        return request, left_out


def scored_here(
    bundle: Path, options: ScoringOptions, blocks: Iterable[Block], *, threads: int
) -> Iterator[tuple[int, ScoredBlock]]:
    """Blocks in order, computed by this process."""
    ranker = BlockRanker(bundle, options, threads)
    for number, users in blocks:
        yield number, ranker.rank(users)


def _column(parts: list[np.ndarray]) -> pa.Array:
    """Numbers of all rankings one after another; NaN becomes null."""
    return pa.array(np.concatenate([np.empty(0, np.float32), *parts]), type=pa.float32(), from_pandas=True)
