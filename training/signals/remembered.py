"""Vectors of texts kept in a file by the hash of the text, so that a sentence encoder reads each text once.

Runs of texts are encoded by whoever `blocks` says. Knows neither the encoder nor what the texts are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rdrec_core.catalog import StringTable
from rdrec_core.replacing import replacing_file
from training.workers import Arrays, Blocks

Floats = npt.NDArray[np.float32]
_SAVE_EVERY, _AT_ONCE = 20_000, 1_000
"""Texts, for all and for one worker."""


class TextEncoder(Protocol):
    """Texts as dense vectors."""

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides a vector."""
        ...

    def encode(self, texts: Sequence[str]) -> Floats:
        """(M, D) of length one, zeros for a text without anything in it."""
        ...


class RememberedVectors:
    """An encoder that is asked only for texts that the file `<folder>/<fingerprint>.npz` lacks."""

    def __init__(self, encoder: TextEncoder, folder: Path, blocks: Blocks | None = None) -> None:
        """The folder is made when the first vectors are kept. Blocks need an encoder that can be pickled."""
        self.encoder = encoder
        self._folder, self._blocks = folder, blocks or Blocks()
        self._file = folder / f"{encoder.fingerprint}.npz"

    def by(self, blocks: Blocks | None) -> RememberedVectors:
        """The same, encoded by these workers."""
        return RememberedVectors(self.encoder, self._folder, blocks)

    @property
    def fingerprint(self) -> str:
        """The encoder's."""
        return self.encoder.fingerprint

    def encode(self, texts: Sequence[str]) -> Floats:
        """As the encoder does."""
        keys = np.asarray([_key(text) for text in texts], dtype=np.uint64)
        known, vectors = self._read()
        there = np.isin(keys, known)
        missing = {int(keys[i]): texts[i] for i in np.flatnonzero(~there)}
        new_keys, new_texts = list(missing), list(missing.values())
        for start in range(0, len(new_keys), _SAVE_EVERY):  # so that a kill loses only the last of them
            some = new_texts[start : start + _SAVE_EVERY]
            runs = [(begin, min(len(some), begin + _AT_ONCE)) for begin in range(0, len(some), _AT_ONCE)]
            arrays = StringTable.from_strings(some).arrays("texts")
            fresh = np.concatenate(list(self._blocks.map(_encoded, arrays, runs, encoder=self.encoder)))
            known = np.concatenate([known, np.asarray(new_keys[start : start + len(some)], dtype=np.uint64)])
            vectors = np.concatenate([vectors, fresh]) if vectors.size else fresh
            # a dataset that may only be read, or a full disk: the vectors are then computed again next time
            with suppress(OSError), replacing_file(self._file) as temporary, temporary.open("wb") as opened:
                np.savez(opened, keys=known, vectors=vectors)
        if not len(keys):
            return self.encoder.encode([])
        order = np.argsort(known)
        return vectors[order[np.searchsorted(known, keys, sorter=order)]]

    def _read(self) -> tuple[npt.NDArray[np.uint64], Floats]:
        if not self._file.is_file():
            return np.empty(0, dtype=np.uint64), np.empty((0, 0), dtype=np.float32)
        with np.load(self._file, allow_pickle=False) as stored:
            return stored["keys"], stored["vectors"]


def _encoded(arrays: Arrays, start: int, stop: int, *, encoder: TextEncoder) -> Floats:
    texts = StringTable.from_arrays(arrays, "texts")
    return encoder.encode([texts[i] for i in range(start, stop)])


def _key(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:8], "little")
