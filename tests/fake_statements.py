"""Statements of the fake shop, by the real builder from reviews; `fake_service` itself knows no training."""

from pathlib import Path

import polars as pl

from rdrec_core.statements import Statements
from tests.fake_service import N_ITEMS, N_USERS
from tests.rationale_dataset import write_dataset
from training.data.dataset import REVIEWS, Dataset, DatasetInfo
from training.signals.statements import StatementOptions, build_statements

REVIEWED = [
    (3, 7, "The sturdy lid is great.", 5.0),
    (4, 7, "It is very easy to clean.", 5.0),
    (5, 8, "A sturdy lid! I love it.", 5.0),
    (6, 8, "The lid is sturdy, but it is too small.", 4.0),
    (7, 8, "It works well.", 5.0),
]


def fake_statements(folder: Path) -> Statements:
    """User 3 likes the sturdy lid of item 7; two of three say the same of item 8, and one finds it too small."""
    titles = tuple(f"Toy {n}" if n % 10 else None for n in range(N_ITEMS))
    write_dataset(folder, [(text, "train") for _, _, text, _ in REVIEWED], titles)
    rows = [(user, item, text, rating, None, "train") for user, item, text, rating in REVIEWED]
    pl.DataFrame(rows, schema=REVIEWS, orient="row").write_parquet(folder / "reviews.parquet")
    info = DatasetInfo.model_validate_json((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(info.model_copy(update={"n_users": N_USERS}).model_dump_json())
    return build_statements(Dataset(folder), StatementOptions(quotes=True))
