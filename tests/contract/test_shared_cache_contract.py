"""The cache of texts in Redis: what is put is got, also by another replica; what is down holds nothing."""

from __future__ import annotations

import uuid

import pytest

from service.stores.history.redis import RedisHistoryStore
from service.stores.redis_gateway import RedisGateway
from service.stores.redis_text_cache import RedisTextCache


@pytest.mark.parametrize("url_fixture", ["redis_url", "cluster_url"])
async def test_what_one_replica_puts_another_gets_until_it_expires(
    request: pytest.FixtureRequest, url_fixture: str
) -> None:
    prefix = f"test-{uuid.uuid4().hex}"
    url = request.getfixturevalue(url_fixture)
    gateways = [RedisGateway.open(url, timeout_s=5.0, max_connections=4) for _ in range(2)]
    one, two = (RedisTextCache(gateway, prefix=prefix) for gateway in gateways)
    for user in (None, "u"):
        assert await two.get("v1:0:7", user) is None
        await one.put("v1:0:7", "you liked « Zoé »", 100, user)
        await one.put("v1:0:8", "", 100, user)
        assert await two.get("v1:0:7", user) == "you liked « Zoé »"
        assert await two.get("v1:0:8", user) == "", "an empty text is known, too"
    assert 90 < await gateways[0].command("TTL", f"{prefix}:text:v1:0:7") <= 100
    assert 90 < await gateways[0].command("TTL", f"{prefix}:{{u}}:texts") <= 100
    store = RedisHistoryStore(gateways[1], prefix=prefix)
    await store.forget("u", in_bundle=True)
    await one.put("v1:0:9", "written while the user was being forgotten", 100, "u")
    assert [await one.get(key, "u") for key in ("v1:0:7", "v1:0:8", "v1:0:9")] == [None] * 3
    assert await one.get("v1:0:7", None) == "you liked « Zoé »", "texts about items stay"
    for gateway in gateways:
        await gateway.close()


async def test_without_redis_it_is_empty() -> None:
    cache = RedisTextCache(RedisGateway.open("redis://127.0.0.1:1", timeout_s=0.2, max_connections=4))
    await cache.put("key", "text", 10, None)
    assert await cache.get("key", None) is None
