"""What is drawn for an epoch, against the rules of the paper checked by brute force."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from rdrec_core.encoding import encode_words
from rdrec_core.errors import InputError
from rdrec_core.prompts import bare_template, training_templates
from rdrec_core.types import Task
from tests.small_dataset import write_small_dataset
from training.data.dataset import Dataset
from training.learning.config import TrainConfig, load_config
from training.learning.epochs import Epochs
from training.learning.examples import (
    TrainingExample,
    TrainingHistories,
    draw_negatives,
    text_pools,
    validation_examples,
)
from training.learning.targets import TargetRule
from training.learning.vocabulary import train_vocabulary, training_texts


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_small_dataset(tmp_path_factory.mktemp("data") / "small")


def epochs_of(dataset: Dataset, config: TrainConfig) -> Epochs:
    tokenizer = train_vocabulary(training_texts(dataset), size=300)
    pools = text_pools(
        dataset, "train", config.task_set, lambda texts: encode_words(tokenizer, texts), TargetRule.of(config)
    )
    return Epochs(config, TrainingHistories.of(dataset), pools)


def all_examples(epochs: Epochs, epoch: int = 0) -> list[TrainingExample]:
    plan = epochs.plan(epoch)
    return [example for number in range(len(plan.batches)) for example in epochs.examples(plan, number)]


def small(**fields: object) -> TrainConfig:
    return load_config("paper", None, {"batch_size": 8, "negatives": 9, **fields})


@pytest.mark.parametrize(
    ("n_items", "taken", "count"), [(500, [3, 3, 7, 499], 20), (30, [0, 1, 2, 29], 20), (6, [5], 99)]
)
def test_negatives_are_distinct_and_never_taken(n_items: int, taken: list[int], count: int) -> None:
    seen: Counter[int] = Counter()
    rng = np.random.default_rng(0)
    for _ in range(400):
        drawn = draw_negatives(rng, n_items, np.asarray(taken, dtype=np.int32), count).tolist()
        assert len(set(drawn)) == len(drawn) == min(count, n_items - len(set(taken)))
        assert not set(drawn) & set(taken)
        seen.update(drawn)
    assert set(seen) == set(range(n_items)) - set(taken)  # each is reached: 400 draws of 20 out of 500


def test_tasks_are_mixed_by_the_ratio(dataset: Dataset) -> None:
    counts = Counter(example.task for example in all_examples(epochs_of(dataset, small(ratio="1:2:1:3"))))
    rows = len(all_examples(epochs_of(dataset, small(tasks="explanation"))))
    assert counts == {
        Task.EXPLANATION: rows, Task.USER_PREFERENCE: 2 * rows, Task.ITEM_ATTRIBUTES: 2 * rows,
        Task.SEQUENTIAL: rows, Task.TOPN: 3 * rows,
    }  # fmt: skip


def test_every_draw_of_a_rationale_trains_both_of_its_sentences(dataset: Dataset) -> None:
    epochs = epochs_of(dataset, small(ratio="0:1:0:0"))
    plan = epochs.plan(0)
    drawn = {task: Counter(plan.ref[plan.task == task].tolist()) for task in (3, 4)}
    assert drawn[3] == drawn[4]  # rows of the two pools stand for the same reviews
    assert set(drawn[3].values()) == {1}


def test_sequential_examples_are_training_subsequences_with_what_follows_them(dataset: Dataset) -> None:
    histories = TrainingHistories.of(dataset)
    starts = set()
    for example in all_examples(epochs_of(dataset, small(tasks="sequential", passes=10))):
        assert example.user_index is not None
        training = histories.of_user(example.user_index).tolist()
        start = training.index(example.items[0])
        stop = start + len(example.items)
        assert tuple(training[start:stop]) == example.items
        assert example.targets == (training[stop],)
        starts.add(start)
    assert len(starts) > 2


def test_prefixes_begin_at_the_first_item(dataset: Dataset) -> None:
    config = load_config(
        "scratch", None, {"tasks": "sequential", "unknown_user_rate": 0.0, "causal_encoder": False, "passes": 10}
    )
    lengths = set()
    for example in all_examples(epochs_of(dataset, config)):
        assert example.user_index is not None
        training = tuple(TrainingHistories.of(dataset).of_user(example.user_index).tolist())
        assert training[: len(example.items)] == example.items
        assert example.targets == training[len(example.items) :][:1]
        lengths.add(len(example.items))
    assert len(lengths) > 3


def test_topn_shows_the_target_among_items_without_training_interaction(dataset: Dataset) -> None:
    histories = TrainingHistories.of(dataset)
    places, shown = Counter(), []
    for example in all_examples(epochs_of(dataset, small(tasks="topn", passes=20))):
        assert example.user_index is not None
        training = set(histories.of_user(example.user_index).tolist())
        assert len(set(example.items)) == 10
        assert set(example.items) & training == set(example.targets)
        places[example.items.index(example.targets[0])] += 1
        if example.user_index == 0:
            shown.append(frozenset(example.items))
    assert set(places) == set(range(10))
    assert len(set(shown)) > len(shown) / 2  # negatives are drawn anew


def test_text_examples_are_training_rows_cut_at_the_limit(dataset: Dataset) -> None:
    seen = set()
    for example in all_examples(epochs_of(dataset, small(tasks="explanation,item_attributes", max_target_tokens=3))):
        assert example.text is not None
        assert 1 <= len(example.text) <= 3
        assert (example.user_index is None) == (example.task is Task.ITEM_ATTRIBUTES)
        seen.add((example.task, example.user_index, example.items))
    indptr, items = dataset.sequences("train")
    pairs = {(u, (i,)) for u in range(len(indptr) - 1) for i in items[indptr[u] : indptr[u + 1]].tolist()}
    assert {(user, shown) for task, user, shown in seen if task is Task.EXPLANATION} == pairs


def test_pools_are_walked_without_replacement_across_epochs(dataset: Dataset) -> None:
    epochs = epochs_of(dataset, small(tasks="sequential,explanation", ratio="1:0:0.5:0"))
    users: Counter[int | None] = Counter()
    for epoch in range(6):
        users.update(e.user_index for e in all_examples(epochs, epoch) if e.task is Task.SEQUENTIAL)
    assert max(users.values()) - min(users.values()) <= 1


def test_epochs_differ_and_repeat_by_number(dataset: Dataset) -> None:
    config = small(tasks="topn,sequential")
    first, again = epochs_of(dataset, config), epochs_of(dataset, config)
    assert all_examples(first, 1) == all_examples(again, 1)
    assert all_examples(first, 1) != all_examples(first, 2)


def test_templates_are_all_used_in_training_and_bare_in_validation(dataset: Dataset) -> None:
    drawn = {e.template for e in all_examples(epochs_of(dataset, small(tasks="sequential")))}
    assert drawn == set(training_templates(Task.SEQUENTIAL))
    for example in validation_examples(Task.TOPN, TrainingHistories.of(dataset), None, negatives=9, limit=5, seed=0):
        assert example.template == bare_template(Task.TOPN)
        assert example.user_index is not None
        assert example.targets == (int(dataset.targets("val")[example.user_index]),)


def test_unknown_users_are_drawn_at_their_rate(dataset: Dataset) -> None:
    config = small(tasks="sequential", unknown_user_rate=0.3, passes=40)
    examples = all_examples(epochs_of(dataset, config))
    rate = sum(example.user_index is None for example in examples) / len(examples)
    assert rate == pytest.approx(0.3, abs=0.06)  # over three standard deviations of 1200 draws


def test_batches_hold_one_task_and_sources_or_texts_of_like_length(dataset: Dataset) -> None:
    epochs = epochs_of(dataset, small(passes=3, mixed_batches=False))
    plan = epochs.plan(0)
    spreads = []
    for number in range(len(plan.batches)):
        examples = epochs.examples(plan, number)
        assert len({example.task for example in examples}) == 1
        if examples[0].task is not Task.TOPN:
            lengths = [len(example.items) if example.text is None else len(example.text) for example in examples]
            spreads.append(max(lengths) - min(lengths))
    assert np.mean(spreads) < 1.0


def test_batches_mix_all_tasks_as_published(dataset: Dataset) -> None:
    epochs = epochs_of(dataset, small(passes=3))
    plan = epochs.plan(0)
    counts = [len({e.task for e in epochs.examples(plan, n)}) for n in range(len(plan.batches))]
    assert np.mean(counts) > 2
    assert sorted(np.concatenate(plan.batches).tolist()) == list(range(len(plan.task)))
    with pytest.raises(InputError, match="mixed_batches needs loss: full"):
        load_config("scratch", None, {"mixed_batches": True})


def test_datasets_without_reviews_feed_the_ranking_tasks_alone(tmp_path: Path) -> None:
    dataset = write_small_dataset(tmp_path / "plain", reviews=False)
    assert set(epochs_of(dataset, small()).tasks) == {Task.SEQUENTIAL, Task.TOPN}
