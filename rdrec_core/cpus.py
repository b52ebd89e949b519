"""How many processors this process may really use: by affinity, and by the quota of its container.

Knows Linux's cgroups (v2 `cpu.max`, v1 `cpu.cfs_quota_us`); anywhere else the count of the machine holds. More threads
than a quota allows wait for each other while they are throttled.
"""

from __future__ import annotations

import math
import os
from pathlib import Path, PurePosixPath


def available_cpus(root: Path = Path("/")) -> int:
    """Whole processors, at least 1; a quota of 1.5 is 2. root: of the file system, for tests."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(root)
    return max(1, count if quota is None else min(count, math.ceil(quota)))


def threads_of_each(computations: int, others: int, cpus: int, wanted: int = 0) -> tuple[int, bool]:
    """Threads for each of so many computations at a time beside `others` busy threads, and whether all have a core.

    wanted: so many, whatever is left. Threads that share cores must not spin while they wait: they would keep from
    their core who has work.
    """
    threads = wanted or max(1, (cpus - others) // computations)
    return threads, threads * computations + others <= cpus


def _quota(root: Path) -> float | None:
    """The tightest quota on the way from the root of the hierarchy to this process's group; None without any."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    found = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" if not controllers else root / "sys/fs/cgroup/cpu"
        # inside a container the group may be named as outside, and be mounted as the root: then only the root is there
        for folder in [base, *(base / part for part in _ancestors(group))]:
            quota = _quota_v2(folder) if not controllers else _quota_v1(folder)
            if quota is not None:
                found.append(quota)
    return min(found, default=None)


def _ancestors(group: str) -> list[str]:
    path = PurePosixPath(group.lstrip("/"))
    return [str(part) for part in (path, *path.parents) if str(part) != "."]


def _quota_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        return None if quota <= 0 else quota / int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError, ZeroDivisionError):
        return None
