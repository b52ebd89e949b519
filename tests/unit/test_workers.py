"""Where pieces run does not show in what they make."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from training.workers import Arrays, Blocks, processes_or_ray


def sums(arrays: Arrays, start: int, stop: int, *, times: int) -> int:
    return int(arrays["values"][start:stop].sum()) * times


@pytest.mark.parametrize("at_once", [1, 3])
def test_blocks_come_in_order_from_wherever_and_leave_no_file(tmp_path: Path, at_once: int) -> None:
    arrays = {"values": np.arange(100)}
    runs = [(start, start + 10) for start in range(0, 100, 10)]
    with ThreadPoolExecutor(3) as pool:
        there = list(Blocks(pool, at_once, tmp_path).map(sums, arrays, runs, times=2))
    assert there == list(Blocks().map(sums, arrays, runs, times=2))
    assert there == [2 * sum(range(*run)) for run in runs]
    assert list(tmp_path.iterdir()) == []


def test_a_failing_block_fails_the_whole(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool, pytest.raises(TypeError, match="times"):
        list(Blocks(pool, 2, tmp_path).map(sums, {"values": np.arange(4)}, [(0, 2), (2, 4)]))


def test_a_worker_has_one_thread_so_that_workers_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    with processes_or_ray(1) as (executor, _):
        found = executor.submit(threadpool_info).result()
    assert {library["num_threads"] for library in found if library["user_api"] == "blas"} == {1}
