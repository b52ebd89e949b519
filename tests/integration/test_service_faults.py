"""What an on-call engineer fears, in one process: the engine fails, dies, hangs; bundles are swapped under load."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from rdrec_core.bundle import Bundle
from rdrec_core.errors import BundleError
from rdrec_core.signing import make_key, sign_bundle
from service.engine.admission import WINDOW_S
from service.engine.engine_thread import EngineThread
from service.engine.lifecycle import ModelHost
from service.settings import Settings
from service.telemetry.observability import Metrics
from service.web.app import create_app
from service.wire.work import EngineDownError
from tests.fake_service import FakeEngine, Gate, fake_settings, item_id, open_fake, user_id, write_bundle
from tests.integration.test_service_endpoints import key

ADMIN = {"X-API-Key": "root"}
KEYS = [key("root", "ops", "recommend", "write", "admin", "metrics")]


@asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://t", headers=ADMIN, timeout=30) as client:
            yield client


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundles" / "first")


def ask(client: httpx.AsyncClient, n: int, *, timeout_ms: int = 20_000) -> Any:
    """A request that no other shares."""
    history = [item_id(n % 40), item_id(n // 40 % 40)]
    body = {"history": history, "n_items": 3, "fusion": False}
    return client.post("/recommend/sequential", json=body, headers={"X-Request-Timeout-Ms": str(timeout_ms)})


def slug(response: httpx.Response) -> str:
    return str(response.json()["type"]).removeprefix("urn:rdrec:problem:")


async def until_ready(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(20):
        while (await client.get("/health/ready")).status_code != 200:
            await asyncio.sleep(0.01)


class Faults:
    """What the engine does next; `opened` counts engines."""

    def __init__(self) -> None:
        self.opened = 0
        self.fault: BaseException | None = None
        self.poison: int | None = None
        self.refuse_to_open = False

    def open(self, bundle: Bundle, settings: Settings) -> FakeEngine:
        self.opened += 1
        if self.refuse_to_open:
            raise OSError("no such device")
        return FakeEngine(self.before)

    def before(self, what: str, requests: Sequence[Any]) -> None:
        if self.fault is not None:
            raise self.fault
        if self.poison is not None and any(self.poison in r.history for r in requests if hasattr(r, "history")):
            raise ValueError("poison: sk-secret-value")


async def test_an_engine_exception_is_a_503_and_passes(bundle: Path) -> None:
    faults = Faults()
    async with running(create_app(fake_settings(bundle, api_keys=KEYS), open_engine=faults.open)) as client:
        faults.fault = RuntimeError("CUDA out of memory at /srv/secret")
        failed = await ask(client, 1)
        assert (failed.status_code, slug(failed)) == (503, "engine-failed")
        assert "secret" not in failed.text
        assert int(failed.headers["retry-after"]) >= 1
        faults.fault = None
        assert (await ask(client, 1)).status_code == 200


async def test_a_poison_request_fails_alone_in_a_full_batch(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    faults = Faults()
    faults.poison = 39
    async with running(create_app(fake_settings(bundle, api_keys=KEYS), open_engine=faults.open)) as client:
        answers = await asyncio.gather(*(ask(client, n) for n in range(40)))
    assert Counter(a.status_code for a in answers) == {200: 39, 503: 1}
    assert answers[39].status_code == 503
    assert "sk-secret" not in answers[39].text + caplog.text


async def until_model(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(20):
        while (await client.get("/health/ready")).json()["status"] != "ready":
            await asyncio.sleep(0.01)


async def test_a_request_that_ends_the_engine_is_a_500_once_and_then_refused(bundle: Path) -> None:
    faults = Faults()
    async with running(create_app(fake_settings(bundle, api_keys=KEYS), open_engine=faults.open)) as client:
        faults.fault = SystemExit()
        ended = await ask(client, 1)
        assert (ended.status_code, slug(ended)) == (500, "engine-ended")
        assert "retry-after" not in ended.headers
        faults.fault = None
        await until_model(client)
        opened = faults.opened
        for _ in range(3):
            refused = await ask(client, 1)
            assert (refused.status_code, slug(refused)) == (500, "engine-ended")
        assert (await ask(client, 2)).json()["degraded"] is False
        assert faults.opened == opened, "the request was not computed again"
        assert "rdrec_engine_restarts_total 1.0" in (await client.get("/metrics")).text


async def test_while_the_engine_is_away_graph_and_popularity_answer_and_it_is_retried_for_ever(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.engine.lifecycle.RESTART_PAUSES_S", (0.0, 0.01))
    faults = Faults()
    async with running(create_app(fake_settings(bundle, api_keys=KEYS), open_engine=faults.open)) as client:
        faults.fault, faults.refuse_to_open = SystemExit(), True
        assert (await ask(client, 1)).status_code == 500
        async with asyncio.timeout(10):
            while faults.opened < 6:
                await asyncio.sleep(0.01)
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert ready.json()["reasons"] == ["engine a is being restarted"]
        assert (await client.get("/health/live")).status_code == 200
        asked = {"user_id": user_id(3), "n_items": 3}
        answer = (await client.post("/recommend/sequential", json=asked)).json()
        assert (answer["strategy"], answer["degraded"], answer["history_source"]) == ("graph", True, "bundle")
        assert answer["items"][0]["item_id"] == "i0008", "which follows the last item in the graph"
        assert answer["items"][0]["signals"]["model"] is None
        given = {**asked, "candidates": ["i0030", "i0008"]}
        topn = (await client.post("/recommend/topn", json=given)).json()
        assert (topn["strategy"], topn["degraded"], [i["item_id"] for i in topn["items"]]) == (
            "graph", True, ["i0008", "i0030"],
        )  # fmt: skip
        stranger = (await client.post("/recommend/sequential", json={})).json()
        assert (stranger["strategy"], stranger["degraded"]) == ("popularity", False)
        explained = (await client.post("/explain", json={"user_id": user_id(3), "item_id": "i0008"})).json()
        assert explained["explanation"], "which needs no engine"
        assert 'rdrec_engine_up{arm="a"} 0.0' in (await client.get("/metrics")).text
        faults.fault, faults.refuse_to_open = None, False
        await until_model(client)
        back = (await client.post("/recommend/sequential", json=asked)).json()
        assert (back["strategy"], back["degraded"]) == ("beam", False)


async def test_a_restart_opens_the_bundle_that_was_verified_or_none(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("service.engine.lifecycle.RESTART_PAUSES_S", (0.0, 0.01))
    faults = Faults()
    kept = shutil.copytree(bundle, bundle.parent / "kept")
    async with running(create_app(fake_settings(bundle, api_keys=KEYS), open_engine=faults.open)) as client:
        version = (await ask(client, 1)).json()["model_version"]
        write_bundle(bundle, name="other")
        faults.fault = SystemExit()
        assert (await ask(client, 2)).status_code == 500
        faults.fault = None
        async with asyncio.timeout(10):
            while caplog.text.count("engine_restart_failed") < 2:
                await asyncio.sleep(0.01)
        reasons = {r.reason for r in caplog.records if r.message == "engine_restart_failed"}  # type: ignore[attr-defined]
        assert len(reasons) == 1
        assert "holds another bundle" in reasons.pop()
        answer = (await ask(client, 3)).json()
        assert (answer["model_version"], answer["degraded"]) == (version, True)
        assert faults.opened == 1
        shutil.rmtree(bundle)
        shutil.move(kept, bundle)
        await until_model(client)
        assert (await ask(client, 4)).json()["model_version"] == version


async def test_files_overwritten_in_place_change_no_answer_and_crash_nothing(bundle: Path) -> None:
    async with running(create_app(fake_settings(bundle, api_keys=KEYS), open_engine=open_fake)) as client:
        asked = {"user_id": user_id(3), "n_items": 5, "exclude": ["i0039"]}
        before = (await client.post("/recommend/sequential", json=asked)).json()
        listed = (await client.get("/items", params={"query": "toy"})).json()
        for file in (bundle / "arrays").rglob("*.npy"):
            file.write_bytes(b"")  # what `cp` does first
        other = (await client.post("/recommend/sequential", json={**asked, "exclude": ["i0038"]})).json()
        assert other["items"] == before["items"]
        assert (await client.get("/items", params={"query": "toy"})).json() == listed
        assert (await client.get(f"/users/{user_id(5)}/history")).json()["items"]


async def test_a_stalled_engine_makes_the_process_ask_for_its_end(bundle: Path) -> None:
    gate = Gate()
    engine = FakeEngine()
    app = create_app(fake_settings(bundle, stall_s=0.05), open_engine=lambda b, s: engine)
    async with running(app) as client:
        engine._before = gate
        stuck = asyncio.create_task(ask(client, 1))
        await asyncio.to_thread(gate.entered.wait, 10)
        async with asyncio.timeout(10):
            while (await client.get("/health/live")).status_code != 503:
                await asyncio.sleep(0.01)
        gate.opened.set()
        assert (await stuck).status_code == 200
        assert (await client.get("/health/live")).status_code == 200


async def test_an_engine_that_hangs_is_ended_and_what_it_computed_is_blamed(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an engine process is, which can be killed; a thread only plays dead here."""

    ended_lanes: list[EngineThread] = []

    def kill(lane: EngineThread) -> bool:
        lane._call(lane._ended, "killed")
        ended_lanes.append(lane)
        return True

    monkeypatch.setattr(EngineThread, "kill", kill)
    gate = Gate()
    engines: list[FakeEngine] = []

    def open_engine(opened: Bundle, settings: Settings) -> FakeEngine:
        engines.append(FakeEngine())
        return engines[-1]

    ahead_s = [0.0]
    app = create_app(fake_settings(bundle), open_engine=open_engine, clock=lambda: time.monotonic() + ahead_s[0])
    async with running(app) as client:
        engines[0]._before = gate
        asked = asyncio.create_task(ask(client, 1))
        await asyncio.to_thread(gate.entered.wait, 10)
        ahead_s[0] = 100.0  # RDREC_STALL_S is 30
        ended = await asked
        assert (ended.status_code, slug(ended)) == (500, "engine-ended")
        await until_model(client)
        assert len(engines) == 2
        assert (await ask(client, 2)).json()["degraded"] is False
        gate.opened.set()
        await ended_lanes[0].close()  # a process would be gone; the thread is not


