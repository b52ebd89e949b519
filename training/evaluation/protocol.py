"""Who is asked what, the same for every system that is measured: each held-out interaction is a question.

Its history is everything that the user bought before it. Under leave-one-out a user has one test item, whose history
holds the validation item too; under `temporal` everything after the cut is asked, and whoever was not there before it
is new to every system. Knows the dataset, not the systems.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from rdrec_core.errors import DatasetError
from training.data.dataset import SPLITS, Dataset, Split
from training.learning.examples import draw_negatives

NEGATIVES = 99
PAPER_WARNING = (
    "protocol `paper`: item labels are numbered over the whole data, test items included, and explanations are split at"
    " random over all reviews, so both leak; compare these figures with the paper's tables only"
)


@dataclass(frozen=True)
class Questions:
    """Q questions, of one user each, in order of users and then of time; several of a user under `temporal`.

    users (Q,), targets (Q,) item indices, histories as CSR over the questions, oldest first. new_users (U,): users
    without training interactions, whose number no model has read.
    """

    users: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    indptr: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]
    new_users: frozenset[int] = frozenset()
    repeats: bool = False
    """Whether people buy the same again, so that what is in the history may be the answer."""

    def __len__(self) -> int:
        return len(self.users)

    def user(self, question: int) -> int | None:
        """Who asks, as a model may be told: None for somebody new."""
        user = int(self.users[question])
        return None if user in self.new_users else user

    def history(self, question: int) -> npt.NDArray[np.int64]:
        """Item indices, oldest first."""
        return self.items[self.indptr[question] : self.indptr[question + 1]]

    def seen(self, question: int) -> npt.NDArray[np.int64]:
        """Items that are no answer, being in the history: each once, none where repeats may be the answer."""
        return np.unique(self.history(question)[: 0 if self.repeats else None])

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
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        return Questions(self.users[chosen], self.targets[chosen], indptr, items, self.new_users, self.repeats)


def questions(dataset: Dataset, split: Split, *, limit: int | None = None, seed: int = 0) -> Questions:
    """Every interaction of the split (test or val), or those of `limit` users drawn by seed.

    Raises DatasetError where the split is empty.
    """
    if split == "train":
        raise DatasetError("only the splits val and test can be evaluated")
    rows = dataset.interactions
    user_of = rows.user_index.astype(np.int64)
    asked = np.flatnonzero(rows.split == SPLITS.index(split))
    if not len(asked):
        raise DatasetError(f"{dataset.path} has no {split} interactions")
    users = np.unique(user_of[asked])
    if limit is not None and limit < len(users):
        users = np.random.default_rng(seed).permutation(users)[:limit]
        asked = asked[np.isin(user_of[asked], users)]
    begins = np.searchsorted(user_of, user_of[asked])  # rows are in order of users and time
    lengths = asked - begins
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    places = np.repeat(begins - indptr[:-1], lengths) + np.arange(indptr[-1])
    trained = np.bincount(user_of[rows.split == SPLITS.index("train")], minlength=dataset.info.n_users)
    new_users = frozenset(np.flatnonzero(trained == 0).tolist())
    items = rows.item_index.astype(np.int64)
    repeats = dataset.info.repeats == "keep"
    return Questions(user_of[asked], items[asked], indptr, items[places], new_users, repeats)


def candidate_lists(
    dataset: Dataset, asked: Questions, *, seed: int = 0, n: int = NEGATIVES
) -> list[npt.NDArray[np.int64]]:
    """For each question the target and n items that the user never bought, in any split, shuffled.

    From `negatives.parquet` where the dataset brought it, else uniform, a function of (seed, user) alone, and of the
    question's number among those of its user after the first: a sample of the users meets the same candidates as all.
    """
    given = _given_negatives(dataset) if dataset.info.negatives else {}
    indptr, bought = dataset.sequences("test")
    lists = []
    numbers: Counter[int] = Counter()
    for user, target in zip(asked.users.tolist(), asked.targets.tolist(), strict=True):
        rng = np.random.default_rng([seed, user, numbers[user]] if numbers[user] else [seed, user])
        numbers[user] += 1
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
