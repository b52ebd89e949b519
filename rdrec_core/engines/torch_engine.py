"""The reference engine: the same search as the served graph, executed by torch. Used in training, evaluation and tests.

Knows the model and the search; requests are turned into arrays by `TrieEngine`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from rdrec_core.bundle import Bundle
from rdrec_core.decoding.beam_search import BeamSearch, Eligibility
from rdrec_core.decoding.candidate_scoring import CandidateScoring, PathTensors
from rdrec_core.decoding.item_trie import ItemTrie
from rdrec_core.decoding.path_arrays import BoolArray, Paths, paths_of
from rdrec_core.decoding.tensor_ops import TrieTensors
from rdrec_core.decoding.torch_ops import Memory, TorchNetwork, TorchOps
from rdrec_core.decoding.torch_text import TorchTextGenerator
from rdrec_core.encoding import SourceBatch, SourceEncoder
from rdrec_core.engines.trie_engine import TEXT_ROWS, BeamArrays, ExactArrays, TextWriter, TrieEngine, written_texts
from rdrec_core.errors import InputError
from rdrec_core.model import RDRecModel
from rdrec_core.types import FloatArray, IntArray, ScoreMode, Strategy, TextRequest


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
    ) -> None:
        """The model is put in evaluation mode. available (N,) by item index, all where None; text writes texts."""
        if score_mode is ScoreMode.TRIE_INT8:
            raise InputError("trie-int8 runs in OnnxEngine only; use trie", field="score_mode")
        self._model = model.eval()
        self._text = text
        self._device = model.prompts.device
        self._ops = TorchOps(self._device)
        super().__init__(
            encoder, trie, score_mode=score_mode, strategy=strategy, available=available, max_batch=max_batch
        )

    @classmethod
    def from_bundle(
        cls,
        bundle: Bundle,
        *,
        score_mode: ScoreMode | None = None,
        strategy: Strategy | None = None,
        device: str = "cpu",
    ) -> TorchEngine:
        """Read model, tokenizer, labels and availability; the bundle's first float mode and its strategy by default."""
        model = RDRecModel.load(bundle.path).to(device)
        t5 = model.config.t5
        tokenizer = Tokenizer.from_file(str(bundle.file("tokenizer.json")))
        encoder = SourceEncoder(tokenizer, bundle.tokens("item_words"), eos_token_id=t5.eos_token_id)
        trie = ItemTrie.build(bundle.tokens("labels"), eos_token_id=t5.eos_token_id, start_token_id=t5.pad_token_id)
        rows = np.load(bundle.file(TEXT_ROWS)) if bundle.has(TEXT_ROWS) else None
        if score_mode is None:
            first = bundle.manifest.score_modes[0]
            score_mode = ScoreMode.TRIE if first is ScoreMode.TRIE_INT8 else first
        return cls(
            model, encoder, trie,
            score_mode=score_mode, strategy=strategy or bundle.manifest.strategy, available=bundle.catalog.available,
            text=TorchTextGenerator(model, encoder, tokenizer, rows=rows) if rows is not None else None,
        )  # fmt: skip

    def generate_text(self, requests: Sequence[TextRequest]) -> list[str]:
        """One text a request. Raises EngineError where the engine was made without a text writer."""
        return written_texts(self._text, requests)

    def _set_trie(self, trie: ItemTrie, available: BoolArray | None) -> None:
        super()._set_trie(trie, available)
        network = TorchNetwork(self._model.t5, torch.as_tensor(np.asarray(trie.columns), device=self._device).long())
        full = self._score_mode is ScoreMode.FULL
        states = self._states
        self._tensors = TrieTensors(
            **{
                name: torch.as_tensor(np.ascontiguousarray(getattr(states, name)), device=self._device)
                for name in ("edge_start", "inner_edges", "edge_column", "edge_target", "position", "length", "tokens")
            },
            root_tokens=torch.as_tensor(states.root_tokens.astype(np.int64), device=self._device),
            edge_alive=torch.as_tensor(self._availability.edge_alive, device=self._device),
            fanout=tuple(states.fanout.tolist()),
            inner_fanout=tuple(states.inner_fanout.tolist()),
            chain=states.tokens.shape[1],
        )
        self._beam_search = BeamSearch(self._ops, network, self._tensors, full=full)
        self._scoring = CandidateScoring(self._ops, network, self._tensors, widest=int(states.fanout.max()), full=full)
        self._leaf_alive = torch.as_tensor(self._availability.leaf_alive, device=self._device)
        self._all_paths: PathTensors | None = None

    def _availability_changed(self) -> None:
        self._tensors.edge_alive.copy_(torch.as_tensor(self._availability.edge_alive))
        self._leaf_alive = torch.as_tensor(self._availability.leaf_alive, device=self._device)

    @torch.inference_mode()
    def _search(self, batch: BeamArrays) -> tuple[FloatArray, IntArray]:
        eligibility = Eligibility(
            self._tensor(batch.allowed_by_default), self._tensor(batch.state), self._tensor(batch.offset)
        )
        n_items = self._tensor(batch.n_items).unsqueeze(1)
        scores, leaves = self._beam_search(self._memory(batch.sources), eligibility, n_items, batch.beam_width)
        return scores.cpu().numpy(), leaves.cpu().numpy()

    @torch.inference_mode()
    def _search_exactly(self, batch: ExactArrays) -> tuple[FloatArray, IntArray, FloatArray]:
        if self._all_paths is None:
            leaves = np.arange(len(self._trie))
            self._all_paths = self._path_tensors(paths_of(self._states, leaves, len(self._trie.columns)), shared=True)
        scores, found, also = self._scoring.best(
            self._memory(batch.sources), len(batch.leaf), self._all_paths,
            self._tensor(batch.allowed_by_default), self._tensor(batch.leaf), self._leaf_alive, batch.n_items,
            self._tensor(batch.also),
        )  # fmt: skip
        return scores.cpu().numpy(), found.cpu().numpy(), also.cpu().numpy()

    @torch.inference_mode()
    def _score_paths(self, sources: SourceBatch, paths: Paths) -> FloatArray:
        scores = self._scoring(self._memory(sources), len(sources.tasks), self._path_tensors(paths, shared=False))
        return np.asarray(scores.cpu().numpy(), dtype=np.float32)

    def _path_tensors(self, paths: Paths, *, shared: bool) -> PathTensors:
        tensors = {name: self._tensor(getattr(paths, name)) for name in Paths.__dataclass_fields__}
        return PathTensors(**{k: v.unsqueeze(0) if shared else v for k, v in tensors.items()})

    def _memory(self, sources: SourceBatch) -> Memory:
        token_ids, mask, tasks = (self._tensor(x) for x in (sources.token_ids, sources.mask, sources.tasks))
        start = self._model.start_tokens(token_ids, mask, tasks)
        encoded, mask = self._model.encode(token_ids, self._tensor(sources.whole_word_ids), mask, tasks)
        return self._model.t5.cross_key_values(encoded), mask, start

    def _tensor(self, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Tensor:
        return torch.as_tensor(array, device=self._device)