async def test_overload_is_a_429_with_the_time_to_wait_and_all_accepted_are_answered(bundle: Path) -> None:
    gate = Gate()
    engine = FakeEngine()
    ahead_s = [0.0]
    app = create_app(
        fake_settings(bundle, queue_size=10, batch_size=4), open_engine=lambda b, s: engine,
        clock=lambda: time.monotonic() + ahead_s[0],
    )  # fmt: skip
    async with running(app) as client:
        engine._before = gate
        ahead_s[0] = WINDOW_S
        asked = [asyncio.create_task(ask(client, n)) for n in range(40)]
        await asyncio.to_thread(gate.entered.wait, 10)
        while sum(task.done() for task in asked) < 20:
            await asyncio.sleep(0.01)
        gate.opened.set()
        answers = await asyncio.gather(*asked)
        metrics = (await client.get("/metrics")).text
    assert 'rdrec_admission_limit{line="interactive"} 217.6' in metrics, "the next ones cost less to refuse"
    statuses = Counter(a.status_code for a in answers)
    assert set(statuses) == {200, 429}
    assert 10 <= statuses[200] <= 20
    refused = next(a for a in answers if a.status_code == 429)
    assert slug(refused) == "overloaded"
    assert int(refused.headers["retry-after"]) >= 1


