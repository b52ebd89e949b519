"""Impressions: an id for each list that was answered, by which it is told later what became of it.

An id carries what must be known of its list (arm, time, three bytes of each item's digest) under a keyed digest, so
that nothing is kept and no store is asked while an answer is made; any process that has the key reads it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from service.telemetry.observability import Metrics
from service.wire.rankings import RankingAnswer
from service.wire.work import OldImpressionError, UnknownImpressionError

_HEAD = struct.Struct(">BI6s")
_ITEM_BYTES, _MAC_BYTES = 3, 9
_ARMS = ("a", "b")


@dataclass(frozen=True, slots=True)
class Impression:
    """What an id says. name: tells it from every other, in hex; items: digests in the order of the list."""

    arm: str
    shown_at: int
    name: str
    items: tuple[bytes, ...]

    def rank_of(self, item_id: str) -> int | None:
        """The item's rank in the list, from 1; None where it is not in it."""
        digest = _digest(item_id)
        return self.items.index(digest) + 1 if digest in self.items else None


@lru_cache(maxsize=200_000)
def _digest(item_id: str) -> bytes:
    return hashlib.blake2b(item_id.encode("utf-8", "surrogatepass"), digest_size=_ITEM_BYTES).digest()


class Impressions:
    """Gives ids and reads them. `clock` counts seconds since 1970."""

    def __init__(
        self, metrics: Metrics, *, ttl_s: int, secret: bytes | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """secret: the key of all processes whose ids are to be read here; None makes one of this process's own."""
        self._metrics = metrics
        self._ttl_s = ttl_s
        self._secrets = [os.urandom(32) if secret is None else secret]
        self._clock = clock

    def adopt(self, secret: bytes) -> None:
        """Give ids under this key from now on; those that were given before are still read."""
        if secret not in self._secrets:
            self._secrets.insert(0, secret)

    def shown(self, answer: RankingAnswer) -> RankingAnswer:
        """The answer with its id; counted, where it has items."""
        head = _HEAD.pack(_ARMS.index(answer.arm), int(self._clock()), os.urandom(6))
        content = head + b"".join([_digest(item.item_id) for item in answer.items])
        answer.impression_id = base64.urlsafe_b64encode(content + _mac(self._secrets[0], content)).decode().rstrip("=")
        if answer.items:
            self._metrics.impressions.labels(answer.arm).inc()
        return answer

    def read(self, impression_id: str) -> Impression:
        """What the id says. Raises UnknownImpressionError, and OldImpressionError past its time."""
        try:
            raw = base64.b64decode(impression_id + "=" * (-len(impression_id) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        content, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        if len(content) < _HEAD.size or not any(hmac.compare_digest(_mac(key, content), mac) for key in self._secrets):
            raise UnknownImpressionError("no list was answered under this impression_id")
        arm, shown_at, name = _HEAD.unpack(content[: _HEAD.size])
        if self._clock() - shown_at > self._ttl_s:
            raise OldImpressionError(f"the list of this impression_id was answered more than {self._ttl_s} s ago")
        rest = content[_HEAD.size :]
        items = tuple(rest[at : at + _ITEM_BYTES] for at in range(0, len(rest), _ITEM_BYTES))
        return Impression(_ARMS[arm], shown_at, name.hex(), items)


def _mac(key: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(content, key=key, digest_size=_MAC_BYTES, person=b"rdrec-shown").digest()
