"""Two workers' hosts in one process: a swap happens in both or in neither."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rdrec_core.bundle import Bundle
from rdrec_core.errors import BundleError, EngineError
from service.engine.lifecycle import ModelHost
from service.engine.siblings import Seat, Siblings
from service.settings import Settings
from service.telemetry.observability import Metrics
from service.wire.work import EngineDownError
from tests.fake_service import FakeEngine, fake_settings, open_fake, write_bundle

Open = Callable[[Bundle, Settings], FakeEngine]


@asynccontextmanager
async def worker(index: int, folder: Path, open_engine: Open = open_fake, **changes: object) -> AsyncIterator[Siblings]:
    settings = fake_settings(folder / "one", bundle_root=folder, **changes)
    host = ModelHost(settings, Metrics(), time.monotonic, open_engine)
    siblings = Siblings(host, Seat(index, 2, folder), lambda: [])
    await host.start(await siblings.start())
    yield siblings
    await siblings.close()
    await host.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        write_bundle(tmp_path / name, name=name)
    return tmp_path


def served(siblings: Siblings) -> str:
    return siblings._host.primary.bundle.manifest.name


async def test_whoever_is_asked_all_swap(folder: Path) -> None:
    weights = {name: folder / "weights" / Bundle.open(folder / name).manifest_sha256 for name in ("one", "two")}
    for each in weights.values():
        each.mkdir(parents=True)
    async with worker(0, folder, weights_dir=folder / "weights") as first, worker(1, folder) as second:
        assert [each.exists() for each in weights.values()] == [True, False], "of what nobody serves"
        weights["two"].mkdir()
        await second.swap_for_good("two")
        while weights["one"].exists():  # until its last request is answered
            await asyncio.sleep(0.01)
        assert weights["two"].exists()
        assert (served(first), served(second)) == ("two", "two")
        await first.swap_for_good("one")
        assert (served(first), served(second)) == ("one", "one")


@pytest.mark.parametrize("asked", [0, 1])
async def test_where_one_cannot_none_does(folder: Path, asked: int) -> None:
    def open_only_one(bundle: Bundle, settings: Settings) -> FakeEngine:
        if bundle.manifest.name == "two":
            raise EngineError("no memory for another engine")
        return open_fake(bundle, settings)

    async with worker(0, folder) as first, worker(1, folder, open_only_one) as second:
        with pytest.raises(BundleError, match="no memory for another engine"):
            await (first, second)[asked].swap_for_good("two")
        assert (served(first), served(second)) == ("one", "one")
        assert first._host._prepared == {}


async def test_a_worker_that_is_away_makes_the_service_unready_and_lets_no_swap_through(folder: Path) -> None:
    async with worker(1, folder) as alone:
        assert (await alone.health()).unready == ["worker 0 is being started"]
        with pytest.raises(EngineDownError, match="worker 0"):
            await alone.swap_for_good("two")
        async with worker(0, folder):
            assert (await alone.health()).unready == []


async def test_who_comes_later_serves_what_the_others_do(folder: Path) -> None:
    async with worker(0, folder) as first, worker(1, folder):
        await first.swap_for_good("two")
    async with worker(0, folder) as first:
        assert served(first) == "one", "nobody was there to ask"
    async with worker(0, folder) as first:
        first._host.peers = None
        await first.swap_for_good("two")
        async with worker(1, folder) as second:
            assert served(second) == "two"