async def test_a_deadline_is_a_504_and_never_reaches_the_engine(bundle: Path) -> None:
    gate = Gate()
    engine = FakeEngine()
    async with running(create_app(fake_settings(bundle), open_engine=lambda b, s: engine)) as client:
        engine._before = gate
        blocker = asyncio.create_task(ask(client, 1))
        await asyncio.to_thread(gate.entered.wait, 10)
        engine.calls.clear()
        late = await ask(client, 2, timeout_ms=20)
        assert (late.status_code, slug(late)) == (504, "deadline-exceeded")
        gate.opened.set()
        assert (await blocker).status_code == 200
        assert engine.calls == []


async def test_identical_requests_run_once(bundle: Path) -> None:
    gate = Gate()
    engine = FakeEngine()
    async with running(create_app(fake_settings(bundle), open_engine=lambda b, s: engine)) as client:
        engine._before = gate
        engine.calls.clear()
        asked = [asyncio.create_task(ask(client, 7)) for _ in range(20)]
        await asyncio.to_thread(gate.entered.wait, 10)
        await asyncio.sleep(0.05)
        gate.opened.set()
        answers = await asyncio.gather(*asked)
        assert {a.status_code for a in answers} == {200}
        lists = [{**answer.json(), "impression_id": None} for answer in answers]  # what becomes of each is its own
        assert all(each == lists[0] for each in lists)
        assert engine.calls == [("recommend", 1)]


