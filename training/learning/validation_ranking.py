"""How well a model in training ranks: NDCG@10 of the validation items among the whole catalogue, by the served search.

Loss and ranking part ways in long runs: a model that grows too sure of itself has a worse loss and a better order.
Knows examples and the engine, not the training loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from rdrec_core.decoding.item_trie import ItemTrie
from rdrec_core.encoding import SourceEncoder
from rdrec_core.engines.torch_engine import TorchEngine
from rdrec_core.model import RDRecModel
from rdrec_core.types import RankRequest, ScoreMode
from training.learning.examples import TrainingExample, TrainingHistories
from training.learning.parallel import Processes
from training.learning.ranks import LIST_LENGTH, gains, rank_in_list


def ndcg_at_10(
    encoder: SourceEncoder, trie: ItemTrie, mode: ScoreMode, examples: Sequence[TrainingExample],
    histories: TrainingHistories,
) -> Callable[[RDRecModel, Processes], float]:  # fmt: skip
    """A measure of a model over sequential validation examples.

    Everything that the user bought in training is left out of the answer, as in evaluation, although the source shows
    the last items alone. Each process asks a share; all get the mean. The model is left in evaluation mode.
    """
    requests = []
    for example in examples:
        assert example.user_index is not None  # validation examples are of known users
        bought = () if histories.repeats else tuple(np.unique(histories.of_user(example.user_index)).tolist())
        requests.append(RankRequest(example.user_index, example.items, n_items=LIST_LENGTH, exclude=bought))
    targets = [e.targets[0] for e in examples]

    def measure(model: RDRecModel, group: Processes) -> float:
        engine = TorchEngine(model, encoder, trie, score_mode=mode, max_batch=64, fixed_shapes=False)
        mine = slice(group.rank, None, group.count)
        answers = engine.recommend(requests[mine])
        ranks = np.array([rank_in_list(t, a.item_indices) for t, a in zip(targets[mine], answers, strict=True)])
        sums = torch.tensor([gains(ranks, LIST_LENGTH).sum(), len(ranks)], dtype=torch.float64)
        total, count = group.total(sums.to(group.device)).tolist()
        return float(total / count)

    return measure
