"""Training speed of our loop beside a straightforward one: samples a second, in turns within one run.

    python benchmarks/train.py [--dataset DIR] [--backbones tiny,small] [--quick] [--json FILE]

A sample is one source with one target (an encoded history with five next items counts five: the straightforward loop
needs five sources for it). All contestants have the same T5 shape, draw from the same training interactions and use one
batch size (in sources):

    straightforward   transformers' T5ForConditionalGeneration, texts tokenised in the loop, random batches of one task
                      padded to their longest, softmax over the vocabulary, torch.optim.AdamW as published
    paper             our loop, recipe paper: the same sources, targets and loss
    scratch           our loop, recipe scratch: causal encoder, item words of one token, trie loss

Without --dataset: Beauty from $RDREC_DATA, else the sample shop.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.records import keep, table
from rdrec_core.model import RDRecModel
from rdrec_core.prompts import ITEMS, USER, user_number
from rdrec_core.types import Task
from training.cli import main as rdrec
from training.data.dataset import Dataset
from training.learning.backbone import build
from training.learning.checkpoint import CheckpointWriter
from training.learning.config import TrainConfig, load_config
from training.learning.examples import TrainingExample
from training.learning.parallel import Processes
from training.learning.progress import Silent
from training.learning.run import Materials, materials
from training.learning.trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent
TASKS = {"sequential": Task.SEQUENTIAL, "topn": Task.TOPN}


@dataclass
class Contestant:
    """One way to train; `step` runs the n-th batch and returns its samples."""

    name: str
    step: Callable[[int], int]
    seconds: list[float] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)

    def run(self, first: int, n_steps: int, device: torch.device) -> None:
        """One turn."""
        started = time.perf_counter()
        done = sum(self.step(first + n) for n in range(n_steps))
        if device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - started)
        self.samples.append(done)

    @property
    def rates(self) -> list[float]:
        """Samples a second of each turn."""
        return [n / s for n, s in zip(self.samples, self.seconds, strict=True)]


class Straightforward(nn.Module):
    """The model as one would first write it: Hugging Face's T5 with prompts and whole words added to its embeddings."""

    def __init__(self, like: RDRecModel) -> None:
        super().__init__()
        shape = like.config.t5.model_dump(exclude={"causal_encoder", "is_gated_act"})
        self.t5 = T5ForConditionalGeneration(T5Config(**shape, decoder_start_token_id=0))
        self.prompts = nn.Parameter(like.prompts.detach().clone())
        self.whole_words = nn.Embedding.from_pretrained(like.whole_words.weight.detach().clone(), freeze=False)

    def forward(
        self, ids: torch.Tensor, whole: torch.Tensor, mask: torch.Tensor, tasks: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """Mean token loss, as Hugging Face computes it."""
        prompts = self.prompts[tasks]
        embeds = torch.cat([prompts, self.t5.shared(ids) + self.whole_words(whole)], dim=1)
        full = torch.cat([torch.ones(prompts.shape[:2], dtype=mask.dtype, device=mask.device), mask], dim=1)
        loss: torch.Tensor = self.t5(inputs_embeds=embeds, attention_mask=full, labels=targets).loss
        return loss


def straightforward(
    parts: Materials, config: TrainConfig, task: Task, like: RDRecModel, device: torch.device
) -> Contestant:
    """Random batches in the published code's way."""
    model = Straightforward(like).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate)
    tokenizer = parts.tokenizer
    plan = parts.epochs.plan(0)
    everything = [e for n in range(len(plan.batches)) for e in parts.epochs.examples(plan, n) if e.task is task]
    order = np.random.default_rng(0).permutation(len(everything))

    def words(example: TrainingExample) -> list[str]:
        out: list[str] = []
        for word in example.template:
            if word == USER:
                out.append(f"user_{user_number(example.user_index)}")
            elif word == ITEMS:
                out += [f"item_{parts.labels[item]}" for item in example.items]
            else:
                out.append(word)
        return out

    def step(n: int) -> int:
        rows = order[np.arange(n * config.batch_size, (n + 1) * config.batch_size) % len(order)]
        examples = [everything[row] for row in rows]
        sources, wholes, targets = [], [], []
        for example in examples:
            ids: list[int] = []
            whole: list[int] = []
            count = 0
            for word in words(example):
                named = word.startswith(("user_", "item_"))
                count += named
                pieces = tokenizer.encode(word, add_special_tokens=False).ids
                ids += pieces
                whole += [count if named else 0] * len(pieces)
            sources.append([*ids, 1])
            wholes.append([*whole, 0])
            target = tokenizer.encode(parts.labels[example.targets[0]], add_special_tokens=False).ids
            targets.append([*target, 1])
        ids_tensor, mask = padded(sources, 0)
        whole_tensor, _ = padded(wholes, 0)
        target_tensor, _ = padded(targets, -100)
        tasks = torch.full((len(examples),), int(task))
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            loss = model(*(x.to(device) for x in (ids_tensor, whole_tensor, mask, tasks, target_tensor)))
        loss.backward()
        if config.clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        return len(examples)

    return Contestant("straightforward", step)


