"""The serving engine: ranking and text graphs run by ONNX Runtime. Imports NumPy and onnxruntime, never torch.

The trie's arrays and the embedding are graph inputs and stay where the provider wants them; availability and the
catalogue change by giving the next run other arrays. Requests are turned into arrays by `TrieEngine`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from rdrec_core.bundle import Bundle
from rdrec_core.decoding.item_trie import ItemTrie
from rdrec_core.decoding.path_arrays import Availability, BoolArray, Paths
from rdrec_core.encoding import RaggedTokens, SourceBatch, SourceEncoder
from rdrec_core.engines.bundled import BundledParts
from rdrec_core.engines.hardware import (
    CPU_PROVIDER,
    CUDA_PROVIDER,
    Hardware,
    Precision,
    device_of_session,
    providers,
)
from rdrec_core.engines.sessions import open_graph, shared_rows
from rdrec_core.engines.trie_engine import TEXT_ROWS, BeamArrays, ExactArrays, TextWriter, TrieEngine
from rdrec_core.errors import BundleError, EngineError, InputError
from rdrec_core.exported.onnx_text import OnnxTextGenerator
from rdrec_core.types import FloatArray, IntArray, ScoreMode, Strategy

TABLE_FILE, OUTPUT_FILE = "table.npy", "output.npy"
"""Rows of the embedding, and of the output layer where that is another; graphs of older bundles hold theirs."""
SATURATION_FILE = "saturation.onnx"
SATURATION_WIDTH = 64
"""Terms of each sum of the graph in that file."""
Feed = Mapping[str, npt.NDArray[Any]]
_TRIE_ARRAYS = ("edge_start", "inner_edges", "edge_column", "edge_target", "position", "length")


_ROUND_TO = 16
"""What array sizes are rounded up to on a GPU, whose runtime plans and allocates anew for each shape."""


def graph_file(mode: ScoreMode, kind: str, *, half: bool = False) -> str:
    """Name of a ranking graph; kind is `beam`, `exact` or `score`."""
    return f"{mode}.{kind}.{Precision.FLOAT16}.onnx" if half else f"{mode}.{kind}.onnx"


class _RankingGraph:
    """One session, what it may be fed, and the values that stay bound between runs."""

    def __init__(self, path: Path, hardware: Hardware) -> None:
        self._session = open_graph(path, hardware)
        self.providers: list[str] = self._session.get_providers()
        self._device = "cuda" if self.providers[0] == CUDA_PROVIDER else "cpu"
        self._inputs = {value.name: value.type for value in self._session.get_inputs()}
        self._outputs = [value.name for value in self._session.get_outputs()]
        meta = self._session.get_modelmeta().custom_metadata_map
        self.levels, self.chain = int(meta["levels"]), int(meta["chain"])
        self._kept: dict[str, ort.OrtValue] = {}

    @property
    def takes_rows(self) -> bool:
        """Whether the embedding is an input, so that it can grow."""
        return "table" in self._inputs

    def keep(self, feed: Feed) -> None:
        """Bind arrays for all following runs, on the provider's device."""
        for name, array in feed.items():
            if name in self._inputs:
                if self._inputs[name] == "tensor(float16)":
                    array = array.astype(np.float16)
                self._kept[name] = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self._device)

    def run(self, feed: Feed) -> list[npt.NDArray[Any]]:
        """Outputs in the graph's order. Raises EngineError where the runtime fails."""
        binding = self._session.io_binding()
        for name, array in feed.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name, value in self._kept.items():
            binding.bind_ortvalue_input(name, value)
        for name in self._outputs:
            binding.bind_output(name)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # onnxruntime's own errors share no base class but Exception
            raise EngineError(f"the ranking graph failed: {error}") from error
        return [value.numpy() for value in binding.get_outputs()]


