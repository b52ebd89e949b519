"""Servers that the contract suites share: started once, each test keeps to key prefixes of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.redis_process import running_redis
from tests.redis_topologies import running_cluster, running_sentinel


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


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
