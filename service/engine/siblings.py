"""The other workers of one service: what is true of all of them, and swaps that happen in all or in none.

Workers talk over sockets in a folder that only they can enter: a line of JSON there, a line back. Worker 0 leads swaps,
so that two of them cannot wait for each other. Knows the host of its own worker, no HTTP. Who starts workers is
`supervisor.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from rdrec_core.errors import BundleError, RDRecError
from service.engine.lifecycle import ModelHost
from service.telemetry.observability import StateRow, describe_error
from service.wire.work import EngineDownError

log = logging.getLogger("rdrec.service")
LEADER = 0
ANSWER_WITHIN_S = 1.0
"""What a look at another worker may take; one that is silent is not ready."""
OPEN_WITHIN_S = 600.0
"""What opening and warming up a bundle may take."""
_LARGEST = 1 << 24
_LEAST_OF_ALL = frozenset(
    {"rdrec_ready", "rdrec_engine_up", "rdrec_history_store_available", "rdrec_catalogue_store_available"}
)
_MOST_OF_ALL = frozenset({"rdrec_model_info", "rdrec_breaker_state", "rdrec_catalogue_new_items"})
"""Other gauges are counts, and are added."""
Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Seat:
    """Which of how many workers this is; folder: where their sockets are."""

    index: int
    count: int
    folder: Path

    @property
    def metrics(self) -> Path:
        """Where all workers count."""
        return self.folder / "metrics"

    def socket(self, index: int) -> str:
        """Where worker `index` listens."""
        return str(self.folder / f"worker-{index}")


@dataclass(frozen=True, slots=True)
class Health:
    """Reasons, all empty where everything is well: see ModelHost."""

    unready: list[str]
    degraded: list[str]
    dead: list[str]


class SilentError(RDRecError):
    """A worker that gave no answer."""


class Siblings:
    """See the module. Without a seat there are no others, and nothing is asked of anybody."""

    def __init__(self, host: ModelHost, seat: Seat | None, state: Callable[[], list[StateRow]]) -> None:
        self._host = host
        self._seat = seat
        self._state = state
        self._server: asyncio.Server | None = None
        if seat is not None:
            host.peers = self

    async def start(self) -> dict[str, Path]:
        """Listen, and learn which bundles the others serve, by arm; empty where nobody serves yet."""
        if self._seat is None:
            return {}
        path = Path(self._seat.socket(self._seat.index))
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._hear, path, limit=_LARGEST)
        for answer in await self._ask_others({"what": "served"}):
            if isinstance(answer, dict) and answer["arms"]:
                return {name: Path(bundle) for name, bundle in answer["arms"].items()}
        return {}

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    async def health(self) -> Health:
        """Of all workers; of each reason one."""
        own = Health(self._host.unready(), self._host.degraded(), self._host.dead())
        others = await self._ask_others({"what": "health"})
        found = [
            own,
            *(Health(**each) if isinstance(each, dict) else Health([str(each)], [], []) for each in others),
        ]
        return Health(
            *(list(dict.fromkeys(reason for each in found for reason in reasons(each))) for reasons in _REASONS)
        )

    async def state(self) -> list[StateRow]:
        """Gauges of all workers, merged."""
        others = await self._ask_others({"what": "state"})
        return merged([self._state(), *(answer["rows"] for answer in others if isinstance(answer, dict))])

    async def swap_for_good(self, path: str | None) -> bool:
        """See ModelHost.swap_for_good, in every worker. Raises BundleError, and EngineDownError without a leader."""
        if self._seat is None or self._seat.index == LEADER:
            return (await self._host.swap_for_good(path))[1]
        try:
            answer = await self._ask(LEADER, {"what": "swap", "path": path}, OPEN_WITHIN_S)
        except SilentError as error:
            raise EngineDownError(f"{error}; no bundle is swapped meanwhile") from error
        return bool(answer["survives"])

    async def prepare(self, arm: str, path: Path, sha256: str) -> None:
        """See lifecycle.Peers."""
        message = {"what": "prepare", "arm": arm, "path": str(path), "sha256": sha256}
        answers = await self._ask_others(message, OPEN_WITHIN_S)
        for answer in answers:
            if isinstance(answer, RDRecError):
                await self._ask_others({"what": "abort"})
                raise answer if isinstance(answer, BundleError) else BundleError(str(answer))

    async def commit(self) -> None:
        """See lifecycle.Peers. A worker that is lost just now asks what is served when it comes back."""
        await self._ask_others({"what": "commit"}, OPEN_WITHIN_S)

    async def _ask_others(self, message: Message, within_s: float = ANSWER_WITHIN_S) -> list[Message | RDRecError]:
        if self._seat is None:
            return []
        others = [index for index in range(self._seat.count) if index != self._seat.index]

        async def one(index: int) -> Message | RDRecError:
            try:
                return await self._ask(index, message, within_s)
            except RDRecError as error:
                return error

        return await asyncio.gather(*(one(index) for index in others))

    async def _ask(self, index: int, message: Message, within_s: float) -> Message:
        assert self._seat is not None
        try:
            async with asyncio.timeout(within_s):
                reader, writer = await asyncio.open_unix_connection(self._seat.socket(index), limit=_LARGEST)
                try:
                    writer.write(orjson.dumps(message) + b"\n")
                    answer: Message = orjson.loads(await reader.readline())
                finally:
                    writer.close()
        except (OSError, TimeoutError, ValueError) as error:
            raise SilentError(f"worker {index} is being started") from error
        if "error" in answer:
            raise BundleError(answer["error"])
        return answer

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, ValueError):
            message: Message = orjson.loads(await reader.readline())
            try:
                answer = await self._answer(message)
            except RDRecError as error:
                log.warning("refused_to_a_sibling", extra={"what": message["what"], **describe_error(error)})
                answer = {"error": str(error)}
            writer.write(orjson.dumps(answer) + b"\n")
            await writer.drain()
        writer.close()

    async def _answer(self, message: Message) -> Message:
        host = self._host
        match message["what"]:
            case "served":
                return {"arms": {name: str(arm.bundle.path) for name, arm in host.arms.items()}}
            case "health":
                return {"unready": host.unready(), "degraded": host.degraded(), "dead": host.dead()}
            case "state":
                return {"rows": self._state()}
            case "swap":
                return {"survives": (await host.swap_for_good(message["path"]))[1]}
            case "prepare":
                await host.prepare(message["arm"], Path(message["path"]), message["sha256"])
            case "commit":
                host.commit()
            case "abort":
                await host.abort()
        return {}


_REASONS: tuple[Callable[[Health], list[str]], ...] = (
    lambda health: health.unready,
    lambda health: health.degraded,
    lambda health: health.dead,
)


def merged(of_workers: Iterable[list[StateRow]]) -> list[StateRow]:
    """Each gauge once: the least of those that say whether all is well, the most of those that name, else the sum."""
    values: dict[tuple[str, tuple[tuple[str, str], ...]], list[float]] = defaultdict(list)
    texts: dict[str, str] = {}
    for rows in of_workers:
        for name, text, labels, value in rows:
            texts[name] = text
            values[name, tuple(labels.items())].append(value)
    return [
        (
            name,
            texts[name],
            dict(labels),
            min(found) if name in _LEAST_OF_ALL else max(found) if name in _MOST_OF_ALL else sum(found),
        )
        for (name, labels), found in values.items()
    ]
