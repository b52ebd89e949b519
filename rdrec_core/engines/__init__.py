"""Engines: one Protocol (base.py), a torch reference and an ONNX Runtime implementation."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Literal

from rdrec_core.bundle import Bundle
from rdrec_core.engines.base import Engine
from rdrec_core.engines.hardware import Hardware
from rdrec_core.errors import EngineError
from rdrec_core.types import ScoreMode, Strategy

Runtime = Literal["auto", "onnx", "torch"]


def open_engine(
    bundle: Bundle,
    *,
    score_mode: ScoreMode | None = None,
    strategy: Strategy | None = None,
    threads: int = 0,
    hardware: Hardware | None = None,
    runtime: Runtime = "auto",
) -> Engine:
    """The engine that suits the bundle and what is installed: ONNX Runtime with the bundle's graphs, else torch.

    score_mode and strategy None take the bundle's defaults; threads 0 leaves their number to the engine, hardware says
    more than that. runtime: no other than this. Raises EngineError where it cannot be had, saying what to install, or
    where a GPU that is demanded cannot be used, and BundleError for a mode that the bundle lacks.
    """
    hardware = hardware or Hardware(threads=threads)
    has_graphs = any(name.startswith("onnx/") for name in bundle.manifest.files)
    if runtime != "torch" and find_spec("onnxruntime") is not None and has_graphs:
        onnx = importlib.import_module("rdrec_core.engines.onnx_engine").OnnxEngine
        engine: Engine = onnx.from_bundle(bundle, score_mode=score_mode, strategy=strategy, hardware=hardware)
        return engine
    if runtime != "onnx" and find_spec("torch") is not None:
        torch = importlib.import_module("rdrec_core.engines.torch_engine").TorchEngine
        engine = torch.from_bundle(bundle, score_mode=score_mode, strategy=strategy, hardware=hardware)
        return engine
    if runtime == "torch":
        raise EngineError("the torch engine is asked for, but torch is not installed; pip install 'rdrec[torch]'")
    raise EngineError(
        f"{bundle.path} cannot be computed here: it has no onnx/ graphs or ONNX Runtime is missing, and torch is not "
        "installed; pip install 'rdrec[serve]'"
    )
