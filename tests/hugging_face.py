"""Our T5's weights in Hugging Face's module, the oracle of the parity tests."""

from transformers import T5Config, T5ForConditionalGeneration

from rdrec_core.model import RDRecModel
from rdrec_core.t5 import from_hugging_face


def hugging_face_twin(model: RDRecModel) -> T5ForConditionalGeneration:
    """A `T5ForConditionalGeneration` in evaluation mode with the same weights as model.t5."""
    ours = model.config.t5
    assert not ours.causal_encoder, "Hugging Face's T5 has no causal encoder"
    shape = ours.model_dump(exclude={"is_gated_act", "causal_encoder"})
    twin = T5ForConditionalGeneration(
        T5Config(**shape, feed_forward_proj="gated-gelu" if ours.is_gated_act else "relu", decoder_start_token_id=0)
    )
    state = model.t5.state_dict()
    names = {name: new for name in twin.state_dict() for new in from_hugging_face({name: twin.state_dict()[name]})}
    tied = {"lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    source = {
        name: state["shared.weight" if name in tied and ours.tie_word_embeddings else new]
        for name, new in names.items()
    }
    result = twin.load_state_dict(source, strict=False)
    assert not result.unexpected_keys
    assert set(result.missing_keys) <= tied
    return twin.eval()
