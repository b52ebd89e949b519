"""Files and folders that are whole or not there: written under a temporary name beside it, synced, then renamed.

Every artifact of the project is written through the first two; links to what is served change by the third. Knows
nothing of what is written.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rdrec_core.errors import BundleError


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a temporary name in the folder of `path`; what is written there replaces `path` if the block succeeds."""
    temporary = _temporary(path)
    try:
        yield temporary
        _fsync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(out: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield an empty temporary folder beside `out` that takes its name if the block succeeds, and vanishes if not.

    An existing `out` is replaced only with force.
    """
    if out.exists() and not force:
        raise BundleError(f"{out} exists; choose another folder or pass --force")
    temporary = _temporary(out)
    temporary.mkdir()
    try:
        yield temporary
        for path in temporary.rglob("*"):
            _fsync(path)
        if out.exists():
            old = out.parent / f".{out.name}.tmp-old-{os.getpid()}"
            out.rename(old)
            temporary.rename(out)
            shutil.rmtree(old)
        else:
            temporary.rename(out)
        _fsync(out.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replacing_link(link: Path, folder: Path) -> None:
    """Have the link, which may not be there yet, lead to the folder, by a relative path. Raises OSError."""
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(folder.resolve(), link.parent.resolve()))
    temporary.replace(link)


def _temporary(path: Path) -> Path:
    """A free name of this process beside `path`, whose folder is made; leftovers of killed runs are removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in path.parent.glob(f".{path.name}.tmp-*"):
        pid = stale.name.rpartition("-")[2]
        if not (pid.isdigit() and Path(f"/proc/{pid}").exists()):
            _remove(stale)
    temporary = path.parent / f".{path.name}.tmp-{os.getpid()}"
    _remove(temporary)
    return temporary


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
