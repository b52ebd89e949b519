"""What every catalogue store promises, over every implementation and server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from service.stores.catalogue.base import CatalogueStore, CatalogueWrite, Cursor, LiveItem, Stored
from service.stores.catalogue.memory import MemoryCatalogueStore
from service.stores.catalogue.redis import RedisCatalogueStore
from service.stores.redis_gateway import RedisGateway

KEPT = 150
"""Redis trims a stream by whole nodes of 100 entries."""
ITEM = LiveItem(
    "a/1", "Red train", "Holz", ("Toys", "Trains"), "It rolls.\nFar.",
    {"price": 24.5, "n": 3, "new": True, "tags": ["wood", "gift"], "none": [], "colour": "réd"}, False, 1.7e9,
)  # fmt: skip


@pytest.fixture(params=["memory", "redis_url", "valkey_url", "cluster_url", "sentinel_url"])
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def store(gateway: RedisGateway | None, prefix: str) -> AsyncIterator[CatalogueStore]:
    if gateway is None:
        opened: CatalogueStore = MemoryCatalogueStore(changes_kept=KEPT)
    else:
        opened = RedisCatalogueStore(gateway, prefix=prefix, changes_kept=KEPT)
    yield opened
    await opened.close()


def item(n: int) -> LiveItem:
    return LiveItem(f"i{n:04d}", f"Toy {n}")


async def put(store: CatalogueStore, *items: LiveItem) -> list[int | None]:
    return await store.put([CatalogueWrite(one.item_id, one, 0) for one in items])


async def followed(store: CatalogueStore, since: Cursor, n: int = 1000) -> list[Stored]:
    changes = await store.changes(since, n)
    assert changes is not None
    return list(changes.items)


async def test_nothing_is_there_at_first(store: CatalogueStore) -> None:
    assert await store.get(["a", "b"]) == [None, None]
    assert await store.page("", 10) == []
    assert (await store.head()).version == 0


async def test_an_item_comes_back_as_it_was_put(store: CatalogueStore) -> None:
    assert await put(store, ITEM) == [1]
    assert await store.get(["other", "a/1"]) == [None, Stored("a/1", 1, ITEM)]
    assert await store.page("", 10) == [Stored("a/1", 1, ITEM)]
    assert store.is_available


async def test_a_write_that_was_forestalled_does_nothing(store: CatalogueStore) -> None:
    await put(store, item(1))
    before = await store.head()
    newer = LiveItem("i0001", "newer")
    assert await store.put([CatalogueWrite("i0001", newer, 0), CatalogueWrite("i0002", item(2), 7)]) == [None, None]
    assert await store.head() == before
    assert await store.put([CatalogueWrite("i0001", newer, 1)]) == [2]
    assert await store.get(["i0001"]) == [Stored("i0001", 2, newer)]


async def test_of_writers_at_the_same_time_one_wins(store: CatalogueStore) -> None:
    writes = [store.put([CatalogueWrite("x", LiveItem("x", f"by {n}"), 0)]) for n in range(8)]
    versions = [version for (version,) in await asyncio.gather(*writes)]
    assert sorted(v is not None for v in versions) == [False] * 7 + [True]


async def test_what_is_deleted_is_remembered_as_gone(store: CatalogueStore) -> None:
    await put(store, item(1))
    assert await store.put([CatalogueWrite("i0001", None, 1)]) == [2]
    assert await store.get(["i0001"]) == [Stored("i0001", 2, None)]
    assert await store.page("", 10) == [Stored("i0001", 2, None)]
    assert await store.put([CatalogueWrite("i0001", item(1), 2)]) == [3]


async def test_pages_go_by_the_bytes_of_the_ids(store: CatalogueStore) -> None:
    ids = ["b", "a", "é", "B", "a b", "漢", "aa", "["]
    await put(store, *(LiveItem(one) for one in ids))
    read: list[str] = []
    while page := await store.page(read[-1] if read else "", 3):
        read += [stored.item_id for stored in page]
    assert read == sorted(ids, key=str.encode)


async def test_changes_come_in_order_from_wherever_one_stands(store: CatalogueStore) -> None:
    await put(store, item(0))
    start = await store.head()
    assert await followed(store, start) == []
    await put(store, item(1), item(2))
    await store.put([CatalogueWrite("i0001", None, 2)])
    found = await followed(store, start)
    assert [(s.item_id, s.version, s.item is None) for s in found] == [
        ("i0001", 2, False), ("i0002", 3, False), ("i0001", 4, True),
    ]  # fmt: skip
    first = await store.changes(start, 2)
    assert first is not None
    assert [s.version for s in first.items] == [2, 3]
    assert [s.version for s in await followed(store, first.upto)] == [4]


async def test_who_was_away_for_too_long_is_told(store: CatalogueStore) -> None:
    await put(store, item(0))
    start = await store.head()
    for first in range(1, 1000, 100):
        await put(store, *(item(n) for n in range(first, first + 100)))
    assert await store.changes(start, 50) is None
    head = await store.head()
    assert head.version == 1001
    near = Cursor(head.epoch, head.version - 40)
    assert [s.version for s in await followed(store, near)] == list(range(head.version - 39, head.version + 1))


async def test_a_cursor_of_another_store_is_no_cursor(store: CatalogueStore) -> None:
    await put(store, item(0), item(1))
    assert await store.changes(Cursor("of-yesterday", 1), 10) is None
    ahead = await store.head()
    assert await store.changes(Cursor(ahead.epoch, ahead.version + 5), 10) is None
