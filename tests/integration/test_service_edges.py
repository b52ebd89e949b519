"""What stands between callers and the routes: probes, proxies, closed pages, rates, swaps that outlive their caller."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from rdrec_core.bundle import Bundle
from service.engine.lifecycle import lead_to
from service.server import uvicorn_config
from service.settings import Settings
from service.stores.breaker import CircuitBreaker
from service.stores.history.redis import RedisHistoryStore
from service.stores.redis_gateway import RedisGateway
from service.web.app import create_app
from tests.fake_service import FakeEngine, fake_settings, item_id, open_fake, user_id, write_bundle
from tests.integration.test_service_endpoints import key
from tests.integration.test_service_faults import running

PAGES = ["/health/live", "/health/ready", "/metrics", "/v1/model", "/", "/docs", "/openapi.json", "/users", "/items"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "first")


@pytest.fixture(scope="module")
def client(bundle: Path) -> Iterator[TestClient]:
    with TestClient(create_app(fake_settings(bundle), open_engine=open_fake)) as client:
        yield client


@pytest.mark.parametrize("path", PAGES)
def test_head_is_get_without_its_body(client: TestClient, path: str) -> None:
    got, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (got.status_code, b"") == (200, b"")
    assert head.headers["content-type"] == got.headers["content-type"]


def test_head_of_a_service_that_is_not_ready_is_a_503(bundle: Path) -> None:
    app = create_app(fake_settings(bundle), open_engine=open_fake)
    head = TestClient(app).head("/health/ready")  # not started
    assert (head.status_code, head.content) == (503, b"")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/health/live", {"GET", "HEAD"}), ("POST", "/", {"GET", "HEAD"}), ("POST", "/docs", {"GET", "HEAD"}),
        ("HEAD", "/explain", {"POST"}), ("PUT", "/users/u/history", {"GET", "HEAD", "DELETE"}),
    ],
)  # fmt: skip
def test_a_method_that_is_not_allowed_is_told_which_are(
    client: TestClient, method: str, path: str, allowed: set[str]
) -> None:
    refused = client.request(method, path)
    assert refused.status_code == 405
    assert set(refused.headers["allow"].split(", ")) == allowed


def test_a_slash_at_the_end_is_the_same_path_and_no_redirect(client: TestClient) -> None:
    body = {"user_id": user_id(3), "n_items": 1}
    answers = [client.post(f"/recommend/sequential{end}", json=body, follow_redirects=False) for end in ("", "/", "//")]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert answers[0].json()["items"] == answers[1].json()["items"]
    assert client.get("/health/ready/", follow_redirects=False).status_code == 200
    assert client.get("/users/u0003/history/", follow_redirects=False).json()["user_id"] == "u0003"


def test_where_keys_are_listed_pages_about_the_service_ask_for_one(bundle: Path) -> None:
    keys = [key("caller", "shop", "recommend"), key("scraper", "prometheus", "metrics")]
    with TestClient(create_app(fake_settings(bundle, api_keys=keys), open_engine=open_fake)) as client:
        for path in ("/docs", "/openapi.json", "/static-offline-docs/swagger-ui-bundle.js", "/metrics", "/metrics/"):
            refused = client.get(path)
            assert (refused.status_code, refused.json()["type"]) == (401, "urn:rdrec:problem:unauthenticated"), path
            assert refused.headers["x-request-id"] == refused.json()["request_id"]
        assert client.get("/docs", headers={"X-API-Key": "caller"}).status_code == 200
        assert client.get("/metrics", headers={"X-API-Key": "caller"}).status_code == 403
        assert client.get("/metrics", headers={"Authorization": "Bearer scraper"}).status_code == 200
        assert client.get("/health/ready").status_code == 200
    opened = fake_settings(bundle, api_keys=keys, open_docs=True, open_metrics=True)
    with TestClient(create_app(opened, open_engine=open_fake)) as client:
        assert [client.get(path).status_code for path in ("/docs", "/openapi.json", "/metrics")] == [200] * 3


def test_a_batch_is_charged_once_and_the_largest_passes_on_a_full_bucket(bundle: Path) -> None:
    slow = {**key("slow", "slow", "recommend", "write"), "rate_per_s": 0.001, "burst": 100}
    parts = [{"kind": "sequential", "history": [item_id(n % 40)], "n_items": 1} for n in range(256)]
    with TestClient(create_app(fake_settings(bundle, api_keys=[slow]), open_engine=open_fake)) as client:
        headers = {"X-API-Key": "slow"}
        assert client.post("/recommend/batch", json={"requests": parts}, headers=headers).status_code == 200
        empty = client.post("/recommend/sequential", json={}, headers=headers)
        assert (empty.status_code, empty.json()["type"]) == (429, "urn:rdrec:problem:rate-limited")
    with TestClient(create_app(fake_settings(bundle, api_keys=[slow]), open_engine=open_fake)) as client:
        assert client.post("/recommend/batch", json={"requests": parts[:60]}, headers=headers).status_code == 200
        statuses = [client.post("/recommend/sequential", json={}, headers=headers).status_code for _ in range(41)]
    assert statuses == [200] * 40 + [429]


def test_metrics_are_there_before_their_first_event(client: TestClient) -> None:
    text = client.get("/metrics").text
    for line in (
        'rdrec_bundle_swaps_total{outcome="refused"} 0.0',
        'rdrec_bundle_swaps_total{outcome="done"} 0.0',
        'rdrec_degraded_answers_total{endpoint="/recommend/sequential"} 0.0',
        'rdrec_request_seconds_count{endpoint="/recommend/topn",status="500"} 0.0',
        'rdrec_answers_total{endpoint="/explain",history_source="redis"} 0.0',
        'rdrec_answer_cache_total{outcome="joined"} 0.0',
        "rdrec_engine_restarts_total 0.0",
        'rdrec_engine_up{arm="a"} 1.0',
    ):
        assert line in text


def test_a_breaker_that_is_half_open_is_not_yet_available() -> None:
    now = 0.0
    breaker = CircuitBreaker(lambda: now, failures=1, window=2, open_for_s=1.0)
    gateway = RedisGateway(None, breaker, timeout_s=1.0, max_connections=1)  # type: ignore[arg-type]
    store = RedisHistoryStore(gateway)
    assert store.is_available
    with pytest.raises(OSError), breaker.attempt((OSError,)):  # noqa: PT011
        raise OSError
    now = 2.0
    assert breaker.state == "half-open"
    assert not store.is_available


def test_a_service_link_of_kubernetes_does_not_stop_the_start(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RDREC_PORT", "tcp://10.43.161.118:8000")
    monkeypatch.setenv("RDREC_SERVICE_PORT", "8000")
    assert Settings(bundle=bundle).port == 8000
    assert "service link" in caplog.text
    monkeypatch.setenv("RDREC_PORT", "8123")
    assert Settings(bundle=bundle).port == 8123


def test_idle_connections_outlive_a_balancer_s_and_proxies_are_trusted_by_name(bundle: Path) -> None:
    app = create_app(fake_settings(bundle), open_engine=open_fake)
    config = uvicorn_config(app, fake_settings(bundle))
    assert config.timeout_keep_alive == 75
    assert config.forwarded_allow_ips == ["127.0.0.1"]
    set_so = uvicorn_config(app, fake_settings(bundle, keep_alive_s=620, trusted_proxies=("10.0.0.0/8",)))
    assert (set_so.timeout_keep_alive, set_so.forwarded_allow_ips) == (620, ["10.0.0.0/8"])
    assert not uvicorn_config(app, fake_settings(bundle, trusted_proxies=())).proxy_headers


ADMIN_KEYS = [key("root", "ops", "recommend", "write", "admin")]


async def test_a_swap_moves_the_link_and_a_restart_serves_the_new_bundle(tmp_path: Path) -> None:
    folder = tmp_path / "bundles"
    write_bundle(folder / "one", name="one")
    write_bundle(folder / "two", name="two")
    (folder / "current").symlink_to("one")
    for started, answered in (("one", "two"), ("two", "one")):
        app = create_app(fake_settings(folder / "current", api_keys=ADMIN_KEYS), open_engine=open_fake)
        async with running(app) as client:
            assert (await client.get("/v1/model")).json()["name"] == started
            swapped = (await client.post("/admin/bundle", json={"path": answered})).json()
            assert (swapped["name"], swapped["survives_restart"]) == (answered, True)
    assert (folder / "current").readlink() == Path("one")


async def test_a_folder_in_the_settings_is_left_alone_and_the_answer_says_what_a_restart_does(tmp_path: Path) -> None:
    folder = tmp_path / "bundles"
    one = write_bundle(folder / "one", name="one")
    write_bundle(folder / "two", name="two")
    async with running(create_app(fake_settings(one, api_keys=ADMIN_KEYS), open_engine=open_fake)) as client:
        assert (await client.post("/admin/bundle", json={"path": "two"})).json()["survives_restart"] is False
        assert (await client.post("/admin/bundle", json={"path": "one"})).json()["survives_restart"] is True
    assert Bundle.open(one).manifest.name == "one"


def test_a_link_that_cannot_be_changed_is_said_to_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "current").symlink_to("one")

    def refuse(self: Path, *args: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    assert lead_to(tmp_path / "current", tmp_path / "two") is False
    assert (tmp_path / "current").readlink() == Path("one")


async def test_a_swap_goes_on_though_its_caller_hangs_up(tmp_path: Path) -> None:
    folder = tmp_path / "bundles"
    write_bundle(folder / "one", name="one")
    write_bundle(folder / "two", name="two")
    (folder / "current").symlink_to("one")
    opening, opened = threading.Event(), threading.Event()

    def open_slowly(bundle: Bundle, settings: Settings) -> FakeEngine:
        if bundle.manifest.name == "two":
            opening.set()
            assert opened.wait(10)
        return open_fake(bundle, settings)

    app = create_app(fake_settings(folder / "current", api_keys=ADMIN_KEYS), open_engine=open_slowly)
    async with running(app) as client:
        caller = asyncio.create_task(client.post("/admin/bundle", json={"path": "two"}))
        await asyncio.to_thread(opening.wait, 10)
        caller.cancel()
        with pytest.raises((asyncio.CancelledError, httpx.HTTPError)):
            await caller
        opened.set()
        async with asyncio.timeout(10):
            while (folder / "current").readlink() != Path("two"):
                await asyncio.sleep(0.01)
        assert (await client.get("/v1/model")).json()["name"] == "two"
