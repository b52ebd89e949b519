"""Writes the ranking graphs of a model into a folder, after they agreed with two other ways to the same numbers.

Each graph is run on random requests beside TorchEngine (the same search, executed by torch) and beside teacher forcing
(one label at a time, no trie, no beams). Nothing is written where they differ. Needs torch and onnx.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch

from rdrec_core.decoding.item_trie import ItemTrie
from rdrec_core.encoding import SourceEncoder, pad_sources
from rdrec_core.engines.hardware import Hardware, Precision
from rdrec_core.engines.onnx_engine import OUTPUT_FILE, SATURATION_FILE, TABLE_FILE, OnnxEngine, graph_file
from rdrec_core.engines.torch_engine import TorchEngine
from rdrec_core.errors import ExportCheckError
from rdrec_core.exported.search_graphs import GRAPHS, saturation_graph
from rdrec_core.model import RDRecModel
from rdrec_core.types import FloatArray, RankedItems, RankRequest, ScoreMode, ScoreRequest, Strategy, Task

WEIGHTS_FILE = "search_weights.bin"
"""The tensors of all ranking graphs, each once."""
TOLERANCE = 1e-3
"""Largest difference of a log-probability x that another order of addition explains, relative to max(1, |x|)."""
INT8_TOLERANCE = 0.25
"""Standard deviation of the 8-bit error over that of the exact scores of a request's candidates, mean over requests."""
HALF_TOLERANCE = 0.05
"""The same measure for float16, whose rounding moves near neighbours only."""
MAX_EXACT_STATES = 4096
"""With more states than this `exact` would take longer than any caller waits, so no graph is written."""
EXACT_IS_WORTH = 1.5
"""`auto` takes the exact strategy if it costs at most this much of a beam search's time: it never misses an item."""
_INLINE_BYTES = 1024
_CHECKED_REQUESTS = 6
_CHECKED_ITEMS = 24
_ROUNDS = 8

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SearchExport:
    """What was written: the strategy to serve with, and the measured seconds a request by `<mode>.<strategy>`."""

    strategy: Strategy
    seconds_per_request: dict[str, float]
    largest_difference: dict[str, float]
    """Against teacher forcing, by mode: absolute for float32, INT8_TOLERANCE's measure for trie-int8 and float16."""


