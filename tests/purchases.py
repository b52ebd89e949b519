"""Small source files and prepared datasets for the tests of `prepare` and `audit`."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from training.data.prepare import PrepareConfig, prepare


def amazon_lines(n_users: int = 40, n_items: int = 20, length: int = 8, seed: int = 0) -> list[dict[str, Any]]:
    """Reviews in the Amazon 2018 format, in no order of time; every text is different."""
    rng = np.random.default_rng(seed)
    lines = [
        {
            "reviewerID": f"USER{user:03d}",
            "asin": f"ITEM{item:03d}",
            "reviewText": f"User {user} bought number {item} at step {step}. The handle of it is fine.",
            "overall": float(rng.integers(1, 6)),
            "unixReviewTime": 1_500_000_000 + 1000 * step + int(rng.integers(900)),
        }
        for user in range(n_users)
        for step, item in enumerate(rng.permutation(n_items)[:length])
    ]
    return [lines[n] for n in rng.permutation(len(lines))]


def write_lines(path: Path, lines: Iterable[Mapping[str, Any] | str]) -> Path:
    """JSON lines, gzipped where the name says so; strings are written as they are."""
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def prepared(folder: Path, **options: Any) -> Path:
    """A dataset of `amazon_lines` under `folder`."""
    reviews = write_lines(folder / "reviews.json.gz", amazon_lines())
    prepare(PrepareConfig(out=folder / "dataset", reviews=(reviews,), **options))
    return folder / "dataset"


def write_p5(folder: Path, histories: Mapping[int, list[int]], **files: Any) -> Path:
    """A P5 folder; `files`: name without .json -> content."""
    folder.mkdir()
    lines = "".join(f"{user} {' '.join(map(str, items))}\n" for user, items in histories.items())
    (folder / "sequential.txt").write_text(lines)
    items = sorted({item for history in histories.values() for item in history})
    maps = {"id2user": {str(u): f"user-{u}" for u in histories}, "id2item": {str(i): f"item-{i}" for i in items}}
    for name, content in {"datamaps": maps, **files}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder
