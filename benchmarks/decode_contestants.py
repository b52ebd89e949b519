"""Who takes part in benchmarks/decode.py: the requests, Hugging Face, the published code's way, and our engines."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import T5Config as HuggingFaceConfig
from transformers import T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from rdrec_core.bundle import Bundle
from rdrec_core.decoding.item_trie import ItemTrie
from rdrec_core.encoding import (
    RaggedTokens,
    SourceEncoder,
    encode_item_words,
    encode_labels,
    pad_sources,
)
from rdrec_core.engines.onnx_engine import OnnxEngine
from rdrec_core.engines.torch_engine import TorchEngine, dtype_on
from rdrec_core.exported.search_export import export_search_graphs
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


def device() -> str:
    """Where torch's contestants run; ONNX Runtime chooses by its providers."""
    return "cuda" if torch.cuda.is_available() else "cpu"


class HuggingFace:
    """`generate` with the same weights, the prompt vectors and whole words put into its input embeddings.

    On a GPU in the dtype that ours is served in.
    """

    def __init__(self, world: World) -> None:
        config = world.model.config.t5
        self.world = world
        self.device = device()
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
        self.model.to(self.device, dtype_on(self.device))
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
        embeds, mask = self.world.model.source_embeddings(*(torch.from_numpy(array) for array in arrays))
        return embeds.to(self.device, dtype_on(self.device)), mask.to(self.device)

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

    most = max(batches)
    add("sequential", "published", "beam", 1, run_published)
    for batch in batches:
        for task in ("sequential", "topn"):
            add(task, "hf", "beam", batch, run_hugging_face(task))
    for mode in world.modes:
        for strategy in Strategy:
            if not (world.graphs / f"{mode}.{strategy.value}.onnx").is_file():
                continue
            engine = OnnxEngine(
                world.graphs, world.encoder, world.trie,
                score_mode=mode, strategy=strategy, threads=world.threads, max_batch=most,
            )  # fmt: skip
            for batch in batches:
                add("sequential", mode.value, strategy.value, batch, run_engine(engine, "sequential"))
                if strategy is Strategy.BEAM:
                    add("topn", mode.value, "exact", batch, run_engine(engine, "topn"))
    model = copy.deepcopy(world.model).to(device(), dtype_on(device()))
    for mode in (ScoreMode.FULL, ScoreMode.TRIE):
        ours = TorchEngine(model, world.encoder, world.trie, score_mode=mode, max_batch=most)
        for batch in batches:
            add("sequential", f"{mode.value} (torch)", "beam", batch, run_engine(ours, "sequential"))
            if mode is ScoreMode.TRIE:
                add("topn", "trie (torch)", "exact", batch, run_engine(ours, "topn"))
    return out
