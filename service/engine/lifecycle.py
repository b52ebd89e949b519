"""Which bundles answer: started, swapped without a gap, restarted after a death, drained at the end.

Owns the arms. A request leases one arm for its whole life; a replaced arm ends with its last lease.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import random
import shutil
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from rdrec_core.bundle import Bundle
from rdrec_core.columns import ColumnType
from rdrec_core.errors import BundleError, InputError, RDRecError
from rdrec_core.replacing import replacing_link
from rdrec_core.signing import verify_signature
from service.engine.arm import Arm
from service.engine.engine_process import OpenEngine
from service.settings import Settings, public_key_bytes
from service.telemetry.observability import ArmObserver, Metrics, describe_error
from service.wire.work import EngineDownError, Line

log = logging.getLogger("rdrec.service")
RESTART_PAUSES_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Before each attempt to restart a dead engine; the last one before every further attempt."""
WATCH_EVERY_S = 1.0
"""How often is looked whether an engine hangs."""


class Peers(Protocol):
    """The other workers, who swap when this one does; `siblings.py`."""

    async def prepare(self, arm: str, path: Path, sha256: str) -> None:
        """Have all of them open what this one opened. Raises BundleError, with nothing changed, where one cannot."""
        ...

    async def commit(self) -> None:
        """Have them serve it."""
        ...


