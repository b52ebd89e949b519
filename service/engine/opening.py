"""Which of the installed engines the settings ask for. Each engine process imports this, so it knows no HTTP."""

from __future__ import annotations

from rdrec_core.bundle import Bundle
from rdrec_core.cpus import available_cpus, threads_of_each
from rdrec_core.engines import open_engine as open_installed_engine
from rdrec_core.engines.base import Engine
from rdrec_core.engines.hardware import Hardware
from service.settings import Settings


def open_engine(bundle: Bundle, settings: Settings) -> Engine:
    """The engine that the settings ask for, with the cores that are left to each."""
    at_a_time = settings.workers * settings.engines * len(settings.arms)
    threads, alone = threads_of_each(at_a_time, settings.workers, available_cpus(), settings.engine_threads)
    limit_mb, shared = settings.device_memory_mb, settings.shared_weights
    hardware = Hardware(
        device=settings.device,
        device_id=settings.device_ids[0],
        memory_limit_bytes=None if limit_mb is None else limit_mb << 20,
        threads=threads,
        spin=alone,
        precision=settings.precision,
        shared_weights=None if shared is None else shared / bundle.manifest_sha256,
    )
    return open_installed_engine(
        bundle,
        score_mode=settings.score_mode,
        strategy=settings.strategy,
        hardware=hardware,
        runtime=settings.engine,
    )
