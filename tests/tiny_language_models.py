"""Tiny random Hugging Face models, tokenizers trained on the spot: a causal chat model, a T5, a sentence encoder."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'system' %}<s><<SYS>>{{ m['content'] }}<</SYS>>"
    "{% else %}[INST]{{ m['content'] }}[/INST]{% endif %}{% endfor %}"
)
NO_SYSTEM_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    "<s>[INST]{{ m['content'] }}[/INST]{% endfor %}"
)
SENTENCE_WIDTH = 16
_CORPUS = ["The user likes soft toys and board games.", "The item is sturdy, cute and easy to learn.", "A user bought."]


def _tokenizer(chat_template: str | None, *, appends_end: bool) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "</s>", "<unk>", "<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.decoder = decoders.ByteLevel()
    if appends_end:
        tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>", bos_token="<s>",
        pad_token="<pad>" if appends_end else None,
    )  # fmt: skip
    fast.chat_template = chat_template
    return fast


def tiny_causal(folder: Path, chat_template: str | None = CHAT_TEMPLATE) -> Path:
    """A two-layer Llama without a pad token, as Llama-2-chat ships."""
    torch.manual_seed(0)
    tokenizer = _tokenizer(chat_template, appends_end=False)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=2048, bos_token_id=3, eos_token_id=1, initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_t5(folder: Path) -> Path:
    """A one-layer T5."""
    torch.manual_seed(0)
    tokenizer = _tokenizer(None, appends_end=True)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=16, d_ff=64, num_layers=1, num_decoder_layers=1, num_heads=2,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    for weights in model.parameters():
        if weights.dim() > 1:  # the usual initialisation answers every question with padding
            torch.nn.init.normal_(weights, std=0.7)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_sentence_encoder(folder: Path, *, pooling: str | None = "mean_tokens", module: str = "Normalize") -> Path:
    """A two-layer BERT in the layout of sentence-transformers; pooling None leaves a plain transformers folder."""
    torch.manual_seed(0)
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=80, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    tokenizer.train_from_iterator([text.lower() for text in _CORPUS], trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=SENTENCE_WIDTH, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=32, initializer_range=0.5,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    if pooling is not None:
        modules = [("Transformer", ""), ("Pooling", "1_Pooling"), (module, "2")]
        written = [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (kind, path) in enumerate(modules)
        ]
        (folder / "modules.json").write_text(json.dumps(written))
        (folder / "1_Pooling").mkdir()
        modes = {
            "word_embedding_dimension": SENTENCE_WIDTH,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": False,
        }
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes | {f"pooling_mode_{pooling}": True}))
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 24, "do_lower_case": True}))
    return folder
