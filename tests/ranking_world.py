"""Small random models, catalogues and requests for tests of ranking, and the scorer that they are held to."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from rdrec_core.encoding import RaggedTokens, SourceEncoder, pad_sources
from rdrec_core.model import ModelConfig, RDRecModel
from rdrec_core.t5 import T5Config
from rdrec_core.types import RankRequest, ScoreMode, Task

VOCABULARY = 60
EOS = 1


def model(seed: int = 0, *, spread: float = 3.0, starts_from_source: bool = False, **changes: Any) -> RDRecModel:
    """A random model; spread > 1 makes its distributions peaked, so that ranks are not decided by rounding."""
    shape = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4}
    config = T5Config(**{"vocab_size": VOCABULARY, **shape, **changes})
    built = RDRecModel(ModelConfig(t5=config, whole_word_rows=128, starts_from_source=starts_from_source))
    built.initialise(torch.Generator().manual_seed(seed))
    with torch.no_grad():
        built.t5.decoder_norm.weight.mul_(spread)
    return built.eval()


def ragged(rows: list[tuple[int, ...]]) -> RaggedTokens:
    """Rows of token ids -> RaggedTokens."""
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return RaggedTokens(indptr, np.asarray([token for row in rows for token in row], dtype=np.int32))


def random_labels(rng: np.random.Generator, n: int, *, longest: int = 4, tokens: int = 6) -> list[tuple[int, ...]]:
    """n distinct random labels without EOS; many share prefixes and some are prefixes of others."""
    found: dict[tuple[int, ...], None] = {}
    while len(found) < n:
        length = int(rng.integers(1, longest + 1))
        found[tuple(int(t) for t in rng.integers(10, 10 + tokens, length))] = None
    return list(found)


def tokenizer() -> Tokenizer:
    """One token a user word, and some plain words."""
    words = {**{f"word{n}": n for n in range(4, 20)}, **{f"user_{n}": 20 + n for n in range(30)}}
    built = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, **words}, unk_token="<unk>"))
    built.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    built.add_special_tokens(["<pad>", "</s>", "<unk>"])
    return built


def encoder(labels: list[tuple[int, ...]]) -> SourceEncoder:
    """Item words are the label's tokens after a marker; user words are one token each."""
    return SourceEncoder(tokenizer(), item_words(labels))


def item_words(labels: list[tuple[int, ...]]) -> RaggedTokens:
    """Source tokens of each item's word."""
    return ragged([(3, *label) for label in labels])


def exact_scores(
    network: RDRecModel, sources: SourceEncoder, labels: list[tuple[int, ...]], request: RankRequest, mode: ScoreMode
) -> np.ndarray:
    """Every label's log-probability by teacher forcing, one at a time: the definition, without trie or beams."""
    batch = pad_sources([sources.encode(Task.SEQUENTIAL, request.user_index, request.history)])
    tensors = [torch.as_tensor(x) for x in (batch.token_ids, batch.whole_word_ids, batch.mask, batch.tasks)]
    children: dict[tuple[int, ...], set[int]] = {}
    for label in labels:
        sequence = (*label, EOS)
        for depth, token in enumerate(sequence):
            children.setdefault(sequence[:depth], set()).add(token)
    source = batch.token_ids[0, batch.mask[0]].tolist()
    start = source[-2] if network.config.starts_from_source else 0  # before EOS
    scores = []
    with torch.inference_mode():
        encoded, mask = network.encode(*tensors)
        for label in labels:
            sequence = (*label, EOS)
            hidden = network.decode_targets(encoded, mask, torch.tensor([sequence]), torch.tensor([start]))
            logits = network.t5.logits(hidden)[0]
            total = 0.0
            for depth, token in enumerate(sequence):
                allowed = list(range(VOCABULARY)) if mode is ScoreMode.FULL else sorted(children[sequence[:depth]])
                total += float(logits[depth, token] - torch.logsumexp(logits[depth, allowed], 0))
            scores.append(total)
    return np.asarray(scores)


def eligible(n: int, request: RankRequest, available: np.ndarray) -> np.ndarray:
    """(N,) bool, from the definition in `RankRequest`."""
    return np.array(
        [
            available[i]
            and (request.include is None or i in request.include)
            and (request.among is None or request.among.items[i])
            and i not in request.exclude
            for i in range(n)
        ]
    )


def assert_is_the_exact_answer(
    answer_items: np.ndarray, answer_scores: np.ndarray, scores: np.ndarray, allowed: np.ndarray, n_items: int,
    *, tolerance: float = 1e-4,
) -> None:  # fmt: skip
    """The answer is the best min(n_items, eligible) items with the scores that `scores` has for them."""
    k = min(n_items, int(allowed.sum()))
    assert len(answer_items) == len(set(answer_items.tolist())) == k
    assert allowed[answer_items].all()
    best = np.sort(scores[allowed])[::-1][:k]
    np.testing.assert_allclose(answer_scores, best, atol=tolerance)
    np.testing.assert_allclose(scores[answer_items], answer_scores, atol=tolerance)
