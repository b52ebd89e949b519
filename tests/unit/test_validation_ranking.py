"""What is asked while a model trains: the questions of evaluation, whatever the length of the history."""

from typing import Any

import numpy as np
import pytest
import torch

from rdrec_core.prompts import MAX_HISTORY, bare_template
from rdrec_core.types import RankRequest, ScoreMode, Task
from training.learning import validation_ranking
from training.learning.examples import TrainingHistories, validation_examples
from training.learning.parallel import Processes


def test_everything_bought_in_training_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    bought = np.arange(2 * MAX_HISTORY, dtype=np.int32)  # the source shows the last half of it
    target = len(bought) + 5
    histories = TrainingHistories(np.array([0, len(bought)]), bought, np.array([target], dtype=np.int32), target + 1)
    (example,) = validation_examples(Task.SEQUENTIAL, histories, None, negatives=9, limit=None, seed=0)
    assert example.items == tuple(range(MAX_HISTORY, 2 * MAX_HISTORY))
    assert example.template == bare_template(Task.SEQUENTIAL)

    class FirstEligible:
        """Answers the first items that are not excluded: old purchases, were they allowed."""

        def __init__(self, *_: Any, **__: Any) -> None: ...

        def recommend(self, requests: list[RankRequest]) -> list[Any]:
            (request,) = requests
            items = [i for i in range(target + 1) if i not in request.exclude][: request.n_items]
            return [type("Answer", (), {"item_indices": items})]

    monkeypatch.setattr(validation_ranking, "TorchEngine", FirstEligible)
    measure = validation_ranking.ndcg_at_10(None, None, ScoreMode.TRIE, [example], histories)  # type: ignore[arg-type]
    alone = Processes(0, 1, torch.device("cpu"))
    assert measure(None, alone) == pytest.approx(1 / np.log2(1 + 6))  # type: ignore[arg-type]
