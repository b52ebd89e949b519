"""`rdrec refresh` on a small shop: killed at each step, a poisoned day, a bundle that fails."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.refresh_shop import FIRST_DAYS, N_USERS, START, day_of, purchase, write_first_days, write_log, write_settings
from training.bundling.health import Check
from training.cli import main
from training.data.dataset import Dataset
from training.refreshing import loop
from training.refreshing.runs import Run, Served

STEPS = ("begin", "collect", "prepare", "train", "fuse", "gate", "final", "export", "health", "publish", "done")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first")
    write_first_days(folder)
    return folder


@pytest.fixture
def shop(first: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(first, tmp_path / "shop", symlinks=True))


def refresh(shop: Path, **settings: object) -> int:
    return main(["refresh", "--config", str(write_settings(shop, **settings))])


def served(shop: Path) -> Served | None:
    return Served.read(shop / "work" / "current.json")


def report(shop: Path) -> dict:
    return json.loads((shop / "work" / "report.json").read_text())


class Killed(BaseException):
    """As a kill: nothing catches it."""


@pytest.mark.slow
def test_every_acknowledged_event_is_in_the_next_dataset_once_after_kills_at_each_step(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_log(shop / "log", FIRST_DAYS, day_of(FIRST_DAYS, rng=np.random.default_rng(5), first=10_000))
    plain = Run.step
    acknowledged = Counter({(f"u{u}", f"i{(u + FIRST_DAYS) % 30}"): 1 for u in range(N_USERS)})
    for number, name in enumerate(STEPS):

        def killed_after(self: Run, step: str, work: object, name: str = name) -> dict:
            if self.facts(step) is None and step == name:
                work()
                raise Killed  # the step is done, and nobody knows it
            return plain(self, step, work)

        with monkeypatch.context() as deadly:
            deadly.setattr(Run, "step", killed_after)
            with pytest.raises(Killed):
                refresh(shop)
        late = purchase(20_000 + number, f"late{number}", "i3", FIRST_DAYS + 1.1 + number / 100)
        write_log(shop / "log", 100 + number, [late, late])  # logged twice, as after a retry
        acknowledged[(f"late{number}", "i3")] = 1
    assert (shop / "bundles" / "current").resolve().name != "first", "the link moved before the last step"
    assert refresh(shop, gate={"bound": 1.0, "doubt": 1.0, "max_fall": 1.0, "min_questions": 1}) == 0
    dataset = Dataset(served(shop).dataset)  # type: ignore[union-attr]
    users, items = dataset.users["user_id"].to_list(), dataset.items["item_id"].to_list()
    rows = dataset.interactions
    new = rows.timestamp >= START + FIRST_DAYS * 86_400
    found = Counter((users[u], items[i]) for u, i in zip(rows.user_index[new], rows.item_index[new], strict=True))
    assert found == acknowledged
    first_run = json.loads((shop / "work" / "runs" / "000001" / "report.json").read_text())
    assert (first_run["outcome"], first_run["attempts"]) == ("served", len(STEPS) + 1)
    assert [step["name"] for step in first_run["steps"]] == list(STEPS)
    assert report(shop)["run"] == 2, "what came while the first run was cut off is learned by a second one"
    assert (shop / "bundles" / "current").resolve() == served(shop).bundle.resolve()  # type: ignore[union-attr]


def test_a_poisoned_day_is_refused_and_a_good_one_served(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(6)
    write_log(shop / "log", FIRST_DAYS, day_of(FIRST_DAYS, rng=rng, first=10_000, shuffled=True))
    assert refresh(shop) == 4
    (reason,) = report(shop)["reasons"]
    assert "is not like the days before" in reason
    assert "leave_out" in reason
    assert "because" in capsys.readouterr().out
    assert (shop / "bundles" / "current").resolve().name == "first"
    assert served(shop) is None
    assert "rdrec_refresh_refused 1" in (shop / "work" / "refresh.prom").read_text()
    assert "The served model stays" in (shop / "work" / "report.html").read_text()

    write_log(shop / "log", FIRST_DAYS + 1, day_of(FIRST_DAYS + 1, rng=rng, first=20_000))
    assert refresh(shop, leave_out=["batch-000001"]) == 0
    assert report(shop)["outcome"] == "served"
    assert "rdrec_refresh_refused 0" in (shop / "work" / "refresh.prom").read_text()
    rows = Dataset(served(shop).dataset).interactions  # type: ignore[union-attr]
    days = set((rows.timestamp - START) // 86_400)
    assert (FIRST_DAYS in days, FIRST_DAYS + 1 in days) == (False, True)
    assert (shop / "bundles" / "current" / "manifest.json").is_file()
    assert refresh(shop, leave_out=["batch-000001"]) == 0
    assert report(shop)["outcome"] == "nothing new"


def test_a_bundle_that_fails_a_check_is_not_served(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_log(shop / "log", FIRST_DAYS, day_of(FIRST_DAYS, rng=np.random.default_rng(5), first=10_000))
    monkeypatch.setattr(loop, "checks", lambda _: [Check("lists differ", False, "9 items in the lists of 64 users")])
    assert refresh(shop) == 4
    assert report(shop)["reasons"] == ["lists differ: 9 items in the lists of 64 users"]
    assert (shop / "bundles" / "current").resolve().name == "first"
