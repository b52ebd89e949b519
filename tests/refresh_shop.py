"""A small shop with a log and a first bundle, for tests of the daily loop: somebody who has item i takes item i + 1."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from training.bundling.export import export_bundle
from training.data.dataset import Dataset
from training.data.prepare import PrepareConfig, prepare
from training.learning.checkpoint import load_checkpoint
from training.learning.config import load_config
from training.learning.run import train

DAY = 86_400
START = 1_700_006_400
N_USERS, N_ITEMS, FIRST_DAYS = 60, 30, 20
QUICK = {
    "epochs": 4, "passes": 2, "vocabulary_size": 120, "tasks": "sequential", "ratio": "0:0:1:0", "batch_size": 32,
    "validation_limit": 30,
}  # fmt: skip


def purchase(number: int, user: str, item: str, day: float) -> dict[str, Any]:
    at = START + day * DAY
    return {
        "event_id": f"e{number}", "user_id": user, "item_id": item, "event": "purchase", "timestamp": at,
        "received": at,
    }  # fmt: skip


def day_of(day: int, *, rng: np.random.Generator, first: int, shuffled: bool = False) -> list[dict[str, Any]]:
    """The purchases of a day, one of each user: the next item, or where shuffled any."""
    rows = []
    for user in range(N_USERS):
        item = int(rng.integers(N_ITEMS)) if shuffled else (user + day) % N_ITEMS
        rows.append(purchase(first + user, f"u{user}", f"i{item}", day + (user + 1) / (N_USERS + 2)))
    return rows


def write_log(folder: Path, day: int, records: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(record) + "\n" for record in records)
    (folder / f"events-{day:03d}.jsonl").write_text(text)


def write_first_days(folder: Path) -> None:
    """A dataset of the first days, a checkpoint and a bundle, all of them small."""
    rng = np.random.default_rng(1)
    rows = [row for day in range(12, FIRST_DAYS) for row in day_of(day, rng=rng, first=day * N_USERS)]
    (folder / "reviews.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("dice", "cards", "board", "puzzle", "train")
    items = [{"item_id": f"i{i}", "title": f"Game {i} with {words[i % 5]}"} for i in range(N_ITEMS)]
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    prepare(
        PrepareConfig(
            out=folder / "dataset", reviews=(folder / "reviews.jsonl",), metadata=(folder / "items.jsonl",),
            name="shop", protocol="temporal", cut="2d,1d", workers=1,
        )
    )  # fmt: skip
    train(load_config("scratch", overrides=QUICK), Dataset(folder / "dataset"), folder / "checkpoint")
    export_bundle(
        load_checkpoint(folder / "checkpoint"), Dataset(folder / "dataset"), folder / "bundles" / "first",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    (folder / "bundles" / "current").symlink_to("first")


def write_settings(folder: Path, **more: Any) -> Path:
    """refresh.yaml of the shop in the folder."""
    settings = {
        "work": "work", "events": "log", "bundles": "bundles", "validation_days": 1,
        "start": {"dataset": "dataset", "checkpoint": "checkpoint", "bundle": "bundles/first"},
        "train": {"epochs": 1, "set": {"passes": 1}}, "fuse": {"limit_users": 40, "tune_graph": False},
        "gate": {"bound": 0.3, "doubt": 0.5}, "min_validation": 50,
    } | more  # fmt: skip
    path = folder / "refresh.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path
