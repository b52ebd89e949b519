"""Ranking speed and agreement of every score mode and strategy, beside Hugging Face and the published code's way.

    python benchmarks/decode.py [--bundle DIR] [--quick] [--json FILE] [--plot FILE.png]

All contestants rank the same requests in turns within one run, so that whatever else the machine does hits all alike.
On a machine that is busy with other things, `--clock cpu --threads 1` compares processor time, not waiting time.
Without a bundle: T5-small's shape with random weights, T5's tokenizer from $RDREC_DATA, labels 1 to 12101.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tokenizers import Tokenizer
from transformers import T5Config as HuggingFaceConfig
from transformers import T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import logging as transformers_logging

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rdrec_core.bundle import Bundle
from rdrec_core.decoding.item_trie import ItemTrie
from rdrec_core.decoding.search_export import export_search_graphs
from rdrec_core.encoding import RaggedTokens, SourceEncoder, encode_item_words, encode_labels, pad_sources
from rdrec_core.engines.onnx_engine import OnnxEngine
from rdrec_core.engines.torch_engine import TorchEngine
from rdrec_core.model import ModelConfig, RDRecModel
from rdrec_core.t5 import T5Config, from_hugging_face
from rdrec_core.types import RankRequest, ScoreMode, ScoreRequest, Strategy, Task

BEAMS = 20
N_ITEMS = 10
N_CANDIDATES = 100
PUBLISHED_STEPS = 50
EOS = 1
Lists = list[tuple[list[int], list[float]]]


@dataclass(frozen=True)
class World:
    """What all contestants share."""

    model: RDRecModel
    encoder: SourceEncoder
    trie: ItemTrie
    labels: RaggedTokens
    graphs: Path
    modes: tuple[ScoreMode, ...]
    threads: int


@dataclass
class Contestant:
    """One way to answer; `run` takes row numbers of the requests and gives items and scores."""

    task: str
    mode: str
    strategy: str
    batch: int
    run: Callable[[Sequence[int]], Lists]
    seconds: list[float]
    answers: dict[int, tuple[list[int], list[float]]]

    @property
    def name(self) -> str:
        return f"{self.task} {self.mode} {self.strategy} B={self.batch}"

    @property
    def users_per_s(self) -> float:
        """By the median turn."""
        return 1 / float(np.median(self.seconds))


def random_world(folder: Path, threads: int) -> World:
    data = Path(os.environ.get("RDREC_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    file = data / "t5-tokenizer" / "tokenizer.json"
    if not file.is_file():
        raise SystemExit(f"{file} is missing: set RDREC_DATA, or give --bundle")
    tokenizer = Tokenizer.from_file(str(file))
    names = [str(n) for n in range(1, 12102)]
    model = RDRecModel(ModelConfig(t5=T5Config(vocab_size=32128)))
    model.initialise(torch.Generator().manual_seed(0))
    labels = encode_labels(tokenizer, names)
    trie = ItemTrie.build(labels)
    encoder = SourceEncoder(tokenizer, encode_item_words(tokenizer, names))
    export_search_graphs(model.eval(), encoder, trie, folder, score_modes=list(ScoreMode))
    return World(model, encoder, trie, labels, folder, tuple(ScoreMode), threads)


def bundled_world(path: Path, threads: int) -> World:
    bundle = Bundle.open(path)
    tokenizer = Tokenizer.from_file(str(bundle.file("tokenizer.json")))
    labels = bundle.tokens("labels")
    return World(
        RDRecModel.load(path), SourceEncoder(tokenizer, bundle.tokens("item_words")), ItemTrie.build(labels), labels,
        path / "onnx", tuple(bundle.manifest.score_modes), threads,
    )  # fmt: skip


class HuggingFace:
    """`generate` with the same weights, the prompt vectors and whole words put into its input embeddings."""

    def __init__(self, world: World) -> None:
        config = world.model.config.t5
        self.world = world
        self.model = T5ForConditionalGeneration(
            HuggingFaceConfig(
                **config.model_dump(exclude={"is_gated_act", "causal_encoder", "tie_word_embeddings"}),
                feed_forward_proj="gated-gelu" if config.is_gated_act else "relu",
                tie_word_embeddings=config.tie_word_embeddings,
                decoder_start_token_id=config.pad_token_id,
            )
        ).eval()
        state = world.model.t5.state_dict()
        names = {name: new for name in self.model.state_dict() for new in from_hugging_face({name: torch.empty(0)})}
        self.model.load_state_dict({name: state[new] for name, new in names.items() if new in state}, strict=False)
        self.model.tie_weights()
        self.sequences = {(*world.labels[i].tolist(), EOS): i for i in range(len(world.labels))}

    def children(self, items: Sequence[int]) -> dict[tuple[int, ...], list[int]]:
        found: dict[tuple[int, ...], set[int]] = {}
        for item in items:
            sequence = (*self.world.labels[item].tolist(), EOS)
            for depth, token in enumerate(sequence):
                found.setdefault(sequence[:depth], set()).add(token)
        return {prefix: sorted(tokens) for prefix, tokens in found.items()}

    def _embeds(self, sources: Any) -> tuple[torch.Tensor, torch.Tensor]:
        batch = pad_sources(sources)
        arrays = (batch.token_ids, batch.whole_word_ids, batch.mask, batch.tasks)
        return self.world.model.source_embeddings(*(torch.from_numpy(array) for array in arrays))

    @torch.inference_mode()
    def generate(self, sources: Any, allowed: Sequence[dict[tuple[int, ...], list[int]]]) -> Lists:
        embeds, mask = self._embeds(sources)
        out = self.model.generate(
            inputs_embeds=embeds, attention_mask=mask.long(), num_beams=BEAMS, num_return_sequences=N_ITEMS,
            length_penalty=0.0, early_stopping=False, do_sample=False, max_new_tokens=12,
            return_dict_in_generate=True, output_scores=True,
            prefix_allowed_tokens_fn=lambda row, prefix: allowed[row].get(tuple(prefix.tolist()[1:]), [EOS]),
        )  # fmt: skip
        lists: Lists = []
        for row in range(len(sources)):
            rows = slice(row * N_ITEMS, (row + 1) * N_ITEMS)
            found = [tuple(s[1 : s.index(EOS) + 1]) for s in out.sequences[rows].tolist()]
            lists.append(([self.sequences[s] for s in found], out.sequences_scores[rows].tolist()))
        return lists

    @torch.inference_mode()
    def published(self, source: Any) -> None:
        """The encoder runs on the source repeated once a beam; then unconstrained beams for a fixed number of steps."""
        embeds, mask = self._embeds([source])
        repeated = self.model.encoder(
            inputs_embeds=embeds.expand(BEAMS, -1, -1).contiguous(), attention_mask=mask.expand(BEAMS, -1).long()
        ).last_hidden_state
        self.model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=repeated[:1]), attention_mask=mask.long(),
            num_beams=BEAMS, num_return_sequences=BEAMS, do_sample=False,
            max_new_tokens=PUBLISHED_STEPS, min_new_tokens=PUBLISHED_STEPS,
        )  # fmt: skip


def sequential_requests(world: World, n: int, rng: np.random.Generator) -> list[RankRequest]:
    """Histories of 18 to 20 items, which are excluded from the answer."""
    n_items = len(world.trie)
    requests = []
    for _ in range(n):
        history = tuple(
            int(i) for i in rng.choice(n_items, min(int(rng.integers(18, 21)), n_items - 10), replace=False)
        )
        requests.append(RankRequest(int(rng.integers(0, 20000)), history, N_ITEMS, exclude=history, beam_width=BEAMS))
    return requests


def topn_requests(world: World, n: int, rng: np.random.Generator) -> list[ScoreRequest]:
    n_items = len(world.trie)
    count = min(N_CANDIDATES, n_items)
    return [
        ScoreRequest(int(rng.integers(0, 20000)), tuple(int(i) for i in rng.choice(n_items, count, replace=False)))
        for _ in range(n)
    ]


def top_of(request: ScoreRequest, scores: np.ndarray) -> tuple[list[int], list[float]]:
    best = np.argsort(-scores, kind="stable")[:N_ITEMS]
    return [request.candidates[i] for i in best], scores[best].tolist()


def contestants(
    world: World, sequential: list[RankRequest], topn: list[ScoreRequest], batches: Sequence[int]
) -> list[Contestant]:
    hugging_face = HuggingFace(world)
    everything = hugging_face.children(range(len(world.trie)))
    catalogue = []
    for request in sequential:
        left = dict(everything)
        for item in request.exclude:  # the paths of the excluded items are rebuilt without them
            sequence = (*world.labels[item].tolist(), EOS)
            for depth in reversed(range(len(sequence))):
                if depth == len(sequence) - 1 or not left.get(sequence[: depth + 1]):
                    left[sequence[:depth]] = [t for t in left[sequence[:depth]] if t != sequence[depth]]
        catalogue.append(left)
    candidates = [hugging_face.children(request.candidates) for request in topn]
    encode = world.encoder.encode
    sources = {
        "sequential": [encode(Task.SEQUENTIAL, r.user_index, r.history) for r in sequential],
        "topn": [encode(Task.TOPN, r.user_index, r.candidates) for r in topn],
    }
    allowed = {"sequential": catalogue, "topn": candidates}
    out: list[Contestant] = []

    def add(task: str, mode: str, strategy: str, batch: int, run: Callable[[Sequence[int]], Lists]) -> None:
        out.append(Contestant(task, mode, strategy, batch, run, [], {}))

    def run_hugging_face(task: str) -> Callable[[Sequence[int]], Lists]:
        return lambda rows: hugging_face.generate([sources[task][r] for r in rows], [allowed[task][r] for r in rows])

    def run_published(rows: Sequence[int]) -> Lists:
        for row in rows:
            hugging_face.published(sources["sequential"][row])
        return []

    def run_engine(engine: TorchEngine | OnnxEngine, task: str) -> Callable[[Sequence[int]], Lists]:
        if task == "sequential":
            return lambda rows: [
                (a.item_indices.tolist(), a.log_probs.tolist()) for a in engine.recommend([sequential[r] for r in rows])
            ]
        return lambda rows: [
            top_of(topn[row], scores) for row, scores in zip(rows, engine.score([topn[r] for r in rows]), strict=True)
        ]

    add("sequential", "published", "beam", 1, run_published)
    for batch in batches:
        for task in ("sequential", "topn"):
            add(task, "hf", "beam", batch, run_hugging_face(task))
    for mode in world.modes:
        for strategy in Strategy:
            if not (world.graphs / f"{mode}.{strategy.value}.onnx").is_file():
                continue
            engine = OnnxEngine(
                world.graphs, world.encoder, world.trie, score_mode=mode, strategy=strategy, threads=world.threads
            )
            for batch in batches:
                add("sequential", mode.value, strategy.value, batch, run_engine(engine, "sequential"))
                if strategy is Strategy.BEAM:
                    add("topn", mode.value, "exact", batch, run_engine(engine, "topn"))
    for mode in (ScoreMode.FULL, ScoreMode.TRIE):
        reference = TorchEngine(world.model, world.encoder, world.trie, score_mode=mode)
        for batch in batches:
            add("sequential", f"{mode.value} (torch)", "beam", batch, run_engine(reference, "sequential"))
    return out


def race(field: list[Contestant], n: int, rounds: int, limit_s: float, clock: Callable[[], float]) -> None:
    """Every contestant answers in every round, but those that take seconds a call only in the first few."""
    started = time.perf_counter()
    for turn in track(range(rounds + 1), description="rounds"):
        for contestant in field:
            other_library = contestant.mode in ("hf", "published") or "torch" in contestant.mode
            call_s = contestant.batch * float(np.median(contestant.seconds)) if contestant.seconds else 0.0
            if len(contestant.seconds) * call_s > limit_s / 12:
                continue
            repeats = 1 if other_library or contestant.batch > 1 else 4
            rows = [(turn * repeats * contestant.batch + i) % n for i in range(repeats * contestant.batch)]
            if turn == 0 and other_library:  # one request warms up
                rows = rows[:1]
            time.sleep(0.02)  # the other library's threads stop spinning
            for start in range(0, len(rows), contestant.batch):
                part = rows[start : start + contestant.batch]
                begun = clock()
                contestant.answers.update(zip(part, contestant.run(part), strict=False))
                if turn > 0:
                    contestant.seconds.append((clock() - begun) / len(part))
        if turn > 0 and time.perf_counter() - started > limit_s:
            break


def agreement(
    contestant: Contestant, reference: dict[int, tuple[list[int], list[float]]]
) -> tuple[float, float, float] | None:
    rows = [row for row in contestant.answers if row in reference]
    if not rows:
        return None
    pairs = [(contestant.answers[row], reference[row]) for row in rows]
    same = float(np.mean([mine[0] == theirs[0] for mine, theirs in pairs]))
    overlap = float(np.mean([len(set(mine[0]) & set(theirs[0])) / len(theirs[0]) for mine, theirs in pairs]))
    difference = max(
        (abs(score - dict(zip(*theirs, strict=True))[item]) for mine, theirs in pairs
         for item, score in zip(*mine, strict=True) if item in theirs[0]), default=0.0,
    )  # fmt: skip
    return same, overlap, difference


def multiply_adds(world: World, source_tokens: float, decoder_slots: float) -> float:
    """Multiply-adds of the products that any search in `trie` mode does for one user."""
    c = world.model.config.t5
    inner = c.num_heads * c.d_kv
    ff = (3 if c.is_gated_act else 2) * c.d_model * c.d_ff
    encoder = c.num_layers * (4 * c.d_model * inner + ff) * source_tokens
    cross = c.num_decoder_layers * 2 * c.d_model * inner * source_tokens
    decoder = c.num_decoder_layers * (6 * c.d_model * inner + ff) * decoder_slots
    return encoder + cross + decoder


def gemm_rate(width: int, inner: int, rows: int, threads: int, clock: Callable[[], float]) -> float:
    """Multiply-adds a second of ONNX Runtime's float32 MatMul at the encoder's shape; the best of some turns."""
    import onnx
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.random.default_rng(0).random((width, inner), dtype=np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "gemm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, inner])], [weight],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(onnx.ModelProto.SerializeToString(model), options)
    x = np.ones((rows, width), dtype=np.float32)
    best = float("inf")
    for _ in range(30):
        begun = clock()
        session.run(None, {"x": x})
        best = min(best, clock() - begun)
    return rows * width * inner / best


def records(field: list[Contestant]) -> list[dict[str, Any]]:
    by_key = {(c.task, c.mode, c.strategy, c.batch): c for c in field}
    out = []
    for contestant in field:
        if not contestant.seconds:
            continue
        base = by_key[contestant.task, "hf", "beam", contestant.batch]
        mode = contestant.mode.split(" ")[0]
        exact: dict[int, tuple[list[int], list[float]]] = {}
        if mode in ("trie", "trie-int8"):  # held to the float32 exact lists of the same definition
            for other in field:
                if (other.task, other.mode, other.strategy) == (contestant.task, "trie", "exact"):
                    exact.update(other.answers)
        else:
            for other in field:
                if (other.task, other.mode) == (contestant.task, "hf"):
                    exact.update(other.answers)
        agrees = agreement(contestant, exact)
        out.append(
            {
                "task": contestant.task,
                "mode": contestant.mode,
                "strategy": contestant.strategy,
                "batch": contestant.batch,
                "users_per_s": contestant.users_per_s,
                "ratio_to_hf": contestant.users_per_s / base.users_per_s,
                "identical_lists": agrees[0] if agrees else None,
                "top10_overlap": agrees[1] if agrees else None,
                "max_score_diff": agrees[2] if agrees else None,
            }
        )
    return out


def show(rows: list[dict[str, Any]], floor: str) -> None:
    table = Table(title="Ranking; lists of `full` against Hugging Face's, of `trie` against the exact float32 answer")
    for heading in ("task", "mode", "strategy", "B", "users/s", "x HF", "same list", "top-10 overlap", "score diff"):
        table.add_column(heading, justify="right" if heading not in ("task", "mode", "strategy") else "left")
    for row in rows:
        agreement_columns = [
            "" if row[key] is None else f"{row[key]:{form}}"
            for key, form in (("identical_lists", ".0%"), ("top10_overlap", ".0%"), ("max_score_diff", ".1e"))
        ]
        table.add_row(
            row["task"], row["mode"], row["strategy"], str(row["batch"]), f"{row['users_per_s']:.2f}",
            f"{row['ratio_to_hf']:.2f}", *agreement_columns,
        )  # fmt: skip
    console = Console()
    console.print(table)
    console.print(floor)


def plot(rows: list[dict[str, Any]], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [row for row in rows if row["mode"] != "hf"]
    figure, axes = plt.subplots(figsize=(9, 0.3 * len(shown) + 1.2))
    names = [f"{r['task']} {r['mode']} {r['strategy']} B={r['batch']}" for r in shown]
    bars = axes.barh(names, [r["ratio_to_hf"] for r in shown])
    axes.bar_label(bars, fmt="%.1f", padding=2)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlabel("users a second over Hugging Face's generate in the same run")
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="a bundle; random weights without")
    parser.add_argument("--quick", action="store_true", help="fewer rounds; ends within four minutes on two cores")
    parser.add_argument("--json", type=Path, help="write the records here")
    parser.add_argument("--plot", type=Path, default=Path(__file__).parent / "results" / "decode.png")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    arguments = parser.parse_args()
    transformers_logging.set_verbosity_error()
    torch.set_num_threads(arguments.threads)
    clock = time.perf_counter if arguments.clock == "wall" else time.process_time
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        world = (
            bundled_world(arguments.bundle, arguments.threads)
            if arguments.bundle
            else random_world(Path(folder), arguments.threads)
        )
        n = 32
        sequential, topn = sequential_requests(world, n, rng), topn_requests(world, n, rng)
        field = contestants(world, sequential, topn, arguments.batches)
        race(field, n, rounds=6 if arguments.quick else 20, limit_s=110 if arguments.quick else 900, clock=clock)
    rows = records(field)
    config = world.model.config.t5
    tokens = float(np.mean([len(world.encoder.encode(Task.SEQUENTIAL, r.user_index, r.history).token_ids)
                            for r in sequential])) + world.model.config.prompt_length  # fmt: skip
    rate = gemm_rate(config.d_model, config.d_ff, round(tokens), arguments.threads, clock)
    work = multiply_adds(world, tokens, 1 + BEAMS)
    floor = (
        f"{tokens:.0f} source tokens; float32 MatMul does {rate / 1e9:.0f} G multiply-adds/s, and a trie search needs "
        f"{work / 1e9:.2f} G: at most {rate / work:.1f} users/s in float32 "
        f"({arguments.threads} threads, {arguments.clock} clock)"
    )
    show(rows, floor)
    arguments.plot.parent.mkdir(parents=True, exist_ok=True)
    plot(rows, arguments.plot)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")
    with (arguments.plot.parent / "decode.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps({"floor": floor, "records": rows}) + "\n")


if __name__ == "__main__":
    main()