class OnnxEngine(TrieEngine):
    """Runs the graphs that `export_search_graphs` put into a folder. All three score modes."""

    def __init__(
        self,
        folder: Path,
        encoder: SourceEncoder,
        trie: ItemTrie,
        *,
        score_mode: ScoreMode = ScoreMode.TRIE,
        strategy: Strategy = Strategy.BEAM,
        available: BoolArray | None = None,
        text: TextWriter | None = None,
        threads: int = 0,
        hardware: Hardware | None = None,
        max_batch: int = 16,
    ) -> None:
        """threads: for one operator, 0 for one a core; or hardware, which says more. available (N,) by item index.

        Raises BundleError for files that are missing, and EngineError where the processor cannot compute trie-int8 or a
        GPU that is demanded cannot be used.
        """
        hardware = hardware or Hardware(threads=threads)
        if score_mode is ScoreMode.TRIE_INT8 and (folder / SATURATION_FILE).is_file():
            _require_exact_sums(folder / SATURATION_FILE)
        self._folder = folder
        self._hardware = hardware
        on_gpu = providers(hardware, ort.get_available_providers()) != [CPU_PROVIDER]
        has_half = (folder / graph_file(score_mode, strategy.value, half=True)).is_file()
        self._half = hardware.precision is Precision.FLOAT16 or (
            on_gpu and has_half and hardware.precision is Precision.AUTO
        )
        self._graphs: dict[str, _RankingGraph] = {}
        self._table = _rows_in(folder / TABLE_FILE)
        self._output = _rows_in(folder / OUTPUT_FILE)
        super().__init__(
            encoder, trie, score_mode=score_mode, strategy=strategy, available=available, text=text,
            max_batch=max_batch, round_to=_ROUND_TO if on_gpu else 1,
        )  # fmt: skip
        self._device = device_of_session(hardware, self._graph(strategy.value).providers)
        self._graph("score")

    @property
    def device(self) -> str:
        """`cpu` or `cuda:N`, what the runtime took, and `float16` behind it where it computes in that."""
        return f"{self._device} {Precision.FLOAT16}" if self._half else self._device

    @classmethod
    def from_bundle(
        cls,
        bundle: Bundle,
        *,
        score_mode: ScoreMode | None = None,
        strategy: Strategy | None = None,
        threads: int = 0,
        hardware: Hardware | None = None,
    ) -> OnnxEngine:
        """Everything from a bundle; its first score mode and its strategy by default. Raises BundleError."""
        hardware = hardware or Hardware(threads=threads)
        mode = score_mode or bundle.manifest.score_modes[0]
        if mode not in bundle.manifest.score_modes:
            has = ", ".join(bundle.manifest.score_modes)
            raise BundleError(f"{bundle.path} has no graphs for score mode {mode}; it has {has}")
        parts = BundledParts.read(bundle, mode, strategy)
        folder = bundle.path / "onnx"
        text = None
        if bundle.has(TEXT_ROWS):
            text = OnnxTextGenerator(
                folder, parts.encoder, parts.tokenizer,
                int8=bundle.has("onnx/text_step.int8.onnx") and mode is ScoreMode.TRIE_INT8, hardware=hardware,
            )  # fmt: skip
        return cls(
            folder, parts.encoder, parts.trie, text=text, hardware=hardware, **parts.options
        )  # fmt: skip

    def set_catalogue(self, trie: ItemTrie, item_words: RaggedTokens, available: BoolArray | None = None) -> None:
        """Take another catalogue, with the graphs that are loaded: items may have been added or retired.

        Raises InputError, with nothing changed, where the new trie needs more levels or longer edges than the graphs
        were exported for.
        """
        states = trie.states(collapsed=self._score_mode is not ScoreMode.FULL)
        for graph in self._graphs.values():
            _check_fits(graph, states.n_levels, states.tokens.shape[1])
        self._encoder = self._encoder.with_item_words(item_words)
        self._set_trie(trie, available)

    @property
    def can_grow(self) -> bool:
        """See `TrieEngine.can_grow`."""
        takes_rows = self._table is not None and self._output is None and self._graph("score").takes_rows
        return takes_rows and super().can_grow

    @property
    def _n_rows(self) -> int:
        assert self._table is not None
        return len(self._table)

    def _add_rows(self, rows: FloatArray) -> None:
        self._table = np.concatenate([self._table, rows.astype(np.float32)])

    def _set_trie(self, trie: ItemTrie, available: BoolArray | None) -> None:
        super()._set_trie(trie, available)
        self._column_rows = None
        if self._table is not None:
            rows = self._table if self._output is None else self._output
            # of the bundle's own trie; another, or items that came since, is this engine's alone
            shared = None if self._graphs else self._hardware.shared_weights
            self._column_rows = rows[trie.columns] if shared is None else shared_rows(rows, trie.columns, shared)
        for name, graph in self._graphs.items():
            self._keep_catalogue(name, graph)

    def _load(self, availability: Availability) -> None:
        for graph in self._graphs.values():
            graph.keep(_availability_feed(availability))

    def _graph(self, name: str) -> _RankingGraph:
        if name not in self._graphs:
            path = self._folder / graph_file(self._score_mode, name, half=self._half)
            graph = _RankingGraph(path, self._hardware)
            _check_fits(graph, self._states.n_levels, self._states.tokens.shape[1])
            self._keep_catalogue(name, graph)
            self._graphs[name] = graph
        return self._graphs[name]

    def _keep_catalogue(self, name: str, graph: _RankingGraph) -> None:
        graph.keep(self._trie_feed(graph))
        if name == Strategy.EXACT.value:
            paths = self._all_paths()
            graph.keep({f"paths.{field}": getattr(paths, field)[None] for field in Paths.__dataclass_fields__})

    def _trie_feed(self, graph: _RankingGraph) -> Feed:
        states = self._states
        spare = graph.levels - states.n_levels

        def sizes(array: npt.NDArray[np.int32]) -> IntArray:
            """One a level; at least 1, so that no operator sees an empty axis."""
            return np.maximum(np.append(array, np.ones(spare, dtype=np.int32)), 1).astype(np.int64)

        chain = np.zeros((states.n_states, graph.chain), dtype=np.int32)
        chain[:, : states.tokens.shape[1]] = states.tokens
        return {
            **{f"trie.{name}": getattr(states, name) for name in _TRIE_ARRAYS},
            "trie.columns": self._trie.columns,
            "trie.tokens": chain,
            "trie.root_tokens": states.root_tokens.astype(np.int64),
            "trie.fanout": sizes(states.fanout),
            "trie.inner_fanout": sizes(states.inner_fanout),
            "trie.widest": np.array([states.fanout.max()], dtype=np.int64),
            **_availability_feed(self._in_use),
            **({} if self._table is None else {"table": self._table, "trie.column_rows": self._column_rows}),
        }

    def _search(self, batch: BeamArrays) -> tuple[FloatArray, IntArray]:
        scores, leaves = self._graph(Strategy.BEAM.value).run(
            {
                **_source_feed(batch.sources),
                "allowed_by_default": batch.allowed_by_default,
                "state": batch.state,
                "offset": batch.offset,
                "n_items": batch.n_items[:, None],
                "beam_width": np.array([batch.beam_width], dtype=np.int64),
            }
        )
        return scores, leaves

    def _search_exactly(self, batch: ExactArrays) -> tuple[FloatArray, IntArray, FloatArray]:
        scores, leaves, also = self._graph(Strategy.EXACT.value).run(
            {
                **_source_feed(batch.sources),
                "allowed_by_default": batch.allowed_by_default,
                "exceptions": batch.leaf,
                "n_items": np.array([batch.n_items], dtype=np.int64),
                "also": batch.also,
            }
        )
        return scores, leaves, also

    def _score_paths(self, sources: SourceBatch, paths: Paths) -> FloatArray:
        feed = {f"paths.{name}": getattr(paths, name) for name in Paths.__dataclass_fields__}
        (scores,) = self._graph("score").run({**_source_feed(sources), **feed})
        return scores


