"""The loss of a training batch against Hugging Face's T5, computed by hand from the raw words."""

import numpy as np
import pytest
import torch
from transformers import T5ForConditionalGeneration

from rdrec_core.types import Task
from tests.hugging_face import hugging_face_twin
from tests.small_dataset import write_small_dataset
from training.data.dataset import Dataset
from training.learning.backbone import build
from training.learning.batching import SampledSoftmax
from training.learning.config import load_config
from training.learning.examples import TrainingExample
from training.learning.losses import target_nll
from training.learning.run import Materials, materials

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_small_dataset(tmp_path_factory.mktemp("data") / "small")


def by_hand(
    ours: object, hf: T5ForConditionalGeneration, parts: Materials, example: TrainingExample, target: list[int]
) -> torch.Tensor:
    """Log-probabilities (T, V) of Hugging Face's model along the target, from the source text."""
    text = " ".join(
        " ".join(f"item_{label}" for label in (parts.labels[i] for i in example.items)) if word == "{items}"
        else f"user_{0 if example.user_index is None else example.user_index + 1}" if word == "{user}" else word
        for word in example.template
    )  # fmt: skip
    ids, whole, count = [], [], 0
    for word in text.split(" "):
        named = word.startswith(("user_", "item_"))
        count += named
        tokens = parts.tokenizer.encode(word, add_special_tokens=False).ids
        ids += tokens
        whole += [count if named else 0] * len(tokens)
    ids.append(1)
    whole.append(0)
    words = hf.shared(torch.tensor([ids])) + ours.whole_words(torch.tensor([whole]))
    embeds = torch.cat([ours.prompts[int(example.task)][None], words], dim=1)
    start = ids[-2] if ours.config.starts_from_source and example.task is Task.SEQUENTIAL else 0  # -1 is EOS
    logits = hf(inputs_embeds=embeds, decoder_input_ids=torch.tensor([[start, *target[:-1]]])).logits[0]
    return torch.log_softmax(logits, dim=-1)


def target_tokens(parts: Materials, example: TrainingExample, item: int | None) -> list[int]:
    if item is None:
        assert example.text is not None
        return [*example.text.tolist(), 1]
    return [*parts.catalog.labels[item].tolist(), 1]


def all_labels(parts: Materials) -> list[list[int]]:
    return [[*parts.catalog.labels[i].tolist(), 1] for i in range(len(parts.labels))]


def some_examples(parts: Materials, per_task: int = 4) -> list[TrainingExample]:
    plan = parts.epochs.plan(0)
    found: dict[Task, list[TrainingExample]] = {}
    for number in range(len(plan.batches)):
        for example in parts.epochs.examples(plan, number):
            found.setdefault(example.task, []).append(example)
    return [example for examples in found.values() for example in examples[:per_task]]


def test_paper_loss_of_a_five_task_batch(dataset: Dataset) -> None:
    config = load_config("paper", None, {"backbone": "scratch:tiny", "negatives": 9})
    model, tokenizer = build(config, dataset, None)
    model.eval()
    hf = hugging_face_twin(model)
    parts = materials(config, dataset, tokenizer)
    examples = some_examples(parts)
    assert {example.task for example in examples} == set(Task)
    batch = parts.batcher.batch(examples)
    nll = target_nll(model, batch, CPU)
    for row, example in enumerate(examples):
        target = target_tokens(parts, example, example.targets[0] if example.targets else None)
        log_probs = by_hand(model, hf, parts, example, target)
        expected = -log_probs[torch.arange(len(target)), torch.tensor(target)].mean()
        assert nll[row, 0].item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize(
    "read_and_written",
    [
        {"item_words": "pieces", "whole_labels": False},
        {"item_words": "whole", "whole_labels": False},
        {"item_words": "whole", "whole_labels": True},
    ],
)
def test_trie_loss_is_the_softmax_over_allowed_children(dataset: Dataset, read_and_written: dict[str, object]) -> None:
    config = load_config(
        "scratch",
        None,
        {
            **read_and_written,
            "text_rows": False,  # else an item that nobody has bought is no rival (test_item_rows.py)
            "unknown_user_rate": 0.5,
            "tasks": "sequential",
            "causal_encoder": False,
        },
    )
    model, tokenizer = build(config, dataset, None)
    model.eval()
    hf = hugging_face_twin(model)
    parts = materials(config, dataset, tokenizer)
    examples = some_examples(parts, per_task=40)
    batch = parts.batcher.batch(examples)
    nll = target_nll(model, batch, CPU)
    labels = all_labels(parts)
    for row, example in enumerate(examples):
        (item,) = example.targets
        log_probs = by_hand(model, hf, parts, example, labels[item])
        expected = 0.0
        for depth, token in enumerate(labels[item]):
            allowed = sorted({label[depth] for label in labels if label[:depth] == labels[item][:depth]})
            within = torch.log_softmax(log_probs[depth, allowed], dim=0)
            expected -= within[allowed.index(token)].item()
        assert nll[row].tolist() == [pytest.approx(expected, abs=1e-5)]
        assert batch.weights[row].tolist() == [1.0]


def test_trie_probabilities_of_all_items_sum_to_one(dataset: Dataset) -> None:
    config = load_config("scratch", None, {"tasks": "sequential", "text_rows": False})
    model, tokenizer = build(config, dataset, None)
    parts = materials(config, dataset, tokenizer)
    template = parts.epochs.examples(parts.epochs.plan(0), 0)[0].template
    everything = tuple(range(dataset.info.n_items))
    example = TrainingExample(Task.SEQUENTIAL, 3, (1, 2, 5), template, everything, (3,) * len(everything))
    nll = target_nll(model.eval(), parts.batcher.batch([example]), CPU)
    assert torch.exp(-nll).sum().item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("whole_labels", [False, True])
