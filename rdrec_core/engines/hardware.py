"""Where an engine computes and with how much: processor or GPU, which one, its memory, threads.

`cuda` is a demand, `auto` a wish whose outcome is told (`Engine.device`). Knows ONNX Runtime's and torch's names for
these things, not what is computed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from rdrec_core.errors import EngineError

log = logging.getLogger("rdrec.engine")
Provider = str | tuple[str, Mapping[str, Any]]
"""As `InferenceSession` takes them."""
CPU_PROVIDER, CUDA_PROVIDER = "CPUExecutionProvider", "CUDAExecutionProvider"


class Device(StrEnum):
    """Which kind of processor is wanted."""

    CPU = "cpu"
    CUDA = "cuda"
    AUTO = "auto"
    """A GPU where it can be used, else the processor."""


class Precision(StrEnum):
    """Which of a bundle's graphs are computed."""

    AUTO = "auto"
    """float16 on a GPU where the bundle has it, else float32."""
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    """A demand. A processor computes it more slowly than float32: for comparisons."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """See the module."""

    device: Device = Device.AUTO
    device_id: int = 0
    memory_limit_bytes: int | None = None
    """Of the GPU's memory; None is all."""
    threads: int = 0
    """For one operator on the processor; 0 leaves it to the runtime."""
    spin: bool = True
    """Whether threads that wait for work keep their core: quick where they have it to themselves, a waste elsewhere."""
    precision: Precision = Precision.AUTO
    """Of exported graphs; torch computes as its model is."""
    shared_weights: Path | None = None
    """Folder, the bundle's own, where engine processes find weights that they share; None: each holds its own."""


def providers(hardware: Hardware, available: Sequence[str]) -> list[Provider]:
    """ONNX Runtime's execution providers, best first, out of those that are `available`.

    Raises EngineError where CUDA is demanded and this build of the runtime does not have it.
    """
    if hardware.device is Device.CPU:
        return [CPU_PROVIDER]
    if CUDA_PROVIDER not in available:
        if hardware.device is Device.CUDA:
            raise EngineError(
                f"device cuda is demanded, but this ONNX Runtime has {', '.join(available)} only; install"
                " onnxruntime-gpu in its place, or set the device to cpu or auto"
            )
        return [CPU_PROVIDER]
    options: dict[str, Any] = {"device_id": hardware.device_id}
    if hardware.memory_limit_bytes is not None:
        options |= {"gpu_mem_limit": hardware.memory_limit_bytes, "arena_extend_strategy": "kSameAsRequested"}
    return [(CUDA_PROVIDER, options), CPU_PROVIDER]


def device_of_session(hardware: Hardware, taken: Sequence[str]) -> str:
    """`cpu` or `cuda:N`, after a session was made: the runtime takes the next provider unasked where one fails.

    Raises EngineError where CUDA was demanded and not taken.
    """
    if taken and taken[0] == CUDA_PROVIDER:
        return f"cuda:{hardware.device_id}"
    if hardware.device is Device.CUDA:
        raise EngineError(
            f"device cuda:{hardware.device_id} is demanded, but ONNX Runtime could not use it and took {taken[0]}: look"
            " for missing CUDA or cuDNN libraries in its warnings"
        )
    return "cpu"


def torch_device(hardware: Hardware, cuda_devices: int) -> str:
    """torch's name of the device, where it sees so many GPUs. Raises EngineError where CUDA is demanded and missing."""
    if hardware.device is Device.CPU:
        return "cpu"
    if hardware.device_id < cuda_devices:
        return f"cuda:{hardware.device_id}"
    if hardware.device is Device.CUDA:
        raise EngineError(f"device cuda:{hardware.device_id} is demanded, but torch sees {cuda_devices} GPUs")
    return "cpu"
