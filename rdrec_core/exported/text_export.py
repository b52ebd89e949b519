"""Writes the text graphs of a model into a folder, after they agreed with the torch road on random sources. Needs
torch."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch

from rdrec_core.decoding.text_search import PAPER_SEARCH, TextDecoder, search_text
from rdrec_core.eager.torch_text import TorchTextDecoder
from rdrec_core.encoding import SourceBatch
from rdrec_core.errors import ExportCheckError
from rdrec_core.exported.onnx_text import (
    ENCODER_GRAPH,
    ROWS_FILE,
    STEP_GRAPH,
    STEP_GRAPH_INT8,
    OnnxTextDecoder,
    OnnxTextGraphs,
)
from rdrec_core.exported.text_graphs import encoder_graph, step_graph
from rdrec_core.model import RDRecModel
from rdrec_core.types import FloatArray, IntArray, Task

TOLERANCE = 1e-3
"""Largest difference of a candidate's log-probability that float32 in another order of addition explains."""
INT8_TOLERANCE = 0.2
"""Mean difference that 8-bit weights may make, relative to how far a beam's candidates are apart."""


def export_text_graphs(model: RDRecModel, folder: Path, rows: IntArray, *, int8: bool = False) -> None:
    """Write text_encoder.onnx, text_step.onnx, text_rows.npy and, with int8, text_step.int8.onnx into `folder`.

    rows (R,) is the text vocabulary (`text_rows`), sorted, EOS in it. Each graph is first compared with the torch
    road through a whole diverse beam search. Raises ExportCheckError, with nothing written, where they differ.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".text-") as name:
        temporary = Path(name)
        np.save(temporary / ROWS_FILE, rows, allow_pickle=False)
        onnx.save(encoder_graph(model), temporary / ENCODER_GRAPH)
        onnx.save(step_graph(model, rows), temporary / STEP_GRAPH)
        largest = compare_with_torch(model, temporary, rows, int8=False).largest
        if not largest <= TOLERANCE:
            raise ExportCheckError(f"{STEP_GRAPH} differs from the torch model by {largest:.2e} in a log-probability")
        if int8:
            onnx.save(step_graph(model, rows, int8=True), temporary / STEP_GRAPH_INT8)
            relative = compare_with_torch(model, temporary, rows, int8=True).relative
            if not relative <= INT8_TOLERANCE:
                raise ExportCheckError(
                    f"{STEP_GRAPH_INT8} differs from the torch model by {relative:.0%} of the candidates' spread"
                )
        for file in temporary.iterdir():
            os.replace(file, folder / file.name)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far the graphs' candidates are from the torch model's, over a whole search."""

    largest: float
    """Largest absolute difference of two log-probabilities of the same rank."""
    relative: float
    """Mean absolute difference over the mean standard deviation of a beam's candidates."""


class _Compared:
    """Drives two decoders through the reference's search and keeps what both proposed."""

    def __init__(self, reference: TextDecoder, other: TextDecoder, rows: IntArray) -> None:
        self._reference, self._other, self._rows = reference, other, rows
        self.proposed: list[tuple[FloatArray, FloatArray]] = []

    def step(self, tokens: IntArray, parents: IntArray, n_candidates: int) -> tuple[FloatArray, IntArray]:
        log_probs, ids = self._reference.step(tokens, parents, n_candidates)
        start = np.full_like(tokens, len(self._rows))
        # beams of done groups hold a token that is no column; what they propose is not looked at
        columns = np.searchsorted(self._rows, tokens) % len(self._rows) if self.proposed else start
        others, _ = self._other.step(columns, parents, n_candidates)
        live = np.isin(tokens, self._rows) | (columns == start)
        self.proposed.append((log_probs[live], others[live]))
        return log_probs, ids

    def keep(self, rows: IntArray) -> None:
        self._reference.keep(rows)
        self._other.keep(rows)


def _random_sources(model: RDRecModel, rng: np.random.Generator) -> SourceBatch:
    lengths = np.array([12, 5, 9, 2])
    mask = np.arange(12) < lengths[:, None]
    token_ids = np.where(mask, rng.integers(3, model.config.t5.vocab_size, mask.shape), model.config.t5.pad_token_id)
    tasks = np.array([Task.EXPLANATION, Task.USER_PREFERENCE, Task.EXPLANATION, Task.ITEM_ATTRIBUTES])
    return SourceBatch(token_ids, rng.integers(0, 3, mask.shape) * mask, mask, tasks.astype(np.int64))


@torch.inference_mode()
def compare_with_torch(model: RDRecModel, folder: Path, rows: IntArray, *, int8: bool) -> Agreement:
    """Run one diverse beam search of four random sources of unequal lengths through both roads."""
    sources = _random_sources(model, np.random.default_rng(0))
    config = model.config.t5
    tensor = torch.from_numpy(rows).to(model.prompts.device)
    compared = _Compared(
        TorchTextDecoder(model, sources, tensor, model.t5.output_rows(tensor)),
        OnnxTextDecoder(OnnxTextGraphs(folder, int8=int8), sources),
        rows,
    )
    search_text(
        compared, len(sources.tasks), PAPER_SEARCH, start_token_id=config.pad_token_id, eos_token_id=config.eos_token_id
    )
    torch_road, onnx_road = (np.concatenate(road) for road in zip(*compared.proposed, strict=True))
    difference = np.abs(torch_road - onnx_road)
    return Agreement(float(difference.max()), float(difference.mean() / torch_road.std(axis=1).mean()))