def test_a_sampled_loss_tells_each_choice_from_some_others_of_its_node(dataset: Dataset, whole_labels: bool) -> None:
    config = load_config(
        "scratch",
        None,
        {"tasks": "sequential", "whole_labels": whole_labels, "causal_encoder": False},
    )
    model, tokenizer = build(config, dataset, None)
    model.eval()
    hf = hugging_face_twin(model)
    parts = materials(config, dataset, tokenizer)
    examples = some_examples(parts, per_task=12)
    count, drawn_for_first = 7, set()
    for seed in range(3):
        batch = parts.batcher.batch(examples, sample=SampledSoftmax(count, np.random.default_rng(seed)))
        assert batch.choices is not None
        nll = target_nll(model, batch, CPU).flatten()
        for row, example in enumerate(examples):
            target = target_tokens(parts, example, example.targets[0])
            log_probs = by_hand(model, hf, parts, example, target)
            expected = 0.0
            # of each choice: the columns that it was told from, which hold the right one and `count` others at most
            for choice in np.flatnonzero(batch.choices.owner == row):
                rivals = batch.choices.rows[batch.choices.allowed[choice]]
                depth = int(batch.choices.slots[choice]) % (batch.targets.shape[-1])
                right = batch.choices.rows[batch.choices.columns[choice]]
                assert right == target[depth]
                assert right in rivals
                siblings = {label[depth] for label in all_labels(parts) if label[:depth] == target[:depth]}
                assert len(rivals) in (min(count, len(siblings)), count + 1)
                assert set(rivals.tolist()) <= siblings
                expected -= torch.log_softmax(log_probs[depth, rivals], dim=0)[rivals.tolist().index(right)].item()
                if row == 0:
                    drawn_for_first.add(tuple(rivals.tolist()))
            assert nll[row].item() == pytest.approx(expected, abs=1e-5)
    assert len(drawn_for_first) > 1  # another draw, other rivals
    everything = parts.batcher.batch(examples, sample=SampledSoftmax(1000, np.random.default_rng(0)))
    assert torch.equal(target_nll(model, everything, CPU), target_nll(model, parts.batcher.batch(examples), CPU))


def test_a_mixed_batch_is_the_mean_of_its_examples(dataset: Dataset) -> None:
    config = load_config("paper", None, {"backbone": "scratch:tiny", "batch_size": 30, "negatives": 9})
    model, tokenizer = build(config, dataset, None)
    parts = materials(config, dataset, tokenizer)
    examples = parts.epochs.examples(parts.epochs.plan(0), 0)
    assert len({example.task for example in examples}) > 2
    together = target_nll(model.eval(), parts.batcher.batch(examples), CPU)[:, 0]
    for row, example in enumerate(examples):
        alone = target_nll(model, parts.batcher.batch([example]), CPU)[0, 0]
        assert together[row].item() == pytest.approx(alone.item(), abs=1e-4)


def test_shares_of_a_batch_add_up_to_the_whole(dataset: Dataset) -> None:
    config = load_config("scratch", None, {"tasks": "sequential"})
    model, tokenizer = build(config, dataset, None)
    parts = materials(config, dataset, tokenizer)
    examples = some_examples(parts, per_task=5)

    def mean_loss(share: slice) -> float:
        batch = parts.batcher.batch(examples, share=share)
        weights = torch.from_numpy(batch.weights)
        return ((target_nll(model.eval(), batch, CPU) * weights).sum() / batch.total_weight).item()

    parts_of_three = [mean_loss(slice(rank, None, 3)) for rank in range(3)]
    assert sum(parts_of_three) == pytest.approx(mean_loss(slice(None)), abs=1e-6)
    assert mean_loss(slice(9, None)) == 0.0  # a process without rows
    assert parts.batcher.batch(examples).total_weight == sum(len(example.targets) for example in examples)


def test_a_causal_encoder_learns_every_prefix_as_if_it_were_alone(dataset: Dataset) -> None:
    config = load_config("scratch", None, {"tasks": "sequential"})
    model, tokenizer = build(config, dataset, None)
    model.eval()
    parts = materials(config, dataset, tokenizer)
    examples = some_examples(parts, per_task=60)
    nll = target_nll(model, parts.batcher.batch(examples), CPU)
    assert max(len(example.targets) for example in examples) > 3
    for row, example in enumerate(examples):
        assert example.prefixes == tuple(range(1, len(example.items) + 1))
        for g, (item, prefix) in enumerate(zip(example.targets, example.prefixes, strict=True)):
            alone = TrainingExample(
                example.task, example.user_index, example.items[:prefix], example.template, (item,), (prefix,)
            )
            expected = target_nll(model, parts.batcher.batch([alone]), CPU)
            assert nll[row, g].item() == pytest.approx(expected.item(), abs=1e-5)


def test_texts_are_normalised_over_everything_but_whole_item_words(dataset: Dataset) -> None:
    config = load_config("scratch", None, {"tasks": "explanation", "causal_encoder": False})
    model, tokenizer = build(config, dataset, None)
    model.eval()
    parts = materials(config, dataset, tokenizer)
    n_words = tokenizer.get_vocab_size() - dataset.info.n_items
    assert tokenizer.id_to_token(n_words).startswith("▁item_")
    example = some_examples(parts, per_task=1)[0]
    target = target_tokens(parts, example, None)
    log_probs = by_hand(model, hugging_face_twin(model), parts, example, target)[:, :n_words]
    expected = -torch.log_softmax(log_probs, dim=-1)[torch.arange(len(target)), torch.tensor(target)].mean()
    nll = target_nll(model, parts.batcher.batch([example]), CPU)
    assert nll.item() == pytest.approx(expected.item(), abs=1e-5)
