"""The same blocks computed by Ray actors, on this machine or a cluster. Needs the extra `ray`.

Each actor opens the bundle once, from the same path on its node. Blocks come back to the driver, which keeps them, so
only the bundle has to be on shared storage; an actor or node that dies is replaced and its block computed again. Knows
Ray and blocks, not files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rdrec_core.errors import EngineError, RDRecError
from training.batch_scoring.scoring import Block, BlockRanker, ScoredBlock, ScoringOptions
from training.workers import RETRIES, connected

_AHEAD = 2
"""Blocks that an actor has at a time, so that it never waits for the driver."""


def scored_by_ray(
    bundle: Path, options: ScoringOptions, blocks: Iterable[Block], *, workers: int, threads: int, gpus: float
) -> Iterator[tuple[int, ScoredBlock]]:
    """Blocks as they are done, in any order. workers 0: as many as the cluster has cores (or GPUs) for.

    threads: CPU cores of one worker, at least 1; gpus: GPUs of one worker.
    """
    with connected() as ray:
        yield from _scored(ray, bundle, options, blocks, workers=workers, threads=max(threads, 1), gpus=gpus)


def _scored(
    ray: Any, bundle: Path, options: ScoringOptions, blocks: Iterable[Block], *, workers: int, threads: int, gpus: float
) -> Iterator[tuple[int, ScoredBlock]]:
    if workers == 0:
        there = ray.cluster_resources()
        workers = max(1, int(there.get("GPU", 0) / gpus if gpus else there.get("CPU", 1) / threads))
    actor = ray.remote(BlockRanker).options(
        num_cpus=threads, num_gpus=gpus, max_restarts=RETRIES, max_task_retries=RETRIES
    )
    waiting = iter(blocks)
    actors = [actor.remote(bundle, options, threads) for _ in range(workers)]
    running: dict[Any, tuple[int, Any]] = {}

    def submit(to: Any) -> None:
        block = next(waiting, None)
        if block is not None:
            number, users = block
            running[to.rank.remote(users)] = (number, to)

    for _ in range(_AHEAD):
        for each in actors:
            submit(each)
    try:
        while running:
            (done, *_), _ = ray.wait(list(running), num_returns=1)
            number, worker = running.pop(done)
            yield number, ray.get(done)
            submit(worker)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, RDRecError):
            raise error.cause from error
        raise EngineError(f"a Ray worker failed: {error.cause}") from error
    except ray.exceptions.RayActorError as error:
        raise EngineError(f"a Ray worker died {RETRIES + 1} times: {error}") from error
    finally:
        for each in actors:
            ray.kill(each)
