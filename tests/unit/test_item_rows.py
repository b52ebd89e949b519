"""Item rows from a free part and the item's words: a hand-made table, and a checkpoint that places new words."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn.utils import parametrize

from rdrec_core.model import ModelConfig, RDRecModel
from rdrec_core.t5 import T5Config
from tests.small_dataset import write_small_dataset
from training.data.dataset import Dataset
from training.learning.backbone import build
from training.learning.batching import SampledSoftmax
from training.learning.checkpoint import load_checkpoint
from training.learning.config import load_config
from training.learning.item_rows import RowsFromText, attach, finished_state, map_of
from training.learning.run import materials, train

FIRST, N_ITEMS, WIDTH = 10, 4, 8
TEXT = np.random.default_rng(0).normal(size=(N_ITEMS, 3)).astype(np.float32)
BOUGHT = np.array([True, True, False, True])


def model_with_text(dropped: float) -> tuple[RDRecModel, torch.Tensor]:
    """The model, and its table before."""
    shape = {"d_kv": 4, "d_ff": 8, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2}
    model = RDRecModel(ModelConfig(t5=T5Config(vocab_size=FIRST + N_ITEMS, d_model=WIDTH, **shape)))
    model.initialise(torch.Generator().manual_seed(0))
    before = model.t5.shared.weight.detach().clone()
    attach(model, RowsFromText(FIRST, TEXT, BOUGHT, WIDTH, dropped, torch.Generator().manual_seed(1)))
    return model, before


def test_a_row_is_its_free_part_and_its_words_and_an_unbought_item_has_words_alone() -> None:
    model, before = model_with_text(0.0)
    learned = map_of(model)
    assert learned is not None
    expected = before.numpy().copy()
    expected[FIRST:] = expected[FIRST:] * BOUGHT[:, None] + TEXT @ learned
    np.testing.assert_allclose(model.t5.shared.weight.detach().numpy(), expected, atol=1e-6)


def test_the_map_starts_as_one_that_keeps_every_likeness() -> None:
    learned = map_of(model_with_text(0.0)[0])
    assert learned is not None
    np.testing.assert_allclose((TEXT @ learned) @ (TEXT @ learned).T, TEXT @ TEXT.T, atol=1e-5)


def test_free_parts_are_dropped_in_training_only_and_the_same_for_all_of_a_step() -> None:
    model, _ = model_with_text(0.5)
    learned = map_of(model)
    model.train()
    dropped = 0
    for _ in range(50):
        with parametrize.cached():
            rows = model.t5.shared.weight[FIRST:].detach().numpy()
            assert torch.equal(model.t5.shared.weight, model.t5.shared.weight)
        dropped += sum(np.allclose(rows[i], TEXT[i] @ learned, atol=1e-6) for i in np.flatnonzero(BOUGHT))
    assert 40 <= dropped <= 110  # 75 of 150 expected
    model.eval()
    assert torch.equal(model.t5.shared.weight, model.t5.shared.weight)


def test_the_finished_state_is_that_of_a_plain_model() -> None:
    model, _ = model_with_text(0.5)
    model.eval()
    plain = RDRecModel(model.config)
    plain.load_state_dict(finished_state(model))
    assert torch.equal(plain.t5.shared.weight, model.t5.shared.weight)
    assert map_of(plain) is None
    assert set(finished_state(plain)) == set(plain.state_dict())
    model.train()  # as it is saved after an epoch without validation, of a final fit
    assert torch.equal(finished_state(model)["t5.shared.weight"], plain.t5.shared.weight)
    assert model.t5.shared.training


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Forty games, the last of which nobody has bought."""
    made = write_small_dataset(tmp_path_factory.mktemp("rows") / "dataset")
    rows = pl.read_parquet(made.path / "interactions.parquet").with_columns(pl.col("item_index").replace(39, 38))
    rows.write_parquet(made.path / "interactions.parquet")
    return Dataset(made.path)


def quick(**more: object) -> dict[str, object]:
    return {"tasks": "sequential", "epochs": 1, "passes": 1, "vocabulary_size": 200, "batch_size": 16, **more}


def test_a_checkpoint_places_words_where_the_model_placed_an_unbought_item(dataset: Dataset, tmp_path: Path) -> None:
    train(load_config("scratch", None, quick()), dataset, tmp_path / "ckpt")
    checkpoint = load_checkpoint(tmp_path / "ckpt")
    assert checkpoint.text_rows is not None
    title = dataset.items["title"][39]
    own = checkpoint.model.t5.shared.weight[-1].detach().numpy()
    np.testing.assert_allclose(checkpoint.text_rows.rows([title])[0], own, atol=1e-4)
    assert np.abs(own).sum() > 0
    assert not checkpoint.text_rows.rows(["zzz"]).any()


def test_rows_are_free_where_it_was_not_asked_for_or_items_have_no_words(dataset: Dataset, tmp_path: Path) -> None:
    train(load_config("scratch", None, quick(text_rows=False)), dataset, tmp_path / "plain")
    assert load_checkpoint(tmp_path / "plain").text_rows is None
    silent = write_small_dataset(tmp_path / "silent", reviews=False)
    items = pl.read_parquet(silent.path / "items.parquet").with_columns(title=pl.lit(None, pl.String))
    items.write_parquet(silent.path / "items.parquet")
    train(load_config("scratch", None, quick()), Dataset(silent.path), tmp_path / "ckpt")
    assert load_checkpoint(tmp_path / "ckpt").text_rows is None


@pytest.mark.parametrize("sampled", [None, 20])
def test_an_item_that_nobody_has_bought_is_no_rival(dataset: Dataset, sampled: int | None) -> None:
    config = load_config("scratch", None, quick(sampled_children=sampled))
    _, tokenizer = build(config, dataset, None)
    parts = materials(config, dataset, tokenizer)
    sample = None if sampled is None else SampledSoftmax(sampled, np.random.default_rng(0))
    examples = parts.epochs.examples(parts.epochs.plan(0), 0)
    choices = parts.batcher.batch(examples, sample=sample).choices
    assert choices is not None
    row = int(parts.catalog.labels.tokens[39])
    assert not choices.allowed[:, choices.rows == row].any()
    asked = [replace(each, targets=(39,) * len(each.targets)) for each in examples]  # as validation may
    choices = parts.batcher.batch(asked, sample=sample).choices
    assert choices is not None
    assert choices.allowed[:, choices.rows == row].all()
