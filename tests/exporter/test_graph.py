"""A graph is one file, or two from so many weights on; either way it is the same model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from exporter.graph import ALIGNED, Graph, apart_from_data
from exporter.lower.types import converted

SIZE = 64 * 64 * 4


def model(*names: str) -> onnx.ModelProto:
    """``y = x @ W @ ...`` with a weight of 16 KiB per name, and a shape of 16 bytes."""
    rng = np.random.default_rng(0)
    weights = [onnx.numpy_helper.from_array(rng.standard_normal((64, 64)).astype(np.float32), name) for name in names]
    shape = onnx.numpy_helper.from_array(np.array([-1, 64]), "shape")
    nodes = [onnx.helper.make_node("Reshape", ["x", "shape"], ["h"], "reshape")]
    for name in names:
        nodes.append(onnx.helper.make_node("MatMul", [nodes[-1].output[0], name], [f"{name}/y"], f"matmul_{name}"))
    nodes[-1].output[0] = "y"
    kind = onnx.TensorProto.FLOAT
    x, y = (onnx.helper.make_tensor_value_info(name, kind, ["N", 64]) for name in "xy")
    graph = onnx.helper.make_graph(nodes, "g", [x], [y], [*weights, shape])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files from 20 KB of weights on."""
    monkeypatch.setenv("EXPORTER_EXTERNAL_FROM", "20000")


def test_few_weights_stay_in_one_file(two: None, tmp_path: Path) -> None:
    graph = Graph.written(tmp_path / "g.onnx", model("a"))
    assert graph.files == (graph.path,) and graph.load() == model("a") == graph.linked()
    assert graph.path.read_bytes() == model("a").SerializeToString(deterministic=True)


def test_a_model_within_protobuf_stays_in_one_file_unless_told_otherwise(tmp_path: Path) -> None:
    assert len(Graph.written(tmp_path / "g.onnx", model("a", "b")).files) == 1


def test_many_weights_lie_beside_it_and_shapes_do_not(two: None, tmp_path: Path) -> None:
    graph = Graph.written(tmp_path / "g.onnx", model("a", "b"))
    assert graph.files == (tmp_path / "g.onnx", tmp_path / "g.onnx.data")
    assert graph.roles == {"onnx": graph.path, "data": graph.data}
    assert graph.path.stat().st_size < SIZE and graph.data.stat().st_size >= 2 * SIZE
    outside = {tensor.name for tensor in graph.linked().graph.initializer if tensor.external_data}
    assert outside == {"a", "b"}
    offsets = [int(e.value) for t in graph.linked().graph.initializer for e in t.external_data if e.key == "offset"]
    assert [offset % ALIGNED for offset in offsets] == [0, 0]
    before = {t.name: onnx.numpy_helper.to_array(t) for t in model("a", "b").graph.initializer}
    for tensor in graph.load().graph.initializer:
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), before[tensor.name])


def test_equal_models_are_equal_files(two: None, tmp_path: Path) -> None:
    graphs = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        graphs.append(Graph.written(tmp_path / name / "g.onnx", model("a", "b")))
    assert graphs[0].digest() == graphs[1].digest()
    graphs[1].data.write_bytes(b"x" + graphs[1].data.read_bytes()[1:])
    assert graphs[0].digest() != graphs[1].digest(), "the weights are of the digest"


def test_a_linked_model_is_written_elsewhere(two: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Graph.written(tmp_path / "g.onnx", model("a", "b"))
    monkeypatch.chdir("/")
    (tmp_path / "elsewhere").mkdir()
    again = Graph.written(tmp_path / "elsewhere" / "g.onnx", graph.linked())
    assert again.digest() == graph.digest()
    through = Graph.written(
        tmp_path / "elsewhere" / "h.onnx", ir.from_proto(ir.to_proto(ir.from_proto(graph.linked())))
    )
    assert through.load().graph == graph.load().graph
    monkeypatch.setenv("EXPORTER_EXTERNAL_FROM", "1000000")
    whole = Graph.written(again.path, again.linked())
    assert whole.files == (whole.path,), "what lay beside it is gone"
    assert whole.load().graph.initializer[0].raw_data == model("a", "b").graph.initializer[0].raw_data


def test_it_is_copied_and_moved_with_its_data(two: None, tmp_path: Path) -> None:
    graph = Graph.written(tmp_path / "g.onnx", model("a", "b"))
    for name in ("copy", "move"):
        (tmp_path / name).mkdir()
    copy = graph.copied(tmp_path / "copy" / "model.onnx")
    assert copy.path == tmp_path / "copy" / "g.onnx" and copy.digest() == graph.digest()
    small = Graph.written(tmp_path / "small.onnx", model("a")).copied(tmp_path / "copy" / "model.onnx")
    assert small.path.name == "model.onnx" and small.load() == model("a")
    moved = graph.moved(tmp_path / "move")
    assert moved.digest() == copy.digest() and not graph.path.exists() and not graph.data.exists()


def test_a_lazy_tensor_is_made_when_it_is_written(two: None, tmp_path: Path) -> None:
    it = ir.from_proto(model("a", "b", "c"))
    for value in it.graph.initializers.values():
        if value.name != "shape":
            value.const_value = converted(value.const_value, ir.DataType.FLOAT16)
    graph = Graph.written(tmp_path / "g.onnx", it)
    assert len(graph.files) == 2
    exact = onnx.numpy_helper.to_array(model("a").graph.initializer[0]).astype(np.float16)
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(graph.load().graph.initializer[0]), exact)


def test_a_library_sees_large_weights_as_inputs(two: None, tmp_path: Path) -> None:
    linked = Graph.written(tmp_path / "g.onnx", model("a", "b")).linked()
    seen: list[list[str]] = []

    def look(shown: onnx.ModelProto) -> onnx.ModelProto:
        onnx.checker.check_model(shown, full_check=True)
        seen.append([value.name for value in shown.graph.input] + [t.name for t in shown.graph.initializer])
        return shown

    made = apart_from_data(linked, look)
    assert seen == [["x", "a", "b", "shape"]]
    assert [value.name for value in made.graph.input] == ["x"]
    assert {tensor.name for tensor in made.graph.initializer} == {"a", "b", "shape"}
    whole = model("a")
    assert apart_from_data(whole, lambda shown: shown) is whole
