"""A tiny bundle without a model, an engine whose answers can be computed by hand, and a service over both."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np

from rdrec_core.bundle import Bundle, BundleWriter, Description
from rdrec_core.catalog import Catalog, StringTable, Users
from rdrec_core.filters import GROUP as COLUMNS
from rdrec_core.filters import ItemColumns
from rdrec_core.item_graph import Channel, ItemGraph
from rdrec_core.item_texts import GROUP as TEXTS
from rdrec_core.item_texts import FieldTexts, ItemTexts, RowRule
from rdrec_core.replacing import replacing_folder
from rdrec_core.statements import GROUP, Statements
from rdrec_core.text_vectors import SparseVectors, TextIndex
from rdrec_core.types import RankedItems, RankRequest, ScoreMode, ScoreRequest, Strategy, Task, TextRequest
from service.settings import Settings

N_ITEMS = 40
N_USERS = 12
COLOURS = ("blue", "red", "green", "yellow", "white")
"""Item n is a toy of colour n modulo 5."""


def item_id(index: int) -> str:
    return f"i{index:04d}"


def user_id(index: int) -> str:
    return f"u{index:04d}"


def base_history(user: int) -> list[int]:
    """User n has the items n, n + 1, ..., n + 4."""
    return [(user + step) % N_ITEMS for step in range(5)]


def texts_of(texts: list[str]) -> ItemTexts:
    """Words of the catalogue's items, to be searched."""
    vectors, rows = SparseVectors.from_texts(texts)
    rules = {"sparse": RowRule(10, 1.0, 1.0)}
    return ItemTexts({"catalogue": FieldTexts(vectors, TextIndex.of(rows, len(vectors)), rules=rules)}, len(texts))


def columns() -> ItemColumns:
    """Item n is of brand n modulo 3 and the shelf of its colour, costs n, is sealed if even, and arrived at n."""
    return ItemColumns.of(
        N_ITEMS,
        brands=[("Acme", "Zeta", None)[n % 3] for n in range(N_ITEMS)],
        categories=[["Toys", COLOURS[n % 5]] for n in range(N_ITEMS)],
        arrived=[float(n) for n in range(N_ITEMS)],
        attributes={
            "price": ("number", [float(n) for n in range(N_ITEMS)]),
            "sealed": ("boolean", [n % 2 == 0 for n in range(N_ITEMS)]),
            "colour": ("text", [COLOURS[n % 5] for n in range(N_ITEMS)]),
            "tags": ("list", [["new"] if n > 30 else ["old", "used"] for n in range(N_ITEMS)]),
        },
    )


def write_bundle(folder: Path, *, name: str = "fake", statements: Statements | None = None, **changes: Any) -> Path:
    """Item n is followed by item n + 1 in the graph and alike in colour to n + 5; low numbers are popular.

    `changes` alter the description.
    """
    users = Users(
        StringTable.from_strings(user_id(n) for n in range(N_USERS)),
        np.arange(0, 5 * N_USERS + 1, 5, dtype=np.int64),
        np.asarray([i for n in range(N_USERS) for i in base_history(n)], dtype=np.int32),
    )
    catalog = Catalog(
        StringTable.from_strings(item_id(n) for n in range(N_ITEMS)),
        StringTable.from_strings(f"Toy {n}" if n % 10 else "" for n in range(N_ITEMS)),
        np.arange(1, N_ITEMS + 1, dtype=np.int64),
        np.ones(N_ITEMS, dtype=np.bool_),
    )
    popularity = np.arange(N_ITEMS, 0, -1, dtype=np.float32)
    follows = Channel(
        np.arange(N_ITEMS + 1, dtype=np.int64),
        np.asarray([(n + 1) % N_ITEMS for n in range(N_ITEMS)], dtype=np.int32),
        np.ones(N_ITEMS, dtype=np.float32),
        decay=0.8,
        window=20,
    )
    alike = Channel(
        np.arange(N_ITEMS + 1, dtype=np.int64),
        np.asarray([(n + 5) % N_ITEMS for n in range(N_ITEMS)], dtype=np.int32),
        np.ones(N_ITEMS, dtype=np.float32),
        decay=0.8,
        window=20,
    )
    description = {
        "name": name,
        "created_at": "2026-01-01T00:00:00Z",
        "recipe": {"name": "fake"},
        "protocol": "clean",
        "label_scheme": "sequential",
        "dataset_sha256": {},
        "n_users": N_USERS,
        "n_items": N_ITEMS,
        "score_modes": [ScoreMode.TRIE],
        "strategy": Strategy.BEAM,
        "candidate_width": 10,
        "text_tasks": [Task.EXPLANATION, Task.USER_PREFERENCE, Task.ITEM_ATTRIBUTES],
        **changes,
    }
    with replacing_folder(folder, force=True) as temporary:
        writer = BundleWriter(temporary)
        writer.add_arrays("items", catalog.arrays())
        writer.add_arrays("users", users.arrays())
        writer.add_arrays(COLUMNS, columns().arrays())
        channels = {"follows": follows, "text.catalogue.sparse": alike}
        writer.add_arrays("graph", ItemGraph(popularity / popularity.sum(), channels).arrays())
        writer.add_arrays(TEXTS, texts_of([f"{COLOURS[n % 5]} toy" for n in range(N_ITEMS)]).arrays())
        if statements is not None:
            writer.add_arrays(GROUP, statements.arrays())
        writer.finish(Description(**description))
    return folder