def export_search_graphs(
    model: RDRecModel,
    encoder: SourceEncoder,
    trie: ItemTrie,
    folder: Path,
    *,
    score_modes: Sequence[ScoreMode],
    strategy: Strategy | None = None,
    float16: bool = False,
    seed: int = 0,
) -> SearchExport:
    """Write <mode>.<beam|exact|score>.onnx for each mode, and their weights, into a folder (a bundle's `onnx/`).

    float16: each float mode in half precision besides, for GPUs.

    The model is a float32 model on the CPU in evaluation mode; encoder and trie are those that will be served.
    strategy None measures both and chooses. The exporter also adds `trie.arrays(collapsed=...)` to the bundle, group
    `onnx_engine.trie_group(collapsed=...)`, so that the service maps them instead of building. Raises ExportCheckError,
    with nothing written, where a graph disagrees.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".search-") as name:
        temporary = Path(name)
        weights = _SharedWeights(temporary / WEIGHTS_FILE)
        for mode in score_modes:
            states = trie.states(collapsed=mode is not ScoreMode.FULL)
            for kind, graph in GRAPHS.items():
                if kind == "exact" and states.n_states > MAX_EXACT_STATES:
                    continue
                for half in (False, True) if float16 and mode is not ScoreMode.TRIE_INT8 else (False,):
                    proto = graph(model, states, mode, half=half)
                    weights.take_from(proto)
                    onnx.save(proto, temporary / graph_file(mode, kind, half=half))
        save_tables(model, temporary)
        if ScoreMode.TRIE_INT8 in score_modes:
            onnx.save(saturation_graph(), temporary / SATURATION_FILE)
        rng = np.random.default_rng(seed)
        requests = _random_requests(rng, len(trie))
        differences = {mode.value: _check(model, encoder, trie, temporary, mode, requests, rng) for mode in score_modes}
        if float16:
            for mode in score_modes:
                if mode is not ScoreMode.TRIE_INT8:
                    found = _check(model, encoder, trie, temporary, mode, requests, rng, half=True)
                    differences[f"{mode}.{Precision.FLOAT16}"] = found
        seconds = _measure(temporary, encoder, trie, score_modes[0], requests)
        for path in sorted(temporary.iterdir()):
            shutil.move(path, folder / path.name)
    beam, exact = (seconds.get(f"{score_modes[0]}.{kind.value}", np.inf) for kind in (Strategy.BEAM, Strategy.EXACT))
    cheaper = Strategy.EXACT if exact <= EXACT_IS_WORTH * beam else Strategy.BEAM
    return SearchExport(strategy or cheaper, seconds, differences)


def save_tables(model: RDRecModel, folder: Path) -> None:
    """The embedding, and the output layer where it is another: what the graphs are fed rows of."""
    np.save(folder / TABLE_FILE, model.t5.shared.weight.detach().numpy(), allow_pickle=False)
    if model.t5.lm_head is not None:
        np.save(folder / OUTPUT_FILE, model.t5.lm_head.weight.detach().numpy(), allow_pickle=False)


class _SharedWeights:
    """One file of tensors for several graphs; equal tensors are stored once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[bytes, int] = {}
        path.touch()

    def take_from(self, model: onnx.ModelProto) -> None:
        """Move the model's large tensors into the file and leave references."""
        with self._path.open("ab") as file:
            for tensor in model.graph.initializer:
                data = tensor.raw_data
                if len(data) < _INLINE_BYTES:
                    continue
                key = hashlib.sha256(data).digest()
                if key not in self._places:
                    file.write(b"\0" * (-file.tell() % 4096))  # ONNX Runtime maps whole pages
                    self._places[key] = file.tell()
                    file.write(data)
                tensor.ClearField("raw_data")
                tensor.data_location = onnx.TensorProto.EXTERNAL
                place = {"location": self._path.name, "offset": self._places[key], "length": len(data)}
                for name, value in place.items():
                    tensor.external_data.add(key=name, value=str(value))


def _random_requests(rng: np.random.Generator, n_items: int) -> list[RankRequest]:
    def some(most: int) -> tuple[int, ...]:
        return tuple(int(i) for i in rng.integers(0, n_items, rng.integers(0, most + 1)))

    return [
        RankRequest(
            user_index=None if row == 0 else int(rng.integers(0, 1000)),
            history=some(20),
            exclude=some(min(20, n_items - 1)),
            include=(*some(n_items), 0) if row == 1 else None,
        )
        for row in range(_CHECKED_REQUESTS)
    ]


@torch.inference_mode()
def teacher_forced(
    model: RDRecModel,
    encoder: SourceEncoder,
    trie: ItemTrie,
    request: RankRequest,
    items: Sequence[int],
    mode: ScoreMode,
) -> FloatArray:
    """Log-probability of each item's label by teacher forcing, (n,): a mode's definition, the long way."""
    batch = pad_sources([encoder.encode(Task.SEQUENTIAL, request.user_index, request.history)])
    sources = [torch.from_numpy(x) for x in (batch.token_ids, batch.whole_word_ids, batch.mask, batch.tasks)]
    token_ids, _, mask, tasks = sources
    start = model.start_tokens(token_ids, mask, tasks)
    encoded, mask = model.encode(*sources)
    labels = [trie.label(item) for item in items]
    targets = torch.zeros(len(labels), max(len(label) for label in labels), dtype=torch.int64)
    for row, label in enumerate(labels):
        targets[row, : len(label)] = torch.tensor(label)
    n = len(labels)
    hidden = model.decode_targets(encoded.expand(n, -1, -1), mask.expand(n, -1), targets, start.expand(n))
    logits = model.t5.logits(hidden)
    scores = np.zeros(len(labels), dtype=np.float32)
    for row, label in enumerate(labels):
        for depth, token in enumerate(label):
            rivals = logits[row, depth]
            if mode is not ScoreMode.FULL:
                rivals = rivals[trie.next_tokens(label[:depth])]
            scores[row] += float(logits[row, depth, token] - torch.logsumexp(rivals, 0))
    return scores


