"""The daily loop on a real Redis: stream and catalogue are collected exactly once, and one host refreshes at a time."""

import json
import time
from pathlib import Path

import polars as pl
import pytest
from redis import Redis

from tests.redis_process import running_redis
from training.data.collecting import batches, collect
from training.data.event_log import BATCH_EVENTS
from training.data.log_sources import RedisLog
from training.refreshing.lock import BusyError, only_one
from training.refreshing.settings import Lock


@pytest.mark.parametrize("binary", ["redis-server", "valkey-server"])
def test_stream_and_catalogue_become_batches(tmp_path: Path, binary: str) -> None:
    with running_redis(tmp_path / "redis", binary=binary) as server:
        redis, log, out = Redis.from_url(server.url), RedisLog(server.url), tmp_path / "out"

        def add(*numbers: int, cap: int | None = None) -> None:
            for n in numbers:
                record = {"event_id": f"e{n}", "user_id": "u", "item_id": "i", "event": "purchase", "timestamp": 1e9}
                redis.xadd(log.stream, {"record": json.dumps(record)}, maxlen=cap, approximate=False)

        assert collect(log, out, items=log.items()).batches == ()
        add(*range(12_000))
        redis.zadd("rdrec:{%catalogue}:ids", {"B1": 0, "gone": 0})
        redis.hset("rdrec:{%catalogue}:item:B1", mapping={"body": json.dumps({"item_id": "B1"}), "version": 1})
        redis.hset("rdrec:{%catalogue}:item:gone", mapping={"body": "", "version": 2})
        first = collect(log, out, items=log.items())
        assert (first.n_events, first.n_items, first.n_missed) == (12_000, 1, 0)
        assert collect(log, out, items=log.items()).batches == ()
        add(12_000, 12_001, 12_002, cap=2)
        second = collect(log, out, items=log.items())
        assert (second.n_events, second.n_missed) == (2, 1)
        add(12_003)
        assert collect(log, out, items=log.items(), limit=1).n_events == 1
        ids = pl.concat([pl.read_parquet(path / BATCH_EVENTS) for path in batches(out)])["event_id"]
        assert ids.n_unique() == len(ids) == 12_003


def test_a_lock_in_redis_keeps_other_hosts_out_until_it_expires(tmp_path: Path) -> None:
    with running_redis(tmp_path / "redis") as server:
        lock = Lock(redis_url=server.url, expiry_s=1)
        key = "rdrec:refresh:lock"
        redis = Redis.from_url(server.url)
        with only_one(tmp_path / "here", lock):
            time.sleep(1.2)  # longer than it lasts unless it is renewed
            with pytest.raises(BusyError, match="another host"), only_one(tmp_path / "there", lock):
                pass
        assert redis.get(key) is None
        redis.set(key, "a host that was killed", px=1500)
        with pytest.raises(BusyError), only_one(tmp_path / "here", lock):
            pass
        while redis.get(key):
            time.sleep(0.05)
        with only_one(tmp_path / "here", lock):
            assert redis.get(key)
    with pytest.raises(BusyError, match="cannot be asked"), only_one(tmp_path / "here", lock):
        pass