async def test_a_write_makes_the_cached_answer_unreachable(bundle: Path) -> None:
    async with running(create_app(fake_settings(bundle), open_engine=open_fake)) as client:
        body = {"user_id": user_id(3), "n_items": 1}
        before = (await client.post("/recommend/sequential", json=body)).json()
        assert (await client.post("/recommend/sequential", json=body)).json()["items"] == before["items"]
        await client.post("/interactions", json={"user_id": user_id(3), "item_id": "i0020"})
        assert (await client.post("/recommend/sequential", json=body)).json()["items"] != before["items"]


async def test_twenty_swaps_under_load_answer_everything_from_one_model_or_the_other(bundle: Path) -> None:
    other = write_bundle(bundle.parent / "second", name="other", candidate_width=7)
    versions = {Bundle.open(path).manifest.model_version for path in (bundle, other)}

    def open_marked(opened: Bundle, settings: Settings) -> FakeEngine:
        return FakeEngine(seconds=0.002)

    app = create_app(fake_settings(bundle, api_keys=KEYS, queue_size=1000), open_engine=open_marked)
    async with running(app) as client:
        stop = asyncio.Event()
        seen: Counter[str] = Counter()

        async def load(worker: int) -> None:
            n = worker * 1000
            while not stop.is_set():
                n += 1
                answer = await ask(client, n)
                assert answer.status_code == 200, answer.text
                content = answer.json()
                assert len(content["items"]) == 3
                seen[content["model_version"]] += 1

        workers = [asyncio.create_task(load(n)) for n in range(8)]
        for swap in range(20):
            path = ("second", "first")[swap % 2]
            done = await client.post("/admin/bundle", json={"path": path})
            assert done.status_code == 200, done.text
            newest = done.json()["model_version"]
            assert (await ask(client, 10_000 + swap)).json()["model_version"] == newest
        stop.set()
        await asyncio.gather(*workers)
        assert set(seen) == versions
        assert 'rdrec_bundle_swaps_total{outcome="done"} 20.0' in (await client.get("/metrics")).text
    alive = [t.name for t in threading.enumerate() if t.name == "rdrec-engine"]
    assert alive == []


def _alter(folder: Path) -> None:
    file = folder / "arrays" / "items" / "labels.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def _lose(folder: Path) -> None:
    (folder / "arrays" / "users" / "indptr.npy").unlink()


def _newer(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "schema_version": 99}))


@pytest.mark.parametrize(
    ("harm", "named"),
    [(_alter, "labels.npy"), (_lose, "indptr.npy"), (_newer, "schema_version 99"), (shutil.rmtree, "manifest")],
)
async def test_a_corrupted_bundle_is_refused_and_the_old_one_goes_on(bundle: Path, harm: Any, named: str) -> None:
    bad = write_bundle(bundle.parent / "bad", name="bad")
    harm(bad)
    async with running(create_app(fake_settings(bundle, api_keys=KEYS), open_engine=open_fake)) as client:
        refused = await client.post("/admin/bundle", json={"path": "bad"})
        assert (refused.status_code, slug(refused)) == (409, "bundle-refused")
        assert named in refused.json()["detail"]
        assert (await client.get("/health/ready")).status_code == 200
        assert (await ask(client, 1)).json()["model_version"].startswith("fake-")


@pytest.mark.parametrize("path", ["/etc", "../..", "..", ".", "first/../../x", "\x00", "a" * 1000])
async def test_a_bundle_outside_the_root_is_refused(bundle: Path, path: str) -> None:
    async with running(create_app(fake_settings(bundle, api_keys=KEYS), open_engine=open_fake)) as client:
        refused = await client.post("/admin/bundle", json={"path": path})
        assert (refused.status_code, slug(refused)) == (409, "bundle-refused")


