"""Who is asked what: the leave-one-out protocol (design page, section 5), the same for every system that is measured.

The history of a test user is everything before the test item, validation item included; of a validation user,
everything before the validation item. Knows the dataset, not the systems.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from rdrec_core.errors import DatasetError
from training.data.dataset import Dataset, Split
from training.learning.examples import draw_negatives

NEGATIVES = 99
PAPER_WARNING = (
    "protocol `paper`: item labels are numbered over the whole data, test items included, and explanations are split at"
    " random over all reviews, so both leak; compare these figures with the paper's tables only"
)


@dataclass(frozen=True)
class Questions:
    """One question a user: users (Q,), targets (Q,) item indices, histories as CSR over the questions, oldest first."""

    users: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    indptr: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.users)

    def history(self, question: int) -> npt.NDArray[np.int64]:
        """Item indices, oldest first."""
        return self.items[self.indptr[question] : self.indptr[question + 1]]

    def histories(self) -> Iterator[npt.NDArray[np.int64]]:
        """All histories, in order."""
        return (self.history(q) for q in range(len(self)))

    def lengths(self) -> npt.NDArray[np.int64]:
        """Items in each history."""
        return np.diff(self.indptr)

    def take(self, chosen: npt.NDArray[np.int64]) -> Questions:
        """Some of the questions."""
        lengths = self.lengths()[chosen]
        parts = [self.history(int(q)) for q in chosen]
        items = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
        return Questions(self.users[chosen], self.targets[chosen], np.concatenate([[0], np.cumsum(lengths)]), items)


def questions(dataset: Dataset, split: Split, *, limit: int | None = None, seed: int = 0) -> Questions:
    """Every user who has an item in the split (test or val), or `limit` of them drawn by seed.

    Raises DatasetError where the split is empty.
    """
    if split == "train":
        raise DatasetError("only the splits val and test can be evaluated")
    indptr, items = dataset.sequences("train" if split == "val" else "val")
    targets = dataset.targets(split).astype(np.int64)
    users = np.flatnonzero(targets >= 0)
    if not len(users):
        raise DatasetError(f"{dataset.path} has no {split} interactions")
    everybody = Questions(np.arange(len(targets)), targets, indptr, items.astype(np.int64))
    if limit is not None and limit < len(users):
        users = np.sort(np.random.default_rng(seed).permutation(users)[:limit])
    return everybody.take(users)


def candidate_lists(
    dataset: Dataset, asked: Questions, *, seed: int = 0, n: int = NEGATIVES
) -> list[npt.NDArray[np.int64]]:
    """For each question the target and n items that the user never bought, in any split, shuffled.

    From `negatives.parquet` where the dataset brought it, else uniform, a function of (seed, user) alone, so that a
    sample of the users meets the same candidates as all of them.
    """
    given = _given_negatives(dataset) if dataset.info.negatives else {}
    indptr, bought = dataset.sequences("test")
    lists = []
    for user, target in zip(asked.users.tolist(), asked.targets.tolist(), strict=True):
        rng = np.random.default_rng([seed, user])
        if user in given:
            negatives = given[user][given[user] != target]
        else:
            own = bought[indptr[user] : indptr[user + 1]]
            negatives = draw_negatives(rng, dataset.info.n_items, own, n)
        lists.append(rng.permutation(np.concatenate([[target], negatives])).astype(np.int64))
    return lists


def _given_negatives(dataset: Dataset) -> dict[int, npt.NDArray[np.int64]]:
    path = dataset.path / "negatives.parquet"
    if not path.is_file():
        raise DatasetError(f"{path} is missing; prepare the dataset again")
    table = pl.read_parquet(path)
    return {
        user: np.asarray(items, dtype=np.int64)
        for user, items in zip(table["user_index"].to_list(), table["item_indices"].to_list(), strict=True)
    }