def _rows_in(file: Path) -> FloatArray | None:
    """Memory-mapped, None where there is no such file."""
    return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False)) if file.is_file() else None


def _require_exact_sums(path: Path) -> None:
    """8-bit products without an instruction that adds in 32 bits (VNNI) add pairs in 16 bits, which overflow."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (sums,) = session.run(None, {"x": np.full((1, SATURATION_WIDTH), 255, dtype=np.uint8)})
    if (np.asarray(sums) != SATURATION_WIDTH * 255 * 127).any():
        raise EngineError(
            "this processor's 8-bit products lose sums (it has no VNNI), so trie-int8 would rank wrongly here;"
            " serve with score mode trie"
        )


def _availability_feed(availability: Availability) -> Feed:
    return {"trie.edge_alive": availability.edge_alive, "leaf_alive": availability.leaf_alive}


def _source_feed(sources: SourceBatch) -> Feed:
    return {
        "token_ids": sources.token_ids, "whole_word_ids": sources.whole_word_ids,
        "mask": sources.mask, "tasks": sources.tasks,
    }  # fmt: skip


def _check_fits(graph: _RankingGraph, levels: int, chain: int) -> None:
    if levels > graph.levels or chain > graph.chain:
        raise InputError(
            f"the trie has {levels} levels and edges of {chain} tokens, the graph takes {graph.levels} and "
            f"{graph.chain}; export again",
            field="trie",
        )
