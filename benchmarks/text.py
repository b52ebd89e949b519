"""Explanations a second: Hugging Face's beam search beside ours, every road in one interleaved run.

    python benchmarks/text.py [--quick] [--threads 2] [--rows 4000] [--batches 1 8] [--json FILE]

T5-small's shape with random weights and T5's vocabulary, sources `user_N item_N`, 20 tokens each (random weights hardly
ever end sooner). Hugging Face runs 21 plain beams, since transformers 5 has no groups; ours runs 21 plain beams too, to
compare the texts, and the paper's 21 beams in 3 groups. `rows` is the size of the text vocabulary: all of T5's, or as
many as a dataset's texts may use. Appends one JSON line to results/text.jsonl; --json writes the list of records.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from tokenizers import Tokenizer
from transformers import T5Config as HFConfig
from transformers import T5ForConditionalGeneration

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.records import keep, table  # noqa: E402
from rdrec_core.decoding.text_requests import encode_text_request, read_texts, text_rows  # noqa: E402
from rdrec_core.decoding.text_search import GREEDY, PAPER_SEARCH, TextSearch  # noqa: E402
from rdrec_core.eager.torch_text import TorchTextGenerator  # noqa: E402
from rdrec_core.encoding import SourceEncoder, encode_item_words, pad_sources  # noqa: E402
from rdrec_core.engines.hardware import Device, Hardware  # noqa: E402
from rdrec_core.exported.onnx_text import OnnxTextGenerator  # noqa: E402
from rdrec_core.exported.text_export import export_text_graphs  # noqa: E402
from rdrec_core.model import ModelConfig, RDRecModel  # noqa: E402
from rdrec_core.t5 import T5Config, from_hugging_face  # noqa: E402
from rdrec_core.types import Task, TextRequest  # noqa: E402

N_ITEMS, N_USERS = 12_101, 22_363
SMALL = {"vocab_size": 32_128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8}
PLAIN = TextSearch(groups=1)
FAST_TARGET_MS, RATIO_TARGET = 150.0, 5.0

Road = Callable[[list[TextRequest]], list[str]]


@dataclass(frozen=True)
class Record:
    """One road at one batch size."""

    road: str
    search: str
    rows: int
    batch: int
    texts_per_s: float
    latency_ms: float
    ratio_to_hf: float
    """Against Hugging Face's 21 beams at the same batch size."""
    cpu_ms: float
    """CPU time of the process, all threads: what remains comparable where others use the machine too."""
    cpu_ratio_to_hf: float
    identical_to_hf: float | None
    """Share of texts equal to Hugging Face's, where both search alike."""


def models() -> tuple[T5ForConditionalGeneration, RDRecModel]:
    """The same random T5 twice."""
    torch.manual_seed(0)
    hf = T5ForConditionalGeneration(HFConfig(**SMALL, feed_forward_proj="relu", decoder_start_token_id=0)).eval()
    with torch.no_grad():  # a random T5 repeats one token for ever: make its state depend on what it wrote
        hf.shared.weight *= 0.2
        for name, parameter in hf.named_parameters():
            if name.startswith("decoder.block") and parameter.dim() == 2:
                parameter *= 2
    ours = RDRecModel(ModelConfig(t5=T5Config(**SMALL)))
    ours.initialise(torch.Generator().manual_seed(0))
    state = from_hugging_face(hf.state_dict())
    state.pop("lm_head.weight", None)
    ours.t5.load_state_dict(state)
    return hf, ours.eval()


def hugging_face(
    hf: T5ForConditionalGeneration, ours: RDRecModel, encoder: SourceEncoder, tokenizer: Tokenizer, beams: int
) -> Road:
    """`generate` on the same embeddings."""

    @torch.inference_mode()
    def road(requests: list[TextRequest]) -> list[str]:
        padded = pad_sources([encode_text_request(encoder, request) for request in requests])
        arrays = (padded.token_ids, padded.whole_word_ids, padded.mask, padded.tasks)
        embeds, mask = ours.source_embeddings(*(torch.from_numpy(array) for array in arrays))
        out = hf.generate(
            inputs_embeds=embeds, attention_mask=mask.long(), do_sample=False,
            num_beams=beams, early_stopping=beams > 1, max_new_tokens=PAPER_SEARCH.max_tokens,
            no_repeat_ngram_size=GREEDY.no_repeat if beams == 1 else 0,
        )  # fmt: skip
        return read_texts(tokenizer, out[:, 1:].tolist())

    return road


