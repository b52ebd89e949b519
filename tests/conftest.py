"""How the suite shares a machine: one thread a test process, and slow tests last, which may be told to stay out.

pytest runs one worker a core, and numeric libraries in each of them, and in the processes that it starts, would else
start a thread a core that spins while it waits for the others (trainings took 2.6 times the CPU). Set before anything
imports numpy or torch. RDREC_TEST_DEADLINE, in seconds since 1970: no slow test starts after it, and each says so.
"""

import os
import time

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
DEADLINE = float(os.environ.get("RDREC_TEST_DEADLINE", "inf"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The quick ones first, so that a deadline meets the slow ones."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture of the test is made."""
    if item.get_closest_marker("slow") and time.time() > DEADLINE:
        pytest.skip("slow, and RDREC_TEST_DEADLINE is over; it runs without")
