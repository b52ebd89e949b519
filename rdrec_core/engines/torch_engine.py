"""The reference engine: the same search as the served graph, executed by torch. Used in training, evaluation and tests.

Knows the model and the search; requests are turned into arrays by `TrieEngine`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rdrec_core.bundle import Bundle
from rdrec_core.decoding.beam_search import BeamSearch, Eligibility
from rdrec_core.decoding.candidate_scoring import CandidateScoring, PathTensors
from rdrec_core.decoding.item_trie import ItemTrie
from rdrec_core.decoding.path_arrays import Availability, BoolArray, Paths
from rdrec_core.decoding.tensor_ops import TrieTensors
from rdrec_core.eager.cuda_graphs import FixedShapeOps, Function, GraphCache
from rdrec_core.eager.torch_ops import Memory, TorchNetwork, TorchOps
from rdrec_core.eager.torch_text import TorchTextGenerator
from rdrec_core.encoding import SourceBatch, SourceEncoder
from rdrec_core.engines.bundled import BundledParts
from rdrec_core.engines.hardware import Hardware, torch_device
from rdrec_core.engines.trie_engine import TEXT_ROWS, BeamArrays, ExactArrays, TextWriter, TrieEngine
from rdrec_core.errors import InputError
from rdrec_core.model import RDRecModel
from rdrec_core.types import FloatArray, IntArray, ScoreMode, Strategy

_PATH_ARRAYS = tuple(Paths.__dataclass_fields__)
_ROUND_TO = 16
"""What array sizes are rounded up to where shapes are fixed."""


def dtype_on(device: str) -> torch.dtype:
    """What models are served in: bfloat16 on a GPU that computes in it, else float32."""
    half = device.startswith("cuda") and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if half else torch.float32


class TorchEngine(TrieEngine):
    """Runs on the model's device and in its dtype. `full` and `trie`; int8 exists as a graph only."""

    def __init__(
        self,
        model: RDRecModel,
        encoder: SourceEncoder,
        trie: ItemTrie,
        *,
        score_mode: ScoreMode = ScoreMode.TRIE,
        strategy: Strategy = Strategy.BEAM,
        available: BoolArray | None = None,
        text: TextWriter | None = None,
        max_batch: int = 16,
        fixed_shapes: bool | None = None,
    ) -> None:
        """The model is put in evaluation mode. available (N,) by item index, all where None; text writes texts.

        fixed_shapes: searches of few shapes, recorded as CUDA graphs; None: on a GPU only.
        """
        if score_mode is ScoreMode.TRIE_INT8:
            raise InputError("trie-int8 runs in OnnxEngine only; use trie", field="score_mode")
        self._model = model.eval()
        self._device = model.prompts.device
        fixed = self._device.type == "cuda" if fixed_shapes is None else fixed_shapes
        self._ops = (FixedShapeOps if fixed else TorchOps)(self._device)
        self._records = fixed and self._device.type == "cuda"
        super().__init__(
            encoder, trie, score_mode=score_mode, strategy=strategy, available=available, text=text,
            max_batch=max_batch, round_to=_ROUND_TO if fixed else 1,
        )  # fmt: skip

    @classmethod
    def from_bundle(
        cls,
        bundle: Bundle,
        *,
        score_mode: ScoreMode | None = None,
        strategy: Strategy | None = None,
        hardware: Hardware | None = None,
    ) -> TorchEngine:
        """Read model, tokenizer, labels and availability; the bundle's first float mode and its strategy by default.

        Takes a GPU where there is one, unless hardware says otherwise; the model computes as `dtype_on` says. Raises
        EngineError where a GPU that is demanded is not there.
        """
        hardware = hardware or Hardware()
        device = torch_device(hardware, torch.cuda.device_count())
        if hardware.threads:
            torch.set_num_threads(hardware.threads)
        if hardware.memory_limit_bytes is not None and device != "cpu":
            total = torch.cuda.get_device_properties(device).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, hardware.memory_limit_bytes / total), device)
        model = RDRecModel.load(bundle.path).to(device, dtype_on(device))
        if score_mode is None:
            first = bundle.manifest.score_modes[0]
            score_mode = ScoreMode.TRIE if first is ScoreMode.TRIE_INT8 else first
        t5 = model.config.t5
        parts = BundledParts.read(
            bundle, score_mode, strategy, eos_token_id=t5.eos_token_id, pad_token_id=t5.pad_token_id
        )
        text = None
        if bundle.has(TEXT_ROWS):
            text = TorchTextGenerator(model, parts.encoder, parts.tokenizer, rows=np.load(bundle.file(TEXT_ROWS)))
        return cls(model, parts.encoder, parts.trie, text=text, **parts.options)

    @property
    def device(self) -> str:
        """`cpu` or `cuda:N`."""
        return "cpu" if self._device.type == "cpu" else f"{self._device.type}:{self._device.index or 0}"

    @property
    def can_grow(self) -> bool:
        """See `TrieEngine.can_grow`."""
        return self._model.t5.lm_head is None and super().can_grow

    @property
    def _n_rows(self) -> int:
        return int(self._model.t5.shared.weight.shape[0])

    def _add_rows(self, rows: FloatArray) -> None:
        shared = self._model.t5.shared
        more = torch.as_tensor(rows).to(shared.weight)
        shared.weight = torch.nn.Parameter(torch.cat([shared.weight.detach(), more]), requires_grad=False)
        shared.num_embeddings = len(shared.weight)

    def _set_trie(self, trie: ItemTrie, available: BoolArray | None) -> None:
        super()._set_trie(trie, available)
        network = TorchNetwork(self._model.t5, torch.as_tensor(np.array(trie.columns), device=self._device).long())
        full = self._score_mode is ScoreMode.FULL
        states = self._states
        self._tensors = TrieTensors(
            **{  # copies: arrays of a bundle are read-only, which torch does not have
                name: torch.as_tensor(np.array(getattr(states, name)), device=self._device)
                for name in ("edge_start", "inner_edges", "edge_column", "edge_target", "position", "length", "tokens")
            },
            root_tokens=torch.as_tensor(states.root_tokens.astype(np.int64), device=self._device),
            edge_alive=torch.tensor(self._in_use.edge_alive, device=self._device),
            fanout=tuple(states.fanout.tolist()),
            inner_fanout=tuple(states.inner_fanout.tolist()),
            chain=states.tokens.shape[1],
        )
        self._beam_search = BeamSearch(self._ops, network, self._tensors, full=full)
        self._scoring = CandidateScoring(self._ops, network, self._tensors, widest=int(states.fanout.max()), full=full)
        self._leaf_alive = torch.tensor(self._in_use.leaf_alive, device=self._device)  # written to by `_load`
        self._every_path: PathTensors | None = None
        self._run = GraphCache(records=self._records)  # recorded graphs read this trie's tensors

    def _load(self, availability: Availability) -> None:
        self._tensors.edge_alive.copy_(torch.as_tensor(availability.edge_alive))
        self._leaf_alive.copy_(torch.as_tensor(availability.leaf_alive))

    def _search(self, batch: BeamArrays) -> tuple[FloatArray, IntArray]:
        given = (batch.allowed_by_default, batch.state, batch.offset, batch.n_items[:, None])
        scores, leaves = self._computed(self._beam, batch.sources, given, batch.beam_width)
        return scores, leaves

    def _beam(self, tensors: Sequence[Tensor], beam_width: int) -> Sequence[Tensor]:
        *sources, allowed, state, offset, n_items = tensors
        return self._beam_search(self._memory(*sources), Eligibility(allowed, state, offset), n_items, beam_width)

    def _search_exactly(self, batch: ExactArrays) -> tuple[FloatArray, IntArray, FloatArray]:
        if self._every_path is None:
            paths = self._all_paths()
            tensors = {name: self._tensor(getattr(paths, name)).unsqueeze(0) for name in _PATH_ARRAYS}
            self._every_path = PathTensors(**tensors)
        given = (batch.allowed_by_default, batch.leaf, batch.also)
        scores, found, also = self._computed(self._exact, batch.sources, given, batch.n_items)
        return scores, found, also

    def _exact(self, tensors: Sequence[Tensor], n_items: int) -> Sequence[Tensor]:
        *sources, allowed, leaf, also = tensors
        assert self._every_path is not None
        return self._scoring.best(
            self._memory(*sources), len(leaf), self._every_path, allowed, leaf, self._leaf_alive, n_items, also
        )

    def _score_paths(self, sources: SourceBatch, paths: Paths) -> FloatArray:
        (scores,) = self._computed(self._scores, sources, [getattr(paths, name) for name in _PATH_ARRAYS])
        return scores.astype(np.float32)

    def _scores(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        paths = PathTensors(**dict(zip(_PATH_ARRAYS, tensors[4:], strict=True)))
        return (self._scoring(self._memory(*tensors[:4]), len(tensors[0]), paths),)

    @torch.inference_mode()
    def _computed(
        self, function: Function, sources: SourceBatch, given: Sequence[npt.NDArray[Any]], *sizes: int
    ) -> list[npt.NDArray[Any]]:
        """A function of the sources' four arrays and those given, run on the device."""
        arrays = (sources.token_ids, sources.whole_word_ids, sources.mask, sources.tasks, *given)
        found = self._run(function, [self._tensor(array) for array in arrays], *sizes)
        return [tensor.cpu().numpy() for tensor in found]

    def _memory(self, token_ids: Tensor, whole_word_ids: Tensor, mask: Tensor, tasks: Tensor) -> Memory:
        start = self._model.start_tokens(token_ids, mask, tasks)
        encoded, mask = self._model.encode(token_ids, whole_word_ids, mask, tasks)
        return self._model.t5.cross_key_values(encoded), mask, start

    def _tensor(self, array: npt.NDArray[Any]) -> Tensor:
        return torch.as_tensor(array, device=self._device)
