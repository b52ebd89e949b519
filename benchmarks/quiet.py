"""How much of the machine others took while a benchmark ran: whether its figures say anything.

Counts processor time of the whole machine and of this process's own tree (children that ended included) on Linux;
elsewhere nothing is known. Time that a hypervisor took (steal) is others'.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

TOO_BUSY = 0.10
"""Share of all processors' time that others may take before figures are not to be trusted."""
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """Processor seconds since the machine and this process began; `own` holds the process's tree."""

    at: float
    machine: float
    own: float

    @classmethod
    def now(cls, root: Path = Path("/proc"), pid: int | None = None) -> Usage | None:
        """None where it cannot be known."""
        try:
            fields = [int(value) for value in (root / "stat").read_text().splitlines()[0].split()[1:9]]
        except OSError:
            return None
        user, nice, system, _, _, irq, softirq, steal = fields
        own = sum(_seconds_by_process(root, os.getpid() if pid is None else pid).values())
        return cls(time.monotonic(), (user + nice + system + irq + softirq + steal) / _TICKS, own)


def _seconds_by_process(root: Path, pid: int) -> dict[int, float]:
    """Of a process and its descendants, with what their ended children took."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for folder in root.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it ended just now
            continue
        number = int(folder.name)
        parents[number] = int(fields[1])
        seconds[number] = sum(int(value) for value in fields[11:15]) / _TICKS
    tree = {pid}
    while more := {number for number, parent in parents.items() if parent in tree and number not in tree}:
        tree |= more
    return {number: seconds[number] for number in tree if number in seconds}


def children_mb(root: Path = Path("/proc"), pid: int | None = None) -> float:
    """Memory of this process's descendants; a page that several of them map counts once (PSS)."""
    own = os.getpid() if pid is None else pid
    total = 0
    for number in _seconds_by_process(root, own).keys() - {own}:
        lines = (root / str(number) / "smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def others_share(before: Usage | None, after: Usage | None, cpus: int) -> float | None:
    """Share of all processors' time that other processes took between two looks, 0 to 1; None where it is not known."""
    if before is None or after is None or after.at <= before.at:
        return None
    others = (after.machine - before.machine) - (after.own - before.own)
    return min(1.0, max(0.0, others / ((after.at - before.at) * cpus)))


def verdict(share: float | None) -> str:
    """One line for the table's foot."""
    if share is None:
        return "how busy other processes kept this machine is not known here"
    if share > TOO_BUSY:
        return f"TOO BUSY TO TELL: other processes took {share:.0%} of the processors during this run"
    return f"other processes took {share:.0%} of the processors during this run"
