"""Which processor or GPU an engine takes, and that a demand is not silently replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from rdrec_core.engines.hardware import (
    CPU_PROVIDER,
    CUDA_PROVIDER,
    Device,
    Hardware,
    device_of_session,
    providers,
    torch_device,
)
from rdrec_core.engines.sessions import session_options
from rdrec_core.errors import EngineError
from service.settings import Settings

BOTH = [CUDA_PROVIDER, CPU_PROVIDER]


def test_a_gpu_is_taken_only_where_it_may_and_can_be() -> None:
    assert providers(Hardware(Device.CPU), BOTH) == [CPU_PROVIDER]
    assert providers(Hardware(Device.AUTO), [CPU_PROVIDER]) == [CPU_PROVIDER]
    assert providers(Hardware(Device.AUTO, device_id=3), BOTH) == [(CUDA_PROVIDER, {"device_id": 3}), CPU_PROVIDER]
    ((_, options), _) = providers(Hardware(Device.CUDA, memory_limit_bytes=1 << 30), BOTH)
    assert options["gpu_mem_limit"] == 1 << 30


def test_a_gpu_that_is_demanded_and_missing_is_an_error_that_says_what_to_install() -> None:
    with pytest.raises(EngineError, match="onnxruntime-gpu"):
        providers(Hardware(Device.CUDA), [CPU_PROVIDER])
    with pytest.raises(EngineError, match=r"cuda:1 .* torch sees 1 GPUs"):
        torch_device(Hardware(Device.CUDA, device_id=1), 1)


def test_what_the_runtime_took_is_looked_at_and_not_what_it_was_offered() -> None:
    assert device_of_session(Hardware(Device.AUTO, device_id=2), BOTH) == "cuda:2"
    assert device_of_session(Hardware(Device.AUTO), [CPU_PROVIDER]) == "cpu"
    with pytest.raises(EngineError, match=r"cuda:0 is demanded, but ONNX Runtime could not use it"):
        device_of_session(Hardware(Device.CUDA), [CPU_PROVIDER])


def test_torch_takes_the_gpu_by_its_number() -> None:
    assert torch_device(Hardware(Device.AUTO, device_id=1), 2) == "cuda:1"
    assert torch_device(Hardware(Device.AUTO, device_id=2), 2) == "cpu"
    assert torch_device(Hardware(Device.CPU), 2) == "cpu"


def test_threads_that_share_cores_do_not_spin() -> None:
    shared = session_options(Hardware(threads=3, spin=False))
    assert shared.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert shared.intra_op_num_threads == 3
    with pytest.raises(RuntimeError):
        session_options(Hardware(threads=3)).get_session_config_entry("session.intra_op.allow_spinning")


def test_devices_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"BUNDLE": str(tmp_path), "DEVICE": "cuda", "DEVICE_IDS": "[0, 1]", "ENGINE": "torch"}.items():
        monkeypatch.setenv(f"RDREC_{name}", value)
    settings = Settings()  # type: ignore[call-arg]
    assert (settings.device, settings.device_ids, settings.engine) == (Device.CUDA, (0, 1), "torch")
    monkeypatch.setenv("RDREC_DEVICE", "gpu")
    with pytest.raises(ValueError, match=r"'cpu', 'cuda' or 'auto'"):
        Settings()  # type: ignore[call-arg]
