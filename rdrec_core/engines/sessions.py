"""How an exported graph is opened: options of the runtime, and weights that several processes share.

ONNX Runtime arranges the weights of products for the processor when it opens a graph, in memory of the process's own.
Where a folder for shared weights is given, the first process has the runtime write a copy of the graph there with its
weights arranged; all map that file, so that the machine holds them once. A runtime that would arrange them otherwise
(another processor) finds that and keeps its own. Knows files and sessions, not what a graph computes.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from rdrec_core.engines.hardware import CPU_PROVIDER, Hardware, providers
from rdrec_core.errors import BundleError
from rdrec_core.replacing import replacing_folder
from rdrec_core.types import FloatArray

log = logging.getLogger("rdrec.engine")
_Opened = TypeVar("_Opened")
_INLINE_BYTES = 1024
"""Smaller tensors stay in the graph, where the runtime reads shapes of them."""


def session_options(hardware: Hardware) -> ort.SessionOptions:
    """Options of every session: threads for one operator, operators one after the other."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = hardware.threads
    options.inter_op_num_threads = 1
    if not hardware.spin:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    return options


def open_graph(graph: Path, hardware: Hardware) -> ort.InferenceSession:
    """A session of an exported graph. Weights that cannot be shared, as `hardware` wants, are told of and held.

    Raises BundleError naming a file that is missing, EngineError where a GPU is demanded and cannot be had.
    """
    if not graph.is_file():
        without = "--float16" if ".float16." in graph.name else "this score mode, strategy or texts"
        raise BundleError(f"{graph} is missing: the bundle was exported without {without}")
    options, wanted = session_options(hardware), providers(hardware, ort.get_available_providers())

    def opened(file: Path) -> ort.InferenceSession:
        return ort.InferenceSession(str(file), options, providers=wanted)

    folder = hardware.shared_weights
    if folder is None or wanted != [CPU_PROVIDER]:
        return opened(graph)
    copy = folder / f"{graph.stem}-{ort.__version__}" / graph.name
    return _shared(copy, lambda temporary: _arrange(graph, temporary), opened) or opened(graph)


def shared_rows(table: FloatArray, rows: npt.NDArray[np.integer], folder: Path) -> FloatArray:
    """These rows of a table, mapped from a file of the folder; copied where that cannot be."""
    name = hashlib.sha256(rows.tobytes()).hexdigest()[:16]

    def opened(file: Path) -> FloatArray:
        return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))

    def write(file: Path) -> None:
        np.save(file, table[rows], allow_pickle=False)

    found = _shared(folder / f"rows-{name}" / "rows.npy", write, opened)
    return table[rows] if found is None else found


def _shared(file: Path, write: Callable[[Path], None], opened: Callable[[Path], _Opened]) -> _Opened | None:
    """The file, which is alone in its folder, written by whoever comes first and opened; None where that fails."""
    try:
        file.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with file.parent.with_name(f".{file.parent.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not file.is_file():
                with replacing_folder(file.parent, force=True) as temporary:
                    write(temporary / file.name)
        return opened(file)
    except Exception as error:  # onnxruntime's own errors share no base class but Exception
        log.warning("weights_not_shared", extra={"file": str(file), "reason": str(error)})
        return None


def _arrange(graph: Path, copy: Path) -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED  # the rest differs by processor
    options.optimized_model_filepath = str(copy)
    for name, value in {
        "session.optimized_model_external_initializers_file_name": f"{copy.name}.weights",
        "session.optimized_model_external_initializers_min_size_in_bytes": str(_INLINE_BYTES),
        "session.save_external_prepacked_constant_initializers": "1",
    }.items():
        options.add_session_config_entry(name, value)
    ort.InferenceSession(str(graph), options, providers=[CPU_PROVIDER])
