"""The store while a real Redis is killed, frozen, slow, full, read-only or loading, and while a group fails over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pytest

from service.stores.history.base import HistoryUnavailableError, Kept
from service.stores.history.redis import RedisHistoryStore
from service.stores.redis_gateway import RedisGateway
from tests.histories import add, recent
from tests.redis_process import RedisProcess, ask, running_redis
from tests.redis_topologies import SentinelProcesses, running_cluster, running_sentinel, wait_for

T = TypeVar("T")
TIMEOUT_S = 0.2
"""The default is 0.05; a busy machine gets more, so that only faults are faults."""
HANGS_S = 10.0
RECOVERY_S = 5.0
"""The promise: Redis is used again within this time of its coming back."""


@asynccontextmanager
async def open_store(url: str, *, cap: int = 200) -> AsyncIterator[RedisHistoryStore]:
    store = RedisHistoryStore(RedisGateway.open(url, timeout_s=TIMEOUT_S, max_connections=8), cap=cap)
    try:
        yield store
    finally:
        await store.close()


async def until_it_works(call: Callable[[], Awaitable[T]], within_s: float = RECOVERY_S) -> T:
    deadline = time.monotonic() + within_s
    while True:
        try:
            return await call()
        except HistoryUnavailableError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


async def all_fail(store: RedisHistoryStore, calls: int = 12) -> None:
    """Reads and writes raise, none hangs, and in the end the breaker is open."""
    for number in range(calls):
        with pytest.raises(HistoryUnavailableError) as error:
            async with asyncio.timeout(HANGS_S):
                await (add(store, "u", "x", float(number)) if number % 2 else recent(store, "u", 5))
        assert error.value.retry_after_s > 0
        assert "127.0.0.1" not in str(error.value)
    assert not store.is_available


async def test_killed_and_started_again_with_nothing_lost(tmp_path: Path) -> None:
    with running_redis(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        async with open_store(server.url) as store:
            for number in range(50):
                assert await add(store, "u", f"i{number}", float(number))
            server.kill()
            await all_fail(store)
            server.start()
            items = await until_it_works(lambda: recent(store, "u", 100))
            assert items == [f"i{number}" for number in range(50)]
            assert store.is_available
            assert await add(store, "u", "after", 99.0)


async def test_every_acknowledged_write_survives_kill_9_in_mid_stream(tmp_path: Path) -> None:
    with running_redis(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        async with open_store(server.url, cap=10_000) as store:
            acknowledged: list[str] = []

            async def write(worker: int) -> None:
                for number in range(2_000):
                    item = f"{worker}-{number}"
                    try:
                        await add(store, "u", item, float(number))
                    except HistoryUnavailableError:
                        return
                    acknowledged.append(item)

            writers = asyncio.gather(*(write(worker) for worker in range(4)))
            while len(acknowledged) < 200:
                await asyncio.sleep(0.001)
            server.kill()
            await writers
            server.start()
            kept = await until_it_works(lambda: recent(store, "u", 10_000))
            assert kept is not None
            assert len(acknowledged) < 8_000, "Redis outlived the writes: nothing was tested"
            assert set(acknowledged) <= set(kept)
            assert len(kept) == len(set(kept))


async def test_a_write_of_unknown_fate_can_be_repeated_without_doubling(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        async with open_store(server.url) as store:
            await add(store, "u", "a", 1.0)
            server.freeze()
            with pytest.raises(HistoryUnavailableError):
                await add(store, "u", "b", 2.0)
            server.thaw()  # Redis now reads what was sent to it while it was frozen
            await until_it_works(lambda: recent(store, "u", 5))
            await until_it_works(lambda: add(store, "u", "b", 2.0))
            assert await recent(store, "u", 5) == ["a", "b"]


async def test_frozen_then_thawed(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        async with open_store(server.url) as store:
            await add(store, "u", "a", 1.0)
            server.freeze()
            await all_fail(store)
            server.thaw()
            items = await until_it_works(lambda: recent(store, "u", 5))
            assert items is not None
            assert items[0] == "a"


async def test_a_crowd_at_a_frozen_redis_is_answered_and_opens_few_connections(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        async with open_store(server.url) as store:
            await add(store, "u", "a", 1.0)
            server.freeze()
            answers = await asyncio.gather(*(recent(store, "u", 5) for _ in range(500)), return_exceptions=True)
            assert all(isinstance(answer, HistoryUnavailableError) for answer in answers)
            server.thaw()
            await until_it_works(lambda: recent(store, "u", 5))
            clients = ask(server.port, "CLIENT", "LIST").count(b"\nid=") + 1
            assert clients <= 8 + 2


async def test_answering_slowly_is_down_and_recovers(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        async with open_store(server.url) as store:
            await add(store, "u", "a", 1.0)
            busy = "local t = redis.call('TIME')[1] + 2 while tonumber(redis.call('TIME')[1]) < t do end return 1"
            slow = asyncio.create_task(asyncio.to_thread(ask, server.port, "EVAL", busy, "0", timeout_s=10.0))
            await asyncio.sleep(0.1)
            with pytest.raises(HistoryUnavailableError):
                await recent(store, "u", 5)
            with pytest.raises(HistoryUnavailableError):
                await add(store, "u", "b", 2.0)
            await slow
            assert await until_it_works(lambda: recent(store, "u", 1)) is not None


async def test_full_refuses_writes_whole_and_goes_on_reading(tmp_path: Path) -> None:
    with running_redis(tmp_path, "--maxmemory-policy", "noeviction") as server:
        async with open_store(server.url) as store:
            await add(store, "u", "a", 1.0)
            ask(server.port, "CONFIG", "SET", "maxmemory", "1")
            for number in range(25):
                with pytest.raises(HistoryUnavailableError, match="Redis is full"):
                    await add(store, "u", "b", float(number))
            with pytest.raises(HistoryUnavailableError, match="Redis is full"):
                await add(store, "new", "b", 1.0)
            with pytest.raises(HistoryUnavailableError, match="Redis is full"):
                await store.forget("u", in_bundle=False)
            assert store.is_available, "it answers, so the breaker stays closed"
            assert await recent(store, "u", 5) == ["a"]
            assert await recent(store, "new", 5) is None
            ask(server.port, "CONFIG", "SET", "maxmemory", "0")
            assert await add(store, "u", "b", 0.0)


async def test_a_replica_refuses_writes_and_serves_reads(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        async with open_store(server.url) as store:
            await add(store, "u", "a", 1.0)
            ask(server.port, "CONFIG", "SET", "replica-serve-stale-data", "yes")
            ask(server.port, "REPLICAOF", "127.0.0.1", "1")
            with pytest.raises(HistoryUnavailableError, match="replica"):
                await add(store, "u", "b", 2.0)
            assert await recent(store, "u", 5) == ["a"]
            ask(server.port, "REPLICAOF", "NO", "ONE")
            assert await add(store, "u", "b", 2.0)


async def test_a_primary_that_is_told_to_wants_a_replica_for_every_write(tmp_path: Path) -> None:
    with running_redis(tmp_path, "--min-replicas-to-write", "1") as server:
        async with open_store(server.url) as store:
            with pytest.raises(HistoryUnavailableError, match="too few replicas"):
                await add(store, "u", "a", 1.0)
            assert store.is_available
            assert await recent(store, "u", 5) is None


async def test_a_disk_that_cannot_be_written_refuses_writes(tmp_path: Path) -> None:
    with running_redis(tmp_path / "data", "--save", "3600 1") as server:
        async with open_store(server.url) as store:
            await add(store, "u", "a", 1.0)
            # A dump file that is a folder: the background save fails for root too, unlike one without permission.
            (tmp_path / "data" / "dump.rdb" / "x").mkdir(parents=True)
            ask(server.port, "BGSAVE")
            deadline = time.monotonic() + 10
            while b"rdb_last_bgsave_status:err" not in ask(server.port, "INFO", "persistence"):
                assert time.monotonic() < deadline, "the save was expected to fail"
                await asyncio.sleep(0.05)
            with pytest.raises(HistoryUnavailableError, match="cannot write to its disk"):
                await add(store, "u", "b", 2.0)
            assert await recent(store, "u", 5) == ["a"]


async def test_loading_is_down_until_it_is_loaded(tmp_path: Path) -> None:
    options = ("--appendonly", "yes", "--appendfsync", "no", "--enable-debug-command", "yes")
    with running_redis(tmp_path, *options) as server:
        async with open_store(server.url) as store:
            await add(store, "u", "a", 1.0)
            ask(server.port, "DEBUG", "POPULATE", "3000", "filler", "10")
            ask(server.port, "CONFIG", "SET", "key-load-delay", "1000")
            reload = asyncio.create_task(
                asyncio.to_thread(ask, server.port, "DEBUG", "RELOAD", timeout_s=30.0)
            )  # 3,000 keys, 1 ms each
            await asyncio.sleep(0.5)
            with pytest.raises(HistoryUnavailableError):
                await recent(store, "u", 5)
            with pytest.raises(HistoryUnavailableError):
                await add(store, "u", "b", 2.0)
            await reload
            assert await until_it_works(lambda: recent(store, "u", 1)) is not None


async def test_a_wrong_password_is_unavailable_and_not_told(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        ask(server.port, "CONFIG", "SET", "requirepass", "right")
        async with open_store(f"redis://:wrong@127.0.0.1:{server.port}") as store:
            with pytest.raises(HistoryUnavailableError) as error:
                await add(store, "u", "a", 1.0)
            assert "wrong" not in str(error.value)
        async with open_store(f"redis://:right@127.0.0.1:{server.port}") as store:
            assert await add(store, "u", "a", 1.0)


async def test_scripts_that_redis_forgot_are_sent_again(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        async with open_store(server.url) as store:
            await add(store, "u", "a", 1.0)
            ask(server.port, "SCRIPT", "FLUSH")
            assert await add(store, "u", "b", 2.0)
            assert await recent(store, "u", 5) == ["a", "b"]


async def test_keys_expire_after_the_last_write_and_a_forget_does_not(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        gateway = RedisGateway.open(server.url, timeout_s=1.0, max_connections=2)
        store = RedisHistoryStore(gateway, prefix="shop", ttl_s=500)
        await add(store, "u", "a", 1.0)
        assert 490 < await gateway.command("TTL", "shop:{u}:purchases") <= 500
        await store.forget("u", in_bundle=False)
        await add(store, "u", "b", 2.0)
        assert await gateway.command("TTL", "shop:{u}:forgotten") == -1
        assert sorted(await gateway.command("KEYS", "*")) == [
            "shop:forgotten",
            "shop:{u}:forgotten",
            "shop:{u}:purchases",
        ]
        await gateway.command("DEL", "shop:{u}:purchases")  # as if it had expired
        assert await recent(store, "u", 5) == []
        assert await add(store, "u", "c", 3.0)
        assert (await store.recent("u", 5)) == Kept([("c", 3.0)], is_forgotten=True)
        await store.close()


async def test_sentinel_fails_over_under_writes_and_what_the_replica_had_is_there(tmp_path: Path) -> None:
    """Replication is asynchronous: what is acknowledged and not yet copied may be lost; what came before may not."""
    with running_sentinel(tmp_path) as group:
        async with open_store(group.url, cap=10_000) as store:
            await until_it_works(lambda: add(store, "u", "first", 0.0))
            acknowledged: list[str] = ["first"]
            longest_s = 0.0

            async def write(worker: int) -> None:
                for number in range(5_000):
                    try:
                        await add(store, "u", f"{worker}-{number}", float(number))
                    except HistoryUnavailableError:
                        return
                    acknowledged.append(f"{worker}-{number}")

            async def read() -> None:
                """Answers or refuses, all through the fail-over, and never hangs."""
                nonlocal longest_s
                while True:
                    began = time.monotonic()
                    with suppress(HistoryUnavailableError):
                        await recent(store, "u", 5)
                    longest_s = max(longest_s, time.monotonic() - began)
                    await asyncio.sleep(0.02)

            reading, writers = asyncio.create_task(read()), asyncio.gather(*(write(worker) for worker in range(4)))
            while len(acknowledged) < 100:
                await asyncio.sleep(0.001)
            copied = await asyncio.to_thread(until_copied, group, acknowledged)
            group.sentinels[0].kill()
            group.master.kill()
            await writers
            assert len(acknowledged) < 20_000, "the master outlived the writes: nothing was tested"
            await until_it_works(lambda: add(store, "u", "after", 1e6), within_s=20.0)
            reading.cancel()
            kept = await until_it_works(lambda: recent(store, "u", 10_000))
            assert kept is not None
            assert len(kept) == len(set(kept))
            assert set(copied) <= set(kept)
            assert kept[-1] == "after"
            assert longest_s < HANGS_S


def until_copied(group: SentinelProcesses, acknowledged: list[str]) -> list[str]:
    """What is acknowledged now, once the replica has it."""
    known, wanted = list(acknowledged), offset(group.master, b"master_repl_offset")
    wait_for(lambda: offset(group.replica, b"slave_repl_offset") >= wanted, "the replica to follow")
    return known


def offset(server: RedisProcess, name: bytes) -> int:
    return int(ask(server.port, "INFO", "replication").partition(name + b":")[2].split(b"\r\n")[0])


async def test_a_cluster_loses_a_master_and_the_store_follows(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as cluster:
        async with open_store(cluster.url) as store:
            users = [f"u{number}" for number in range(30)]
            for user in users:
                await until_it_works(lambda user=user: add(store, user, "a", 1.0))
            await wait_for_replica(cluster.replica, "purchases")
            cluster.masters[0].kill()
            for user in users:
                await until_it_works(lambda user=user: add(store, user, "b", 2.0), within_s=20.0)
            for user in users:
                assert await until_it_works(lambda user=user: recent(store, user, 5)) == ["a", "b"]


async def wait_for_replica(replica: RedisProcess, part_of_key: str) -> None:
    """Until the replica holds a key of the store: replication is asynchronous, in Sentinel and in Cluster."""
    deadline = time.monotonic() + 10
    while part_of_key.encode() not in ask(replica.port, "KEYS", f"*{part_of_key}*"):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)
