"""benchmarks/gpu_check.py without a GPU: what it does there, and that its rows can fail."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import gpu_check
from rdrec_core.engines.hardware import Device, Hardware
from rdrec_core.errors import EngineError
from tests.fake_service import FakeEngine, write_bundle


def test_without_a_gpu_nothing_is_checked_and_nobody_can_mistake_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "argv", ["gpu_check.py"])
    assert gpu_check.main() == gpu_check.NO_GPU
    assert "nothing was checked" in capsys.readouterr().out


def test_an_engine_that_computes_elsewhere_or_otherwise_fails_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rdrec_core.bundle import Bundle

    bundle = Bundle.open(write_bundle(tmp_path / "bundle"))
    monkeypatch.setattr(gpu_check, "open_engine", lambda *args, **options: FakeEngine())
    row, found = gpu_check.measured(bundle, "onnx", Hardware(Device.CPU), None, 0.0)
    assert (row.passed, row.device) == (True, "cpu")
    fallen_back, _ = gpu_check.measured(bundle, "onnx", Hardware(Device.CUDA), found, 0.0)
    assert (fallen_back.passed, fallen_back.said) == (False, "computes on cpu")
    other = [[item + 20 for item in items] for items in found]
    assert not gpu_check.measured(bundle, "torch", Hardware(Device.CPU), other, 0.0)[0].passed


def test_a_refusal_is_what_is_wanted_of_a_gpu_that_is_not_there() -> None:
    def refuse() -> None:
        raise EngineError("no")

    assert gpu_check.refused("n", refuse).passed
    assert not gpu_check.refused("n", lambda: None).passed
