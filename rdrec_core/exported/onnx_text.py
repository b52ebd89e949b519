"""Text generation over ONNX graphs: an encoder graph once a request, a step graph once a token.

Only the candidates of each beam leave the step graph; keys and values stay in the runtime's memory. The graphs come
from `text_graphs.py`; the search is `text_search.py`. Needs onnxruntime and NumPy, not torch.

A text is searched in columns, the places of its tokens in the text vocabulary; the column behind the last one is the
start.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from tokenizers import Tokenizer

from rdrec_core.decoding.text_requests import batches_by_search, encode_text_request, read_texts
from rdrec_core.decoding.text_search import GREEDY, PAPER_SEARCH, TextSearch, search_text
from rdrec_core.encoding import SourceBatch, SourceEncoder, pad_sources
from rdrec_core.engines.hardware import Device, Hardware
from rdrec_core.engines.sessions import open_graph
from rdrec_core.errors import BundleError
from rdrec_core.types import FloatArray, IntArray, TextRequest

ENCODER_GRAPH = "text_encoder.onnx"
STEP_GRAPH = "text_step.onnx"
STEP_GRAPH_INT8 = "text_step.int8.onnx"
ROWS_FILE = "text_rows.npy"
"""The text vocabulary, (R,) int64: token id of each column."""


def load_text_rows(folder: Path) -> IntArray:
    """The text vocabulary of exported graphs. Raises BundleError where it is missing."""
    if not (folder / ROWS_FILE).is_file():
        raise BundleError(f"{folder / ROWS_FILE} is missing: the model writes no text, or was exported without it")
    return np.load(folder / ROWS_FILE, allow_pickle=False)  # type: ignore[no-any-return]


_ON_CPU = Hardware(Device.CPU)


class OnnxTextGraphs:
    """The two sessions and what is the same for every batch. Device memory is the first provider's."""

    def __init__(self, folder: Path, *, int8: bool = False, hardware: Hardware = _ON_CPU) -> None:
        self.rows = load_text_rows(folder)
        self.encoder = open_graph(folder / ENCODER_GRAPH, hardware)
        self.step = open_graph(folder / (STEP_GRAPH_INT8 if int8 else STEP_GRAPH), hardware)
        self.device = "cuda" if self.encoder.get_providers()[0].startswith("CUDA") else "cpu"
        self.memory_names = [output.name for output in self.encoder.get_outputs()]
        self.present_names = [output.name for output in self.step.get_outputs()[2:]]
        past = [value for value in self.step.get_inputs() if value.name.startswith("past.")]
        self.past_names = [value.name for value in past]
        self.inner = int(past[0].shape[2])
        """Numbers in the keys of one slot."""


class Slots:
    """Which slots of keys and values each request still has, and which of them each beam attends to.

    A step's W slots stand behind the earlier ones and are never reordered; those that no live beam descends from are
    left behind. Beams share most of their past, so some hundred slots of long texts shrink to a few dozen.
    """

    def __init__(self, n_requests: int) -> None:
        self.ancestors = np.zeros((n_requests, 1, 0), dtype=np.bool_)
        """(B, W, P): slots that each beam of the last step descends from, itself included."""
        self.distances = np.zeros((n_requests, 0), dtype=np.int64)
        """(B, P): how many steps before the last one each slot was written."""
        self._rows = np.arange(n_requests)  # where each request's slots lie in the arrays of the last step

    def extend(self, parents: IntArray) -> IntArray:
        """Add a slot for each new beam, parents (B, W'); returns which earlier ones stay, (B, K), over all rows.

        K is what the request that needs most needs; the others keep some that nobody attends to.
        """
        batch, slots = self.distances.shape
        inherited = np.take_along_axis(self.ancestors, parents[..., None], axis=1)
        needed = inherited.any(axis=1)
        width = int(needed.sum(axis=1).max(initial=0))
        kept = np.argsort(~needed, axis=1, kind="stable")[:, :width]
        own = np.broadcast_to(np.eye(parents.shape[1], dtype=np.bool_), (batch, parents.shape[1], parents.shape[1]))
        self.ancestors = np.concatenate([np.take_along_axis(inherited, kept[:, None], axis=2), own], axis=2)
        earlier = np.take_along_axis(self.distances, kept, axis=1) + 1
        self.distances = np.concatenate([earlier, np.zeros_like(parents)], axis=1)
        places = kept + self._rows[:, None] * slots
        self._rows = np.arange(batch)
        return places

    def keep(self, rows: IntArray) -> None:
        """Go on with these requests only."""
        self.ancestors, self.distances, self._rows = self.ancestors[rows], self.distances[rows], self._rows[rows]


