"""`full` with beams against `generate(num_beams, prefix_allowed_tokens_fn, length_penalty=0)`: items and scores."""

import numpy as np
import pytest
import torch
from transformers import T5Config as HFConfig
from transformers import T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from rdrec_core.decoding.item_trie import ItemTrie
from rdrec_core.encoding import pad_sources
from rdrec_core.engines.torch_engine import TorchEngine
from rdrec_core.t5 import from_hugging_face
from rdrec_core.types import RankRequest, ScoreMode, Task
from tests import ranking_world as world

BEAMS = 6


def hugging_face_twin(seed: int) -> tuple[T5ForConditionalGeneration, object]:
    ours = world.model(seed)
    t5 = ours.config.t5
    torch.manual_seed(seed)
    hf = T5ForConditionalGeneration(
        HFConfig(
            vocab_size=t5.vocab_size, d_model=t5.d_model, d_kv=t5.d_kv, d_ff=t5.d_ff, num_layers=t5.num_layers,
            num_decoder_layers=t5.num_decoder_layers, num_heads=t5.num_heads, decoder_start_token_id=0,
            initializer_factor=1.5,
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        hf.decoder.final_layer_norm.weight.mul_(1.5)
    state = from_hugging_face(hf.state_dict())
    state.pop("lm_head.weight", None)
    ours.t5.load_state_dict(state)
    return hf, ours


@pytest.mark.parametrize("seed", range(12))
def test_lists_are_hugging_faces(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hf, ours = hugging_face_twin(seed)
    labels = world.random_labels(rng, 70, longest=4)
    encoder = world.encoder(labels)
    available = rng.random(len(labels)) < (1.0 if seed % 2 else 0.6)
    engine = TorchEngine(
        ours, encoder, ItemTrie.build(world.ragged(labels)), score_mode=ScoreMode.FULL, available=available
    )
    requests = [
        RankRequest(
            user_index=int(rng.integers(0, 20)),
            history=tuple(int(i) for i in rng.integers(0, len(labels), rng.integers(1, 9))),
            exclude=tuple(int(i) for i in rng.integers(0, len(labels), rng.integers(0, 30))),
            n_items=BEAMS if row % 2 else 3,
            beam_width=BEAMS,
        )
        for row in range(5)
    ]
    batch = pad_sources([encoder.encode(Task.SEQUENTIAL, r.user_index, r.history) for r in requests])
    sequences = {(*label, world.EOS): item for item, label in enumerate(labels)}
    allowed: list[dict[tuple[int, ...], list[int]]] = []
    for request in requests:
        left = np.flatnonzero(world.eligible(len(labels), request, available))
        children: dict[tuple[int, ...], set[int]] = {}
        for item in left:
            sequence = (*labels[item], world.EOS)
            for depth, token in enumerate(sequence):
                children.setdefault(sequence[:depth], set()).add(token)
        allowed.append({prefix: sorted(tokens) for prefix, tokens in children.items()})
    with torch.inference_mode():
        tensors = [torch.as_tensor(x) for x in (batch.token_ids, batch.whole_word_ids, batch.mask, batch.tasks)]
        encoded, mask = ours.encode(*tensors)
        generated = hf.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded), attention_mask=mask.long(),
            num_beams=BEAMS, num_return_sequences=BEAMS, length_penalty=0.0, early_stopping=False, do_sample=False,
            max_new_tokens=8, return_dict_in_generate=True, output_scores=True,
            prefix_allowed_tokens_fn=lambda row, prefix: allowed[row].get(tuple(prefix.tolist()[1:]), [world.EOS]),
        )  # fmt: skip
    for row, (request, answer) in enumerate(zip(requests, engine.recommend(requests), strict=True)):
        rows = range(row * BEAMS, row * BEAMS + request.n_items)
        expected = []
        for sequence in generated.sequences[list(rows)].tolist():
            tokens = sequence[1:]
            end = tokens.index(world.EOS) if world.EOS in tokens else len(tokens)
            expected.append(sequences[(*tokens[:end], world.EOS)])
        assert answer.item_indices.tolist() == expected
        np.testing.assert_allclose(answer.log_probs, generated.sequences_scores[list(rows)].numpy(), atol=1e-4)
