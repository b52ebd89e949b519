"""A result that grows block by block, survives a kill at any point, and appears whole under its name or not at all.

    <out>.parts/job.json               what was asked; a rerun that asks something else is refused
    <out>.parts/part-<block>.parquet   one block each, written under another name and renamed
    <out>                              all parts in order, renamed when complete; the parts are then removed

Knows tables and files, not how they are computed.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from rdrec_core.errors import DatasetError, InputError
from rdrec_core.replacing import replacing_file
from training.batch_scoring.scoring import RESULT_SCHEMA, ScoringOptions

_ROWS_A_GROUP = 500_000
"""Rows of one row group of the result, which is what a reader holds in memory."""
_COMPRESSION = "zstd"


@dataclass(frozen=True)
class Shard:
    """The number-th of `count` parts of the work; numbers count from 1."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`2/8` -> Shard(2, 8). Raises InputError where it is not i/n with 1 <= i <= n."""
        number, slash, count = text.partition("/")
        if slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
            return cls(int(number), int(count))
        raise InputError(f"--shard {text!r} should be i/n with i from 1 to n, such as 2/8", field="shard")

    def blocks(self, n_blocks: int) -> range:
        """Its blocks: contiguous, so that the shards' results one after another are the whole result."""
        return range(n_blocks * (self.number - 1) // self.count, n_blocks * self.number // self.count)


class Job(BaseModel):
    """Everything that the bytes of a result depend on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_version: str
    users: str
    """Identity of the list of users."""
    n_users: int
    block_users: int
    shard: Shard
    options: ScoringOptions

    @property
    def blocks(self) -> range:
        """Numbers of the blocks to compute."""
        return self.shard.blocks(-(-self.n_users // self.block_users))

    def users_of(self, block: int) -> tuple[int, int]:
        """Places [start, stop) of a block's users."""
        return block * self.block_users, min((block + 1) * self.block_users, self.n_users)

    def count_users(self, blocks: Iterable[int]) -> int:
        """Users of these blocks."""
        return sum(stop - start for start, stop in map(self.users_of, blocks))


class Parts:
    """The parts of one job."""

    def __init__(self, out: Path, job: Job, folder: Path) -> None:
        self._out, self._job, self._folder = out, job, folder

    @classmethod
    @contextmanager
    def open(cls, out: Path, job: Job, *, force: bool) -> Iterator[Parts]:
        """Begin, or go on where an earlier run of the same job was cut off.

        force replaces an existing result, and the parts of another job. Raises InputError without it, and where
        another process works on the same result.
        """
        if out.exists() and not force:
            raise InputError(f"--out {out} exists; choose another name or pass --force", field="out")
        folder = out.with_name(f"{out.name}.parts")
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(f"another run is writing {out}", field="out") from error
            parts = cls(out, job, folder)
            parts._begin(force=force)
            yield parts

    def _begin(self, *, force: bool) -> None:
        file = self._folder / "job.json"
        differing = _differences(file, self._job) if file.is_file() else []
        kept = list(self._folder.glob("part-*.parquet"))
        if differing and kept and not force:
            raise InputError(
                f"{self._folder} holds parts of a run with other {', '.join(differing)}; pass --force to drop them",
                field="out",
            )
        for path in kept if differing else ():
            path.unlink()
        with replacing_file(file) as temporary:
            temporary.write_text(self._job.model_dump_json(indent=2), encoding="utf-8")

    def _file(self, block: int) -> Path:
        return self._folder / f"part-{block:08d}.parquet"

    def missing(self) -> list[int]:
        """Blocks that are still to be computed."""
        there = {path.name for path in self._folder.glob("part-*.parquet")}
        return [block for block in self._job.blocks if self._file(block).name not in there]

    def write(self, block: int, rows: pa.Table) -> None:
        """Keep a block."""
        with replacing_file(self._file(block)) as temporary:
            pq.write_table(rows, temporary, compression=_COMPRESSION)

    def finish(self) -> int:
        """Write the result out of the parts, which must all be there, remove them, and return its number of rows."""
        total = 0
        with (
            replacing_file(self._out) as temporary,
            pq.ParquetWriter(temporary, RESULT_SCHEMA, compression=_COMPRESSION) as writer,
        ):
            for group in self._groups():
                writer.write_table(group)
                total += len(group)
        shutil.rmtree(self._folder)
        return total

    def _groups(self) -> Iterator[pa.Table]:
        waiting: list[pa.Table] = []
        for block in self._job.blocks:
            try:
                waiting.append(pq.read_table(self._file(block), schema=RESULT_SCHEMA))
            except (OSError, pa.ArrowInvalid) as error:
                raise DatasetError(f"{self._file(block)} is damaged; remove it and run the command again") from error
            if sum(map(len, waiting)) >= _ROWS_A_GROUP:
                yield pa.concat_tables(waiting).combine_chunks()
                waiting = []
        if waiting:
            yield pa.concat_tables(waiting).combine_chunks()


def _differences(file: Path, job: Job) -> list[str]:
    """Names of what the job in the file has otherwise."""
    try:
        other = Job.model_validate(json.loads(file.read_bytes())).model_dump()
    except (ValueError, ValidationError):
        return ["job.json"]
    mine = job.model_dump()
    mine, other = mine | mine.pop("options"), other | other.pop("options")
    return [name for name in mine if mine[name] != other[name]]
