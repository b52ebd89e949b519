"""The bundle: the only thing that passes from training to service. Written whole or not at all, verified before use.

    manifest.json            Manifest, with the SHA-256 and size of every other file
    manifest.sig             optional Ed25519 signature of manifest.json (signing.py)
    model.json weights.safetensors tokenizer.json
    arrays/<group>/<name>.npy    items, columns, users, labels, trie, graph, ...; memory-mapped on reading
    onnx/*.onnx              search, scoring and text graphs

No pickle anywhere. Knows files, not what engines make of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from rdrec_core.catalog import Arrays, Catalog, Users
from rdrec_core.encoding import RaggedTokens
from rdrec_core.errors import BundleError
from rdrec_core.file_hash import file_sha256
from rdrec_core.types import ScoreMode, Strategy, Task

SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"


class FileEntry(BaseModel):
    """One file of the bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    size_bytes: int


class Description(BaseModel):
    """What the exporter says of the bundle: the manifest without what follows from the files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    created_at: str
    """UTC, ISO 8601."""
    recipe: dict[str, Any]
    protocol: str
    label_scheme: str
    dataset_sha256: dict[str, str]
    n_users: int
    n_items: int
    score_modes: list[ScoreMode]
    """Modes for which the bundle holds a checked graph; the first is the default."""
    strategy: Strategy = Strategy.BEAM
    topn_task: Task = Task.TOPN
    """Which source text `/recommend/topn` scores candidates under."""
    candidate_width: int = 100
    """Candidates in one top-N source, as trained."""
    text_tasks: list[Task]
    """Text tasks that the model was trained on; empty for datasets without reviews."""
    fusion: dict[str, float] | None = None
    """Weights of `rdrec fuse`; None ranks by the model alone."""
    metrics: dict[str, float] = {}


class Manifest(Description):
    """`manifest.json`."""

    schema_version: int = SCHEMA_VERSION
    model_version: str
    """name-<12 hex digits of the hash over all files>."""
    files: dict[str, FileEntry]


def manifest_of(description: Description, files: Mapping[str, FileEntry]) -> Manifest:
    """The manifest over these files; its model version follows from the files and the description."""
    total = hashlib.sha256("".join(f"{k} {v.sha256}\n" for k, v in files.items()).encode())
    total.update(description.model_dump_json().encode())
    version = f"{description.name}-{total.hexdigest()[:12]}"
    return Manifest(**description.model_dump(), model_version=version, files=dict(files))


class BundleWriter:
    """Collects the files of a bundle in a folder that `replacing_folder` gave; `finish` writes the manifest last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add_arrays(self, group: str, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write arrays/<group>/<name>.npy."""
        (self.folder / "arrays" / group).mkdir(parents=True, exist_ok=True)
        for name, array in arrays.items():
            np.save(self.folder / "arrays" / group / f"{name}.npy", np.ascontiguousarray(array), allow_pickle=False)

    def add_tokens(self, group: str, tokens: RaggedTokens) -> None:
        """Write ragged tokens as a group of two arrays."""
        self.add_arrays(group, {"indptr": tokens.indptr, "tokens": tokens.tokens})

    def finish(self, description: Description) -> Manifest:
        """Hash every file and write the manifest."""
        files = {
            path.relative_to(self.folder).as_posix(): FileEntry(
                sha256=file_sha256(path), size_bytes=path.stat().st_size
            )
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }
        manifest = manifest_of(description, files)
        (self.folder / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
        return manifest


class Bundle:
    """A verified bundle folder, read lazily; arrays are read-only."""

    def __init__(self, path: Path, manifest: Manifest, manifest_sha256: str, *, memory_map: bool = True) -> None:
        self.path = path
        self.manifest = manifest
        self.manifest_sha256 = manifest_sha256
        """Names the bundle down to the last byte of every file."""
        self._memory_map = memory_map

    @classmethod
    def open(
        cls, path: Path | str, *, verify: bool = True, memory_map: bool = True, expected_sha256: str | None = None
    ) -> Bundle:
        """Read the manifest and check every file against it. Raises BundleError naming what is wrong.

        memory_map: arrays stay in their files, which must then not be overwritten in place: a process that reads a page
        that is no longer there is killed. expected_sha256: the `manifest_sha256` of the only bundle that will do.
        """
        path = Path(path)
        file = path / MANIFEST_FILE
        try:
            content = file.read_bytes()
            raw = json.loads(content)
        except FileNotFoundError as error:
            raise BundleError(f"{file} is missing: {path} is not a bundle (make one with `rdrec export`)") from error
        except ValueError as error:
            raise BundleError(f"{file} is not JSON: {error}") from error
        if not isinstance(raw, dict) or not isinstance(raw.get("schema_version"), int):
            raise BundleError(f"{file} has no schema_version")
        if raw["schema_version"] > SCHEMA_VERSION:
            raise BundleError(
                f"{file}: schema_version {raw['schema_version']} is newer than {SCHEMA_VERSION}, upgrade rdrec"
            )
        try:
            manifest = Manifest.model_validate(raw)
        except ValidationError as error:
            raise BundleError(f"{file} is not a valid manifest: {error}") from error
        found_sha256 = hashlib.sha256(content).hexdigest()
        if expected_sha256 is not None and found_sha256 != expected_sha256:
            raise BundleError(f"{path} holds another bundle ({manifest.model_version}) than the one that was verified")
        bundle = cls(path, manifest, found_sha256, memory_map=memory_map)
        if verify:
            bundle.verify()
        return bundle

    def verify(self) -> None:
        """Compare every file with the manifest. Raises BundleError naming the first that is missing or altered."""
        for name, entry in self.manifest.files.items():
            file = self.path / name
            if not file.is_file():
                raise BundleError(f"{file} is missing")
            if file.stat().st_size != entry.size_bytes or file_sha256(file) != entry.sha256:
                raise BundleError(f"{file} was altered: its SHA-256 is not the manifest's")

    def file(self, name: str) -> Path:
        """Path of a file that the manifest lists. Raises BundleError where it does not."""
        if name not in self.manifest.files:
            raise BundleError(f"{self.path / name} is not in the manifest")
        return self.path / name

    def has(self, name: str) -> bool:
        """Whether the manifest lists the file."""
        return name in self.manifest.files

    def arrays(self, group: str) -> Arrays:
        """All arrays of a group by name; empty where the bundle has no such group."""
        prefix = f"arrays/{group}/"
        mode: Literal["r"] | None = "r" if self._memory_map else None
        return {
            # asarray: still mapped, without the cost that np.memmap adds to every index
            name[len(prefix) : -len(".npy")]: np.asarray(np.load(self.path / name, mmap_mode=mode, allow_pickle=False))
            for name in self.manifest.files
            if name.startswith(prefix)
        }

    def tokens(self, group: str) -> RaggedTokens:
        """Ragged tokens that `add_tokens` wrote."""
        arrays = self.arrays(group)
        if not arrays:
            raise BundleError(f"{self.path}/arrays/{group} is not in the manifest")
        return RaggedTokens(arrays["indptr"], arrays["tokens"])  # type: ignore[arg-type]

    @cached_property
    def catalog(self) -> Catalog:
        """The items."""
        return Catalog.from_arrays(self.arrays("items"))

    @cached_property
    def users(self) -> Users:
        """The users and their base histories."""
        return Users.from_arrays(self.arrays("users"))