def log_prob(user: int | None, history: Sequence[int], item: int, mode: ScoreMode = ScoreMode.TRIE) -> float:
    """The fake model: closest above the last item of the history is best; the user shifts nothing.

    Score mode `full` begins three items further on.
    """
    last = history[-1] if history else (user or 0)
    return -float((item - last - (4 if mode is ScoreMode.FULL else 1)) % N_ITEMS) / 4 - 0.5


class FakeEngine:
    """Exact over `log_prob`. `before` runs ahead of each call, with the call's requests: the place for faults."""

    device = "cpu"

    def __init__(
        self,
        before: Callable[[str, Sequence[Any]], None] | None = None,
        *,
        seconds: float = 0.0,
        score_mode: ScoreMode | None = None,
    ) -> None:
        self.score_mode = score_mode or ScoreMode.TRIE
        self.can_grow = False
        self.available = np.ones(N_ITEMS, dtype=bool)
        self.calls: list[tuple[str, int]] = []
        self._before = before
        self._seconds = seconds

    def _begin(self, what: str, requests: Sequence[Any]) -> None:
        self.calls.append((what, len(requests)))
        if self._before is not None:
            self._before(what, requests)
        if self._seconds:
            time.sleep(self._seconds)

    def recommend(self, requests: Sequence[RankRequest]) -> list[RankedItems]:
        self._begin("recommend", requests)
        answers = []
        for request in requests:
            allowed = range(N_ITEMS) if request.include is None else sorted(set(request.include))
            scored = [
                (log_prob(request.user_index, request.history, i, self.score_mode), i)
                for i in allowed
                if i not in request.exclude and self.available[i] and (request.among is None or request.among.items[i])
            ]
            best = sorted(scored, key=lambda pair: (-pair[0], pair[1]))[: request.n_items]
            answers.append(
                RankedItems(
                    np.asarray([i for _, i in best], dtype=np.int64),
                    np.asarray([s for s, _ in best], dtype=np.float32),
                    np.asarray(
                        [log_prob(request.user_index, request.history, i, self.score_mode) for i in request.also],
                        dtype=np.float32,
                    ),
                )
            )
        return answers

    def score(self, requests: Sequence[ScoreRequest]) -> list[np.ndarray]:
        self._begin("score", requests)
        return [
            np.asarray([log_prob(r.user_index, r.history, i, self.score_mode) for i in r.candidates], dtype=np.float32)
            for r in requests
        ]

    def grow(self, rows: np.ndarray) -> None:
        raise AssertionError("it cannot")

    def set_available(self, available: np.ndarray) -> None:
        self.available = available

    def generate_text(self, requests: Sequence[TextRequest]) -> list[str]:
        self._begin("text", requests)
        return [f"{r.task.name.lower()} of user {r.user_index} and item {r.item_index}" for r in requests]


class Gate:
    """Holds the engine thread until it is opened; `entered` says that a call is waiting."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, what: str, requests: Sequence[Any]) -> None:
        self.entered.set()
        assert self.opened.wait(10)


def open_fake(bundle: Bundle, settings: Settings) -> FakeEngine:
    """For `create_app(open_engine=...)`."""
    return FakeEngine(score_mode=settings.score_mode)


def fake_settings(bundle: Path, **changes: Any) -> Settings:
    """For this process alone: what it forgets is forgotten in a folder of its own."""
    own = {
        "access_log": False,
        "engine_process": False,
        "timeout_ms": 10_000,
        "state_dir": mkdtemp(prefix="rdrec-state-"),
    }
    return Settings(bundle=bundle, **{**own, **changes})
