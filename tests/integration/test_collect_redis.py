"""`rdrec collect` from a real Redis: stream and catalogue, exactly once, and what the cap took is told."""

import json
from pathlib import Path

import polars as pl
import pytest
from redis import Redis

from tests.redis_process import running_redis
from training.data.collecting import batches, collect
from training.data.event_log import BATCH_EVENTS
from training.data.log_sources import RedisLog


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
