"""deploy/compose: its schema, what it names, and its Redis and settings tried on real processes."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from service.settings import Settings
from service.stores.history.redis import RedisHistoryStore
from service.stores.rate_limit import MemoryRateLimiter, RateLimit
from service.stores.redis_gateway import RedisGateway, RedisUnavailableError
from service.stores.redis_rate_limit import RedisRateLimiter
from tests.deploy_tools import run, tool
from tests.dockerfile import stages
from tests.fake_service import user_id, write_bundle
from tests.histories import add, recent
from tests.redis_process import running_redis
from tests.replica import ROOT, running_replica

COMPOSE = ROOT / "deploy/compose"
KNOWN_VARIABLES = {f"RDREC_{name.upper()}" for name in Settings.model_fields} | {"RDREC_SETTINGS_FILE"}


def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    return document


def test_compose_has_its_schema() -> None:
    run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", COMPOSE / "compose.yaml")


def test_what_compose_mounts_and_builds_exists() -> None:
    document = compose()
    for service in document["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (COMPOSE / source).exists(), source
            elif not source.startswith("${"):
                assert source in document["volumes"]
        if "build" in service:
            assert service["build"]["target"] in stages()
            assert (COMPOSE / service["build"]["context"] / "Dockerfile").exists()
        assert set(service.get("secrets", [])) <= set(document["secrets"])
        assert set(service["networks"]) <= set(document["networks"])


def test_services_are_confined_pinned_and_local() -> None:
    for name, service in compose()["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["image"].startswith("rdrec:") or re.search(r":v?\d+\.\d+\.\d+", service["image"]), name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), "whoever opens it to the world should do so on purpose"
        for variable, value in service.get("environment", {}).items():
            assert not re.search("PASSWORD|TOKEN|SECRET", variable) or value.startswith("/run/secrets/"), variable
            assert not variable.startswith("RDREC_") or variable in KNOWN_VARIABLES
    gpu = compose()["services"]["rdrec-gpu"]
    assert gpu["profiles"] == ["gpu"]
    [device] = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_the_stop_is_longer_than_the_drain() -> None:
    service = compose()["services"]["rdrec"]
    assert int(service["stop_grace_period"].removesuffix("s")) > int(service["environment"]["RDREC_DRAIN_S"])


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """What make-secrets.sh makes; the API key that it shows lies beside it in `api-key`."""
    shutil.copy(COMPOSE / "make-secrets.sh", tmp_path)
    done = run(tmp_path / "make-secrets.sh")
    (tmp_path / "api-key").write_text(done.stdout.split()[-1])
    return tmp_path / "secrets"


def test_secrets_are_made_once(secrets: Path) -> None:
    assert {file.name for file in secrets.iterdir()} == {"rdrec.toml", "redis.acl", "grafana_admin_password"}
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert (secrets.parent / "api-key").read_text() not in (secrets / "rdrec.toml").read_text()
    before = (secrets / "rdrec.toml").read_bytes()
    again = subprocess.run([str(secrets.parent / "make-secrets.sh")], capture_output=True, text=True)
    assert again.returncode == 2
    assert (secrets / "rdrec.toml").read_bytes() == before
    assert {Path(entry["file"]).name for entry in compose()["secrets"].values()} == {f.name for f in secrets.iterdir()}


async def test_composes_redis_allows_all_that_the_service_asks_and_no_more(secrets: Path, tmp_path: Path) -> None:
    """The shipped redis.conf and the made access list, on a real Redis."""
    config = (COMPOSE / "redis.conf").read_text()
    for name, replacement in {
        "dir /data": f"dir {tmp_path}",
        "/run/secrets/redis_users": f"{secrets}/redis.acl",
    }.items():
        assert name in config
        config = config.replace(name, replacement)
    (tmp_path / "redis.conf").write_text(config)
    with running_redis(tmp_path / "redis", config_file=tmp_path / "redis.conf") as server:
        settings = tomllib.loads((secrets / "rdrec.toml").read_text())
        url = settings["redis_url"].replace("@redis:6379", f"@127.0.0.1:{server.port}")
        gateway = RedisGateway.open(url, timeout_s=5.0, max_connections=4)
        store = RedisHistoryStore(gateway)
        assert await add(store, "u", "i", 1.0)
        assert await recent(store, "u", 5) == ["i"]
        await store.forget("u", in_bundle=True)
        await store.sync()
        assert await store.forgotten(["u", "v"]) == {"u"}
        limiter = RedisRateLimiter(gateway, MemoryRateLimiter(lambda: 0.0))
        assert [await limiter.take("k", RateLimit(0.001, 1)) == 0.0 for _ in range(2)] == [True, False]
        assert await gateway.command("EXISTS", "rdrec:rate:k") == 1, "the limit was counted in Redis"
        for forbidden in (("FLUSHALL",), ("CONFIG", "GET", "*"), ("SET", "other:key", "x")):
            with pytest.raises(RedisUnavailableError, match="does not allow"):
                await gateway.command(*forbidden)
        await gateway.close()
        stranger = RedisGateway.open(server.url, timeout_s=5.0, max_connections=1)
        assert await stranger.command("PING"), "compose's health check has no password"
        with pytest.raises(RedisUnavailableError, match="does not allow"):
            await stranger.command("GET", "rdrec:{u}:purchases")
        await stranger.close()


def test_the_service_starts_with_the_made_settings(secrets: Path, tmp_path: Path) -> None:
    text = (secrets / "rdrec.toml").read_text()
    (tmp_path / "rdrec.toml").write_text(text.replace("@redis:6379", "@127.0.0.1:1"))
    bundle = write_bundle(tmp_path / "bundle")
    with running_replica(bundle, tmp_path / "log", settings_file=tmp_path / "rdrec.toml") as replica:
        body = {"user_id": user_id(1), "n_items": 1}
        assert httpx.post(f"{replica.url}/recommend/sequential", json=body).status_code == 401
        headers = {"Authorization": f"Bearer {(secrets.parent / 'api-key').read_text()}"}
        answer = httpx.post(f"{replica.url}/recommend/sequential", json=body, headers=headers)
        assert answer.status_code == 200
        assert answer.json()["degraded"] is True, "there is no Redis at this address"
