"""Where engines of one machine keep weights that they share, and what becomes of them where that cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from rdrec_core.engines.hardware import Device, Hardware
from rdrec_core.engines.sessions import open_graph
from rdrec_core.exported.graph_writer import GraphWriter
from service.settings import Settings


def product(folder: Path) -> Path:
    """A graph of one product with weights."""
    writer = GraphWriter()
    writer.output("y", onnx.TensorProto.FLOAT, [1, 64])
    weights = writer.constant(np.arange(32 * 64, dtype=np.float32).reshape(32, 64))
    writer.call("MatMul", writer.input("x", onnx.TensorProto.FLOAT, [1, 32]), weights, outputs=["y"])
    onnx.save(writer.model("product"), folder / "product.onnx")
    return folder / "product.onnx"


def computed(graph: Path, shared: Path) -> list[float]:
    session = open_graph(graph, Hardware(Device.CPU, threads=1, shared_weights=shared))
    return session.run(None, {"x": np.ones((1, 32), dtype=np.float32)})[0][0, :3].tolist()


def test_where_nothing_can_be_written_each_engine_holds_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    assert computed(product(tmp_path), tmp_path / "file" / "shared") == [31744.0, 31776.0, 31808.0]
    assert [record.message for record in caplog.records] == ["weights_not_shared"]


def test_a_damaged_copy_is_not_served(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    graph = product(tmp_path)
    expected = computed(graph, tmp_path / "shared")
    assert not caplog.records
    (file,) = (tmp_path / "shared").rglob("*.weights")
    file.write_bytes(b"")
    assert computed(graph, tmp_path / "shared") == expected
    assert [record.message for record in caplog.records] == ["weights_not_shared"]


def test_several_engines_share_unless_told_where_or_alone(tmp_path: Path) -> None:
    settings = Settings(bundle=tmp_path / "bundle", state_dir=tmp_path / "state")
    assert settings.shared_weights is None
    assert settings.model_copy(update={"engines": 2}).shared_weights == tmp_path / "state" / "weights"
    assert settings.model_copy(update={"weights_dir": tmp_path}).shared_weights == tmp_path
