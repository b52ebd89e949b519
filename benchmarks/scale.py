"""What a request costs and what the trie takes as the catalogue grows from 12 thousand to 12 million items.

    python benchmarks/scale.py [--quick] [--json FILE]

Labels are numbers in pieces of three digits, made as token arrays. Each trie is built in a process of its own (its peak
memory is that process's), saved, and memory-mapped here. One graph, with T5-small's shape and random weights, answers
sources of one length over every catalogue in turns. Also builds the ten million items of the target. Appends one JSON
line to results/scale.jsonl.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from rich.console import Console
from rich.progress import track
from tokenizers import Tokenizer, models

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.records import in_turns, keep, table  # noqa: E402
from rdrec_core.decoding.item_trie import ItemTrie  # noqa: E402
from rdrec_core.encoding import RaggedTokens, SourceEncoder, TokenArray  # noqa: E402
from rdrec_core.engines.onnx_engine import OnnxEngine  # noqa: E402
from rdrec_core.exported.search_graphs import beam_graph, score_graph  # noqa: E402
from rdrec_core.model import ModelConfig, RDRecModel  # noqa: E402
from rdrec_core.t5 import T5Config  # noqa: E402
from rdrec_core.types import RankRequest, ScoreMode, Strategy  # noqa: E402

SIZES = (12_000, 120_000, 1_200_000, 12_000_000)
BUILD_TARGET = 10_000_000
FIRST_PIECE = 10
"""Token ids from here on are pieces: ten of one digit, a hundred of two, a thousand of three."""
VOCABULARY = 2048
TOKENS_A_WORD, HISTORY = 4, 20


@dataclass(frozen=True)
class Built:
    """One trie, as its building process saw it."""

    n_items: int
    build_s: float
    peak_bytes: int
    array_bytes: int


def numbered_labels(n: int) -> RaggedTokens:
    """Labels 1 to n as pieces of at most three digits from the left; no loop over items."""
    numbers = np.arange(1, n + 1)
    digits = np.ones(n, dtype=np.int8)
    while (longer := numbers >= 10 ** digits.astype(np.int64)).any():
        digits += longer
    lengths = (digits.astype(np.int64) + 2) // 3
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.empty(indptr[-1], dtype=np.int32)
    left, rest = digits.astype(np.int64), numbers
    for piece in range(int(lengths.max())):
        here = np.flatnonzero(left > 0)
        width = np.minimum(left[here], 3)
        scale = 10 ** (left[here] - width)
        value, rest_here = np.divmod(rest[here], scale)
        tokens[indptr[here] + piece] = FIRST_PIECE + np.array([0, 0, 10, 110])[width] + value
        rest[here] = rest_here
        left[here] -= width
    return RaggedTokens(indptr, tokens)


def build(n: int, folder: Path, result: multiprocessing.Queue[Built]) -> None:
    """Build and save one trie; peak memory includes Python, NumPy and the labels themselves."""
    labels = numbered_labels(n)
    started = time.perf_counter()
    arrays = ItemTrie.build(labels).arrays(collapsed=True)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    result.put(Built(n, seconds, peak, sum(array.nbytes for array in arrays.values())))


def built_elsewhere(n: int, folder: Path) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    result: multiprocessing.Queue[Built] = context.Queue()
    process = context.Process(target=build, args=(n, folder, result))
    process.start()
    built = result.get()
    process.join()
    return asdict(built)


class WordsOfOneLength:
    """Item words for any number of items without storing them: sources are equally long over every catalogue."""

    def __init__(self, n: int) -> None:
        self._n = n

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: int) -> TokenArray:
        return (FIRST_PIECE + (index * 7 + np.arange(TOKENS_A_WORD) * 13) % 1000).astype(np.int32)


def mapped(folder: Path) -> ItemTrie:
    arrays = {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}
    return ItemTrie.from_arrays(arrays, collapsed=True)


def engines(folder: Path, sizes: tuple[int, ...], threads: int) -> dict[int, OnnxEngine]:
    tries = {n: mapped(folder / str(n)) for n in sizes}
    states = max((trie.states(collapsed=True) for trie in tries.values()), key=lambda s: s.n_levels)
    model = RDRecModel(ModelConfig(t5=T5Config(vocab_size=VOCABULARY)))
    model.initialise(torch.Generator().manual_seed(0))
    for name, graph in (("beam", beam_graph), ("score", score_graph)):
        onnx.save(graph(model.eval(), states, ScoreMode.TRIE), folder / f"trie.{name}.onnx")
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 2}, unk_token="<unk>"))
    return {
        n: OnnxEngine(
            folder, SourceEncoder(tokenizer, cast(RaggedTokens, WordsOfOneLength(n))), trie,
            score_mode=ScoreMode.TRIE, strategy=Strategy.BEAM, threads=threads,
        )
        for n, trie in tries.items()
    }  # fmt: skip


def request_seconds(field: dict[int, OnnxEngine], rounds: int) -> dict[int, float]:
    """Median seconds of one request with 20 seen items taken out, every catalogue in every round."""
    rng = np.random.default_rng(0)
    seconds: dict[int, list[float]] = {n: [] for n in field}
    for turn in track(range(rounds + 1), description="requests"):
        for n, engine in field.items():
            seen = tuple(int(i) for i in rng.integers(0, n, HISTORY))
            request = RankRequest(int(rng.integers(0, 1000)), seen, exclude=seen)
            started = time.perf_counter()
            engine.recommend([request])
            if turn:
                seconds[n].append(time.perf_counter() - started)
    return {n: float(np.median(times)) for n, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="without the largest catalogue and with fewer rounds")
    parser.add_argument("--json", type=Path, help="write the records here")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    sizes = SIZES[:-1] if arguments.quick else SIZES
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for n in (*sizes, BUILD_TARGET):
            (folder / str(n)).mkdir()
        tries = {n: partial(built_elsewhere, n, folder / str(n)) for n in (*sizes, BUILD_TARGET)}
        built = in_turns(tries, 1 if arguments.quick else 3)
        field = engines(folder, sizes, arguments.threads)
        seconds = request_seconds(field, 20 if arguments.quick else 60)
    shown = table(
        "One request of 20 beams, and its trie",
        "items", "build s", "peak MB", "arrays MB", "request ms", "over the smallest",
    )  # fmt: skip
    records = []
    for n, trie in built.items():
        took = seconds.get(n)
        ratio = took / seconds[sizes[0]] if took else None
        records.append({**trie, "request_s": took, "ratio_to_smallest": ratio})
        shown.add_row(
            f"{n:,}", f"{trie['build_s']:.2f}", f"{trie['peak_bytes'] / 1e6:.0f}", f"{trie['array_bytes'] / 1e6:.1f}",
            f"{took * 1000:.1f}" if took else "", f"{ratio:.2f}" if ratio else "",
        )  # fmt: skip
    console.print(shown)
    keep("scale", {"records": records}, file=arguments.json)


if __name__ == "__main__":
    main()
