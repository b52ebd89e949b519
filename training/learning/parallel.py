"""One process or several: data-parallel training under `torchrun` (gloo on CPU, NCCL on GPUs).

Every process draws the same global batch and computes its share of the rows. Knows processes, not batches or models.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from training.workers import Arrays

Once = Callable[[Callable[[], Arrays]], Arrays]
"""Arrays by name out of what makes them: at once, or as `Processes.once`."""
_PATIENCE = timedelta(hours=12)
"""The first process of a machine prepares what the others wait for: hours, where there are many texts."""


@dataclass(frozen=True)
class Processes:
    """This process among all."""

    rank: int
    count: int
    device: torch.device
    machine: int = 0
    place: int = 0
    """Among the processes of this machine."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over all processes."""
        if self.count > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def agree(self, *values: float) -> list[float]:
        """The first process's values, in all of them: clocks and signals differ, decisions must not."""
        if self.count == 1:
            return list(values)
        shared = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.broadcast(shared, src=0)
        return shared.tolist()  # type: ignore[no-any-return]

    def wait(self) -> None:
        """Wait for all."""
        if self.count > 1:
            dist.barrier()

    def once(self, folder: Path, make: Callable[[], Arrays]) -> Arrays:
        """What `make` gives, made by one process of each machine and mapped by all of them, read-only.

        The files are written under `folder`, and are gone when all have them.
        """
        if self.count == 1:
            return make()
        own = folder / f"machine-{self.machine}"
        if self.place == 0:
            shutil.rmtree(own, ignore_errors=True)  # of a run that was killed
            own.mkdir(parents=True)
            for name, array in make().items():
                np.save(own / f"{name}.npy", array, allow_pickle=False)
        self.wait()
        arrays = {file.stem: np.asarray(np.load(file, mmap_mode="r", allow_pickle=False)) for file in own.iterdir()}
        self.wait()
        if self.place == 0:
            shutil.rmtree(own, ignore_errors=True)
            with suppress(OSError):  # another machine's are there yet
                folder.rmdir()
        return arrays


@contextmanager
def processes() -> Iterator[Processes]:
    """The process group that torchrun's environment describes, or this process alone."""
    on_gpu = torch.cuda.is_available()
    if "WORLD_SIZE" not in os.environ:
        yield Processes(0, 1, torch.device("cuda" if on_gpu else "cpu"))
        return
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=_PATIENCE)
    machine, place = int(os.environ.get("GROUP_RANK", 0)), int(os.environ.get("LOCAL_RANK", 0))
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), device, machine, place)
    finally:
        dist.destroy_process_group()
