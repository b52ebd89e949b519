"""`rdrec-serve` with the fake engine, for tests that need a process: `python -m tests.fake_server --bundle DIR`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from rdrec_core.bundle import Bundle
from service.settings import Settings
from tests.fake_service import FakeEngine

ENGINE_SECONDS = "FAKE_ENGINE_SECONDS"


def open_slow(bundle: Bundle, settings: Settings) -> FakeEngine:
    """Takes as long as the environment says for each call; user u0011's number kills the engine's thread."""

    def before(what: str, requests: Sequence[Any]) -> None:
        if any(getattr(request, "user_index", None) == 11 for request in requests):
            raise SystemExit

    seconds = float(os.environ.get(ENGINE_SECONDS, "0"))
    return FakeEngine(before, seconds=seconds, score_mode=settings.score_mode)


if __name__ == "__main__":  # not so in an engine process, which imports this module too
    from service.server import run

    sys.exit(run(sys.argv[1:], open_engine=open_slow))
