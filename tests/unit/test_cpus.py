"""Processors by quota, in made-up file systems as containers show them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rdrec_core.cpus import available_cpus, threads_of_each


@pytest.fixture(autouse=True)
def sixty_four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)


def system(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    for name, content in {"proc/self/cgroup": cgroup, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "10000 100000\n"}, 1),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "max 100000\n"}, 64),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "9900000 100000\n"}, 64),
        (
            "0::/kubepods/pod1/c1\n",
            {
                "sys/fs/cgroup/kubepods/pod1/cpu.max": "400000 100000",
                "sys/fs/cgroup/kubepods/pod1/c1/cpu.max": "max 100000",
            },
            4,
        ),
        ("0::/outside/name\n", {"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        (
            "5:cpuset:/\n4:cpu,cpuacct:/docker/x\n",
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
            3,
        ),
        (
            "4:cpu,cpuacct:/\n",
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
            64,
        ),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "nonsense"}, 64),
    ],
)
def test_the_quota_decides_where_it_is_less(tmp_path: Path, cgroup: str, files: dict[str, str], expected: int) -> None:
    assert available_cpus(system(tmp_path, cgroup, files)) == expected


def test_without_cgroups_the_machine_decides(tmp_path: Path) -> None:
    assert available_cpus(tmp_path) == 64


@pytest.mark.parametrize(
    ("computations", "others", "cpus", "expected"),
    [(1, 1, 8, (7, True)), (2, 1, 8, (3, True)), (8, 8, 16, (1, True)), (2, 1, 2, (1, False)), (1, 1, 1, (1, False))],
)
def test_computations_divide_what_others_leave(
    computations: int, others: int, cpus: int, expected: tuple[int, bool]
) -> None:
    assert threads_of_each(computations, others, cpus) == expected


def test_threads_that_are_asked_for_are_given_and_told_whether_they_have_cores() -> None:
    assert threads_of_each(2, 1, 8, 3) == (3, True)
    assert threads_of_each(2, 1, 8, 4) == (4, False)
