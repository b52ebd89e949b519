"""Never two refreshes at once: a file's lock on one host, and a key in Redis against other hosts.

The file's lock ends with its process, whatever ends that. The key expires, and is renewed while the run lives; a run
that was killed is followed by the next one of its host at once, for the file says that it is dead.
"""

from __future__ import annotations

import fcntl
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rdrec_core.errors import RDRecError
from training.refreshing.settings import Lock

_TAKE = """
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return redis.call('PTTL', KEYS[1]) end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 0
"""
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class BusyError(RDRecError):
    """Another run is under way."""


@contextmanager
def only_one(work: Path, lock: Lock, *, prefix: str = "rdrec") -> Iterator[None]:
    """Hold the lock during the block. Raises BusyError where another run holds it."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"another refresh is running on this host ({work / 'lock'})") from None
        if lock.redis_url is None:
            yield
            return
        with _only_one_in_redis(lock, f"{prefix}:refresh:lock", f"{socket.gethostname()}:{work.resolve()}"):
            yield


@contextmanager
def _only_one_in_redis(lock: Lock, key: str, owner: str) -> Iterator[None]:
    from redis import Redis
    from redis.exceptions import RedisError

    redis: Redis = Redis.from_url(str(lock.redis_url))
    expiry_ms = int(lock.expiry_s * 1000)

    def take() -> int:
        return int(redis.eval(_TAKE, 1, key, owner, expiry_ms))  # type: ignore[arg-type]

    try:
        left_ms = take()
    except RedisError as error:
        raise BusyError(f"the lock in Redis cannot be asked, so nothing is begun: {error}") from error
    if left_ms:
        raise BusyError(f"another host is refreshing; if it is dead, its lock ends in {left_ms / 1000:.0f} s")
    over = threading.Event()

    def renew() -> None:
        while not over.wait(lock.expiry_s / 3):
            try:
                take()
            except RedisError:
                continue  # the next attempt is made before it expires

    keeper = threading.Thread(target=renew, daemon=True)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()
        with suppress(RedisError):  # it expires
            redis.eval(_RELEASE, 1, key, owner)