def padded(rows: list[list[int]], value: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows padded to the longest, and the mask."""
    width = max(map(len, rows))
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return torch.tensor([row + [value] * (width - len(row)) for row in rows]), mask


def ours(
    name: str, parts: Materials, config: TrainConfig, model: RDRecModel, device: torch.device, scratch: Path
) -> Contestant:
    """The steps of `rdrec train`, without validation and saving."""
    trainer = Trainer(
        config, model, parts.epochs, parts.batcher, {}, writer=CheckpointWriter(scratch / name),
        describe=lambda *_: None, monitor=Silent(), clock=time.monotonic,  # type: ignore[arg-type, return-value]
        stop_requested=lambda: False, group=Processes(0, 1, device),
    )  # fmt: skip
    model.train()
    plan = parts.epochs.plan(0)

    def step(n: int) -> int:
        examples = parts.epochs.examples(plan, n % len(plan.batches))
        trainer.step(examples, 0.5)
        return sum(len(example.targets) for example in examples)

    return Contestant(name, step)


def compare(
    dataset: Dataset, preset: str, task_name: str, *, turns: int, steps: int, batch_size: int, device: torch.device
) -> dict[str, Any]:
    """All contestants in turns on one task and backbone; the first turn of each is thrown away."""
    common = {"backbone": f"scratch:{preset}", "tasks": task_name, "batch_size": batch_size}
    ratio = {"ratio": "0:0:1:1"}
    paper = load_config("paper", None, common | ratio)
    scratch = load_config("scratch", None, common | ratio)
    with tempfile.TemporaryDirectory() as folder:
        model, tokenizer = build(paper, dataset, None)
        parts = materials(paper, dataset, tokenizer)
        fast_model, fast_tokenizer = build(scratch, dataset, None)
        fast_parts = materials(scratch, dataset, fast_tokenizer)
        contestants = [
            straightforward(parts, paper, TASKS[task_name], model, device),
            ours("paper", parts, paper, model, device, Path(folder)),
            ours("scratch", fast_parts, scratch, fast_model, device, Path(folder)),
        ]
        for turn in range(turns + 1):
            for contestant in contestants:
                contestant.run(turn * steps, steps, device)
    base = np.median(contestants[0].rates[1:])
    return {
        "backbone": preset, "task": task_name, "batch_size": batch_size, "turns": turns, "steps_a_turn": steps,
        "samples_per_s": {c.name: round(float(np.median(c.rates[1:])), 1) for c in contestants},
        "spread": {c.name: [round(min(c.rates[1:]), 1), round(max(c.rates[1:]), 1)] for c in contestants},
        "times_straightforward": {c.name: round(float(np.median(c.rates[1:]) / base), 2) for c in contestants[1:]},
    }  # fmt: skip


def default_dataset(folder: Path) -> Path:
    """Beauty where the real data is, else the sample shop, prepared anew."""
    beauty = Path(os.environ.get("RDREC_DATA", ROOT / ".." / "shared" / "data")) / "beauty"
    out = folder / "dataset"
    if beauty.is_dir():
        command = ["prepare", "--p5", str(beauty), "--out", str(out)]
    else:
        rdrec(["sample", "--out", str(folder / "shop")])
        reviews = next((folder / "shop").glob("*eviews*"))
        command = ["prepare", "--reviews", str(reviews), "--out", str(out)]
    if rdrec(command) != 0:
        raise SystemExit("the dataset could not be prepared")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, help="prepared dataset folder")
    parser.add_argument("--backbones", default="tiny,small")
    parser.add_argument("--tasks", default="sequential,topn")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="steps a turn")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="tiny only, few steps: does it run at all")
    parser.add_argument("--json", type=Path, help="also write the results here")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.backbones, arguments.turns, arguments.steps = "tiny", 2, 3
    device, console = torch.device(arguments.device), Console()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        dataset = Dataset(arguments.dataset or default_dataset(Path(folder)))
        shown = table(
            f"{dataset.info.name}, {device}",
            "backbone", "task", "contestant", "samples/s", "min - max", "times",
            left=("backbone", "task", "contestant"),
        )  # fmt: skip
        for preset in arguments.backbones.split(","):
            for task in arguments.tasks.split(","):
                row = compare(
                    dataset, preset, task, turns=arguments.turns, steps=arguments.steps,
                    batch_size=arguments.batch_size, device=device,
                )  # fmt: skip
                results.append(row)
                for name, rate in row["samples_per_s"].items():
                    low, high = row["spread"][name]
                    times = row["times_straightforward"].get(name, 1.0)
                    shown.add_row(preset, task, name, f"{rate:,.0f}", f"{low:,.0f} - {high:,.0f}", f"{times:.2f}")
    console.print(shown)
    record = {
        "dataset": dataset.info.name,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine(),
        "precision": "bf16 autocast" if device.type == "cuda" else "fp32", "threads": torch.get_num_threads(),
        "torch": torch.__version__, "results": results,
    }  # fmt: skip
    keep("train", record, file=arguments.json, quick=arguments.quick)


if __name__ == "__main__":
    main()