class ModelHost:
    """See the module. All methods run on one event loop."""

    peers: Peers | None = None

    def __init__(
        self, settings: Settings, metrics: Metrics, clock: Callable[[], float], open_engine: OpenEngine
    ) -> None:
        self._settings = settings
        self._arm_settings = settings.arms
        self._metrics = metrics
        self._clock = clock
        self._open_engine = open_engine
        self._arms: dict[str, Arm] = {}
        self._swapping = asyncio.Lock()
        self._prepared: dict[str, Arm] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._restarting: set[str] = set()
        self._retiring: set[Arm] = set()
        self._draining = False
        self.before_serving: Callable[[Arm], Awaitable[None]] | None = None
        """Called with each new arm before it answers."""
        self._root = (settings.bundle_root or settings.bundle.resolve().parent).resolve()

    async def start(self, served: Mapping[str, Path] | None = None) -> None:
        """Open and warm up what the settings name. Raises RDRecError where it cannot be served.

        served: by arm, what other workers serve in place of it since a swap.
        """
        async with self._swapping:
            for name, own in self._arm_settings.items():
                self._arms[name] = await self._open(name, (served or {}).get(name, own.bundle))
            await self._tidy()
        self._in_background(self._watch())

    async def stop(self) -> None:
        """Finish what is under way and end the engines."""
        self._draining = True
        for task in list(self._tasks):
            task.cancel()
        await self.abort()
        for arm in {*self._arms.values(), *self._retiring}:
            await arm.stop()

    def drain(self) -> None:
        """From now on not ready, though still answering."""
        self._draining = True

    @property
    def is_draining(self) -> bool:
        """Whether the end has begun."""
        return self._draining

    @property
    def arms(self) -> dict[str, Arm]:
        """The arms by name."""
        return dict(self._arms)

    @property
    def primary(self) -> Arm:
        """The first bundle. Raises EngineDownError before it is there."""
        try:
            return self._arms["a"]
        except KeyError:
            raise EngineDownError("no bundle is being served yet") from None

    def fields(self) -> dict[str, ColumnType]:
        """What items can be filtered by, in the first bundle; nothing before it is there."""
        return self._arms["a"].ranker.columns.fields if "a" in self._arms else {}

    @property
    def shadow(self) -> Arm | None:
        """The arm that computes unseen, if one is configured and up."""
        arm = self._arms.get("b") if self._settings.second_mode == "shadow" else None
        return arm if arm is not None and arm.is_ready else None

    def seconds_ahead(self, line: Line) -> float:
        """Estimated time until a request that arrives in the line now would reach an engine."""
        return max((arm.batcher.seconds_ahead(line) for arm in self._arms.values()), default=0.0)

    def unready(self) -> list[str]:
        """Why no new request should come here; empty when ready."""
        reasons = []
        if self._draining:
            reasons.append("draining")
        if len(self._arms) < len(self._arm_settings):
            reasons.append("warming up")
        return reasons + self.dead()

    def degraded(self) -> list[str]:
        """Which arms have no engine, so that graph and popularity answer in their place; empty where none is."""
        return [f"engine {name} is being restarted" for name, arm in self._arms.items() if not arm.is_ready]

    def dead(self) -> list[str]:
        """Why only a new process can help; empty while alive."""
        reasons = []
        for name, arm in self._arms.items():
            if (busy_s := arm.batcher.busy_for_s()) > self._settings.stall_s:
                reasons.append(f"engine {name} has been busy for {busy_s:.0f} s with one batch")
        return reasons

    @contextmanager
    def lease(self, user_id: str | None, name: str | None = None) -> Iterator[Arm]:
        """The arm of this name, else the one that answers this user, for the duration of one answer.

        Raises InputError for a name that is not served.
        """
        arm = self._choose(user_id) if name is None else self._named(name)
        arm.leases += 1
        try:
            yield arm
        finally:
            arm.leases -= 1

    def _named(self, name: str) -> Arm:
        if name not in self._arm_settings:
            raise InputError(f"no arm {name} is served here, only {' and '.join(self._arm_settings)}", field="arm")
        if name not in self._arms:
            raise EngineDownError(f"arm {name} is not being served yet")
        return self._arms[name]

    def _choose(self, user_id: str | None) -> Arm:
        second = self._arms.get("b") if self._settings.second_mode == "ab" else None
        if second is None:
            return self.primary
        if user_id is None:
            position = random.random()
        else:
            digest = hashlib.blake2b(user_id.encode("utf-8", "replace"), digest_size=8, person=b"rdrec-ab").digest()
            position = int.from_bytes(digest) / 2**64
        return second if position < self._settings.second_share else self.primary

    async def swap(self, path: str | None = None, *, arm: str = "a") -> Arm:
        """Serve another bundle, or the present folder as it is now, in every arm that has its bundle from this one.

        Raises BundleError where the folder is outside the bundle root, altered, unsigned, or fails its warm-up; the
        old one then stays.
        """
        async with self._swapping:
            try:
                folder = self._under_root(path) if path else self._arms[arm].bundle.path
                await self.prepare(arm, folder)
                if self.peers is not None:
                    new = self._prepared[arm].bundle
                    await self.peers.prepare(arm, new.path, new.manifest_sha256)
            except RDRecError as error:
                await self.abort()
                self._metrics.swaps.labels("refused").inc()
                log.warning("bundle_refused", extra=describe_error(error))
                if isinstance(error, BundleError):
                    raise
                raise BundleError(str(error)) from error
            self.commit()
            if self.peers is not None:
                await self.peers.commit()
            self._metrics.swaps.labels("done").inc()
            return self._arms[arm]

    async def prepare(self, arm: str, path: Path, sha256: str | None = None) -> None:
        """Open the bundle beside what is served, for `commit`. Raises RDRecError, also where it has another sha256."""
        await self.abort()
        self._prepared = await self._open_all(self._sharing(arm), path, sha256)

    def commit(self) -> None:
        """Serve what was prepared; what it replaces ends with its last request."""
        opened, self._prepared = self._prepared, {}
        old = [self._arms[name] for name in opened]
        self._arms.update(opened)
        for name, new in opened.items():
            log.info("bundle_served", extra={"arm": name, "model_version": new.version})
        for replaced in old:
            self._retiring.add(replaced)
            self._in_background(self._retire(replaced))

    async def abort(self) -> None:
        """Let go of what was prepared."""
        prepared, self._prepared = self._prepared, {}
        for arm in prepared.values():
            await arm.stop()

    async def swap_for_good(self, path: str | None = None) -> tuple[Arm, bool]:
        """`swap`, and have the link that the settings name lead to the new bundle, so that a restart serves it too.

        Goes on to its end whatever becomes of the caller. True where a restart would serve what is served now: the
        settings' path is a link that was changed, or leads there anyway.
        """
        task = asyncio.create_task(self._swap_for_good(path))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _swap_for_good(self, path: str | None) -> tuple[Arm, bool]:
        arm = await self.swap(path)
        return arm, await asyncio.to_thread(lead_to, self._settings.bundle, arm.bundle.path)

    async def reload(self) -> None:
        """Read every served folder again. What is refused is logged and counted, and its arms go on as they are."""
        for arm in [name for name in self._arms if self._sharing(name)[0] == name]:
            with suppress(BundleError):
                await self.swap(arm=arm)

    def _sharing(self, arm: str) -> list[str]:
        return [arm] if self._settings.second_bundle else list(self._arm_settings)

    def _under_root(self, path: str) -> Path:
        if "\0" in path:
            raise BundleError("the path holds a NUL character")
        resolved = (self._root / path).resolve()
        if not resolved.is_relative_to(self._root) or resolved == self._root:
            raise BundleError("the folder is not under the bundle root")
        return resolved

    async def _open_all(self, names: list[str], path: Path, sha256: str | None) -> dict[str, Arm]:
        opened: dict[str, Arm] = {}
        try:
            for name in names:
                opened[name] = await self._open(name, path, sha256)
        except BaseException:
            for arm in opened.values():
                await arm.stop()
            raise
        return opened

    async def _open(self, name: str, path: Path, sha256: str | None = None) -> Arm:
        bundle = await asyncio.to_thread(self._verified, path.resolve(), sha256)  # a link may lead elsewhere later
        arm = Arm(
            name,
            bundle,
            self._arm_settings[name],
            self._open_engine,
            ArmObserver(self._metrics, name),
            self._clock,
            self._engine_died,
        )
        await arm.start()
        if self.before_serving is not None:
            await self.before_serving(arm)
        return arm

    def _verified(self, path: Path, sha256: str | None) -> Bundle:
        try:
            if self._settings.bundle_public_key is not None:
                verify_signature(path, public_key_bytes(self._settings.bundle_public_key))
            return Bundle.open(path, memory_map=self._settings.memory_map, expected_sha256=sha256)
        except OSError as error:
            raise BundleError(f"the bundle cannot be read: {error.strerror}") from error

    async def _retire(self, arm: Arm) -> None:
        while arm.leases:
            await asyncio.sleep(0.05)
        await arm.stop()
        self._retiring.discard(arm)
        await self._tidy()

    async def _tidy(self) -> None:
        """Remove weights that engines of other bundles shared; a process that still maps them goes on."""
        folder = self._settings.shared_weights
        used = {arm.bundle.manifest_sha256 for arm in (*self._arms.values(), *self._prepared.values())}
        for old in folder.iterdir() if folder is not None and folder.is_dir() else ():
            if old.name not in used:
                await asyncio.to_thread(shutil.rmtree, old, ignore_errors=True)

    async def _watch(self) -> None:
        """End engines that hang: what they compute is blamed, and new ones take over."""
        stall_s = self._settings.stall_s
        while True:
            await asyncio.sleep(min(WATCH_EVERY_S, stall_s))
            for name, arm in self._arms.items():
                if (busy_s := arm.batcher.busy_for_s()) > stall_s and arm.batcher.kill(stall_s):
                    log.error("engine_stalled", extra={"arm": name, "busy_s": round(busy_s, 1)})

    def _engine_died(self, arm: Arm, cause: str) -> None:
        log.error("engine_died", extra={"arm": arm.name, "cause": cause})
        if self._draining or self._arms.get(arm.name) is not arm or arm.name in self._restarting:
            return
        self._restarting.add(arm.name)
        self._in_background(self._restart(arm))

    async def _restart(self, arm: Arm) -> None:
        try:
            for pause_s in itertools.chain(RESTART_PAUSES_S, itertools.repeat(RESTART_PAUSES_S[-1])):
                await asyncio.sleep(pause_s)
                if self._arms.get(arm.name) is not arm:  # replaced meanwhile
                    return
                try:
                    await arm.start()
                except RDRecError as error:
                    log.error("engine_restart_failed", extra={"arm": arm.name, **describe_error(error)})
                    continue
                self._metrics.restarts.inc()
                log.info("engine_restarted", extra={"arm": arm.name})
                if arm.is_whole:  # else another one ended meanwhile
                    return
        finally:
            self._restarting.discard(arm.name)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def lead_to(link: Path, folder: Path) -> bool:
    """Have the link lead to the folder, in one step; whether it does then. What is no link is left as it is."""
    if link.resolve() == folder.resolve():
        return True
    if not link.is_symlink():
        return False
    try:
        replacing_link(link, folder)
    except OSError as error:
        log.warning("link_not_changed", extra={"link": str(link), "reason": error.strerror})
        return False
    return True
