"""The log in Redis: what is acknowledged stands in the stream, by the same step as in the history."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from service.stores.history.base import HistoryUnavailableError, Write
from service.stores.history.redis import RedisHistoryStore
from service.stores.redis_gateway import RedisGateway


@dataclass
class Logged:
    store: RedisHistoryStore
    gateway: RedisGateway
    prefix: str

    async def lines(self) -> list[dict[str, Any]]:
        entries = await self.gateway.command("XRANGE", f"{self.prefix}:{{%events}}:log", "-", "+")
        entries = entries if isinstance(entries, list) else list(entries.items())
        found = []
        for _, fields in entries:
            record = fields["record"] if isinstance(fields, dict) else fields[fields.index("record") + 1]
            found.append(json.loads(record))
        return found


@pytest.fixture(params=["redis_url", "valkey_url", "cluster_url", "sentinel_url"])
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def logged(gateway: RedisGateway, prefix: str) -> AsyncIterator[Logged]:
    store = RedisHistoryStore(gateway, prefix=prefix, cap=5, log_length=1000)
    yield Logged(store, gateway, prefix)
    await store.close()


async def test_every_event_that_is_new_has_its_line(logged: Logged) -> None:
    writes = [Write("a", 1.0), Write("a", 1.0, event="view", in_history=False), Write("b", 2.0)]
    lines = [json.dumps({"n": n, "text": "\u00fc\u2028 {} :"}) for n in range(3)]
    assert await logged.store.append("u", writes, lines) == [True] * 3
    assert await logged.lines() == [json.loads(line) for line in lines]
    assert await logged.store.append("v", [Write("a", 1.0)], ['{"n": 3}']) == [True]
    assert [line["n"] for line in await logged.lines()] == [0, 1, 2, 3]


async def test_a_repetition_is_logged_once_where_one_script_does_both(logged: Logged) -> None:
    for _ in range(2):
        await logged.store.append("u", [Write("a", 1.0)], ['{"event_id": "x"}'])
    found = await logged.lines()
    assert {line["event_id"] for line in found} == {"x"}
    assert len(found) == (2 if logged.gateway.is_cluster else 1)


async def test_a_forgotten_user_has_a_line_too_also_a_stranger(logged: Logged) -> None:
    await logged.store.append("u", [Write("a", 1.0)], ['{"n": 0}'])
    await logged.store.forget("u", in_bundle=False, log='{"event": "forget", "user_id": "u"}')
    await logged.store.forget("stranger", in_bundle=False, log='{"event": "forget", "user_id": "stranger"}')
    assert [line.get("user_id") for line in await logged.lines()] == [None, "u", "stranger"]


async def test_the_stream_keeps_about_the_last_ones(logged: Logged) -> None:
    for start in range(0, 3000, 500):
        writes = [Write("i", float(n)) for n in range(start, start + 500)]
        await logged.store.append("u", writes, [json.dumps({"n": int(write.timestamp)}) for write in writes])
    found = [line["n"] for line in await logged.lines()]
    assert 1000 <= len(found) <= 1200
    assert found == list(range(3000 - len(found), 3000))


async def test_a_stream_that_cannot_be_written_keeps_the_event_out_of_the_history(logged: Logged) -> None:
    await logged.gateway.command("SET", f"{logged.prefix}:{{%events}}:log", "in the way")
    with pytest.raises(HistoryUnavailableError):
        await logged.store.append("u", [Write("a", 1.0)], ['{"n": 0}'])
    assert not (await logged.store.recent("u", 5)).purchases
