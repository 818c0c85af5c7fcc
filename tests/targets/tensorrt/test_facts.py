"""What the parser refuses or gets wrong: each fact on a node that has it and on one that has it not."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporter.graph import OPSET
from tests.targets.tensorrt.parts import facts, target

NEWEST = facts.VERSIONS[facts.NEWEST]


def model(
    kind: str,
    *inputs: tuple[int, ...] | np.ndarray,
    opset: int = 18,
    outputs: int = 1,
    element: int = TensorProto.FLOAT,
    domain: str = "",
    **attributes: Any,
) -> onnx.ModelProto:
    """One node: a shape is an input of the graph, an array a constant."""
    names = [f"x{index}" for index in range(len(inputs))]
    given = [
        helper.make_tensor_value_info(name, element, shape)
        for name, shape in zip(names, inputs, strict=True)
        if isinstance(shape, tuple)
    ]
    constants = [numpy_helper.from_array(v, n) for n, v in zip(names, inputs, strict=True) if not isinstance(v, tuple)]
    gives = [f"y{index}" for index in range(outputs)]
    node = helper.make_node(kind, names, gives, name="it", domain=domain, **attributes)
    found = [helper.make_tensor_value_info(name, element, None) for name in gives]
    graph = helper.make_graph([node], "g", given, found, constants)
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def said(graph: onnx.ModelProto, version: tuple[int, int] = NEWEST) -> str:
    return "; ".join(map(str, facts.problems(graph, version)))


AXIS = np.array(0, np.int64)
AXES = np.array([1], np.int64)
NOTHING, ONES = np.zeros(0, np.float32), np.ones(4, np.float32)
WRONG: list[tuple[str, onnx.ModelProto, str]] = [
    ("5-D", model("GridSample", (1, 1, 4, 4, 4), (1, 2, 2, 2, 3), opset=20), "4-D input alone"),
    ("opset 20", model("GridSample", (1, 1, 4, 4), (1, 2, 2, 2), opset=20), "opset 20 gives wrong values"),
    ("bf16", model("GridSample", (1, 1, 4, 4), (1, 2, 2, 2), element=TensorProto.BFLOAT16, opset=16), "no bf16"),
    ("int", model("CumSum", (4, 4), AXIS, element=TensorProto.INT64), "takes floats alone"),
    ("axes", model("ReduceSum", (4, 4), (1,)), "axes of a reduction must be constants"),
    ("dilations", model("MaxPool", (1, 1, 8, 8), kernel_shape=[2, 2], dilations=[2, 2]), "no dilations"),
    ("1-D pool", model("AveragePool", (1, 1, 8), kernel_shape=[2]), "2-D or 3-D"),
    ("indices", model("MaxPool", (1, 1, 8, 8), kernel_shape=[2, 2], outputs=2), "no indices"),
    ("4-D conv", model("Conv", (1, 1, 4, 4, 4, 4), (1, 1, 1, 1, 1, 1)), "1-D to 3-D"),
    ("cubic", model("Resize", (1, 1, 4, 4), NOTHING, ONES, mode="cubic"), "nearest or"),
    ("antialias", model("Resize", (1, 1, 4, 4), NOTHING, ONES, mode="linear",
                        antialias=1), "antialias"),
    ("mode", model("Resize", (1, 1, 4, 4), NOTHING, ONES,
                   coordinate_transformation_mode="tf_crop_and_resize"), "coordinate mode"),
    ("scatter", model("ScatterND", (4,), (1, 1), (1,), reduction="add"), "no reduction"),
    ("squeeze", model("Squeeze", (1, 4), (1,)), "axes must be constants"),
    ("topk", model("TopK", (4, 4), np.array([2], np.int64), outputs=2, sorted=0), "TopK sorts"),
    ("double", model("Add", (4,), (4,), element=TensorProto.DOUBLE), "narrowed to FLOAT"),
    ("int8", model("Transpose", (4, 4), element=TensorProto.INT8), "8-bit integers"),
    ("no operator", model("Det", (4, 4)), "parser has no Det"),
    ("unknown", model("NotAnOperator", (4, 4)), "parser has no NotAnOperator"),
    ("plugin", model("Mine", (4, 4), domain="com.example"), "needs a plugin"),
    ("opset", model("Relu", (4, 4), opset=25), "25 is not within 9..24"),
]  # fmt: skip


@pytest.mark.parametrize(("graph", "reason"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_what_it_cannot_do_is_named_with_reason_remedy_and_source(graph: onnx.ModelProto, reason: str) -> None:
    found = facts.problems(graph, NEWEST)
    (it,) = [problem for problem in found if reason in problem.reason]
    assert it.node in ("it", "opset") and it.remedy
    assert "plugin" in it.reason or any(mark in it.reason for mark in ("onnx-tensorrt", "NVIDIA/TensorRT#")), it


RIGHT = [
    model("GridSample", (1, 1, 4, 4), (1, 2, 2, 2)),
    model("CumSum", (4, 4), AXIS),
    model("ReduceSum", (4, 4), AXES),
    model("MaxPool", (1, 1, 8, 8), kernel_shape=[2, 2], dilations=[1, 1]),
    model("Conv", (1, 1, 8), (1, 1, 3)),
    model("Resize", (1, 1, 4, 4), NOTHING, ONES, mode="linear"),
    model("ScatterND", (4,), (1, 1), (1,)),
    model("Squeeze", (1, 4), np.array([0], np.int64)),
    model("TopK", (4, 4), np.array([2], np.int64), outputs=2),
    model("Add", (4,), (4,)),
]


@pytest.mark.parametrize("version", sorted(facts.VERSIONS))
@pytest.mark.parametrize("graph", RIGHT, ids=[graph.graph.node[0].op_type for graph in RIGHT])
def test_what_it_can_do_is_no_problem(graph: onnx.ModelProto, version: str) -> None:
    assert facts.problems(graph, facts.VERSIONS[version]) == []


def test_several_cumsum_are_wrong_since_10_8_and_one_is_not() -> None:
    two = model("CumSum", (4, 4), AXIS)
    more = helper.make_node("CumSum", ["x0", "x1"], ["z"], name="other", reverse=1)
    two.graph.node.append(more)
    found = facts.problems(two, NEWEST)
    assert [p.node for p in found] == ["it", "other"], "every node at once"
    assert "#4551" in found[0].reason
    assert facts.problems(two, (10, 3)) == [], "before ICumulativeLayer it was right"


@pytest.mark.parametrize(("kind", "older"), [("STFT", "10.5"), ("HannWindow", "10.4")])
def test_operators_that_came_later_are_refused_of_older_versions(kind: str, older: str) -> None:
    graph = model(kind, (16,) if kind == "HannWindow" else (1, 16, 1), opset=17)
    assert f"{kind} came with TensorRT {older}" in said(graph, (10, 3))
    assert "came with" not in said(graph)


@pytest.mark.parametrize(("version", "newest"), [((10, 3), 20), ((10, 16), 24), ((11, 4), 24)])
def test_every_version_has_its_newest_opset(version: tuple[int, int], newest: int) -> None:
    assert facts.newest_opset(version) == newest
    assert "opset" not in said(model("Relu", (4,), opset=newest), version)
    if newest < 24:
        assert f"{newest + 1} is not within" in said(model("Relu", (4,), opset=newest + 1), version)


def test_graphs_are_written_in_the_opset_that_every_version_reads_and_gets_right() -> None:
    assert target.opset == OPSET == 18
    assert all(facts.OLDEST_OPSET <= OPSET <= facts.newest_opset(v) for v in facts.VERSIONS.values())


def test_every_fact_has_a_source_and_names_operators_that_exist() -> None:
    for fact in facts.FACTS:
        assert fact.reason and fact.remedy and fact.source
        assert set(fact.operators) <= facts.SUPPORTED, fact.operators
    known = {schema.name for schema in onnx.defs.get_all_schemas()}
    assert known >= facts.UNSUPPORTED and not facts.UNSUPPORTED & facts.SUPPORTED
    # Of ONNX's operators of our opset, each is on one of the two lists: nothing is guessed.
    ours = {s.name for s in known_at(OPSET)}
    assert ours <= facts.UNSUPPORTED | facts.SUPPORTED, ours - facts.UNSUPPORTED - facts.SUPPORTED
    assert "no Swish" in said(model("Swish", (4,), opset=24), NEWEST), "what is on neither is refused"


def known_at(opset: int) -> list[Any]:
    """The operators of ONNX itself in an opset."""
    return [s for s in onnx.defs.get_all_schemas() if s.domain == "" and not s.deprecated and s.since_version <= opset]


def test_nodes_inside_branches_and_loops_are_looked_at() -> None:
    def branch(name: str) -> onnx.GraphProto:
        given = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node("Det", ["x"], [f"{name}_y"], name=f"{name}_det")], name, [], [given])

    node = helper.make_node("If", ["c"], ["y"], name="it", then_branch=branch("then"), else_branch=branch("other"))
    inputs = [
        helper.make_tensor_value_info("c", TensorProto.BOOL, ()),
        helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 2)),
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", inputs, [output])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    assert {p.node for p in facts.problems(proto, NEWEST)} == {"then_det", "other_det"}


@pytest.mark.parametrize(("axes", "wrong"), [((1, 1), False), ((1, 2), True)])
def test_sums_that_run_alike_are_right_together(axes: tuple[int, int], wrong: bool) -> None:
    nodes = [helper.make_node("CumSum", [f"x{i}", f"axis{i}"], [f"x{i + 1}"], name=f"sum{i}") for i in range(2)]
    constants = [numpy_helper.from_array(np.array(axis, np.int64), f"axis{i}") for i, axis in enumerate(axes)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (2, 3, 4)) for name in ("x0", "x2")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    assert bool(facts.problems(proto, NEWEST)) == wrong


def test_what_is_known_is_written_down_for_every_version_that_changes_something() -> None:
    assert {"10.3", "10.4", "10.5", "10.6", "10.8", "10.15", "10.16", "11.4"} <= set(facts.COLUMNS)
    assert facts.column((10, 9)) == "10.8" and facts.column((11, 9)) == "11.4"


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (model("CumSum", (4, 4), ()), "known when the engine is built"),
        (model("Pow", (4,), (4,), element=TensorProto.INT64), "no integer before 10.8"),
    ],
)
def test_what_was_mended_since_is_wrong_before_alone(graph: onnx.ModelProto, reason: str) -> None:
    assert reason in said(graph, (10, 3)) and reason in said(graph, (10, 7))
    assert reason not in said(graph, (10, 8)) and reason not in said(graph, NEWEST)
