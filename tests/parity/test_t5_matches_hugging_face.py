"""Our T5 against Hugging Face's, for both generations of the architecture, and RDRec's source and targets around it."""

import pytest
import torch
from transformers import T5Config as HFConfig
from transformers import T5ForConditionalGeneration

from rdrec_core.model import ModelConfig, RDRecModel
from rdrec_core.t5 import T5Config, from_hugging_face

SHAPE = {
    "vocab_size": 97, "d_model": 32, "d_kv": 8, "d_ff": 48,
    "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4,
}  # fmt: skip


def pair(gated: bool) -> tuple[T5ForConditionalGeneration, RDRecModel]:
    torch.manual_seed(3)
    hf = T5ForConditionalGeneration(
        HFConfig(
            **SHAPE,
            feed_forward_proj="gated-gelu" if gated else "relu",
            tie_word_embeddings=not gated,
            decoder_start_token_id=0,
        )
    ).eval()
    ours = RDRecModel(ModelConfig(t5=T5Config(**SHAPE, is_gated_act=gated, tie_word_embeddings=not gated)))
    ours.initialise(torch.Generator().manual_seed(1))
    state = from_hugging_face(hf.state_dict())
    if not gated:
        state.pop("lm_head.weight", None)
    ours.t5.load_state_dict(state)
    return hf, ours.eval()


@pytest.mark.parametrize("gated", [False, True])
def test_every_target_token_has_the_probability_that_hugging_face_gives_it(gated: bool) -> None:
    hf, ours = pair(gated)
    torch.manual_seed(5)
    ids = torch.randint(2, 97, (4, 200))
    whole = torch.randint(0, 40, (4, 200))
    mask = torch.ones(4, 200, dtype=torch.bool)
    for row, length in enumerate([200, 3, 77, 150]):
        mask[row, length:] = False
        ids[row, length:] = 0
    tasks = torch.tensor([0, 1, 2, 4])
    targets = torch.tensor([[5, 6, 7, 1], [9, 1, 0, 0], [11, 12, 1, 0], [13, 14, 15, 1]])
    encoded, source_mask = ours.encode(ids, whole, mask, tasks)
    hidden = ours.decode_targets(encoded, source_mask, targets, ours.start_tokens(ids, mask, tasks))
    log_probs = torch.log_softmax(ours.t5.logits(hidden), dim=-1)

    embeds = torch.cat([ours.prompts[tasks], hf.shared(ids) + ours.whole_words(whole)], dim=1)
    full_mask = torch.cat([torch.ones(4, 3, dtype=torch.bool), mask], dim=1)
    inputs = torch.cat([torch.zeros(4, 1, dtype=torch.long), targets[:, :-1]], dim=1)
    logits = hf(inputs_embeds=embeds, attention_mask=full_mask.long(), decoder_input_ids=inputs).logits
    expected = torch.log_softmax(logits, dim=-1)
    for row in range(4):
        length = int((targets[row] != 0).sum())
        torch.testing.assert_close(log_probs[row, :length], expected[row, :length], atol=1e-5, rtol=0)


def test_slots_with_past_give_what_the_whole_sequence_gives() -> None:
    _, ours = pair(False)
    torch.manual_seed(6)
    encoded = torch.randn(2, 9, 32)
    source_mask = torch.ones(2, 9, dtype=torch.bool)
    tokens = torch.randint(2, 97, (2, 5))
    cross = ours.t5.cross_key_values(encoded)
    whole, _ = ours.t5.decode(tokens, cross, source_mask)
    _, past = ours.t5.decode(tokens[:, :3], cross, source_mask)
    rest, _ = ours.t5.decode(
        tokens[:, 3:], cross, source_mask,
        positions=torch.tensor([3, 4]), past=past, past_positions=torch.tensor([0, 1, 2]),
    )  # fmt: skip
    assert torch.allclose(rest, whole[:, 3:], atol=1e-5)


def test_a_causal_encoder_gives_every_prefix_what_the_prefix_alone_gives() -> None:
    config = T5Config(**SHAPE, causal_encoder=True)
    model = RDRecModel(ModelConfig(t5=config))
    model.initialise(torch.Generator().manual_seed(2))
    model.eval()
    ids = torch.randint(2, 97, (1, 9))
    whole = torch.arange(9)[None]
    task = torch.tensor([1])
    eos = torch.ones(1, 1, dtype=torch.long)

    def encode(length: int) -> torch.Tensor:
        """The prefix with its EOS and some padding, encoded; states of prompts and prefix."""
        source = torch.cat([ids[:, :length], eos, 0 * eos], dim=1)
        mask = torch.tensor([[True] * (length + 1) + [False]])
        encoded, _ = model.encode(source, torch.cat([whole[:, :length], 0 * eos, 0 * eos], dim=1), mask, task)
        return encoded[:, : 3 + length]

    full = encode(9)
    for length in (1, 4, 8):
        assert torch.allclose(full[:, : 3 + length], encode(length), atol=1e-5)
        seen = torch.arange(12)[None, None, :] < 3 + length
        tokens = torch.tensor([[0, 5]])
        from_full, _ = model.t5.decode(tokens, model.t5.cross_key_values(full), seen.expand(1, 2, -1))
        prefix = encode(length)
        alone, _ = model.t5.decode(tokens, model.t5.cross_key_values(prefix), torch.ones(1, 3 + length).bool())
        assert torch.allclose(from_full, alone, atol=1e-5)
