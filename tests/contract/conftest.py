"""Servers that the contract suites share: started once, each test keeps to key prefixes of its own."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from service.stores.redis_gateway import RedisGateway
from tests.redis_process import ask, free_port, running_redis
from tests.redis_topologies import running_cluster, running_sentinel


@pytest.fixture
async def gateway(server: str, request: pytest.FixtureRequest) -> AsyncIterator[RedisGateway | None]:
    """To the server that a suite's fixture `server` names by its URL's fixture; None for "memory".

    The time-out is generous: what is tested here is the outcome, and the machine may be busy.
    """
    if server == "memory":
        yield None
        return
    opened = RedisGateway.open(request.getfixturevalue(server), timeout_s=5.0, max_connections=16)
    yield opened
    await opened.close()


@pytest.fixture
def prefix() -> str:
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture(scope="session")
def unix_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("unix")
    with running_redis(folder, "--unixsocket", str(folder / "socket")):
        yield f"unix://{folder}/socket?db=2"


@pytest.fixture(scope="session")
def tls_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """TLS with a certificate of our own, by which the client knows the server; the password has odd characters."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
            "-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem",
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    port = free_port()
    tls = ["--tls-port", str(port), "--tls-cert-file", f"{folder}/cert.pem", "--tls-key-file", f"{folder}/key.pem"]
    with running_redis(folder, *tls, "--tls-auth-clients", "no") as server:
        ask(server.port, "CONFIG", "SET", "requirepass", "p@ss/word:1")
        yield f"rediss://:p%40ss%2Fword%3A1@127.0.0.1:{port}?ssl_ca_certs={folder}/cert.pem"


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_redis(tmp_path_factory.mktemp("valkey"), binary="valkey-server") as server:
        yield server.url


@pytest.fixture(scope="session")
def cluster_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster.url


@pytest.fixture(scope="session")
def sentinel_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_sentinel(tmp_path_factory.mktemp("sentinel")) as group:
        yield group.url