async def test_a_bundle_that_fails_its_warm_up_is_refused(bundle: Path) -> None:
    write_bundle(bundle.parent / "second", name="other")

    def open_choosy(opened: Bundle, settings: Settings) -> FakeEngine:
        def fail(what: str, requests: Sequence[Any]) -> None:
            if what == "text":
                raise RuntimeError

        return FakeEngine(fail if opened.manifest.name == "other" else None)

    async with running(create_app(fake_settings(bundle, api_keys=KEYS), open_engine=open_choosy)) as client:
        refused = await client.post("/admin/bundle", json={"path": "second"})
        assert refused.status_code == 409
        assert "warm-up" in refused.json()["detail"]
        assert (await ask(client, 1)).status_code == 200


async def test_a_new_bundle_goes_to_both_arms_that_share_it_or_to_none(bundle: Path) -> None:
    second = write_bundle(bundle.parent / "second", name="other")

    def open_engine(opened: Bundle, settings: Settings) -> FakeEngine:
        if opened.manifest.name == "bad" and settings.score_mode == "full":
            raise BundleError("no graphs for score mode full")
        return open_fake(opened, settings)

    settings = fake_settings(bundle, api_keys=KEYS, second_score_mode="full", second_mode="on_request")
    app = create_app(settings, open_engine=open_engine)

    async def served(client: httpx.AsyncClient) -> list[tuple[str, str]]:
        bodies = [{"history": ["i0001"], "arm": arm} for arm in ("a", "b")]
        answers = [(await client.post("/recommend/sequential", json=body)).json() for body in bodies]
        return [(answer["model_version"].split("-")[0], answer["score_mode"]) for answer in answers]

    async with running(app) as client:
        assert await served(client) == [("fake", "trie"), ("fake", "full")]
        assert (await client.post("/admin/bundle", json={"path": "second"})).status_code == 200
        assert await served(client) == [("other", "trie"), ("other", "full")]
        write_bundle(bundle.parent / "bad", name="bad")
        refused = await client.post("/admin/bundle", json={"path": "bad"})
        assert (refused.status_code, refused.json()["detail"]) == (409, "no graphs for score mode full")
        assert await served(client) == [("other", "trie"), ("other", "full")]
        write_bundle(second, name="third")
        await app.state.parts.host.reload()
        assert await served(client) == [("third", "trie"), ("third", "full")]
        assert 'rdrec_bundle_swaps_total{outcome="done"} 2.0' in (await client.get("/metrics")).text
    alive = [t.name for t in threading.enumerate() if t.name == "rdrec-engine"]
    assert alive == []


async def test_arms_with_a_bundle_each_are_reloaded_each(bundle: Path) -> None:
    second = write_bundle(bundle.parent / "second", name="other")
    app = create_app(fake_settings(bundle, second_bundle=second), open_engine=open_fake)
    async with running(app) as client:
        _alter(bundle)
        write_bundle(second, name="third")
        await app.state.parts.host.reload()
        arms = (await client.get("/v1/model")).json()["arms"]
        assert [arms[name]["model_version"].split("-")[0] for name in ("a", "b")] == ["fake", "third"]


async def test_a_service_is_ready_with_its_last_arm(bundle: Path) -> None:
    gate = Gate()

    def open_engine(opened: Bundle, settings: Settings) -> FakeEngine:
        if settings.score_mode == "full":
            gate("open", ())
        return open_fake(opened, settings)

    settings = fake_settings(bundle, second_score_mode="full")
    host = ModelHost(settings, Metrics(), time.monotonic, open_engine)
    starting = asyncio.create_task(host.start())
    await asyncio.to_thread(gate.entered.wait, 10)
    assert host.unready() == ["warming up"]
    with host.lease(None, "a") as first, pytest.raises(EngineDownError), host.lease(None, "b"):
        assert first.is_ready
    gate.opened.set()
    await starting
    assert host.unready() == []
    await host.stop()


async def test_with_a_key_configured_only_signed_bundles_are_served(bundle: Path) -> None:
    private, public = make_key()
    sign_bundle(bundle, private)
    unsigned = write_bundle(bundle.parent / "second", name="other")
    settings = fake_settings(bundle, api_keys=KEYS, bundle_public_key=public.hex())
    async with running(create_app(settings, open_engine=open_fake)) as client:
        assert "manifest.sig" in (await client.post("/admin/bundle", json={"path": "second"})).json()["detail"]
        sign_bundle(unsigned, make_key()[0])
        assert "signature" in (await client.post("/admin/bundle", json={"path": "second"})).json()["detail"]
        sign_bundle(unsigned, private)
        assert (await client.post("/admin/bundle", json={"path": "second"})).status_code == 200


