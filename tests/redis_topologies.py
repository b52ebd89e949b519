"""A Redis Cluster and a Sentinel group of real processes on this machine, for the tests to break."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.redis_process import PATIENCE_S, RedisProcess, ask, free_port

SLOTS = 16384
SERVICE = "shop"
AT_ONCE = ("--repl-diskless-sync-delay", "0")
"""A replica's first copy is sent at once, and not after the five seconds in which others may join it."""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {PATIENCE_S} s for {what}")
        time.sleep(0.05)


@dataclass
class RedisClusterProcesses:
    """Three masters; the first has a replica."""

    masters: list[RedisProcess]
    replica: RedisProcess

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.masters)


@contextmanager
def running_cluster(folder: Path) -> Iterator[RedisClusterProcesses]:
    with ExitStack() as stack:
        nodes = []
        for number in range(4):
            port = free_port()
            node = RedisProcess(
                folder / str(number), "--cluster-enabled", "yes", "--cluster-node-timeout", "1000",
                "--cluster-replica-validity-factor", "0", "--cluster-require-full-coverage", "no", *AT_ONCE, port=port,
            )  # fmt: skip
            stack.callback(node.stop)
            node.start()
            nodes.append(node)
        masters, replica = nodes[:3], nodes[3]
        edges = [SLOTS * number // 3 for number in range(4)]
        for number, master in enumerate(masters):
            ask(master.port, "CLUSTER", "ADDSLOTSRANGE", str(edges[number]), str(edges[number + 1] - 1))
            ask(master.port, "CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
        for node, other in itertools.combinations(nodes, 2):  # by gossip alone they take seconds to find each other
            ask(node.port, "CLUSTER", "MEET", "127.0.0.1", str(other.port))
        wait_for(
            lambda: all(
                b"cluster_state:ok" in (info := ask(node.port, "CLUSTER", "INFO")) and b"known_nodes:4" in info
                for node in nodes
            ),
            "the cluster to form",
        )
        first_id = ask(masters[0].port, "CLUSTER", "MYID").split(b"\r\n")[1].decode()
        ask(replica.port, "CLUSTER", "REPLICATE", first_id)
        wait_for(lambda: b"master_link_status:up" in ask(replica.port, "INFO", "replication"), "the replica to follow")
        yield RedisClusterProcesses(masters, replica)


@dataclass
class SentinelProcesses:
    """A master and a replica, watched by three sentinels."""

    master: RedisProcess
    replica: RedisProcess
    sentinels: list[RedisProcess]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}"


@contextmanager
def running_sentinel(folder: Path) -> Iterator[SentinelProcesses]:
    with ExitStack() as stack:
        master = RedisProcess(folder / "master", *AT_ONCE)
        stack.callback(master.stop)
        master.start()
        replica = RedisProcess(folder / "replica", "--replicaof", "127.0.0.1", str(master.port))
        stack.callback(replica.stop)
        replica.start()
        wait_for(lambda: b"master_link_status:up" in ask(replica.port, "INFO", "replication"), "the replica to follow")
        sentinels = []
        for number in range(3):
            port = free_port()
            home = folder / f"sentinel{number}"
            home.mkdir(parents=True)
            config = home / "sentinel.conf"  # a sentinel keeps its state in its configuration file
            config.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {home}\n"
                f"sentinel monitor {SERVICE} 127.0.0.1 {master.port} 2\n"
                f"sentinel down-after-milliseconds {SERVICE} 500\n"
                f"sentinel failover-timeout {SERVICE} 2000\n"
            )
            sentinel = RedisProcess(home, str(config), "--sentinel", port=port)
            stack.callback(sentinel.stop)
            sentinel.start()
            ask(sentinel.port, "SENTINEL", "DEBUG", "info-period", "200", "publish-period", "200")
            sentinels.append(sentinel)
        wait_for(
            lambda: all(
                b"sentinels=3" in (info := ask(sentinel.port, "INFO", "sentinel")) and b"slaves=1" in info
                for sentinel in sentinels
            ),
            "the sentinels to find each other",
        )
        yield SentinelProcesses(master, replica, sentinels)
