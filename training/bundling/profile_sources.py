"""Who writes profiles: a bundle as it is served, or a checkpoint in torch (on CUDA where there is one)."""

from __future__ import annotations

from pathlib import Path

from rdrec_core.bundle import Bundle
from rdrec_core.decoding.text_requests import text_rows
from rdrec_core.encoding import SourceEncoder
from training.bundling.export import written_tokens
from training.bundling.profiles import ProfileJob, Write, weights_sha256
from training.learning.backbone import CatalogTokens
from training.learning.checkpoint import load_checkpoint


def of_bundle(bundle: Bundle, *, fast: bool, threads: int) -> tuple[ProfileJob, Write]:
    """The bundle's own engine, in its default score mode."""
    from rdrec_core.engines.onnx_engine import OnnxEngine

    manifest = bundle.manifest
    job = ProfileJob(manifest.model_version, manifest.n_users, manifest.n_items, tuple(manifest.text_tasks), fast)
    return job, OnnxEngine.from_bundle(bundle, threads=threads).generate_text


def of_checkpoint(path: Path, dataset: Path | None, *, fast: bool) -> tuple[ProfileJob, Write]:
    """The checkpoint's best model. Raises CheckpointError where the dataset has other labels."""
    import torch

    from rdrec_core.eager.torch_text import TorchTextGenerator

    checkpoint = load_checkpoint(path)
    info = checkpoint.info
    job = ProfileJob(weights_sha256(path), info.n_users, info.n_items, tuple(info.text_tasks), fast)
    data, tokenizer = checkpoint.dataset(dataset), checkpoint.tokenizer
    model = checkpoint.model.to("cuda" if torch.cuda.is_available() else "cpu")
    t5 = model.config.t5
    words = CatalogTokens.of(tokenizer, data.items["label"].to_list()).item_words
    encoder = SourceEncoder(tokenizer, words, eos_token_id=t5.eos_token_id)
    rows = text_rows(tokenizer, t5.vocab_size, eos_token_id=t5.eos_token_id, seen=written_tokens(checkpoint, data))
    return job, TorchTextGenerator(model, encoder, tokenizer, rows=rows, batch_size=64).generate