async def test_an_ab_split_keeps_each_user_on_one_arm_in_the_stated_share(bundle: Path) -> None:
    other = write_bundle(bundle.parent / "second", name="other")
    settings = fake_settings(bundle, second_bundle=other, second_share=0.25)
    async with running(create_app(settings, open_engine=open_fake)) as client:
        arms: Counter[str] = Counter()
        for n in range(200):
            body = {"user_id": f"visitor {n}", "history": ["i0001"], "n_items": 1}
            names = {
                (await client.post("/recommend/sequential", json=body)).json()["model_version"].split("-")[0]
                for _ in range(2)
            }
            assert len(names) == 1
            arms.update(names)
        assert 25 <= arms["other"] <= 75
        text = (await client.get("/metrics")).text
        assert 'rdrec_arm_seconds_count{arm="b",endpoint="/recommend/sequential"}' in text


async def test_who_asks_for_an_arm_is_answered_by_it_whatever_the_split(bundle: Path) -> None:
    other = write_bundle(bundle.parent / "second", name="other")
    settings = fake_settings(bundle, second_bundle=other, second_share=0.25)
    async with running(create_app(settings, open_engine=open_fake)) as client:
        for arm, name in (("a", "fake"), ("b", "other")):
            bodies = [{"user_id": f"visitor {n}", "history": ["i0001"], "arm": arm} for n in range(30)]
            answers = [(await client.post("/recommend/topn", json=body)).json() for body in bodies]
            assert {answer["model_version"].split("-")[0] for answer in answers} == {name}


@pytest.mark.parametrize("path", ["/recommend/sequential", "/recommend/topn"])
async def test_a_shadow_computes_unseen_and_its_faults_stay_with_it(bundle: Path, path: str) -> None:
    other = write_bundle(bundle.parent / "second", name="other")
    faults = Faults()

    def open_by_name(opened: Bundle, settings: Settings) -> FakeEngine:
        return faults.open(opened, settings) if opened.manifest.name == "other" else FakeEngine()

    settings = fake_settings(bundle, second_bundle=other, second_mode="shadow")
    async with running(create_app(settings, open_engine=open_by_name)) as client:

        async def metric(name: str) -> float:
            lines = (await client.get("/metrics")).text.splitlines()
            return float(next(line for line in lines if line.startswith(name + " ")).split()[1])

        async def ask(history: list[str], **more: str) -> httpx.Response:
            return await client.post(path, json={"history": history, "n_items": 3, **more})

        named = await ask(["i0001"], arm="b")
        assert named.json()["model_version"].startswith("other-")
        await asyncio.sleep(0.2)  # a shadow would have ended by now
        assert await metric("rdrec_shadow_overlap_count") == 0, "the shadow is not compared with itself"
        assert (await ask(["i0001"])).json()["model_version"].startswith("fake-")
        async with asyncio.timeout(10):
            while await metric("rdrec_shadow_overlap_count") < 1:
                await asyncio.sleep(0.01)
        assert await metric("rdrec_shadow_overlap_sum") == 1.0
        faults.fault = RuntimeError()
        assert (await ask(["i0002"])).status_code == 200
        async with asyncio.timeout(10):
            while await metric("rdrec_shadow_failures_total") < 1:
                await asyncio.sleep(0.01)


async def test_logs_hold_hashes_and_no_user_ids(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = fake_settings(bundle, access_log=True)
    with caplog.at_level(logging.INFO):
        async with running(create_app(settings, open_engine=open_fake)) as client:
            await client.post("/recommend/sequential", json={"user_id": "alice@example.org"})
            await client.get("/users/alice@example.org/history")
    records = [r for r in caplog.records if r.name == "rdrec.access"]
    assert [r.endpoint for r in records] == ["/recommend/sequential", "/users/{user_id}/history"]  # type: ignore[attr-defined]
    assert len({r.user for r in records}) == 1  # type: ignore[attr-defined]
    assert all("alice" not in str(vars(r)) for r in records)