def roads(folder: Path, threads: int, few: int) -> dict[tuple[str, str, int], Road]:
    """Every road by (name, search, rows)."""
    tokenizer = Tokenizer.from_file(str(_data() / "t5-tokenizer" / "tokenizer.json"))
    encoder = SourceEncoder(tokenizer, encode_item_words(tokenizer, (str(n + 1) for n in range(N_ITEMS))))
    hf, ours = models()
    whole = np.arange(SMALL["vocab_size"])
    usable = text_rows(tokenizer, SMALL["vocab_size"])
    some = np.union1d(np.random.default_rng(0).choice(usable, size=few - 1, replace=False), [1])
    hardware = Hardware(Device.CPU, threads=threads)
    out: dict[tuple[str, str, int], Road] = {
        ("hf", "21 beams", len(whole)): hugging_face(hf, ours, encoder, tokenizer, 21),
        ("hf", "greedy", len(whole)): hugging_face(hf, ours, encoder, tokenizer, 1),
        ("torch", "3 x 7 beams", len(whole)): TorchTextGenerator(ours, encoder, tokenizer, rows=whole).generate,
    }
    for rows in (whole, some):
        target = folder / str(len(rows))
        export_text_graphs(ours, target, rows, int8=True)
        for name, int8 in (("onnx", False), ("onnx-int8", True)):
            for label, search in (("21 beams", PLAIN), ("3 x 7 beams", PAPER_SEARCH), ("greedy", GREEDY)):
                generator = OnnxTextGenerator(target, encoder, tokenizer, int8=int8, search=search, hardware=hardware)
                out[name, label, len(rows)] = generator.generate
    return out


def _data() -> Path:
    data = Path(os.environ.get("RDREC_DATA", ROOT / ".." / "shared" / "data"))
    if not (data / "t5-tokenizer").is_dir():
        raise SystemExit(f"{data / 't5-tokenizer'} is missing; set RDREC_DATA to the folder that holds t5-tokenizer")
    return data


def measure(all_roads: dict[tuple[str, str, int], Road], batch: int, rounds: int) -> list[Record]:
    """Each round runs every road once on the same requests; a road's time is its median."""
    rng = np.random.default_rng(batch)
    times: dict[tuple[str, str, int], list[float]] = {key: [] for key in all_roads}
    cpu: dict[tuple[str, str, int], list[float]] = {key: [] for key in all_roads}
    equal: dict[tuple[str, str, int], list[bool]] = {key: [] for key in all_roads}
    for number in range(rounds + 1):  # the first is to warm up
        requests = [
            TextRequest(Task.EXPLANATION, int(rng.integers(N_USERS)), int(rng.integers(N_ITEMS))) for _ in range(batch)
        ]
        texts: dict[tuple[str, str, int], list[str]] = {}
        for key, road in all_roads.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            texts[key] = road(requests)
            if number:
                times[key].append(time.perf_counter() - start)
                cpu[key].append(time.process_time() - start_cpu)
        for key, written in texts.items():
            twin = texts.get(("hf", *key[1:]))
            if twin is not None:
                equal[key] += [a == b for a, b in zip(written, twin, strict=True)]
    wall = {key: float(np.median(t)) for key, t in times.items()}
    busy = {key: float(np.median(t)) for key, t in cpu.items()}
    hf = ("hf", "21 beams", SMALL["vocab_size"])
    return [
        Record(
            *key, batch, batch / wall[key], 1e3 * wall[key], wall[hf] / wall[key],
            1e3 * busy[key], busy[hf] / busy[key],
            float(np.mean(equal[key])) if equal[key] else None,
        )
        for key in all_roads
    ]  # fmt: skip


def show(records: list[Record]) -> None:
    shown = table(
        None, "road", "search", "rows", "B", "texts/s", "ms", "x HF 21 beams", "CPU ms", "x HF", "as HF",
        left=("road", "search"),
    )  # fmt: skip
    for r in records:
        same = "" if r.identical_to_hf is None else f"{r.identical_to_hf:.0%}"
        shown.add_row(
            r.road, r.search, f"{r.rows}", f"{r.batch}", f"{r.texts_per_s:.2f}", f"{r.latency_ms:.0f}",
            f"{r.ratio_to_hf:.1f}", f"{r.cpu_ms:.0f}", f"{r.cpu_ratio_to_hf:.1f}", same,
        )  # fmt: skip
    Console(width=100).print(shown)
    diverse = [r for r in records if r.road.startswith("onnx") and r.search == "3 x 7 beams"]
    fast = [r for r in records if r.road.startswith("onnx") and r.search == "greedy" and r.batch == 1]
    for title, rows, met in (
        (f"at least {RATIO_TARGET:.0f}x Hugging Face's 21 beams", diverse, lambda r: r.ratio_to_hf >= RATIO_TARGET),
        (f"fast mode under {FAST_TARGET_MS:.0f} ms at B=1", fast, lambda r: r.latency_ms < FAST_TARGET_MS),
    ):
        said = ", ".join(f"{r.road} {r.rows} rows B={r.batch} {'yes' if met(r) else 'no'}" for r in rows)
        print(f"{title}: {said}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three rounds")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, default=4000, help="size of the smaller text vocabulary")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--json", type=Path, help="write the records there")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        all_roads = roads(Path(folder), arguments.threads, arguments.rows)
        records = [r for batch in arguments.batches for r in measure(all_roads, batch, 3 if arguments.quick else 9)]
    show(records)
    record = {"threads": arguments.threads, "load": os.getloadavg()[0], "records": [asdict(r) for r in records]}
    keep("text", record, file=arguments.json)


if __name__ == "__main__":
    main()
