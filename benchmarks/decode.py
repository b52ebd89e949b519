"""Ranking speed and agreement of every score mode and strategy, beside Hugging Face and the published code's way.

    python benchmarks/decode.py [--bundle DIR] [--quick] [--json FILE] [--plot FILE.png]

All contestants rank the same requests in turns within one run, so that whatever else the machine does hits all alike.
On a machine that is busy with other things, `--clock cpu --threads 1` compares processor time, not waiting time.
With a GPU, torch's contestants run there in bfloat16 and ONNX Runtime's where its providers say; `--batches 1 16 256`
suits it. Without a bundle: T5-small's shape with random weights, T5's tokenizer from $RDREC_DATA, labels 1 to 12101. A
causal encoder is raced against Hugging Face's T5 of its shape, for speed only.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from transformers.utils import logging as transformers_logging

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.decode_contestants import (
    BEAMS,
    Contestant,
    World,
    bundled_world,
    contestants,
    random_world,
    sequential_requests,
    topn_requests,
)
from benchmarks.records import RESULTS, keep, table
from rdrec_core.types import Task


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


def records(field: list[Contestant], *, comparable: bool) -> list[dict[str, Any]]:
    """One record a contestant; `full` is compared with Hugging Face's lists where it has such a model."""
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
        elif comparable:
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
    shown = table(
        "Ranking; lists of `full` against Hugging Face's, of `trie` against the exact float32 answer",
        "task", "mode", "strategy", "B", "users/s", "x HF", "same list", "top-10 overlap", "score diff",
        left=("task", "mode", "strategy"),
    )  # fmt: skip
    for row in rows:
        agreement_columns = [
            "" if row[key] is None else f"{row[key]:{form}}"
            for key, form in (("identical_lists", ".0%"), ("top10_overlap", ".0%"), ("max_score_diff", ".1e"))
        ]
        shown.add_row(
            row["task"], row["mode"], row["strategy"], str(row["batch"]), f"{row['users_per_s']:.2f}",
            f"{row['ratio_to_hf']:.2f}", *agreement_columns,
        )  # fmt: skip
    console = Console()
    console.print(shown)
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
    parser.add_argument("--plot", type=Path, default=RESULTS / "decode.png")
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
        n = max(32, *arguments.batches)
        sequential, topn = sequential_requests(world, n, rng), topn_requests(world, n, rng)
        field = contestants(world, sequential, topn, arguments.batches)
        race(field, n, rounds=6 if arguments.quick else 20, limit_s=110 if arguments.quick else 900, clock=clock)
    config = world.model.config.t5
    rows = records(field, comparable=not config.causal_encoder)
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
    keep("decode", {"floor": floor, "records": rows}, file=arguments.json, results=arguments.plot.parent)


if __name__ == "__main__":
    main()
