"""Where pieces of work run: in processes of this machine, or as Ray tasks on as many machines as there are.

Both are executors: what is cut into pieces does not know which it was given, so that the result cannot depend on it.
Knows functions and arrays, not what they compute. Ray needs the extra `ray`, and rdrec on each node.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from rdrec_core.errors import EngineError, InputError

RETRIES = 3
"""Of a piece whose worker or node died."""
Arrays = Mapping[str, npt.NDArray[Any]]


@contextmanager
def connected() -> Iterator[Any]:
    """Ray on the cluster that RAY_ADDRESS names, else started here. Raises InputError where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise InputError("--ray needs Ray: pip install 'rdrec[ray]'", field="ray") from error
    if ray.is_initialized():
        yield ray
        return
    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def processes_or_ray(n: int, *, ray: bool = False) -> Iterator[tuple[Executor, int]]:
    """An executor and how many pieces it works on at once: `n` processes of this machine, or the cores of a cluster."""
    if ray:
        with connected() as cluster, RayTasks(cluster) as tasks:
            yield tasks, tasks.n
        return
    # spawn: a forked child would inherit the locks of Arrow's and Polars' threads
    with ProcessPoolExecutor(
        n,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
    ) as pool:
        yield pool, n


def _begin() -> None:
    # Ctrl-C goes to the whole group; the parent alone decides what becomes of it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # a core each, as Ray has it: told to NumPy, which is imported by now, and read by torch once it is
    threadpool_limits(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")


class RayTasks(Executor):
    """Calls as Ray tasks, each on one core; a call whose worker dies is made again, RETRIES times."""

    def __init__(self, ray: Any) -> None:
        self._call = ray.remote(_call).options(num_cpus=1, max_retries=RETRIES)
        self._open: set[Future[Any]] = set()
        self._task_error: type[Exception] = ray.exceptions.RayTaskError
        self.n = max(1, int(ray.cluster_resources().get("CPU", 1)))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """A future of the result, or of the exception that the call itself raised."""
        future: Future[Any] = Future()
        self._open.add(future)
        self._call.remote(fn, args, kwargs).future().add_done_callback(partial(self._settle, future))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for what was submitted, so that nothing is written any more afterwards."""
        if wait:
            wait_for(list(self._open))

    def _settle(self, future: Future[Any], answered: Future[Any]) -> None:
        cause = answered.exception()
        self._open.discard(future)
        if cause is None:
            future.set_result(answered.result())
        elif isinstance(cause, self._task_error):
            future.set_exception(cause.cause)  # type: ignore[attr-defined]
        else:
            future.set_exception(EngineError(f"a Ray worker died {RETRIES + 1} times: {cause}"))


def _call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return function(*args, **kwargs)


class Blocks:
    """Runs of rows computed here one after another, or by an executor `at_once` at a time; in order either way.

    An executor's workers read the arrays from files under `folder`, which all of them must see; threads need none.
    """

    def __init__(self, executor: Executor | None = None, at_once: int = 1, folder: Path | None = None) -> None:
        self._executor, self._at_once, self.folder = executor, at_once, folder

    def map(
        self, function: Callable[..., Any], arrays: Arrays, runs: Iterable[tuple[int, int]], **settings: Any
    ) -> Iterator[Any]:
        """function(arrays, start, stop, **settings) of each run."""
        call = partial(function, arrays, **settings)
        if self._executor is None:
            for start, stop in runs:
                yield call(start, stop)
            return
        folder = None
        if self.folder is not None:
            folder = Path(tempfile.mkdtemp(dir=self.folder)).resolve()
            for name, array in arrays.items():
                np.save(folder / f"{name}.npy", array)
            call = partial(_on_files, function, folder, tuple(arrays), settings)
        pending: deque[Future[Any]] = deque()
        for start, stop in runs:
            pending.append(self._executor.submit(call, start, stop))
            if len(pending) > self._at_once:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
        if folder is not None:
            shutil.rmtree(folder)


@contextmanager
def blocks_by(n: int, folder: Path, *, ray: bool = False) -> Iterator[Blocks | None]:
    """Blocks by `n` processes or a Ray cluster, their files under `folder` meanwhile; None, for here, where n is 1."""
    if n == 1 and not ray:
        yield None
        return
    with (
        tempfile.TemporaryDirectory(dir=folder) as scratch,
        processes_or_ray(n, ray=ray) as (executor, at_once),
    ):
        yield Blocks(executor, at_once, Path(scratch))


def _on_files(
    function: Callable[..., Any], folder: Path, names: tuple[str, ...], settings: dict[str, Any], start: int, stop: int
) -> Any:
    return function(_opened(folder, names), start, stop, **settings)


@lru_cache(maxsize=1)
def _opened(folder: Path, names: tuple[str, ...]) -> Arrays:
    """Mapped, so that the workers of one machine share the pages; "c", as some libraries take only what is writable."""
    return {name: np.load(folder / f"{name}.npy", mmap_mode="c") for name in names}
