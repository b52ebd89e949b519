"""`rdrec train --init`: what a model knows of items stays, and what is new has a row before the first step."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rdrec_core.encoding import encode_item_words
from rdrec_core.errors import CheckpointError, InputError
from tests.small_dataset import write_small_dataset
from training.cli import main
from training.data.dataset import Dataset
from training.data.prepare import PrepareConfig, prepare
from training.evaluation.final_fit import final_fit
from training.learning.checkpoint import Checkpoint, load_checkpoint
from training.learning.config import continued_config, load_config
from training.learning.examples import TrainingHistories
from training.learning.item_rows import finished_state
from training.learning.run import train
from training.learning.warm_start import rows_by_company, start_from

QUICK = {"epochs": 1, "passes": 1, "vocabulary_size": 120, "tasks": "sequential", "ratio": "0:0:1:0"}
N_ITEMS = 40


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("first")
    dataset = write_small_dataset(folder / "dataset", n_items=N_ITEMS)
    train(load_config("scratch", overrides=QUICK), dataset, folder / "checkpoint")
    return load_checkpoint(folder / "checkpoint")


@pytest.fixture(scope="module")
def grown(first: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The same shop with two more items, one bought by three users after B001, and one by nobody yet."""
    folder = tmp_path_factory.mktemp("grown")
    log = [
        {"event_id": f"e{n}", "user_id": f"u{n % 3}", "item_id": item, "event": "purchase", "timestamp": 5000 + n}
        for n, item in enumerate(["B001"] * 3 + ["new"] * 3 + ["B002"] * 6)
    ]
    (folder / "events-1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    items = [{"item_id": "new", "title": "Game with dice"}, {"item_id": "unbought", "title": "Game with cards"}]
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    prepare(
        PrepareConfig(
            out=folder / "dataset", previous=first.dataset_path, event_log=(folder / "events-1.jsonl",), repeats="keep",
            metadata=(folder / "items.jsonl",), workers=1,
        )
    )  # fmt: skip
    return Dataset(folder / "dataset")


def item_rows(model: torch.nn.Module, first_row: int) -> np.ndarray:
    return finished_state(model)["t5.shared.weight"][first_row:].detach().numpy()


def test_known_rows_are_taken_over_and_new_ones_come_from_their_words(first: Checkpoint, grown: Dataset) -> None:
    start = start_from(first, grown)
    labels = grown.items["label"].to_list()
    words = encode_item_words(start.tokenizer, labels)
    assert len(words.tokens) == len(labels) == N_ITEMS + 2, "each item is one token, the new ones too"
    first_row = int(words.tokens.min())
    assert words.tokens.tolist() == list(range(first_row, first_row + N_ITEMS + 2))
    rows = item_rows(start.model, first_row)
    np.testing.assert_array_equal(rows[:N_ITEMS], item_rows(first.model, first_row))
    assert first.text_rows is not None
    expected = first.text_rows.rows(["Game with dice", "Game with cards"])
    np.testing.assert_allclose(rows[N_ITEMS:], expected, atol=1e-6)
    assert np.abs(expected).sum() > 0


def test_a_training_goes_on_and_the_final_fit_from_it(first: Checkpoint, grown: Dataset, tmp_path: Path) -> None:
    still = continued_config(first.info.config, overrides={"epochs": 1, "learning_rate": 1e-9})
    train(still, grown, tmp_path / "second", init=first.path)
    second = load_checkpoint(tmp_path / "second")
    assert (second.info.n_items, second.info.began_from) == (N_ITEMS + 2, str(first.path.resolve()))
    first_row = int(encode_item_words(first.tokenizer, ["1000"]).tokens[0])
    rows = item_rows(second.model, first_row)
    np.testing.assert_allclose(rows[:N_ITEMS], item_rows(first.model, first_row), atol=1e-5)  # nothing was learned
    assert first.text_rows is not None
    assert second.text_rows is not None
    np.testing.assert_array_equal(
        second.text_rows.places.projection.components, first.text_rows.places.projection.components
    )
    final_fit(tmp_path / "second", grown, tmp_path / "final", resume=False, force=False, console=None)
    final = load_checkpoint(tmp_path / "final")
    assert (final.info.learned_upto, final.info.began_from) == ("test", str((tmp_path / "second").resolve()))
    np.testing.assert_allclose(item_rows(final.model, first_row), rows, atol=1e-5)


def test_another_dataset_or_another_model_is_refused(first: Checkpoint, tmp_path: Path) -> None:
    other = write_small_dataset(tmp_path / "dataset", n_items=N_ITEMS - 1)
    with pytest.raises(CheckpointError, match="does not go on from"):
        start_from(first, other)
    with pytest.raises(InputError, match="makes another model"):
        continued_config(first.info.config, overrides={"prompt_length": 5})
    arguments = ["train", str(other.path), "--init", str(first.path), "--out", str(tmp_path / "x")]
    assert main([*arguments, "--recipe", "scratch"]) == 2


def test_without_words_a_new_row_is_the_mean_of_what_it_was_bought_near_to() -> None:
    table = np.arange(8, dtype=np.float32).reshape(4, 2)
    # user 0: item 0 then the new item 4; user 1: item 1, item 3; item 5 was never bought
    histories = TrainingHistories(np.asarray([0, 2, 4]), np.asarray([0, 4, 1, 3], dtype=np.int32), np.full(2, -1), 6)
    np.testing.assert_allclose(rows_by_company(table, histories), [table[0], table.mean(axis=0)])
