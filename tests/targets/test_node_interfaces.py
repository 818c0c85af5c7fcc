"""What graphs of other people have at their ends, and one layer does not: names, types, inputs that nothing reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ml_dtypes import bfloat16
from onnx import TensorProto, helper

from exporter import registry
from exporter.graph import Graph
from exporter.target import Options

X = np.linspace(-3, 3, 6, dtype=np.float32).reshape(2, 3)


def _graph(
    folder: Path, nodes: list[tuple[str, list[str], list[str], dict[str, object]]], types: dict[str, int]
) -> Graph:
    """A graph whose inputs are the names with ``x``, and its outputs those with ``y``."""
    values = {name: helper.make_tensor_value_info(name, kind, X.shape) for name, kind in types.items()}
    inputs, outputs = ([value for name, value in values.items() if name[0] == side] for side in "xy")
    made = [helper.make_node(kind, given, gives, **attributes) for kind, given, gives, attributes in nodes]
    graph = helper.make_graph(made, "ends", inputs, outputs)
    return Graph.written(
        folder / "graph.onnx", helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    )  # fmt: skip


def _answers(target: str, graph: Graph, feeds: dict[str, np.ndarray], folder: Path) -> list[dict[str, np.ndarray]]:
    """What a runner gives, and what its bound call gives."""
    found, options = registry.target(target), Options(shapes={name: value.shape for name, value in feeds.items()})
    assert found.problems(graph, options) == []
    artifact = found.compile(graph, options, folder)
    with found.open(artifact, options) as runner:
        run = dict(runner.infer(feeds, check_inputs=False))
        bound = {name: np.array(value) for name, value in found.timer(runner, feeds)().items()}
    return [run, bound]


@pytest.mark.parametrize("target", ["openvino", "mobile"])
def test_an_input_that_is_an_output_and_one_that_nothing_reads(target: str, tmp_path: Path) -> None:
    nodes = [("Identity", ["x"], ["m"], {}), ("Identity", ["m"], ["y_same"], {}), ("Neg", ["m"], ["y"], {})]
    graph = _graph(tmp_path, nodes, dict.fromkeys(("x", "x_unread", "y", "y_same"), TensorProto.FLOAT))
    (tmp_path / "made").mkdir()
    for answer in _answers(target, graph, {"x": X, "x_unread": X + 1}, tmp_path / "made"):
        assert set(answer) == {"y", "y_same"}
        np.testing.assert_array_equal(answer["y"], -X)
        np.testing.assert_array_equal(answer["y_same"], X)


UNWRITTEN = pytest.mark.xfail(strict=True, reason="a tensor set for an output that is the input is not written to")


@pytest.mark.parametrize(
    ("target", "call"), [("mobile", 0), ("mobile", 1), ("openvino", 0), pytest.param("openvino", 1, marks=UNWRITTEN)]
)
def test_a_node_that_changes_nothing_and_is_all_there_is(target: str, call: int, tmp_path: Path) -> None:
    graph = _graph(tmp_path, [("Einsum", ["x"], ["y"], {"equation": "ij->ij"})], dict.fromkeys("xy", TensorProto.FLOAT))
    (tmp_path / "made").mkdir()
    answer = _answers(target, graph, {"x": X}, tmp_path / "made")[call]
    assert list(answer) == ["y"]
    np.testing.assert_array_equal(answer["y"], X)


def test_bfloat16_at_both_ends_of_openvino(tmp_path: Path) -> None:
    graph = _graph(tmp_path, [("Neg", ["x"], ["y"], {})], dict.fromkeys("xy", TensorProto.BFLOAT16))
    (tmp_path / "made").mkdir()
    for answer in _answers("openvino", graph, {"x": X.astype(bfloat16)}, tmp_path / "made"):
        assert answer["y"].dtype == bfloat16
        np.testing.assert_array_equal(answer["y"].astype(np.float32), -X.astype(bfloat16).astype(np.float32))


def test_a_graph_that_the_tools_of_mobile_cannot_read_is_compiled(tmp_path: Path) -> None:
    """The accelerator report wants a permutation at every Transpose, the list of types knows no int4."""
    nodes = [("Cast", ["x"], ["q"], {"to": TensorProto.INT4}), ("Cast", ["q"], ["t"], {"to": TensorProto.FLOAT}),
             ("Transpose", ["t"], ["u"], {}), ("Transpose", ["u"], ["y"], {})]  # fmt: skip
    graph = _graph(tmp_path, nodes, dict.fromkeys("xy", TensorProto.FLOAT))
    made = tmp_path / "made"
    made.mkdir()
    for answer in _answers("mobile", graph, {"x": np.trunc(X)}, made):
        np.testing.assert_array_equal(answer["y"], np.trunc(X))
    assert "cannot read this graph" in (made / "mobile-usability.txt").read_text()
    assert (made / "required_operators.config").stat().st_size
