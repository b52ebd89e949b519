"""Two processes on one Redis: 10,000 concurrent writes for 100 users, and not one lost or doubled.

python -m tests.integration.test_redis_writers URL PROCESS    writes one process's share
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from service.stores.history.redis import RedisHistoryStore
from service.stores.redis_gateway import RedisGateway
from tests.histories import add, recent
from tests.redis_process import running_redis

USERS, PROCESSES, WRITES = 100, 2, 50  # 100 x 2 x 50 = 10,000
CAP = 200


def store_at(url: str) -> RedisHistoryStore:
    return RedisHistoryStore(RedisGateway.open(url, timeout_s=5.0, max_connections=32), cap=CAP)


async def write_share(url: str, process: int) -> int:
    """This process's writes, each sent twice as a caller does who lost the answer; how many were said to be new."""
    store = store_at(url)
    under_way = asyncio.Semaphore(200)  # all at once would be the test of the queue in front of Redis

    async def write(user: int, number: int) -> int:
        async with under_way:
            return await write_twice(user, number)

    async def write_twice(user: int, number: int) -> int:
        item = f"p{process}-{number}"
        key = f"{process}-{user}-{number}"
        answers = await asyncio.gather(
            *(add(store, f"u{user}", item, float(number), idempotency_key=key) for _ in range(2))
        )
        return sum(answer is True for answer in answers)

    new = await asyncio.gather(*(write(user, number) for number in range(WRITES) for user in range(USERS)))
    await store.close()
    return sum(new)


@pytest.mark.slow
async def test_ten_thousand_writes_from_two_processes(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        command = [sys.executable, "-m", "tests.integration.test_redis_writers", server.url]
        root = Path(__file__).parents[2]
        writers = [
            subprocess.Popen([*command, str(process)], stdout=subprocess.PIPE, text=True, cwd=root)
            for process in range(PROCESSES)
        ]
        said_new = [int(writer.communicate(timeout=300)[0]) for writer in writers]
        assert said_new == [USERS * WRITES] * PROCESSES
        store = store_at(server.url)
        for user in range(USERS):
            items = await recent(store, f"u{user}", CAP)
            assert items is not None
            assert sorted(items) == sorted(f"p{process}-{n}" for process in range(PROCESSES) for n in range(WRITES))
        await store.close()


if __name__ == "__main__":
    sys.stdout.write(str(asyncio.run(write_share(sys.argv[1], int(sys.argv[2])))))
