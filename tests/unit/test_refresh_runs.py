"""Settings, runs and the gate's rule of the daily loop, without any model."""

from pathlib import Path

import numpy as np
import pytest

from rdrec_core.errors import DatasetError, InputError
from training.evaluation.gate import Rule, judged
from training.evaluation.measure import Answers
from training.evaluation.protocol import Questions
from training.refreshing.report import report_of
from training.refreshing.runs import RUN_FOLDERS, Run, newest_run, remove_old, run_to_go_on_with
from training.refreshing.settings import read_settings

SETTINGS = """
work: work
start: {dataset: d, checkpoint: c, bundle: b}
events: redis://host/0
bundles: /srv/bundles
replicas: {key_file: key}
"""


def test_paths_are_relative_to_the_file_and_urls_stay(tmp_path: Path) -> None:
    (tmp_path / "refresh.yaml").write_text(SETTINGS)
    found = read_settings(tmp_path / "refresh.yaml")
    assert (found.work, found.start.dataset, found.bundles) == (tmp_path / "work", tmp_path / "d", Path("/srv/bundles"))
    assert (found.events, found.replicas.key_file, found.kinds) == (
        "redis://host/0",
        tmp_path / "key",
        {"purchase": 1.0},
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (SETTINGS + "gait: {}", "gait: is no field; it may be one of work, start"),
        (SETTINGS + "gate: {bound: -1}", "gate.bound"),
        (SETTINGS.replace("events:", "event:"), "events: Field required"),
        (SETTINGS.replace("key_file: key", "urls: [x], dns: y"), "either urls or dns"),
        ("- 1", "field: value"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "refresh.yaml").write_text(text)
    with pytest.raises(InputError, match=told):
        read_settings(tmp_path / "refresh.yaml")


def test_a_step_is_made_once_and_a_run_goes_on_until_its_end(tmp_path: Path) -> None:
    made: list[str] = []
    for attempt in range(2):
        run = run_to_go_on_with(tmp_path)
        run.attempt()
        assert run.step("first", lambda: made.append("first") or {"n": 1}) == {"n": 1}
        if attempt == 0:
            with pytest.raises(ZeroDivisionError):
                run.step("second", lambda: {"n": 1 // 0})
    run.end("served")
    assert made == ["first"]
    assert (report_of(run)["attempts"], [step["name"] for step in report_of(run)["steps"]]) == (2, ["first"])
    assert run_to_go_on_with(tmp_path).state.number == 2
    newest = newest_run(tmp_path)
    assert newest is not None
    assert (newest.state.number, newest.state.outcome) == (1, "served")
    (tmp_path / "000001" / "run.json").write_text("{")
    with pytest.raises(DatasetError, match="not the state of a run"):
        Run.open(tmp_path / "000001")


def test_old_runs_go_but_for_those_in_use(tmp_path: Path) -> None:
    for name in ("000001", "000002", "000003", "000004", "mine-1"):
        (tmp_path / name / "dataset").mkdir(parents=True)
    remove_old(tmp_path, RUN_FOLDERS, keep=2, in_use={tmp_path / "000001" / "dataset"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000001", "000003", "000004", "mine-1"]


def verdict(new: np.ndarray, served: np.ndarray, reference: float = 0.5, **rule: float):
    n = len(new)
    asked = Questions(np.arange(n), np.arange(n) % 7, np.zeros(n + 1, dtype=np.int64), np.empty(0, dtype=np.int64))
    lists = np.full((n, 10), -1)
    answers = {"new": Answers(new, lists, 0.0), "served": Answers(served, lists, 0.0)}
    times = 1_600_084_800 + np.arange(n) * (2 * 86_400 // n)  # two days from noon on: three dates
    return judged(answers, asked, Rule(**rule), known=(n // 2, 5), times=times, reference=reference)


def test_the_gate_lets_pass_what_is_no_worse_and_says_why_not() -> None:
    rng = np.random.default_rng(0)
    good = np.where(rng.random(300) < 0.6, 1.0, np.inf)
    assert verdict(good, good).passed
    assert verdict(good, np.roll(good, 1)).passed
    worse = np.where(rng.random(300) < 0.6, good, np.inf)
    (reason,) = verdict(worse, good, max_fall=1.0).reasons
    assert "is worse" in reason
    assert verdict(worse, good, max_fall=1.0, bound=0.9, doubt=0.9).passed, "that much may be lost"
    (reason,) = verdict(good, np.roll(good, 1), doubt=0.001).reasons
    assert "cannot be excluded" in reason
    (reason,) = verdict(good[:10], good[:10]).reasons
    assert "too few" in reason
    assert verdict(good, good).rows["new items"]["n"] == sum(item >= 5 for item in np.arange(300) % 7)


def test_a_day_that_nobody_foresees_is_named_and_the_other_days_are_not() -> None:
    ranks = np.ones(300)
    ranks[80:220] = np.inf  # the whole second date, from the 76th to the 225th question, but for ten
    (reason,) = verdict(ranks, ranks, reference=0.9).reasons
    assert reason.startswith("2020-09-15 is not like the days before")
    assert verdict(ranks, ranks, reference=0.1).passed, "the days before were no better"