def _check(
    model: RDRecModel,
    encoder: SourceEncoder,
    trie: ItemTrie,
    folder: Path,
    mode: ScoreMode,
    requests: list[RankRequest],
    rng: np.random.Generator,
    *,
    half: bool = False,
) -> float:
    float_mode = ScoreMode.TRIE if mode is ScoreMode.TRIE_INT8 else mode
    reference = TorchEngine(model, encoder, trie, score_mode=float_mode)
    hardware = Hardware(threads=1, precision=Precision.FLOAT16 if half else Precision.FLOAT32)
    engine = OnnxEngine(folder, encoder, trie, score_mode=mode, hardware=hardware)
    suffix = f".{Precision.FLOAT16}" if half else ""
    n = min(_CHECKED_ITEMS, len(trie))
    chosen = [tuple(int(i) for i in rng.choice(len(trie), n, replace=False)) for _ in requests]
    wanted = [
        ScoreRequest(r.user_index, items, r.history, Task.SEQUENTIAL) for r, items in zip(requests, chosen, strict=True)
    ]
    found = np.stack(engine.score(wanted))
    truth = np.stack(
        [teacher_forced(model, encoder, trie, r, i, float_mode) for r, i in zip(requests, chosen, strict=True)]
    )
    if half or mode is ScoreMode.TRIE_INT8:
        spread = truth.std(axis=1).mean() if n > 1 else 1.0
        difference = float((found - truth).std(axis=1).mean() / max(spread, TOLERANCE))
        _require(difference <= (HALF_TOLERANCE if half else INT8_TOLERANCE), mode, f"score{suffix}", difference)
    else:
        difference = float((np.abs(found - truth) / np.maximum(1, np.abs(truth))).max())
        _require(difference <= TOLERANCE, mode, "score", difference)
    for strategy in Strategy if mode is not ScoreMode.TRIE_INT8 else ():
        if not (folder / graph_file(mode, strategy.value, half=half)).is_file():
            continue
        ours = OnnxEngine(folder, encoder, trie, score_mode=mode, strategy=strategy, hardware=hardware)
        reference.strategy = strategy
        answers = zip(ours.recommend(requests), reference.recommend(requests), strict=True)
        gap = max(_gap(mine, theirs) for mine, theirs in answers)
        _require(gap <= (HALF_TOLERANCE if half else TOLERANCE), mode, f"{strategy}{suffix}", gap)
        difference = max(difference, gap)
    return difference


def _gap(mine: RankedItems, theirs: RankedItems) -> float:
    """Largest relative difference of the scores at equal ranks; infinite where one list is longer."""
    if len(mine.log_probs) != len(theirs.log_probs):
        return float("inf")
    if len(mine.log_probs) == 0:
        return 0.0
    difference = np.abs(mine.log_probs - theirs.log_probs) / np.maximum(1, np.abs(theirs.log_probs))
    return float(difference.max())


def _require(holds: bool, mode: ScoreMode, graph: str, difference: float) -> None:
    _log.info("graph %s.%s differs by %.2g", mode, graph, difference)
    if not holds:
        raise ExportCheckError(
            f"graph {mode}.{graph} disagrees with the reference by {difference:.3g}; nothing was written"
        )


def _measure(
    folder: Path, encoder: SourceEncoder, trie: ItemTrie, mode: ScoreMode, requests: list[RankRequest]
) -> dict[str, float]:
    """Seconds a request of each strategy, alone; the best of some rounds, in turns, so that a busy moment hits both."""
    engines = {
        f"{mode}.{strategy.value}": OnnxEngine(folder, encoder, trie, score_mode=mode, strategy=strategy, threads=1)
        for strategy in Strategy
        if (folder / f"{mode}.{strategy.value}.onnx").is_file()
    }
    seconds = dict.fromkeys(engines, np.inf)
    for _ in range(_ROUNDS):
        for name, engine in engines.items():
            started = time.perf_counter()
            for request in requests:
                engine.recommend([request])
            seconds[name] = min(seconds[name], (time.perf_counter() - started) / len(requests))
    return seconds