class OnnxTextDecoder:
    """A `TextDecoder` over one batch of sources, in columns."""

    def __init__(self, graphs: OnnxTextGraphs, sources: SourceBatch) -> None:
        self._graphs = graphs
        feed = {
            "token_ids": sources.token_ids, "whole_word_ids": sources.whole_word_ids,
            "mask": sources.mask, "tasks": sources.tasks,
        }  # fmt: skip
        self._memory = self._run(graphs.encoder, feed, {}, graphs.memory_names)
        empty = np.empty((len(sources.tasks), 0, graphs.inner), dtype=np.float32)
        self._past = {name: self._device_value(empty) for name in graphs.past_names}
        self._slots = Slots(len(sources.tasks))

    def _device_value(self, array: npt.NDArray[Any]) -> ort.OrtValue:
        return ort.OrtValue.ortvalue_from_numpy(array, self._graphs.device)

    def _run(
        self,
        session: ort.InferenceSession,
        feed: dict[str, npt.NDArray[Any]],
        kept: dict[str, ort.OrtValue],
        on_device: Sequence[str],
        on_host: Sequence[str] = (),
    ) -> dict[str, ort.OrtValue]:
        """Run a graph on arrays and on values that are on the device already."""
        binding = session.io_binding()
        for name, array in feed.items():
            binding.bind_cpu_input(name, array)
        for name, value in kept.items():
            binding.bind_ortvalue_input(name, value)
        for name in on_host:
            binding.bind_output(name)
        for name in on_device:
            binding.bind_output(name, self._graphs.device)
        session.run_with_iobinding(binding)
        return dict(zip([*on_host, *on_device], binding.get_outputs(), strict=True))

    def step(self, tokens: IntArray, parents: IntArray, n_candidates: int) -> tuple[FloatArray, IntArray]:
        """See `TextDecoder.step`."""
        graphs = self._graphs
        feed = {
            "tokens": np.ascontiguousarray(tokens),
            "kept": self._slots.extend(parents),
            "ancestors": np.ascontiguousarray(self._slots.ancestors),
            "distances": self._slots.distances,
            "n_candidates": np.asarray([min(n_candidates, len(graphs.rows))], dtype=np.int64),
        }
        on_host = ("log_probs", "columns")
        found = self._run(graphs.step, feed, {**self._memory, **self._past}, graphs.present_names, on_host)
        log_probs, columns = (found.pop(name).numpy() for name in on_host)
        self._past = {past: found[name] for past, name in zip(graphs.past_names, graphs.present_names, strict=True)}
        return log_probs, columns

    def keep(self, rows: IntArray) -> None:
        """See `TextDecoder.keep`."""
        for name, value in self._memory.items():
            self._memory[name] = self._device_value(np.ascontiguousarray(value.numpy()[rows]))
        self._slots.keep(rows)


class OnnxTextGenerator:
    """Writes texts with the graphs that `export_text_graphs` put into a folder (a bundle's `onnx/`).

    int8 takes the quantized step graph. Raises BundleError naming a missing file.
    """

    def __init__(
        self,
        folder: Path,
        encoder: SourceEncoder,
        tokenizer: Tokenizer,
        *,
        int8: bool = False,
        search: TextSearch = PAPER_SEARCH,
        fast_search: TextSearch = GREEDY,
        batch_size: int = 32,
        hardware: Hardware = _ON_CPU,
    ) -> None:
        self._graphs = OnnxTextGraphs(folder, int8=int8, hardware=hardware)
        self._encoder, self._tokenizer = encoder, tokenizer
        self._search, self._fast_search, self._batch_size = search, fast_search, batch_size
        meta = self._graphs.step.get_modelmeta().custom_metadata_map
        self._pad, self._eos_column = int(meta["pad_token_id"]), int(meta["eos_column"])

    def generate(self, requests: Sequence[TextRequest]) -> list[str]:
        """One text a request, in order. Raises InputError before anything is computed."""
        sources = [encode_text_request(self._encoder, request) for request in requests]
        rows = self._graphs.rows
        texts: dict[int, str] = {}
        for batch in batches_by_search(requests, sources, self._batch_size):
            padded = pad_sources([sources[place] for place in batch], pad_token_id=self._pad)
            found = search_text(
                OnnxTextDecoder(self._graphs, padded),
                len(batch),
                self._fast_search if requests[batch[0]].fast else self._search,
                start_token_id=len(rows),
                eos_token_id=self._eos_column,
            )
            token_ids = [rows[list(hypotheses[0].tokens)].tolist() for hypotheses in found]
            texts.update(zip(batch.tolist(), read_texts(self._tokenizer, token_ids), strict=True))
        return [texts[place] for place in range(len(requests))]
