"""A training that goes on from a trained model: what it knows of items stays, what is new gets a row at once.

The dataset went on from the checkpoint's (`rdrec prepare --previous`), so that numbers and labels mean the same. Where
items are one token each, a new item's row comes from its words by the checkpoint's own map, else from the items that
it was bought with; in digit pieces every label has its pieces already. Users are read as their numbers, which stay.
Knows tensors and tables, not the training loop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer

from rdrec_core.encoding import encode_item_words
from rdrec_core.errors import CheckpointError
from rdrec_core.model import RDRecModel
from rdrec_core.text_rows import TextPlaces
from training.data.dataset import Dataset
from training.learning.checkpoint import Checkpoint, labels_sha256
from training.learning.examples import TrainingHistories
from training.learning.item_rows import RowsFromText
from training.learning.vocabulary import with_item_words
from training.signals.graph import GraphConfig, Sequences, ordered_pairs
from training.signals.text import placed_texts

Floats = npt.NDArray[np.float32]
_TABLES = ("t5.shared.weight", "t5.lm_head.weight")


@dataclass(frozen=True)
class Start:
    """A model that knows every item of the dataset.

    words: how the checkpoint's map places items, their places (N, P) and the map (P, D); None where rows are plain.
    """

    model: RDRecModel
    tokenizer: Tokenizer
    words: tuple[TextPlaces, Floats, Floats] | None = None


def start_from(checkpoint: Checkpoint, dataset: Dataset) -> Start:
    """The checkpoint's model with rows for the items that the dataset has beside the checkpoint's.

    Raises CheckpointError where the dataset does not go on from the one that the model was trained on.
    """
    known = checkpoint.info.n_items
    n_items = dataset.info.n_items
    if known > n_items or labels_sha256(dataset, known) != checkpoint.info.labels_sha256:
        raise CheckpointError(
            f"{dataset.path} does not go on from {checkpoint.info.dataset_path}, on which {checkpoint.path} was"
            " trained: its items have other numbers or labels; make it with `rdrec prepare --previous`, or train anew"
        )
    labels = dataset.items["label"].to_list()
    words = encode_item_words(checkpoint.tokenizer, labels[:known])
    if len(words.tokens) != known:  # digit pieces: every label is made of rows that are there
        return Start(checkpoint.model.train(), checkpoint.tokenizer)
    tokenizer = with_item_words(checkpoint.tokenizer, labels[known:])
    placed, rows = None, np.empty((0, 0), dtype=np.float32)
    first = int(words.tokens.min())
    state = checkpoint.model.state_dict()
    if checkpoint.text_rows is not None:
        places, learned = checkpoint.text_rows.places, checkpoint.text_rows.map
        at = places.of_texts(placed_texts(dataset))
        placed, rows = (places, at, learned), (at @ learned)[known:]
    else:
        table = state[_TABLES[0]][first : first + known].float().cpu().numpy()
        rows = rows_by_company(table, TrainingHistories.of(dataset))
    size = tokenizer.get_vocab_size()
    config = checkpoint.model.config
    model = RDRecModel(config.model_copy(update={"t5": config.t5.model_copy(update={"vocab_size": size})}))
    for name in _TABLES:
        if name in state:
            new = torch.from_numpy(np.asarray(rows, dtype=np.float32)).to(state[name].dtype)
            state[name] = torch.cat([state[name][: first + known], new])
    model.load_state_dict(state)
    return Start(model.train(), tokenizer, placed)


def split_rows(model: RDRecModel, rows: RowsFromText, first: int, places: Floats, learned: Floats) -> None:
    """Begin `rows` with the map (P, D), and leave in the model's table what an item's row has beside it."""
    with torch.no_grad():
        rows.map.copy_(torch.from_numpy(learned))
        table = model.t5.shared.weight
        table[first:] -= torch.from_numpy(places @ learned).to(table.dtype)


def rows_by_company(table: Floats, histories: TrainingHistories) -> Floats:
    """Rows (N - K, D) of new items from those of K known ones (K, D): the mean of what they were bought near to.

    An item that was bought with nothing known gets the mean of all.
    """
    known = len(table)
    pairs = ordered_pairs(Sequences(histories.indptr, histories.items, histories.n_items), GraphConfig())
    company = (pairs + pairs.T)[known:, :known]
    total = np.asarray(company.sum(axis=1)).reshape(-1, 1)
    rows = np.divide(company @ table, total, out=np.repeat(table.mean(axis=0)[None], len(total), 0), where=total > 0)
    return np.asarray(rows, dtype=np.float32)
