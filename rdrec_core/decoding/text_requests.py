"""From text requests to sources, and from token ids back to text. Shared by the torch and the ONNX text generator."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from tokenizers import Tokenizer

from rdrec_core.encoding import EncodedSource, SourceEncoder
from rdrec_core.errors import InputError
from rdrec_core.types import IntArray, Task, TextRequest

_NEEDS = {
    Task.EXPLANATION: ("user_index", "item_index"),
    Task.USER_PREFERENCE: ("user_index",),
    Task.ITEM_ATTRIBUTES: ("item_index",),
}


def encode_text_request(encoder: SourceEncoder, request: TextRequest) -> EncodedSource:
    """The source of one request. Raises InputError naming the field that is missing or out of range."""
    if request.task not in _NEEDS:
        raise InputError(f"task {request.task.name} writes no text", field="task")
    needs = _NEEDS[request.task]
    for field in needs:
        index = getattr(request, field)
        if index is None:
            raise InputError(f"task {request.task.name} needs {field}", field=field)
        if index < 0:
            raise InputError(f"{field} must not be negative, not {index}", field=field)
    items: tuple[int, ...] = ()
    if "item_index" in needs and request.item_index is not None:
        if request.item_index >= encoder.n_items:
            raise InputError(
                f"item_index {request.item_index} is outside the catalogue of {encoder.n_items} items",
                field="item_index",
            )
        items = (request.item_index,)
    return encoder.encode(request.task, request.user_index if "user_index" in needs else None, items)


def text_rows(
    tokenizer: Tokenizer, vocab_size: int, *, eos_token_id: int = 1, seen: Iterable[int] | None = None
) -> IntArray:
    """The text vocabulary: sorted ids that a text may be written with, (R,), and over which it is normalised.

    Everything that the tokenizer can read back, special tokens but EOS left out (pad, unknown, sentinels); with
    `seen` (the tokens of the training targets) only those, since no other token was ever an answer. Raises InputError
    where nothing but EOS would be left.
    """
    special = {index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    usable = set(range(min(vocab_size, tokenizer.get_vocab_size()))) - special
    if seen is not None:
        usable &= set(seen)
    if not usable - {eos_token_id}:
        raise InputError("the text vocabulary is empty: the training targets hold no tokens", field="rows")
    return np.asarray(sorted(usable | {eos_token_id}), dtype=np.int64)


def read_texts(tokenizer: Tokenizer, token_ids: Sequence[Sequence[int]]) -> list[str]:
    """Detokenise, special tokens removed, stripped; nothing is edited."""
    return [text.strip() for text in tokenizer.decode_batch([list(ids) for ids in token_ids])]


def batches_by_search(requests: Sequence[TextRequest], sources: Sequence[EncodedSource], size: int) -> list[IntArray]:
    """Places of the requests in batches of at most `size` that share `fast` and have sources of similar length."""
    places = sorted(range(len(requests)), key=lambda i: (requests[i].fast, len(sources[i].token_ids)))
    batches: list[list[int]] = []
    for place in places:
        if not batches or len(batches[-1]) == size or requests[batches[-1][0]].fast != requests[place].fast:
            batches.append([])
        batches[-1].append(place)
    return [np.asarray(batch, dtype=np.int64) for batch in batches]
