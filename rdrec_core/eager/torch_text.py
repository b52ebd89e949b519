"""Text generation with the torch model: the reference, and what training and offline profiles use.

The encoder and the cross-attention's keys and values run once a request, not once a beam; self-attention keeps keys
and values in slots with an ancestor mask, so nothing is reordered. Stands between `text_search.py` and `model.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor

from rdrec_core.decoding.text_requests import batches_by_search, encode_text_request, read_texts, text_rows
from rdrec_core.decoding.text_search import GREEDY, PAPER_SEARCH, TextSearch, extend_ancestors, search_text
from rdrec_core.encoding import SourceBatch, SourceEncoder, pad_sources
from rdrec_core.model import RDRecModel
from rdrec_core.t5 import KeyValue
from rdrec_core.types import FloatArray, IntArray, TextRequest


class TorchTextDecoder:
    """A `TextDecoder` over one batch of sources; rows (R,) is the text vocabulary, output (R, D) its output weights."""

    def __init__(self, model: RDRecModel, sources: SourceBatch, rows: Tensor, output: Tensor) -> None:
        self._t5, self._rows, self._output = model.t5, rows, output
        arrays = (sources.token_ids, sources.whole_word_ids, sources.mask, sources.tasks)
        encoded, self._source_mask = model.encode(*(torch.from_numpy(array).to(rows.device) for array in arrays))
        self._cross = self._t5.cross_key_values(encoded)
        self._past: list[KeyValue] | None = None
        self._depths: Tensor | None = None
        self._ancestors: npt.NDArray[np.bool_] | None = None
        self._length = 0

    @torch.inference_mode()
    def step(self, tokens: IntArray, parents: IntArray, n_candidates: int) -> tuple[FloatArray, IntArray]:
        """See `TextDecoder.step`."""
        device = self._rows.device
        self._ancestors = extend_ancestors(self._ancestors, parents)
        depth = torch.full((tokens.shape[1],), self._length, device=device)
        hidden, self._past = self._t5.decode(
            torch.from_numpy(tokens).to(device),
            self._cross,
            self._source_mask,
            positions=depth,
            slot_mask=torch.tensor(self._ancestors, device=device),
            past=self._past,
            past_positions=self._depths,
        )
        self._depths = depth if self._depths is None else torch.cat([self._depths, depth])
        self._length += 1
        logits = (hidden @ self._output.T).float()
        best, columns = logits.topk(min(n_candidates, len(self._rows)), dim=-1)
        log_probs = best - logits.logsumexp(dim=-1, keepdim=True)
        return log_probs.cpu().numpy(), self._rows[columns].cpu().numpy()

    @torch.inference_mode()
    def keep(self, rows: IntArray) -> None:
        """See `TextDecoder.keep`."""
        index = torch.from_numpy(rows).to(self._rows.device)
        self._source_mask = self._source_mask[index]
        self._cross = [(key[index], value[index]) for key, value in self._cross]
        if self._past is not None and self._ancestors is not None:
            self._past = [(key[index], value[index]) for key, value in self._past]
            self._ancestors = self._ancestors[rows]


class TorchTextGenerator:
    """Writes texts with a model in evaluation mode, on the model's device. The weights must not change while it lives.

    rows: the text vocabulary (`text_rows`); by default every token that is not special.
    """

    def __init__(
        self,
        model: RDRecModel,
        encoder: SourceEncoder,
        tokenizer: Tokenizer,
        *,
        rows: npt.ArrayLike | None = None,
        search: TextSearch = PAPER_SEARCH,
        fast_search: TextSearch = GREEDY,
        batch_size: int = 32,
    ) -> None:
        config = model.config.t5
        self._model, self._encoder, self._tokenizer = model, encoder, tokenizer
        self._search, self._fast_search, self._batch_size = search, fast_search, batch_size
        if rows is None:
            rows = text_rows(tokenizer, config.vocab_size, eos_token_id=config.eos_token_id)
        self._rows = torch.tensor(np.asarray(rows), dtype=torch.int64, device=model.prompts.device)
        with torch.inference_mode():
            self._output = model.t5.output_rows(self._rows)

    def generate(self, requests: Sequence[TextRequest]) -> list[str]:
        """One text a request, in order. Raises InputError before anything is computed."""
        sources = [encode_text_request(self._encoder, request) for request in requests]
        config = self._model.config.t5
        texts: dict[int, str] = {}
        for batch in batches_by_search(requests, sources, self._batch_size):
            with torch.inference_mode():
                padded = pad_sources([sources[place] for place in batch], pad_token_id=config.pad_token_id)
                decoder = TorchTextDecoder(self._model, padded, self._rows, self._output)
            search = self._fast_search if requests[batch[0]].fast else self._search
            found = search_text(
                decoder, len(batch), search, start_token_id=config.pad_token_id, eos_token_id=config.eos_token_id
            )
            written = read_texts(self._tokenizer, [hypotheses[0].tokens for hypotheses in found])
            texts.update(zip(batch.tolist(), written, strict=True))
        return [texts[place] for place in range(len(requests))]
