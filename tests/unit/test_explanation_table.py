"""The table of explanations on a small shop whose every review praises the item's feature: each figure by hand."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from rdrec_core.statements import Statements
from rdrec_core.types import Task, TextRequest
from tests.small_dataset import FEATURES, write_small_dataset
from training.data.dataset import Dataset
from training.evaluation.explanations import COMMONEST, EVERYBODY, MODEL, SERVED, evaluate_explanations
from training.evaluation.systems import System
from training.evaluation.tables import explanations_table
from training.signals.statements import build_statements

WRITTEN = {0: "Great dice for this family.", 1: "the dice and", 2: "I love the board.", 3: "The clumsy gizmo."}


class Writer:
    """Writes by the item alone: what dice could be served with, what is cut, a first person, an invention."""

    def generate_text(self, requests: Sequence[TextRequest]) -> list[str]:
        return [
            f"Likes games like {r.user_index % 2}." if r.item_index is None else WRITTEN[r.item_index % 4]
            for r in requests
        ]


class Letters:
    """A vector a text: whether it speaks of dice."""

    fingerprint = "letters"

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        dice = np.asarray(["dice" in text for text in texts])
        return np.stack([dice, ~dice], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_small_dataset(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture(scope="module")
def statements(dataset: Dataset) -> Statements:
    return build_statements(dataset)


def system(*tasks: Task) -> System:
    return System(Path("nowhere"), Writer(), None, Task.SEQUENTIAL, 20, list(tasks))  # type: ignore[arg-type]


def test_four_ways_of_explaining_stand_in_one_table(dataset: Dataset, statements: Statements) -> None:
    record, rows = evaluate_explanations(
        system(Task.EXPLANATION, Task.USER_PREFERENCE), dataset, statements, split="test", limit=None, seed=0,
        console=Console(quiet=True), encoder=Letters(),
    )  # fmt: skip
    assert list(record["rows"]) == [SERVED, MODEL, COMMONEST, EVERYBODY]
    reviews = dataset.reviews().collect()
    known = set(reviews.filter(pl.col("split") == "train")["item_index"])
    asked = reviews.filter(pl.col("split") == "test")["item_index"].to_list()
    reviewed = [item for item in asked if item in known]
    assert (record["n_texts"], record["n_reviewed"]) == (len(asked), len(reviewed))
    dice = sum(item % 4 == 0 for item in reviewed) / len(reviewed)

    served, model = record["rows"][SERVED], record["rows"][MODEL]
    # «dice» is in the review, whose content is great, dice, family
    assert served["statement precision"] == 1.0
    assert served["statement recall"] == pytest.approx(1 / 3)
    assert served["precision by vectors"] == 1.0  # the sentence of the feature is as near as can be
    assert (served["grounded"], served["whole"], served["other items named"]) == (1.0, 1.0, 0.0)
    assert (served["contradictions"], served["disputed by the review"]) == (0.0, 0.0)
    assert record["basis"].keys() <= {"statements", "catalogue", "model"}
    assert record["basis"].get("catalogue", 0) == len(asked) - len(reviewed)
    assert record["statement precision"] == served["statement precision"]  # the top level is the row as served

    # dice: great, dice, family are all in the review; cut: dice is not; board: of board; gizmo: clumsy, gizmo are not
    kinds = np.asarray([item % 4 for item in reviewed])
    expected = np.where(kinds == 0, 1.0, np.where(kinds == 2, 1.0, 0.0)).mean()
    assert model["statement precision"] == pytest.approx(expected)
    every = np.asarray([item % 4 for item in asked])
    # great, dice, family stand in the item's reviews, where it has any; board, the only claim, in the title too
    borne_out = [item % 4 == 2 or (item % 4 == 0 and item in known) for item in asked]
    assert model["grounded"] == pytest.approx(np.mean(borne_out))
    assert model["whole"] == pytest.approx((every != 1).mean())
    assert model["USR"] == pytest.approx(len(set(every.tolist())) / len(asked))
    assert model["preference of their own"] == 0.0  # two sentences for thirty users

    assert record["rows"][COMMONEST]["statement precision"] == 1.0
    commonest = commonest_sentence(reviews)
    assert set(rows.filter(pl.col("system") == EVERYBODY)["written"]) == {commonest}
    feature = next(f for f in FEATURES if f in commonest)
    same = sum(FEATURES[item % 4] == feature for item in reviewed) / len(reviewed)
    assert record["rows"][EVERYBODY]["statement precision"] == pytest.approx(same + (1 - same) * 2 / 3)
    assert dice > 0
    assert len(rows) == 4 * len(asked)
    assert explanations_table(record).row_count == len(record["metrics"])


def commonest_sentence(reviews: pl.DataFrame) -> str:
    counts = reviews.filter(pl.col("split") == "train")["explanation"].value_counts()
    return str(counts.sort("count", "explanation", descending=[True, False])["explanation"][0])


def test_without_a_model_that_writes_the_statements_are_measured_alone(
    dataset: Dataset, statements: Statements
) -> None:
    record, _ = evaluate_explanations(
        system(), dataset, statements, split="val", limit=5, seed=1, console=Console(quiet=True)
    )
    assert list(record["rows"]) == [SERVED, COMMONEST, EVERYBODY]
    assert record["n_texts"] == 5
    assert "precision by vectors" not in record["metrics"]
    assert record["refused"] == {}
