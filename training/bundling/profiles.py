"""Profiles offline: ask the model for every user's preference and every item's attributes, in batches, resumably.

The texts go to a journal beside the target, a line each, so that a run that was cut off goes on where it stopped. They
end in the checkpoint (`profiles.safetensors`, which `rdrec export` takes over) or in the bundle, which is written anew
with another model version. What the model writes is kept as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from safetensors.numpy import save_file

from rdrec_core.bundle import MANIFEST_FILE, Bundle, BundleWriter, Description, Manifest
from rdrec_core.errors import BundleError, CheckpointError
from rdrec_core.model import WEIGHTS_FILE
from rdrec_core.profiles import GROUP, Profiles
from rdrec_core.replacing import replacing_file, replacing_folder
from rdrec_core.signing import SIGNATURE_FILE
from rdrec_core.types import Task, TextRequest

PROFILES_FILE = "profiles.safetensors"
"""In the checkpoint folder."""
_WEIGHTS_KEY = "weights_sha256"

Write = Callable[[Sequence[TextRequest]], list[str]]


@dataclass(frozen=True)
class ProfileJob:
    """What is to be written. model: identifies the weights; fast: greedy search instead of the paper's beams."""

    model: str
    n_users: int
    n_items: int
    text_tasks: tuple[Task, ...]
    fast: bool

    def __post_init__(self) -> None:
        if not self.requests:
            raise CheckpointError(
                "the model was trained on neither user preferences nor item attributes; run `rdrec distill` and train"
            )

    @property
    def counts(self) -> tuple[int, int]:
        """Users and items with a request, in this order."""
        return (
            self.n_users if Task.USER_PREFERENCE in self.text_tasks else 0,
            self.n_items if Task.ITEM_ATTRIBUTES in self.text_tasks else 0,
        )

    @property
    def requests(self) -> int:
        """Texts in all."""
        return sum(self.counts)

    def request(self, place: int) -> TextRequest:
        """The place-th request: users first."""
        users, _ = self.counts
        if place < users:
            return TextRequest(Task.USER_PREFERENCE, user_index=place, fast=self.fast)
        return TextRequest(Task.ITEM_ATTRIBUTES, item_index=place - users, fast=self.fast)

    @property
    def identity(self) -> str:
        """First line of the journal."""
        return json.dumps({"model": self.model, "counts": self.counts, "fast": self.fast})


class ProfileJournal:
    """Texts in the order of the requests, a JSON string a line behind the job's identity. A context manager."""

    def __init__(self, path: Path, job: ProfileJob) -> None:
        self.path = path
        done = self._read_back(job.identity)
        self.n_done = 0 if done is None else done
        self._file = path.open("w" if done is None else "a", encoding="utf-8")
        if done is None:
            self._append([job.identity])

    def _read_back(self, identity: str) -> int | None:
        """Texts of this job that are whole; a line that a kill cut is taken off. None: another job's, or no journal."""
        if not self.path.is_file():
            return None
        with self.path.open("rb+") as file:
            if file.readline() != f"{identity}\n".encode():
                return None
            count, end = 0, file.tell()
            for line in file:
                if not line.endswith(b"\n"):
                    break
                count, end = count + 1, end + len(line)
            file.truncate(end)
        return count

    def _append(self, lines: Sequence[str]) -> None:
        self._file.write("".join(f"{line}\n" for line in lines))
        self._file.flush()
        os.fsync(self._file.fileno())

    def add(self, texts: Sequence[str]) -> None:
        """Append texts; on disk when this returns."""
        self._append([json.dumps(text, ensure_ascii=False) for text in texts])
        self.n_done += len(texts)

    def texts(self) -> list[str]:
        """All texts so far."""
        with self.path.open(encoding="utf-8") as file:
            next(file)
            return [json.loads(line) for line in file]

    def __enter__(self) -> ProfileJournal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def write_profiles(
    write: Write, job: ProfileJob, journal: ProfileJournal, *, batch_size: int, done: Callable[[int], None]
) -> Profiles:
    """Ask for what the journal lacks; `done` hears how many there are after each batch."""
    while journal.n_done < job.requests:
        places = range(journal.n_done, min(journal.n_done + batch_size, job.requests))
        journal.add(write([job.request(place) for place in places]))
        done(journal.n_done)
    texts = journal.texts()
    users, _ = job.counts
    return Profiles.from_texts(texts[:users], texts[users:])


def weights_sha256(checkpoint: Path) -> str:
    """Identifies the checkpoint's model."""
    with (checkpoint / WEIGHTS_FILE).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def store_in_checkpoint(checkpoint: Path, profiles: Profiles) -> Path:
    """Write profiles.safetensors, bound to the weights that wrote the texts."""
    path = checkpoint / PROFILES_FILE
    with replacing_file(path) as temporary:
        save_file(dict(profiles.arrays()), temporary, metadata={_WEIGHTS_KEY: weights_sha256(checkpoint)})
    return path


def profiles_of_checkpoint(checkpoint: Path) -> Profiles | None:
    """What `store_in_checkpoint` wrote, None where there is nothing.

    Raises CheckpointError where the model was trained further since: its texts would be other ones.
    """
    path = checkpoint / PROFILES_FILE
    if not path.is_file():
        return None
    with safe_open(path, framework="numpy") as file:
        if (file.metadata() or {}).get(_WEIGHTS_KEY) != weights_sha256(checkpoint):
            raise CheckpointError(f"{path} was written by other weights; run `rdrec profile` again, or delete it")
        return Profiles.from_arrays({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118


def store_in_bundle(bundle: Bundle, profiles: Profiles) -> Manifest:
    """Write the bundle anew with the profiles and without a signature: whole, or it stays as it was.

    Files that do not change are linked, not copied, where the file system can.
    """
    with replacing_folder(bundle.path, force=True) as folder:
        for name in bundle.manifest.files:
            if not name.startswith(f"arrays/{GROUP}/"):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                _link(bundle.path / name, folder / name)
        writer = BundleWriter(folder)
        writer.add_arrays(GROUP, profiles.arrays())
        fields = bundle.manifest.model_dump(include=set(Description.model_fields))
        return writer.finish(Description.model_validate(fields))


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        target.write_bytes(source.read_bytes())


def is_signed(bundle: Path) -> bool:
    """Whether a rewrite takes a signature away."""
    return (bundle / SIGNATURE_FILE).is_file()


def journal_of(target: Path) -> Path:
    """Beside a bundle, whose folder is replaced at the end; inside a checkpoint."""
    if (target / MANIFEST_FILE).is_file():
        return target.resolve().parent / f".{target.resolve().name}.profiles.jsonl"
    return target / ".profiles.jsonl"


def require_new(bundle: Bundle, *, force: bool) -> None:
    """Raises BundleError where the bundle has profiles and force is not given."""
    if bundle.arrays(GROUP) and not force:
        raise BundleError(f"{bundle.path} has profiles already; pass --force to write them anew")
