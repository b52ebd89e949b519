"""`rdrec ablation` on a few users: every row trained once, resumed, and told from another configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from rdrec_core.errors import InputError
from rdrec_core.types import Task
from tests.small_dataset import write_small_dataset
from training.cli import main
from training.data.dataset import Dataset
from training.evaluation import ablation
from training.evaluation.ablation import (
    BOTH,
    MEASURED_FILE,
    SYSTEMS,
    TASKS,
    VARIANTS,
    WITHOUT,
    Cell,
    ablation_row,
    rows_of,
    run_ablation,
)
from training.evaluation.systems import System
from training.learning.config import load_config
from training.signals.profiles import FIELDS

CONFIG = load_config("scratch", None, {})


def test_the_rows_are_the_papers_four_and_the_sweep() -> None:
    rows = rows_of(CONFIG, ["1:1:1:1", "1:1:2:1", "1:1:1:3"])
    assert [row.name for row in rows] == [
        WITHOUT, "user preference only", "item attributes only", BOTH, "both, 1:1:2:1", "both, 1:1:1:3",
    ]  # fmt: skip
    assert [row.fields_left_out for row in rows] == [
        ("preferences", "attributes"), ("attributes",), ("preferences",), (), (), (),
    ]  # fmt: skip
    config = rows[4].config(CONFIG, 2)
    assert (config.seed, config.ratio.sequential, config.ratio.topn) == (2, 2.0, 1.0)
    assert config.tasks == CONFIG.tasks
    assert set(CONFIG.tasks) - set(rows[0].config(CONFIG, 0).tasks) == {"user_preference", "item_attributes"}
    assert [row.ratio for row in rows_of(CONFIG, [])] == [CONFIG.ratio] * 4


@pytest.mark.parametrize(("ratios", "complaint"), [(["1:1"], "four numbers"), (["1:1:1:1"] * 2, "twice")])
def test_wrong_ratios_are_refused(ratios: list[str], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        rows_of(CONFIG, ratios)


def test_leads_are_paired_by_user_and_averaged_over_runs() -> None:
    plain = np.tile([0.0, 1.0, 0.0, 0.5], (2, 1))
    lead = np.array([0.1, 0.2, 0.3, 0.4])
    gain = np.stack([plain[0] + lead, plain[0] + 2 * lead])
    cells = {
        (name, "topn", "fused"): Cell({"HR@10": values, "NDCG@10": values})
        for name, values in ((WITHOUT, plain), (BOTH, gain))
    }
    assert ablation_row(cells, WITHOUT, "topn", "fused")["difference"] is None
    row = ablation_row(cells, BOTH, "topn", "fused")
    assert row["difference"]["mean"] == pytest.approx(1.5 * 0.25)
    assert row["difference"]["low"] >= 1.5 * 0.1, "every user gains"
    assert row["difference"]["significant"]
    assert row["NDCG@10"]["deviation"] == pytest.approx(np.std([0.625, 0.875], ddof=1))


QUICK = {"epochs": 1, "passes": 1, "vocabulary_size": 300, "validation_limit": 10, "batch_size": 64}


@pytest.mark.slow
def test_a_run_is_whole_resumed_and_not_mixed_with_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {name: VARIANTS[name] for name in (WITHOUT, "user preference only", BOTH)}  # a training costs seconds
    monkeypatch.setattr(ablation, "VARIANTS", few)
    data = write_small_dataset(tmp_path / "data", n_users=16, n_items=20)
    out = tmp_path / "out"
    config = load_config("scratch", None, QUICK)
    quiet = Console(quiet=True)

    def run() -> dict[str, Any]:
        record = run_ablation(data, config, out, trials=1, ratios=["1:1:1:0", "1:1:2:0"], console=quiet)
        assert record is not None
        return record

    record = run()
    names = [*few, "both, 1:1:2:0"]
    assert [(row["system"], row["task"], row["variant"]) for row in record["table"]] == [
        (system, task, name) for system in SYSTEMS for task in TASKS for name in names
    ]
    assert (record["n_users"], record["teachers"]) == (16, ["t"])
    trained = {path.parent.name: json.loads(path.read_text())["config"] for path in out.glob(f"*/{MEASURED_FILE}")}
    assert trained["both-1-1-2-0-0"]["ratio"]["sequential"] == 2
    assert "item_attributes" not in trained["user-preference-only-0"]["tasks"]

    times = {path: path.stat().st_mtime_ns for path in out.glob("*/ranks.parquet")}
    assert len(times) == 4
    assert run() == record, "nothing is trained twice"
    assert times == {path: path.stat().st_mtime_ns for path in out.glob("*/ranks.parquet")}

    command = ["ablation", str(data.path), "--out", str(out), "--epochs", "1"]
    assert main(command) == 2
    assert "another configuration" in capsys.readouterr().err
    pl.read_parquet(data.rationales_path).head(5).write_parquet(data.rationales_path)
    with pytest.raises(InputError, match="other rationales"):
        run()


def test_a_rationale_that_is_off_gives_no_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the fit is given: without a rationale's field there is no channel of it, with it there is."""
    from training.evaluation import fusion_run

    data = write_small_dataset(tmp_path / "data", n_users=16, n_items=20)
    seen: list[set[str]] = []

    def stop(dataset: Dataset, upto: str, encoder: object, *, only: set[str]) -> NoReturn:
        seen.append({name.split(".")[1] for name in only})
        raise KeyboardInterrupt

    monkeypatch.setattr(fusion_run, "text_fields", stop)
    system = System(tmp_path, None, None, Task.SEQUENTIAL, 100, [])  # type: ignore[arg-type]
    for row in rows_of(CONFIG, []):
        with pytest.raises(KeyboardInterrupt):
            fusion_run.fit_system(
                system, data, limit_users=5, tune_graph=False, seed=0, console=Console(quiet=True),
                without_fields=row.fields_left_out,
            )  # fmt: skip
    always = set(FIELDS) - {"preferences", "attributes"}
    assert seen == [always, always | {"preferences"}, always | {"attributes"}, always | {"preferences", "attributes"}]
