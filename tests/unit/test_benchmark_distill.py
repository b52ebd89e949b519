"""benchmarks/distill.py: the peak that it prints is the command's own."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.distill import wait_for_peak

MB = 1_000_000


def test_the_peak_is_that_of_the_child_not_of_its_parent() -> None:
    ballast = bytearray(b"x" * (250 * MB))
    process = subprocess.Popen([sys.executable, "-c", "import time; x = b'x' * 60_000_000; del x; time.sleep(0.5)"])
    peak, cpu_s = wait_for_peak(process)
    assert process.returncode == 0
    assert 60 * MB < peak < 150 * MB < len(ballast)
    assert 0 < cpu_s < 10
